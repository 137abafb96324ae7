"""How Sphinx builds the site from the pages that build.py gathers: MyST, the theme Furo, and nothing from elsewhere."""

from typing import TYPE_CHECKING, Any

from docutils import nodes
from latex2mathml.converter import convert

from reinception import __version__

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "reinception"
author = "The reinception authors"
copyright = "The reinception authors, Apache-2.0"
version = release = __version__
html_title = f"reinception {__version__}"

extensions = ["myst_parser"]
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath", "fieldlist"]
myst_heading_anchors = 3
# A file's text is checked by the tests of the project; here a link that leads nowhere is what counts.
suppress_warnings = ["myst.header"]
nitpicky = False
add_module_names = False
toc_object_entries = False

html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_last_updated_fmt = None
html_theme_options = {"navigation_with_keys": True, "top_of_page_buttons": []}


def mathml(latex: str, display: str) -> str:
    """An equation as MathML, which browsers draw without a script."""
    return convert(latex, display=display)


def visit_inline(translator: Any, node: nodes.math) -> None:
    translator.body.append(mathml(node.astext(), "inline"))
    raise nodes.SkipNode


def visit_block(translator: Any, node: nodes.math_block) -> None:
    translator.body.append(f'<div class="math">{mathml(node.astext(), "block")}</div>')
    raise nodes.SkipNode


def setup(app: "Sphinx") -> None:
    """Called by Sphinx when it begins."""
    app.add_html_math_renderer("mathml", inline_renderers=(visit_inline, None), block_renderers=(visit_block, None))
    app.config.html_math_renderer = "mathml"  # pyrefly: ignore[missing-attribute]
