"""What a run measures and keeps on its way: training lines, validations, and the best network so far."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from reinception import metrics
from reinception.metrics import PredictionTable
from reinception.train.console import Console
from reinception.train.folder import RunFolder

LINES_PER_RUN = 200  # points of the learning curve


@dataclass(frozen=True, kw_only=True)
class StepRecord:
    """One step in numbers: losses before weighting, the rate used, the gradient's norm before clipping."""

    loss: float
    auxiliary_loss: float | None
    rate: float
    gradient_norm: float
    clipped: bool


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
    `keep` writes the parameter average as the best model.
    """

    def __init__(
        self,
        *,
        folder: RunFolder,
        console: Console,
        images_per_step: int,
        steps_per_epoch: float,
        predict_validation: Callable[[], PredictionTable] | None,
        keep: Callable[[int, Score | None], None],
    ) -> None:
        self.best: Score | None = None
        self._folder = folder
        self._console = console
        self._images_per_step = images_per_step
        self._steps_per_epoch = steps_per_epoch
        self._predict_validation = predict_validation
        self._keep = keep
        self._records: list[StepRecord] = []  # since the last line
        self._num_lines = 0
        self._progress = 0.0
        self._last_training: dict[str, float | None] = {}
        self._started = self._since = time.monotonic()
        self._steps_since = 0  # steps and time since the last validation, for the pace
        self._validated_step: int | None = None

    @property
    def seconds(self) -> float:
        """Since training began."""
        return time.monotonic() - self._started

    def stepped(self, step: int, progress: float, record: StepRecord) -> None:
        """Step number `step` (from 1), begun at `progress`, went as `record` says."""
        self._records.append(record)
        self._steps_since += 1
        state = f"epoch {step / self._steps_per_epoch:.1f}, loss {record.loss:.3f}"
        if self.best is not None:
            state += f", best validation error {self.best.top1_error:.1f} %"
        self._console.advance(progress, state=state, images_per_second=self._pace())
        self._progress = progress
        if progress * LINES_PER_RUN >= self._num_lines:
            self._num_lines = int(progress * LINES_PER_RUN) + 1
            self._write_training(step)

    def validate(self, step: int) -> float:
        """Scores the average after `step` steps, keeps it where it is the best; returns the seconds that took."""
        if step == self._validated_step:
            return 0.0
        self._validated_step = step
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
        self._since, self._steps_since = time.monotonic(), 0
        return self._since - began

    def _pace(self) -> float:
        """Training images per second since the last validation."""
        return self._steps_since * self._images_per_step / max(time.monotonic() - self._since, 1e-9)

    def _position(self, step: int) -> dict[str, float]:
        return {"step": step, "epoch": step / self._steps_per_epoch, "seconds": round(self.seconds, 3)}

    def _write_training(self, step: int) -> None:
        """One line: means over the steps since the line before; progress and rate of the last of them."""
        records, self._records = self._records, list[StepRecord]()
        auxiliary = [record.auxiliary_loss for record in records if record.auxiliary_loss is not None]
        self._last_training = {
            "rate": records[-1].rate,
            "loss": fmean(record.loss for record in records),
            "auxiliary_loss": fmean(auxiliary) if auxiliary else None,
        }
        self._folder.add_metrics(
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
        self._folder.add_metrics({"split": "val", **position, "num_images": num_images, **scores})
        self._folder.add_result(
            {
                **position,
                "rate": self._last_training["rate"],
                "train_loss": self._last_training["loss"],
                "train_auxiliary_loss": self._last_training["auxiliary_loss"],
                **{f"val_{name}": value for name, value in scores.items()},
            }
        )
        best = " (best so far)" if score is self.best else ""
        self._console.say(
            f"epoch {position['epoch']:.1f}: validation error {score.top1_error:.2f} %, loss {score.loss:.3f}{best}"
        )
