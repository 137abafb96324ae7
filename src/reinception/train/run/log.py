"""What a run measures and keeps on its way: training lines, validations, and the best network so far."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np

from reinception import metrics
from reinception.errors import ReinceptionError
from reinception.metrics import PredictionTable
from reinception.report.curves import refresh
from reinception.train.run.console import Console
from reinception.train.run.run_folder import RunFolder
from reinception.train.run.tensorboard import Scalars

LINES_PER_RUN = 200  # points of the learning curve
PICTURE_SECONDS = 30.0  # between two pictures of it, besides one at every validation


@dataclass(frozen=True, kw_only=True)
class StepRecord:
    """One step in numbers: losses before weighting, the rate used, the gradient's norm before clipping."""

    loss: float
    auxiliary_loss: float | None
    rate: float
    gradient_norm: float
    clipped: bool
    skipped: bool = False  # its loss or gradient was not finite, so it changed nothing


@dataclass(frozen=True, kw_only=True)
class Score:
    """A validation in numbers, errors in percent; of two, the one with the lower loss is better.

    On a few hundred images one error more or less is chance, while the loss hears every image.
    """

    top1_error: float
    top5_error: float
    loss: float

    @staticmethod
    def of(table: PredictionTable) -> Score:
        own = np.take_along_axis(table.probabilities.astype(np.float64), table.targets[:, None], axis=1)
        return Score(
            top1_error=metrics.top_k_error(table, 1).percent,
            top5_error=metrics.top_k_error(table, 5).percent,
            loss=float(-np.log(np.maximum(own, 1e-12)).mean()),
        )

    @property
    def rank(self) -> tuple[float, float]:
        return (self.loss, self.top1_error)


