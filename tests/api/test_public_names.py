"""The public names: complete, documented by one pattern, their examples run, and nothing loaded before its use."""

from __future__ import annotations

import doctest
import inspect
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import reinception as ri
from reinception.train import config

NAMES = sorted(set(ri.__all__) - {"__version__"})
DOCUMENTED = [name for name in NAMES if name not in {"cost", "family", "generative", "spec"}]
GENERATIVE = re.findall(r" as (\w+)$", Path(ri.generative.__file__ or "").with_suffix(".pyi").read_text(), re.MULTILINE)
GENERATIVE.remove("MODES")
ERRORS = {"BadImage", "ReinceptionError", "UsageError"}


def test_importing_reinception_loads_neither_torch_nor_numpy() -> None:
    code = "import sys, reinception; print([n for n in ('torch', 'torchvision', 'numpy', 'PIL') if n in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_every_public_name_is_there_under_its_own_name() -> None:
    namespace: dict[str, Any] = {}
    exec("from reinception import *", namespace)
    assert set(ri.__all__) <= set(namespace)
    assert dir(ri) == sorted(ri.__all__)
    assert len(set(ri.__all__)) == len(ri.__all__)
    for name in NAMES:
        value = getattr(ri, name)
        own = value.__name__
        assert own.rpartition(".")[2] == name, own
    with pytest.raises(AttributeError, match="no attribute 'inception_v5'"):
        ri.inception_v5  # noqa: B018  # pyrefly: ignore[missing-attribute]


def test_the_names_that_people_expect_are_public() -> None:
    expected = """TrainConfig Preprocessing Predictor WithAuxiliary convert cost create evaluate family features
    generative inception_v3 googlenet load models predict save smoothed_cross_entropy spec train"""
    assert set(expected.split()) <= set(ri.__all__)


def test_the_room_of_training_is_the_function_too() -> None:
    """In whatever order the two are first used."""
    code = "import reinception as ri\n{}\nassert callable(ri.train) and ri.TrainConfig is ri.train.config.TrainConfig"
    for first in ("ri.TrainConfig", "ri.train", "import reinception.train.loss"):
        subprocess.run([sys.executable, "-c", code.format(first)], check=True)
    assert isinstance(ri.train, ModuleType)
    assert config.TrainConfig is ri.TrainConfig


@pytest.mark.parametrize("name", DOCUMENTED)
def test_a_public_docstring_says_what_arguments_results_and_errors_there_are(name: str) -> None:
    value = getattr(ri, name)
    text = inspect.getdoc(value) or ""
    first = text.splitlines()[0]
    assert first.endswith((".", ":")) and len(first) < 120, first
    if name in ERRORS:
        return
    assert "Example:\n" in text, "no example"
    is_function = inspect.isfunction(value) or isinstance(value, ModuleType)
    takes = list(inspect.signature(value.__call__ if isinstance(value, ModuleType) else value).parameters)
    if takes:
        assert "Args:" in text
    if is_function and name != "save":
        assert "Returns:" in text
    if is_function or name == "Predictor":
        described = text.partition("Args:")[2]
        assert all(f"{one}:" in described for one in takes), takes
    sections = [text.find(f"\n{word}:") for word in ("Args", "Returns", "Raises", "Source", "Example")]
    there = [place for place in sections if place >= 0]
    assert there == sorted(there), "the sections are in another order"


@pytest.mark.parametrize("name", [*DOCUMENTED, *GENERATIVE])
def test_the_example_of_a_docstring_runs(
    name: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(place, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    value = getattr(ri.generative, name) if name in GENERATIVE else getattr(ri, name)
    text = inspect.getdoc(value) or ""
    test = doctest.DocTestParser().get_doctest(text, {}, name, None, 0)
    if name not in ERRORS:
        assert test.examples
    said: list[str] = []
    result = doctest.DocTestRunner().run(test, out=said.append)
    assert result.failed == 0, "".join(said)
