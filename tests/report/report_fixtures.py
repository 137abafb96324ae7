"""A plugin with what the tests of the report share: a real run over real images with hostile names, and its page."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from report_html import HOSTILE_CLASS, HOSTILE_FILE, Page

from reinception.data.sources.open_source import open_source
from reinception.report.read_run import Run, read_run
from reinception.train.run.start import TrainConfig, train


@pytest.fixture(scope="session")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 solar cells of each kind; one kind and one file have names that are HTML."""
    root = tmp_path_factory.mktemp("data") / "cells"
    elpv = open_source("elpv")
    for target, name in enumerate(["functional", HOSTILE_CLASS]):
        (root / name).mkdir(parents=True)
        for record in [record for record in elpv.records if record.target == target][:24]:
            shutil.copy(record.path, root / name)
    first = min((root / HOSTILE_CLASS).iterdir())
    first.rename(first.with_name(HOSTILE_FILE))
    return root


@pytest.fixture(scope="session")
def trained(cells: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder as `train` leaves it: a very narrow network, two epochs."""
    out = tmp_path_factory.mktemp("runs") / "first & only"
    config = TrainConfig(
        data=cells, out=out, epochs=2, batch_size=8, input_size=139, width=0.05, test_fraction=0.5, val_fraction=0.1
    )
    return train(config)


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    """A copy of the run that a test may spoil."""
    return shutil.copytree(trained, tmp_path / "run")


@pytest.fixture(scope="session")
def run(trained: Path) -> Run:
    return read_run(trained)


@pytest.fixture(scope="session")
def page(trained: Path) -> Page:
    return Page((trained / "report.html").read_text(encoding="utf-8"))
