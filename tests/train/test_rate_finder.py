"""The learning-rate finder: the same curve every time, and a training afterwards that does not know of it."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from cells import class_folders
from safetensors.torch import load_file

from command import SMALLEST, Command
from reinception.errors import UsageError
from reinception.train.config import FindRateConfig, TrainConfig
from reinception.train.run.rate_finder import find_rate
from reinception.train.run.start import train

SWEEP = FindRateConfig(lowest=1e-4, highest=10.0, steps=12)


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return class_folders(tmp_path_factory.mktemp("cells"), per_class=8)


def config(cells: Path, out: Path) -> TrainConfig:
    return TrainConfig(data=cells, out=out, epochs=1, batch_size=4, input_size=75, width=0.1, precision="fp32")


def test_two_runs_of_the_finder_give_one_curve_and_training_is_as_if_there_had_been_none(
    cells: Path, tmp_path: Path
) -> None:
    alone = train(config(cells, tmp_path / "alone"))
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = find_rate(config(cells, tmp_path / "none"), SWEEP)
    assert torch.equal(torch.get_rng_state(), before) and not (tmp_path / "none").exists()
    assert find_rate(config(cells, tmp_path / "none"), SWEEP) == first
    after = train(config(cells, tmp_path / "after"))
    one, other = load_file(alone / "last.safetensors"), load_file(after / "last.safetensors")
    assert all(torch.equal(one[name], other[name]) for name in one)
    checkpoint = max((alone / "state").glob("step-*.safetensors")).relative_to(alone)
    assert (alone / checkpoint).read_bytes() == (after / checkpoint).read_bytes()  # the optimizer and the average, too


def test_the_rates_rise_in_equal_ratios_and_the_first_loss_is_that_of_training(cells: Path, tmp_path: Path) -> None:
    curve = find_rate(config(cells, tmp_path), SWEEP)
    ratios = [after / before for before, after in zip(curve.rates, curve.rates[1:], strict=False)]
    assert curve.rates[0] == 1e-4 and all(ratio == pytest.approx(ratios[0]) for ratio in ratios)
    assert len(curve.losses) == len(curve.rates) == len(curve.smoothed) <= 12
    assert curve.smoothed[0] == pytest.approx(curve.losses[0])
    other = find_rate(replace(config(cells, tmp_path), seed=1), SWEEP)
    assert other.losses != curve.losses


def test_the_finder_stops_where_the_loss_leaves_the_range(cells: Path, tmp_path: Path) -> None:
    wild = FindRateConfig(lowest=1e-3, highest=1e6, steps=40)
    assert len(find_rate(config(cells, tmp_path), wild).rates) < 40


def test_the_command_writes_the_curve_as_svg_csv_and_json(command: Command, cells: Path, tmp_path: Path) -> None:
    files = {kind: tmp_path / f"curve.{kind}" for kind in ("svg", "csv", "json")}
    flags = [word for kind, file in files.items() for word in (f"--{kind}", file)]
    sweep = ("--lowest", "1e-4", "--highest", "1", "--steps", "10")
    result = command("recipe", "find-rate", cells, *SMALLEST, *sweep, *flags)
    assert result.returncode == 0, result.stderr
    told = json.loads(files["json"].read_text())
    rows = list(csv.DictReader(files["csv"].read_text().splitlines()))
    assert [float(row["loss"]) for row in rows] == told["losses"]
    assert [float(row["learning_rate"]) for row in rows] == told["rates"]
    assert ElementTree.fromstring(files["svg"].read_text()).tag.endswith("svg")
    again = command("recipe", "find-rate", cells, *SMALLEST, *sweep, "--csv", files["csv"])
    assert again.returncode == 1 and "exists already" in again.stderr


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"lowest": 0.0}, "0 < lowest < highest"), ({"highest": 1e-7}, "0 < lowest"), ({"steps": 3}, "at least 10")],
)
def test_a_range_that_is_none_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        FindRateConfig(**changes)
