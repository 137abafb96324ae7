"""The site, built as `make docs` builds it: no warning, no broken link, nothing from elsewhere."""

from __future__ import annotations

import ast
import fcntl
import inspect
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import reinception

pytest.importorskip("sphinx")
import notebooks
import reference
from docstrings import SECTIONS, sections, to_markdown

import reinception as ri

pytestmark = pytest.mark.timeout(700)  # whichever test is first waits for four notebooks and every drawing
ROOT = Path(__file__).parents[2]
CHROMIUM = shutil.which("chromium")
# One of each kind of page: prose, tables, generated signatures, plots with equations, drawings.
LOOKED_AT = (
    "index.html",
    "tutorial.html",
    "coming-from/torchvision.html",
    "reference/python.html",
    "reference/command-line.html",
    "notebooks/3_label_smoothing.html",
    "formats.html",
)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built site, built once for all processes of this run of tests."""
    base = tmp_path_factory.getbasetemp()
    out = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "site"
    out.mkdir(exist_ok=True)
    with (out / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (out / "built").exists():
            build(out)
            (out / "built").touch()
    return out / "html"


def build(out: Path) -> None:
    """As `make docs`: notebooks are run for it, so a cell that fails ends the build."""
    source = str(Path(reinception.__file__).parents[1])
    result = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "site" / "build.py"), "--out", str(out)],
        cwd=out,
        env=os.environ | {"PYTHONPATH": source},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert result.returncode == 0, f"{result.stdout[-3000:]}\n{result.stderr[-6000:]}"


def test_the_site_has_every_guide_verb_name_and_decision(site: Path) -> None:
    for folder in ("guides", "decisions"):
        for page in (ROOT / "docs" / folder).glob("*.md"):
            assert (site / folder / f"{page.stem}.html").is_file(), page.name
    verbs = (site / "reference" / "command-line.html").read_text(encoding="utf-8")
    helps = [path.read_text(encoding="utf-8") for path in (ROOT / "tests" / "golden" / "cli").glob("*.txt")]
    for usage in re.findall(r"^Usage: (reinception [a-z ]+?) (?=[A-Z\[-])", "\n".join(helps), re.MULTILINE):
        assert usage in verbs, usage
    python = (site / "reference" / "python.html").read_text(encoding="utf-8")
    for name in reference.public_names():
        assert name in ("spec", "cost", "family", "generative") or f'id="ri.{name}"' in python, name


def test_search_is_offline_and_knows_what_people_look_for(site: Path) -> None:
    index = (site / "searchindex.js").read_text(encoding="utf-8")
    for word in ("smooth", "calibr", "onnx", "torchvis", "resum"):
        assert word in index


# -- notebooks --------------------------------------------------------------------------------------------------------


def test_the_notebooks_are_those_of_the_scripts() -> None:
    wanted = {f"{script.stem}.ipynb": notebooks.as_text(notebooks.notebook_of(script)) for script in notebooks.SCRIPTS}
    found = {path.name: path.read_text(encoding="utf-8") for path in notebooks.NOTEBOOKS.glob("*.ipynb")}
    assert len(wanted) >= 4
    assert found == wanted, "`make notebooks` writes them anew"


def test_the_lessons_show_plots_and_what_was_computed(site: Path) -> None:
    for script in notebooks.SCRIPTS:
        page = (site / "notebooks" / f"{script.stem}.html").read_text(encoding="utf-8")
        assert "<img" in page
        assert page.count("highlight-text") >= 2
    assert "<math" in (site / "notebooks" / "3_label_smoothing.html").read_text(encoding="utf-8")


# -- public names -----------------------------------------------------------------------------------------------------


def every_public_name() -> Iterator[tuple[str, Any]]:
    for name in reference.public_names():
        if name not in (*reference.VALUES, "generative"):
            yield name, reference.function_behind(name)
    for name in reference.listed_names(reference.PACKAGE / "generative" / "__init__.pyi"):
        yield f"generative.{name}", getattr(ri.generative, name)


def test_every_public_name_has_a_docstring_and_types() -> None:
    for name, value in every_public_name():
        if not (inspect.isclass(value) or inspect.isroutine(value)):
            continue
        text = inspect.getdoc(value) or ""
        assert text and not text.startswith(f"{value.__name__}("), f"{name}: no docstring of its own"
        if inspect.isroutine(value):
            found = inspect.signature(value)
            untyped = [one.name for one in found.parameters.values() if one.annotation is one.empty]
            assert not [one for one in untyped if one != "self"], name
            assert found.return_annotation is not found.empty, name


def test_every_public_name_has_an_example() -> None:
    """A doctest in its docstring; a kind of result has it where the function that gives it has."""
    without = [
        name
        for name, value in every_public_name()
        if (inspect.isclass(value) or inspect.isroutine(value))
        and not (inspect.isclass(value) and issubclass(value, BaseException))
        and ">>>" not in (inspect.getdoc(ri.train if name == "train" else value) or "")
    ]
    assert not without


def test_a_docstring_becomes_its_sections() -> None:
    text = inspect.getdoc(ri.load) or ""
    assert {name for name, _ in sections(text)} <= {"", *SECTIONS}
    page = to_markdown(text)
    assert "**Args**" in page
    assert "- `path`: " in page
    assert "```pycon\n>>> " in page


def test_signatures_in_the_reference_are_python() -> None:
    for name, value in every_public_name():
        if inspect.isroutine(value):
            ast.parse(f"def f{reference.signature(value)}: ...")
            assert reference.signature(value) != "()" or not inspect.signature(value).parameters, name


# -- in a browser -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("there is no chromium here")
    with sync_api.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-sync"])
        yield chromium
        chromium.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_ask_nobody_and_axe_finds_nothing_serious(site: Path, browser: Any, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    script = (Path(axe.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
    page = browser.new_context(color_scheme=scheme, viewport={"width": 390, "height": 800}).new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    for name in LOOKED_AT:
        page.goto((site / name).as_uri())
        page.evaluate(script)
        found = page.evaluate("axe.run().then(result => result.violations)")
        bad = [
            (one["id"], [node["html"][:160] for node in one["nodes"][:3]])
            for one in found
            if one["impact"] in ("serious", "critical")
        ]
        assert not bad, f"{name}: {bad}"
        wide = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        assert wide <= 1, f"{name} is {wide} pixels too wide for a phone"
    assert all(url.startswith(("file:", "data:")) for url in asked), asked


def test_the_search_page_finds_a_page_without_a_server(site: Path, browser: Any) -> None:
    page = browser.new_page()
    page.goto(f"{(site / 'search.html').as_uri()}?q=calibration")
    page.wait_for_selector("#search-results li a")
    assert page.locator("#search-results li a").count() >= 1
