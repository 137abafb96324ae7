"""docs/formats.md says of each file what is in it, field by field: the tables are compared with files of a real run."""

from __future__ import annotations

import dataclasses
import importlib
import json
import re
from pathlib import Path

import pytest

pytest.importorskip("sphinx")
import dependencies
from docstrings import field_table, field_types, field_words

PAGE = (Path(__file__).parents[2] / "docs" / "formats.md").read_text(encoding="utf-8")
CLASSES = re.findall(r"^<!-- fields: ([\w.]+) -->$", PAGE, re.MULTILINE)
# What an ordinary installation pulls beside torch and its own needs: 27 MB to download, measured in November 2026.
BESIDE_TORCH = {
    *("attrs", "cattrs", "cyclopts", "docstring-parser", "markdown-it-py", "mdurl", "numpy", "pillow", "pygments"),
    *("rich", "rich-rst", "safetensors"),
}
MOST_UNPACKED = 110e6


def first_column(after: str) -> set[str]:
    """The names in the first column of the first table after a heading or a sentence."""
    table = re.search(r"(?:^\|.*\n)+", PAGE[PAGE.index(after) :], re.MULTILINE)
    assert table is not None
    cells = [line.split("|")[1] for line in table[0].splitlines()[2:]]
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


@pytest.mark.parametrize("path", CLASSES)
def test_every_field_of_a_kept_value_has_a_type_and_a_meaning(path: str) -> None:
    module, _, name = path.rpartition(".")
    cls = getattr(importlib.import_module(module), name)
    names = [one.name for one in dataclasses.fields(cls)]
    words, types = field_words(cls), field_types(cls)
    assert not [one for one in names if not words.get(one)]
    assert all(types[one] for one in names)
    assert field_table(cls).count("\n") == len(names) + 1


def test_the_files_of_a_run_are_those_of_the_page(small_run: Path) -> None:
    described = first_column("## Run: the folder")
    found = {f"{path.name}/" if path.is_dir() else path.name for path in small_run.iterdir()}
    assert {name.replace("predictions/*.csv", "predictions/") for name in described} == found


def test_the_keys_of_the_metrics_are_those_of_the_page(small_run: Path) -> None:
    lines = [json.loads(line) for line in (small_run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert set().union(*lines) <= first_column("A line of `metrics.jsonl`")


def test_an_installation_pulls_little_beside_torch_and_every_licence_is_known() -> None:
    torch = dependencies.closure(["torch"])
    pulled = {name: one for name, one in dependencies.closure(dependencies.project()[""]).items() if name not in torch}
    assert set(pulled) == BESIDE_TORCH
    assert sum(map(dependencies.size, pulled.values())) < MOST_UNPACKED
    for name, package in pulled.items():
        said = dependencies.licence(package)
        assert re.search(r"MIT|BSD|Apache|HPND|PSF", said), f"{name}: {said}"
        assert not re.search(r"\bA?GPL", said), f"{name}: {said}"