class Journal:
    """Follows the loop: means over the steps since its last line go to metrics.jsonl, validations to results.csv too.

    `predict_validation` scores the validation images with the parameter average, or is None where there are none;
    `keep` writes the parameter average as the best model; `scalars` gets every line too. Without a `folder` nothing is
    written: in a process that is not the first of several.
    """

    def __init__(
        self,
        *,
        folder: RunFolder | None,
        console: Console,
        images_per_step: int,
        steps_per_epoch: float,
        predict_validation: Callable[[], PredictionTable] | None,
        keep: Callable[[int, Score | None], None],
        scalars: Scalars | None = None,
    ) -> None:
        self.best: Score | None = None
        self._folder = folder
        self._console = console
        self._images_per_step = images_per_step
        self._steps_per_epoch = steps_per_epoch
        self._predict_validation = predict_validation
        self._keep = keep
        self._scalars = scalars
        self._pictured = time.monotonic()
        self._records: list[StepRecord] = []  # since the last line
        self._num_lines = 0
        self._progress = 0.0
        self._last_training: dict[str, float | None] = {}
        self._started = self._since = time.monotonic()
        self._seconds_before = 0.0  # of the processes that this run was begun in
        self._steps_since = 0  # steps and time since the last validation, for the pace
        self.validated_step: int | None = None  # the last that was validated

    @property
    def seconds(self) -> float:
        """Of training, without the time between an interruption and its resume."""
        return self._seconds_before + time.monotonic() - self._started

    def to_json(self) -> dict[str, Any]:
        """What a resumed journal must know."""
        return {
            "best": None if self.best is None else dataclasses.asdict(self.best),
            "seconds": self.seconds,
            "records": [dataclasses.asdict(record) for record in self._records],
            "num_lines": self._num_lines,
            "progress": self._progress,
            "last_training": self._last_training,
            "validated_step": self.validated_step,
        }

    def resume(self, document: Mapping[str, Any]) -> None:
        """Goes on where the journal of `to_json` was."""
        self.best = None if document["best"] is None else Score(**document["best"])
        self._seconds_before = document["seconds"]
        self._records = [StepRecord(**record) for record in document["records"]]
        self._num_lines = document["num_lines"]
        self._progress = document["progress"]
        self._last_training = dict(document["last_training"])
        self.validated_step = document["validated_step"]

    def stepped(self, step: int, progress: float, record: StepRecord) -> None:
        """Step number `step` (from 1), begun at `progress`, went as `record` says."""
        self._steps_since += 1
        if record.skipped:
            self._console.say(f"step {step:,} skipped: its loss or gradient was not finite; nothing was changed by it")
        else:
            self._records.append(record)
        self._console.advance(progress, state=self._state(step, record), images_per_second=self._pace())
        self._progress = progress
        if self._records and progress * LINES_PER_RUN >= self._num_lines:
            self._num_lines = int(progress * LINES_PER_RUN) + 1
            self._write_training(step)
            if time.monotonic() - self._pictured >= PICTURE_SECONDS:
                self._draw()

    def validate(self, step: int) -> float:
        """Scores the average after `step` steps, keeps it where it is the best; returns the seconds that took."""
        if step == self.validated_step:
            return 0.0
        began = time.monotonic()
        if self._records:
            self._write_training(step)
        if self._predict_validation is None:
            self._keep(step, None)
        else:
            table = self._predict_validation()
            score = Score.of(table)
            if self.best is None or score.rank < self.best.rank:
                self.best = score
                self._keep(step, score)
            self._write_validation(step, score, num_images=len(table))
        self._draw()
        self.validated_step = step
        self._since, self._steps_since = time.monotonic(), 0
        return self._since - began

    def _state(self, step: int, record: StepRecord) -> str:
        """Where the run is and how well it goes, in a few words."""
        heads = f"loss {record.loss:.3f}"
        if record.auxiliary_loss is not None:
            heads += f" (auxiliary {record.auxiliary_loss:.3f})"
        clipped = 100 * fmean(one.clipped for one in self._records) if self._records else 0.0
        state = (
            f"epoch {step / self._steps_per_epoch:.1f}, {heads}, rate {record.rate:.2g}, "
            f"gradient {record.gradient_norm:.2g} ({clipped:.0f} % clipped)"
        )
        return state if self.best is None else f"{state}, best validation error {self.best.top1_error:.1f} %"

    def _pace(self) -> float:
        """Training images per second since the last validation."""
        return self._steps_since * self._images_per_step / max(time.monotonic() - self._since, 1e-9)

    def _position(self, step: int) -> dict[str, float]:
        return {"step": step, "epoch": step / self._steps_per_epoch, "seconds": round(self.seconds, 3)}

    def _add_metrics(self, line: Mapping[str, Any]) -> None:
        if self._folder is not None:
            self._folder.add_metrics(line)
        if self._scalars is not None:
            self._scalars.add(line)

    def _draw(self) -> None:
        """The learning curves as they stand. On a full disk the older picture stays; the numbers are waiting anyway."""
        self._pictured = time.monotonic()
        if self._folder is not None:
            with contextlib.suppress(ReinceptionError):
                refresh(self._folder.path)

    def _write_training(self, step: int) -> None:
        """One line: means over the steps since the line before; progress and rate of the last of them."""
        records, self._records = self._records, list[StepRecord]()
        auxiliary = [record.auxiliary_loss for record in records if record.auxiliary_loss is not None]
        self._last_training = {
            "rate": records[-1].rate,
            "loss": fmean(record.loss for record in records),
            "auxiliary_loss": fmean(auxiliary) if auxiliary else None,
        }
        self._add_metrics(
            {
                "split": "train",
                **self._position(step),
                "progress": self._progress,
                **self._last_training,
                "gradient_norm": fmean(record.gradient_norm for record in records),
                "clipped_share": fmean(record.clipped for record in records),
                "images_per_second": round(self._pace(), 2),
            }
        )

    def _write_validation(self, step: int, score: Score, *, num_images: int) -> None:
        position, scores = self._position(step), dataclasses.asdict(score)
        self._add_metrics({"split": "val", **position, "num_images": num_images, **scores})
        if self._folder is not None:
            self._folder.add_result(
                {
                    **position,
                    "rate": self._last_training.get("rate"),
                    "train_loss": self._last_training.get("loss"),
                    "train_auxiliary_loss": self._last_training.get("auxiliary_loss"),
                    **{f"val_{name}": value for name, value in scores.items()},
                }
            )
        best = " (best so far)" if score is self.best else ""
        self._console.say(
            f"epoch {position['epoch']:.1f}: validation error {score.top1_error:.2f} %, loss {score.loss:.3f}{best}"
        )
