"""`reinception recipe find-rate`: the loss under a rising learning rate, and the rates it suggests."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from reinception.cli.counter import counter
from reinception.cli.flags import Given, refuse_results
from reinception.files import new_text_file, write_json
from reinception.machine import TrainingPrecision
from reinception.recipe import Recipe
from reinception.train.config import AuxMode, FindRateConfig, Freeze, TrainConfig


@dataclass(frozen=True, kw_only=True)
class FindRateOptions:
    data: str
    model: str | None = TrainConfig.model
    recipe: str | Recipe = TrainConfig.recipe
    weights: str | Path | None = TrainConfig.weights
    freeze: Freeze = TrainConfig.freeze
    width: float = TrainConfig.width
    input_size: int | None = TrainConfig.input_size
    aux: AuxMode = TrainConfig.aux
    batch_size: int | None = TrainConfig.batch_size
    replicas: int | None = TrainConfig.replicas
    val_fraction: float = TrainConfig.val_fraction
    test_fraction: float = TrainConfig.test_fraction
    exclude: str | Path | None = TrainConfig.exclude
    seed: int = TrainConfig.seed
    workers: int = TrainConfig.workers
    precision: TrainingPrecision = TrainConfig.precision
    device: str = TrainConfig.device


@dataclass(frozen=True, kw_only=True)
class CurveFiles:
    svg: Path | None = None
    """draw the curve into this SVG file, never over a file"""

    csv: Path | None = None
    """write the curve as CSV to this file: learning_rate, loss, smoothed_loss"""

    json: Path | None = None


def run(given: Annotated[Given, FindRateOptions], sweep: FindRateConfig, files: CurveFiles) -> None:
    """Find the range of learning rates in which the loss falls.

    The first batches of DATA are trained on, once, at a learning rate that rises from step to step. Nothing of the run
    is kept: a training afterwards is the same as without. Give the flags that you will give to train.

    Example: reinception recipe find-rate photos --weights inception_v3.pth --svg curve.svg
    """
    refuse_results(files.svg, files.csv, files.json)
    from reinception.train.run.rate_finder import find_rate

    config = TrainConfig(out="", **given)
    curve = find_rate(config, sweep, counter("steps"))
    if files.svg is not None:
        with new_text_file(files.svg) as file:
            file.write(curve.svg() + "\n")
    if files.csv is not None:
        with new_text_file(files.csv) as file:
            csv.writer(file, lineterminator="\n").writerows(curve.rows())
    if files.json is not None:
        write_json(curve.to_json(), files.json)
        return
    print("\n".join(curve.lines()))
