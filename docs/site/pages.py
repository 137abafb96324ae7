"""Gathers the site's pages: those of docs/, the project's own, and what is generated from the code."""

from __future__ import annotations

import importlib
import os
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dependencies
import notebooks
import reference
import verbs
from docstrings import field_table

from reinception import family
from reinception.cli import main as reinception

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PROJECT = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")
_REFERENCE = re.compile(r"^(\[[^\]]+\]: )(\S+)$", re.MULTILINE)
_COMMENT = re.compile(r"^<!--.*?-->\n*", re.DOTALL | re.MULTILINE)
_OURS = re.compile(r"^\|[^\n]*\| reinception \|\n(?:\|[^\n]*\n)+", re.MULTILINE)
_FIELDS = re.compile(r"^<!-- fields: ([\w.]+) -->$", re.MULTILINE)
_FENCE = re.compile(r"(^```.*?^```$)", re.DOTALL | re.MULTILINE)


def gather(target: Path) -> None:
    """Write every source of the site below `target`, an empty folder."""
    for page, place in originals().items():
        (target / place).parent.mkdir(parents=True, exist_ok=True)
        text = page.read_text(encoding="utf-8")
        (target / place).write_text(adapted(text, page=page, place=place, target=target), encoding="utf-8")
    shutil.copytree(DOCS / "images", target / "images", dirs_exist_ok=True)
    _write(target / "reference", {"command-line.md": verbs.page(), **reference.pages()})
    _write(target / "reference", {"dependencies.md": dependencies.page(), "index.md": _index_of_reference()})
    _write(target / "networks", drawings(target / "networks"))
    lessons(target / "notebooks")
    for folder, title in (("guides", "Guides"), ("decisions", "Decisions")):
        _write(target / folder, {"index.md": f"# {title}\n\n```{{toctree}}\n:glob:\n:maxdepth: 1\n\n*\n```\n"})


def originals() -> dict[Path, str]:
    """Each page that somebody wrote, and its place in the site."""
    pages = {path: path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md") if "site" not in path.parts}
    return pages | {ROOT / name: f"project/{name.lower()}" for name in PROJECT}


def adapted(text: str, *, page: Path, place: str, target: Path) -> str:
    """A page's text for the site: comments out, field tables in, links to where their files are there."""
    text = _FIELDS.sub(lambda found: field_table(_class_named(found[1])), text)
    parts = _FENCE.split(_COMMENT.sub("", text))
    known = {path.resolve(): where for path, where in originals().items()}

    def moved(link: str) -> tuple[str, bool]:
        """The link in the site, and whether it leads to a page or an image; '' for what has no place there."""
        path, _, anchor = link.partition("#")
        file = (page.parent / path).resolve()
        if "://" in link or not path:
            return link, True
        where = known.get(file)
        if where is None and file.is_relative_to(DOCS) and file.is_file():
            where = file.relative_to(DOCS).as_posix()
        if where is None and file.is_dir() and file in (DOCS / "decisions", DOCS / "guides"):
            where = f"{file.name}/index.md"
        if where is not None:
            relative = os.path.relpath(where, Path(place).parent)
            return f"{relative}{'#' * bool(anchor)}{anchor}", True
        if not file.is_file():
            return "", False
        copy = target / "files" / file.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, copy)
        return os.path.relpath(copy, (target / place).parent), False

    def link(found: re.Match[str]) -> str:
        where, is_page = moved(found[3])
        if is_page:
            return f"{found[1]}[{found[2]}]({where})"
        return f"{{download}}`{found[2]} <{where}>`" if where else f"`{found[2]}`"

    parts = [part.replace("```layers\n", "```text\n") for part in parts]  # a mark for the tests, not a language
    for number, part in enumerate(parts):
        if not part.startswith("```"):
            placed = _REFERENCE.sub(lambda found: f"{found[1]}{moved(found[2])[0]}", part)
            parts[number] = _LINK.sub(link, placed)
    text = "".join(parts)
    if page.parent.name == "coming-from":  # which a style sheet stacks where there is little room
        text = _OURS.sub(r":::{container} beside\n\g<0>:::\n", text)
    return text


def drawings(folder: Path) -> dict[str, str]:
    """A page with the drawing of every network and of the modules that the paper's figures show."""
    folder.mkdir(parents=True)
    modules = {
        "figure-5": ("Figure 5: 5x5 as two 3x3", "inception_v3_paper", "grid35.0"),
        "figure-6": ("Figure 6: nxn as 1xn and nx1", "inception_v3_paper", "grid17.0"),
        "figure-7": ("Figure 7: wide on the coarsest grid", "inception_v3", "grid8.0"),
        "figure-8": ("Figure 8: the auxiliary classifier", "inception_v3", "aux"),
        "figure-10": ("Figure 10: the grid made smaller", "inception_v3", "reduce35"),
    }
    parts = [
        "# Drawings\n\nDrawn from the specs by `reinception draw`; each box says its path and shapes when pointed at.\n"
    ]
    parts.append("## Modules of the paper\n")
    for name, (title, network, at) in modules.items():
        _draw(network, "--at", at, "-o", folder / f"{name}.svg")
        parts.append(f"### {title}\n\n`reinception draw {network} --at {at} -o {name}.svg`\n\n![{title}]({name}.svg)\n")
    parts.append("## Networks\n")
    for name, entry in family.NETWORKS.items():
        _draw(name, "-o", folder / f"{name}.svg")
        parts.append(
            f"### {name}\n\n{entry.summary}: {{download}}`the drawing alone <{name}.svg>`\n\n![{name}]({name}.svg)\n"
        )
    return {"index.md": "\n".join(parts)}


def _draw(*words: object) -> None:
    if reinception(["draw", *map(str, words)]):
        raise SystemExit(f"reinception draw {words} failed")


def lessons(folder: Path) -> None:
    """A page for each notebook, run now, and an index of them."""
    (folder / "images").mkdir(parents=True)
    with ThreadPoolExecutor(2) as pool:
        ran = dict(zip(notebooks.SCRIPTS, pool.map(notebooks.run, notebooks.SCRIPTS), strict=True))
    for script, notebook in ran.items():
        page = notebooks.page(notebook, script.stem, folder / "images")
        _write(folder, {f"{script.stem}.md": page, f"{script.stem}.ipynb": notebooks.as_text(notebook)})
    names = "\n".join(script.stem for script in ran)
    _write(
        folder,
        {"index.md": f"# The paper in code\n\n{_ABOUT_LESSONS}\n\n```{{toctree}}\n:maxdepth: 1\n\n{names}\n```\n"},
    )


_ABOUT_LESSONS = (
    "Short notebooks, run when this site was built. Each is a script of `examples/paper`, too: "
    "`python examples/paper/1_factorization.py`, with `pip install 'reinception[docs]'`."
)


def _index_of_reference() -> str:
    names = ["python", *reference.VALUES, "generative", "command-line", "../formats", "dependencies"]
    lines = "\n".join(names)
    about = "Written from the code when the site is built."
    return f"# Reference\n\n{about}\n\n```{{toctree}}\n:maxdepth: 1\n\n{lines}\n```\n"


def _class_named(path: str) -> type:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def _write(folder: Path, pages: dict[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages.items():
        (folder / name).write_text(text, encoding="utf-8")
