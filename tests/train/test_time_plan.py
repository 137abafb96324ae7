"""A time budget is that of the whole command: what surrounds training is planned, said, and left room for."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from command import Command
from reinception.family import network
from reinception.model.build import build
from reinception.preprocess import Preprocessing
from reinception.train.budget import TimeBudget
from reinception.train.run.time_plan import LEAST_TRAINING, plan_time, seconds_per_image
from tensors import fingerprint


def test_training_gets_what_start_judging_and_report_leave() -> None:
    plan = plan_time(600, start=14, seconds_per_image=0.05, num_judged=853)
    assert plan.training == pytest.approx(600 - 14 - 0.05 * 853 - plan.report)
    assert plan.start + plan.training + plan.judging + plan.report == pytest.approx(600)
    assert str(plan).startswith("time budget 10 min")
    assert "start 14 s, training and validation 8 min" in str(plan)
    assert "judging 853 images 43 s" in str(plan)
    assert "too short" not in str(plan)


def test_a_budget_that_is_too_short_trains_all_the_same_and_says_so() -> None:
    plan = plan_time(30, start=20, seconds_per_image=0.1, num_judged=500)
    assert plan.training == LEAST_TRAINING * 30
    assert "too short, it will take" in str(plan)


def test_measuring_an_image_changes_nothing() -> None:
    live = build(network("inception_v3", num_classes=2, width=0.1, input_size=75, aux="none"), seed=0)
    before, random = fingerprint(live.state_dict()), torch.get_rng_state()
    assert seconds_per_image(live, Preprocessing(input_size=75), batch_size=4) > 0
    assert fingerprint(live.state_dict()) == before
    assert torch.equal(torch.get_rng_state(), random)
    assert live.training


@pytest.mark.parametrize("epoch_seconds", [300.0, 30.0])
def test_a_budget_of_a_third_of_an_epoch_ends_on_a_finished_schedule(epoch_seconds: float) -> None:
    """Steps of a twentieth of an epoch on a clock of our own; the last one may be half over."""
    now, step = 0.0, epoch_seconds / 20
    budget = TimeBudget(seconds=epoch_seconds / 3, batches_per_validation=0, clock=lambda: now)
    done, progress = 0, 0.0
    while (reached := budget.progress(done)) < 1:
        progress = reached
        now += step
        done += 1
    assert now == pytest.approx(epoch_seconds / 3, abs=step / 2 + 1e-9)
    assert progress > 1 - 2 * step / (epoch_seconds / 3)


def test_a_run_says_its_plan_and_keeps_its_part_for_training(
    command: Command, solar_cells: Path, place: Path, tmp_path: Path
) -> None:
    """Fine-tuned from weights with stages that join, images that grow and classes drawn equally often."""
    run = tmp_path / "run"
    words = ["--weights", place / "model.safetensors", "--recipe", "fine_tune", "--batch-size", 4, "--workers", 1]
    words += ["--balance", "sampling", "--input-size", 151, "--precision", "fp32", "--time-budget", "12s"]
    result = command("train", solar_cells, "-o", run, *words)
    assert result.returncode == 0, result.stderr
    said = result.stderr
    assert "time budget 12 s: start " in said
    assert "batch_norm" not in said
    assert "training images of 76 pixels" in said
    assert "had a gradient" in said
    assert "balanced accuracy" in said
    newest = max((run / "state").glob("step-*.json"))
    document = json.loads(newest.read_text())["run"]
    assert 0 < document["training_seconds"] < 12
    assert document["learning"]["stages"] == ["stem", "grid35", "reduce35", "grid17", "reduce17", "grid8"]
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line for line in lines if line["split"] == "test"]
    assert all(math.isfinite(line["loss"]) for line in lines)
    assert "Distorted in training: flips+shifts+light. For rare classes: sampling." in (run / "report.html").read_text()
