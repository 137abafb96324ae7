"""`reinception recipe suggest`: what to train on these images, on this machine, in this time, and why."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from reinception.cli.flags import Given, refuse_results
from reinception.files import write_json
from reinception.machine import TrainingPrecision
from reinception.train.config import TrainConfig


@dataclass(frozen=True, kw_only=True)
class SuggestOptions:
    data: str
    weights: str | Path | None = TrainConfig.weights
    time_budget_seconds: float | None = TrainConfig.time_budget_seconds
    """the time there is, as 90s, 15m or 2h (default: 10m)"""

    batch_size: int | None = TrainConfig.batch_size
    val_fraction: float = TrainConfig.val_fraction
    test_fraction: float = TrainConfig.test_fraction
    exclude: str | Path | None = TrainConfig.exclude
    seed: int = TrainConfig.seed
    workers: int = TrainConfig.workers
    precision: TrainingPrecision = TrainConfig.precision
    device: str = TrainConfig.device


@dataclass(frozen=True, kw_only=True)
class SuggestResult:
    json: Path | None = None


def run(given: Annotated[Given, SuggestOptions], result: SuggestResult) -> None:
    """Say what to train: recipe, width, input size, batch, workers and time, and why.

    Looks at the images and measures a few steps of networks of its own. A small network from scratch is compared with
    fine-tuning --weights by how many passes over the images the time is enough for. Nothing is written.

    Example: reinception recipe suggest photos --weights inception_v3.pth --time-budget 20m
    """
    refuse_results(result.json)
    from reinception.train.run.suggestion import suggest

    found = suggest(TrainConfig(out="RUN", **given))
    if result.json is not None:
        write_json(found.to_json(), result.json)
        return
    print("\n".join(found.lines()))
