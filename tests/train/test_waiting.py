"""The fraction of training spent waiting for images: measured, logged, and said with what to do where it is large."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from reinception.data.sources.open_source import open_source
from reinception.train.config import TrainConfig
from reinception.train.run.dry_run import dry_run
from reinception.train.run.start import train
from reinception.train.waiting import ImageWait, describe_waiting


def test_waiting_is_counted_from_the_second_step_on() -> None:
    now = 0.0
    waiting = ImageWait(clock=lambda: now)

    def slow() -> Iterator[Any]:
        nonlocal now
        for seconds in (100.0, 1.0, 2.0):
            now += seconds
            yield seconds

    batches = waiting.batches(slow())
    for computing in (50.0, 9.0, 8.0):
        with waiting.step():
            next(batches)
            now += computing
        now += 1000.0  # a validation is no part of a step
        assert (waiting.fraction is None) == (computing == 50.0)
    assert (waiting.step_seconds, waiting.waiting_seconds) == (20.0, 3.0)
    assert waiting.fraction == pytest.approx(0.15)


def test_above_three_percent_it_is_said_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8))
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert describe_waiting(0.012, workers=0, input_size=299) == "waited for images: 1.2 % of the time"
    said = describe_waiting(0.25, workers=1, input_size=299)
    assert said.startswith("waited for images: 25.0 % of the time; to wait less: --workers 8 and, ")
    assert said.endswith("`reinception data pack --shorter-side 448`")
    assert "--workers" not in describe_waiting(0.25, workers=8, input_size=299)  # all cores read already
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert "--workers 2 and" in describe_waiting(0.25, workers=1, input_size=299)
    assert "not measured" in describe_waiting(None, workers=0, input_size=299)


def test_a_run_logs_the_fraction_and_says_it_at_its_end_and_a_dry_run_too(tmp_path: Path) -> None:
    source = open_source("elpv")
    for record in source.records[:60]:
        folder = tmp_path / "data" / source.classes[record.target]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / record.path.name).symlink_to(record.path)
    config = TrainConfig(
        data=tmp_path / "data", out=tmp_path / "run", epochs=1, batch_size=8, input_size=75, width=0.1, precision="fp32"
    )
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        loading = next(line for line in dry_run(config).splitlines() if line.startswith("loading"))
        assert re.search(r"waited for images: \S+ % of the time", loading)
        run = train(config)
    finally:
        torch.set_num_threads(before)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    fractions = [line.get("waiting_fraction") for line in lines if line["split"] == "train"]
    assert fractions[0] is None
    assert all(0 <= fraction <= 1 for fraction in fractions[1:])
    said = re.search(r"waited for images: (\S+) % of the time", (run / "log.txt").read_text())
    assert said is not None
    assert float(said[1]) == pytest.approx(100 * fractions[-1], abs=0.06)
