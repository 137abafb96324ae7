"""What a run shows while it goes on: curves.svg, drawn anew and never half, and TensorBoard's files where asked for."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from reinception.cli import main
from reinception.family import network
from reinception.model.build import skeleton
from reinception.report.curves import CURVES_NAME, refresh
from reinception.train.run.console import Console
from reinception.train.run.log import CURVES_SECONDS, LINES_PER_RUN, BestWeights, RunLogger
from reinception.train.run.run_folder import RunFolder
from reinception.train.run.tensorboard import TENSORBOARD_NAME, Scalars
from reinception.train.step import StepRecord
from reinception.train.waiting import ImageWait

SVG = "{http://www.w3.org/2000/svg}"
HAS_TENSORBOARD = pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="needs the extra track")


def logger(out: Path, scalars: Scalars | None = None) -> RunLogger:
    return RunLogger(
        RunFolder(out),
        Console(is_silent=True),
        images_per_step=8,
        steps_per_epoch=10.0,
        best=BestWeights(skeleton(network("inception_v3")), None, describe=lambda _: pytest.fail("saved"), say=print),
        waiting=ImageWait(),
        scalars=scalars,
    )


def record(step: int) -> StepRecord:
    return StepRecord(
        loss=2 * math.exp(-step / 50), auxiliary_loss=2.5, learning_rate=0.1, gradient_norm=1.0, clipped=False
    )


def charts(run: Path) -> list[ElementTree.Element]:
    return ElementTree.parse(run / CURVES_NAME).getroot().findall(f"{SVG}svg")


def words(run: Path) -> str:
    return " ".join(ElementTree.parse(run / CURVES_NAME).getroot().itertext())


def test_the_picture_is_drawn_at_every_validation_from_what_was_written(tmp_path: Path) -> None:
    run = logger(tmp_path / "run")
    for step in range(1, 101):
        run.stepped(step, step / 200, record(step))
    assert not (tmp_path / "run" / CURVES_NAME).exists()
    run.flush(100)
    run.validated(100, None)
    assert [chart.get("aria-label") for chart in charts(tmp_path / "run")] == [
        "Loss", "Learning rate", "Gradient norm, before clipping"
    ]  # fmt: skip
    said = words(tmp_path / "run")
    assert "training" in said
    assert "auxiliary head" in said
    assert "Validation error" not in said  # there were no validation images
    before = (tmp_path / "run" / CURVES_NAME).read_bytes()
    for step in range(101, 200):
        run.stepped(step, step / 200, record(step))
    run.flush(199)
    run.validated(199, None)
    assert (tmp_path / "run" / CURVES_NAME).read_bytes() != before
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {CURVES_NAME, "metrics.jsonl", "results.csv"}  # no temporary file stays


def test_between_validations_it_is_drawn_when_half_a_minute_has_passed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("reinception.train.run.log.time.monotonic", lambda: now)
    run = logger(tmp_path / "run")
    picture, drawn = tmp_path / "run" / CURVES_NAME, 0
    for step in range(1, LINES_PER_RUN):
        now += 1.0
        run.stepped(step, step / LINES_PER_RUN, record(step))
        drawn += picture.exists()
        picture.unlink(missing_ok=True)
    assert drawn == (LINES_PER_RUN - 1) // CURVES_SECONDS


def test_validation_has_its_own_lines_and_losses_over_decades_a_logarithmic_axis(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    for step in range(1, 200):
        line = {"split": "train", "step": step, "epoch": step / 10, "loss": math.exp(-step / 30), "rate": 0.1}
        folder.add_metrics({**line, "auxiliary_loss": None, "gradient_norm": 1.0})
        if step % 50 == 0:
            folder.add_metrics({"split": "val", "step": step, "epoch": step / 10, "loss": 0.5, "top1_error": 25.0})
    refresh(folder.path)
    said = words(folder.path)
    assert "Validation error, percent" in said
    assert "validation" in said
    assert "auxiliary head" not in said
    assert "0.01" in said


def test_a_run_without_a_line_has_no_picture(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    refresh(folder.path)
    assert not (folder.path / CURVES_NAME).exists()


def test_a_picture_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    run = logger(tmp_path / "run")
    (tmp_path / "run" / CURVES_NAME).mkdir()  # nothing can be put in the place of a folder
    run.stepped(1, 0.1, record(1))
    run.flush(1)
    run.validated(1, None)
    assert (tmp_path / "run" / CURVES_NAME).is_dir()
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 1


# -- TensorBoard ------------------------------------------------------------------------------------------------------


def test_without_the_package_there_is_one_line_and_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)  # as where it is not installed
    assert main(["train", "elpv", "-o", str(tmp_path / "run"), "--tensorboard"]) == 1
    error = capsys.readouterr().err.strip()
    assert error == "reinception: --tensorboard: the package tensorboard is missing; pip install 'reinception[track]'"
    assert not (tmp_path / "run").exists()


def read_scalars(run: Path) -> dict[str, dict[int, float]]:
    """What TensorBoard itself reads in a run: values by step, by name."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(run / TENSORBOARD_NAME))
    accumulator.Reload()
    tags: Any = accumulator.Tags()
    return {name: {one.step: one.value for one in accumulator.Scalars(name)} for name in tags["scalars"]}


@HAS_TENSORBOARD
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of its own and of protobuf's making
def test_tensorboard_reads_every_number_of_metrics_jsonl(tmp_path: Path) -> None:
    out = tmp_path / "run"
    run = logger(out, Scalars(out, resumed_after=None, say=print))
    for step in range(1, 6):
        run.stepped(step, step / 200, record(step))
    found = read_scalars(out)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 5
    for line in lines:
        for name, value in line.items():
            if name not in ("split", "step"):
                assert found[f"train/{name}"][line["step"]] == pytest.approx(value, rel=1e-6), name


@HAS_TENSORBOARD
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_leaves_out_what_a_resumed_run_does_again(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    first = Scalars(tmp_path / "run", resumed_after=None, say=print)
    for step in range(1, 9):
        first.add({"split": "train", "step": step, "loss": 1.0})
    second = Scalars(tmp_path / "run", resumed_after=4, say=print)
    for step in range(5, 7):
        second.add({"split": "train", "step": step, "loss": 2.0})
    assert read_scalars(tmp_path / "run")["train/loss"] == {1: 1, 2: 1, 3: 1, 4: 1, 5: 2, 6: 2}


@HAS_TENSORBOARD
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_where_nothing_can_be_written_tracking_ends_aloud_and_the_run_goes_on(tmp_path: Path) -> None:
    (tmp_path / TENSORBOARD_NAME).write_text("a file of somebody's")
    said: list[str] = []
    scalars = Scalars(tmp_path, resumed_after=None, say=said.append)
    for step in (1, 2):
        scalars.add({"split": "train", "step": step, "loss": 1.0})
    assert len(said) == 1
    assert "the run goes on without TensorBoard" in said[0]
    assert (tmp_path / TENSORBOARD_NAME).read_text() == "a file of somebody's"
