"""`reinception train`: a new run, or an interrupted one that goes on."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from typing import Annotated

from reinception.cli.flags import Given
from reinception.errors import UsageError
from reinception.train.config import AUTO, RESUMABLE, TrainConfig, flag

CHOICES = {"recipe", "model", "width", "depth", "input_size", "freeze", "teacher", "folds"}
"""Where one of these is given nothing is chosen by measurement."""
GROUPS = {
    "Network": ("model", "input_size", "width", "depth", "aux", "weights", "freeze", "views", "cache"),
    "Training": ("recipe", "epochs", "time_budget_seconds", "batch_size", "replicas", "reduction", "seed"),
    "Learning": ("augmentation", "balance", "batch_norm", "smoothing_prior", "patience"),
    "Distillation": ("teacher", "teacher_weight", "temperature", "teacher_views"),
    "Data": (
        *("val_fraction", "test_fraction", "split_seed", "folds", "fold", "exclude"),
        *("background", "deep_range", "scaling"),
    ),
    "Run": ("out", "resume", "dry_run", "checkpoint_seconds", "checkpoint_steps", "tensorboard"),
    "Hardware": ("workers", "precision", "step", "device"),
}


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    resume: str | None = None
    """go on with an interrupted run, to the same bits as if it had never stopped. Beside it: --workers; DATA, where the
    images were moved; --epochs, more of them in all, also for a finished run; and, where memory ran out, a smaller
    --batch-size with as many more --replicas, which changes the run a little"""

    dry_run: bool = False
    """write nothing: print the plan, with memory and time estimated from three measured steps"""


def run(given: Annotated[Given, TrainConfig], options: TrainOptions) -> None:
    """Train a network on a folder of images, or go on with an interrupted run.

    DATA is a folder with one folder of images per class (optionally under train/, val/ and test/), or the word elpv for
    the solar cells of the package elpv-dataset. Every image is checked before the first step. The run folder gets the
    model, the metrics, the predictions and the report. Killed at any moment, a run goes on from its last checkpoint
    with --resume RUN. Under torchrun the same command divides the replicas of a step among all processes.

    Example: reinception train photos -o runs/first --time-budget 15m
    """
    began = time.monotonic()  # before torch is imported, which takes seconds
    if options.resume is not None:
        changes = _changes(given, options)
        from reinception.train.run.start import resume

        print(resume(options.resume, **changes))
        return
    if "data" not in given or "out" not in given:
        raise UsageError("train needs DATA and -o RUN, or --resume RUN")
    if "time_budget_seconds" in given and not CHOICES & given.keys():
        given = {**given, "recipe": AUTO}
    config = TrainConfig(**given)
    if options.dry_run:
        from reinception.train.run.dry_run import dry_run

        print(dry_run(config))
        return
    from reinception.train.run.start import train

    print(train(config, began=began))


def _changes(given: Given, options: TrainOptions) -> Given:
    """What a resumed run does otherwise than it was begun; UsageError for what it cannot change."""
    fields = {one.name: one.metadata for one in dataclasses.fields(TrainConfig)}
    fixed = [name for name in given if not RESUMABLE.items() <= fields[name].items()]
    fixed += ["dry_run"] if options.dry_run else []
    if fixed:
        word = flag(fixed[0])
        raise UsageError(f"{word} beside --resume: a run goes on as it was begun; leave {word} out")
    return given
