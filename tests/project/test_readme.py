"""The README is true: its table is computed, its Python runs, its links lead somewhere, its commands work."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import tomllib
from pathlib import Path

import pytest

import reinception
from command import SMALLEST, Command
from reinception import family
from reinception.cli.models import reported_in_words
from reinception.spec import cost

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob(".github/**/*.md")]
TABLE = re.compile(r"(?<=<!-- networks: written by `make golden` -->\n).*(?=<!-- end of networks -->)", re.DOTALL)


def blocks(language: str) -> list[str]:
    """The fenced blocks of `language`, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", README.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def table_of_networks() -> str:
    rows = ["| network | what it is | input | parameters | multiply-adds | reported |", "|---|---|---|---|---|---|"]
    for name, entry in family.NETWORKS.items():
        arch = entry.arch
        sizes = [cost.parameters(arch, with_aux=aux) / 1e6 for aux in (False, *([True] if arch.aux else []))]
        cells = (
            f"`{name}`",
            entry.summary,
            f"{arch.input_size}",
            " / ".join(f"{size:.2f} M" for size in sizes),
            f"{cost.multiply_adds(arch) / 1e9:.3f} G",
            reported_in_words(entry.reported),
        )
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def test_the_table_of_networks_is_golden_and_computed() -> None:
    text = README.read_text(encoding="utf-8")
    if os.environ.get("REINCEPTION_WRITE_GOLDEN"):
        text = TABLE.sub(lambda _: table_of_networks(), text)
        README.write_text(text, encoding="utf-8")
    found = TABLE.search(text)
    assert found is not None
    assert found[0] == table_of_networks(), "`make golden` writes the table anew"


def test_the_python_example_runs() -> None:
    (example,) = blocks("python")
    names: dict[str, object] = {}
    exec(compile(example, str(README), "exec"), names)
    assert tuple(names["logits"].shape) == (2, 10)  # pyrefly: ignore[missing-attribute]
    assert len([line for line in example.splitlines() if line and not line.startswith("import")]) <= 5


def test_lines_of_documents_are_under_140_characters() -> None:
    """Rows of tables and lines inside fences are as long as they must be."""
    for page in PAGES:
        text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
        assert not [line for line in text.splitlines() if len(line) >= 140 and not line.startswith("|")], page.name


def test_every_link_to_a_file_leads_somewhere() -> None:
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            if "://" not in link:
                assert (page.parent / link).exists(), f"{page.name} links to {link}"


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for page in (README, ROOT / "CONTRIBUTING.md"):
        named = set(re.findall(r"(?:^|`)make ([a-z]+)", page.read_text(encoding="utf-8"), re.MULTILINE))
        assert named <= targets


def test_the_version_is_written_once_and_has_an_entry_in_the_changelog() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["dynamic"] == ["version"]
    assert f"## {reinception.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def pins(name: str) -> dict[str, str]:
    """Package and version of each line of a file of pins; comments do not count."""
    lines = [line for line in (ROOT / name).read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line) for line in lines)
    return {key.lower().replace("_", "-"): version for key, version in (line.split("==") for line in lines)}


def bounds(wanted: list[str]) -> dict[str, str]:
    """The oldest version that pyproject.toml allows of each package; its own extras do not count."""
    others = [re.sub(r"\[.*?\]", "", name) for name in wanted if not name.startswith("reinception[")]
    return dict(name.split(">=") for name in others)


def test_the_lock_pins_names_and_versions_and_nothing_else() -> None:
    pinned = pins("requirements.lock")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = bounds(
        [*project["dependencies"], *(name for extra in project["optional-dependencies"].values() for name in extra)]
    )
    assert set(wanted) <= set(pinned)
    assert not [name for name in pinned if name.startswith(("nvidia", "cuda")) or name == "triton"]


def test_the_oldest_versions_that_are_tested_are_the_oldest_that_are_allowed() -> None:
    """torch excepted: `make floor` tests 2.13, and the code needs no more than 2.11 (CONTRIBUTING.md)."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    allowed, tested = bounds(project["dependencies"]), pins("requirements.floor")
    assert set(allowed) == set(tested)
    assert all(f"{tested[name]}.".startswith(f"{allowed[name]}.") for name in allowed if name != "torch")
    assert (allowed["torch"], tested["torch"]) == ("2.11", "2.13.0")


# The README's run takes a quarter of an hour at full size; the same words at the smallest size take seconds.
SMALLER = {"15m": "2s"}


def test_the_commands_work_in_the_order_given(command: Command, solar_cells: Path, tmp_path: Path) -> None:
    shutil.copytree(solar_cells, tmp_path / "photos")
    (tmp_path / "new").mkdir()
    for number, image in enumerate(sorted(solar_cells.rglob("*.png"))[:3]):
        shutil.copy(image, tmp_path / "new" / f"{number}.png")
    lines = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("reinception ")]
    assert len(lines) == 3
    said = ""
    for line in lines:
        words = [SMALLER.get(word, word) for word in shlex.split(line)[1:]]
        words += SMALLEST if words[0] == "train" else []
        result = command(*words, cwd=tmp_path)
        assert result.returncode == 0, f"{line}: {result.stderr}"
        said = result.stdout
    assert len([line for line in said.splitlines() if "functional" in line or "defective" in line]) >= 3
    assert (tmp_path / "runs" / "first" / "model.safetensors").is_file()


@pytest.mark.parametrize("name", ["index" + "-url", "find" + "-links"])
def test_no_file_names_a_package_index(name: str) -> None:
    for path in (ROOT / "Makefile", ROOT / "pyproject.toml", ROOT / "requirements.lock", ROOT / ".ci" / "run", README):
        assert name not in path.read_text(encoding="utf-8")
