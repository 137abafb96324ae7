"""The metric log of a run: training lines, validations, the learning curves, and the best weights so far."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np

from reinception import metrics
from reinception.errors import ReinceptionError
from reinception.metrics import PredictionTable
from reinception.model.artifact import Manifest
from reinception.model.build import Network
from reinception.report.curves import refresh
from reinception.train.run.console import Console
from reinception.train.run.run_folder import RunFolder
from reinception.train.run.tensorboard import Scalars
from reinception.train.step import StepRecord
from reinception.train.waiting import ImageWait

LINES_PER_RUN = 200  # points of the learning curve
CURVES_SECONDS = 30.0  # between two drawings of the curves, besides one at every validation


@dataclass(frozen=True, kw_only=True)
class Score:
    """A validation in numbers, errors in percent; of two, the one with the lower loss is better.

    On a few hundred images one error more or less is chance, while the loss depends on every image.
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
    def is_finite(self) -> bool:
        """Whether it says anything: a loss that is not a number is no best."""
        return math.isfinite(self.loss) and math.isfinite(self.top1_error)

    @property
    def rank(self) -> tuple[float, float]:
        """Lower is better; what is not finite is behind all others."""
        return (self.loss, self.top1_error) if self.is_finite else (math.inf, math.inf)


class BestWeights:
    """The parameter average with the best validation so far, saved as the model of the run.

    While the disk has no room it stays in memory, and `save_pending` tries again. `describe` makes its manifest of
    `to_json()`. Without a `folder`, in a process that is not the first of several, nothing is written.
    """

    def __init__(
        self,
        network: Network,
        folder: RunFolder | None,
        *,
        describe: Callable[[Mapping[str, Any]], Manifest],
        say: Callable[[str], None],
    ) -> None:
        self.step: int | None = None
        self.score: Score | None = None
        self.num_stale = 0
        """validations since the best"""
        self._network = network
        self._folder = folder
        self._describe = describe
        self._say = say
        self._pending: tuple[Network, Manifest] | None = None

    def to_json(self) -> dict[str, Any]:
        """Which step is the best and how it scored; empty before the first."""
        if self.step is None:
            return {}
        score = self.score if self.score is not None and self.score.is_finite else None
        return {"step": self.step, "validation": None if score is None else dataclasses.asdict(score)}

    def resume(self, document: Mapping[str, Any]) -> None:
        """Goes on from `to_json`; the weights themselves are in the run folder."""
        if document:
            self.step = document["step"]
            self.score = None if document["validation"] is None else Score(**document["validation"])

    def offer(self, step: int, score: Score | None) -> bool:
        """Saves the weights after `step` steps where `score` is the best so far or is not known; whether it was."""
        self.num_stale += 1
        if score is not None and not score.is_finite:
            self._say(f"validation after step {step:,} is not a number: not taken for the best")
        is_first = self.step is None  # a run has a model, whatever its validation says
        if score is not None and not is_first and self.score is not None and not score.rank < self.score.rank:
            return False
        self.step, self.score, self.num_stale = step, score, 0
        if self._folder is not None:
            manifest = self._describe(self.to_json())
            self._pending = None
            try:
                self._folder.save_model(self._network, manifest)
            except ReinceptionError as error:
                self._pending = copy.deepcopy(self._network), manifest
                self._say(f"{error}; training goes on with the best weights in memory")
        return True

    def save_pending(self) -> None:
        """Saves what could not be saved before. ReinceptionError where it still cannot."""
        if self._pending is not None and self._folder is not None:
            self._folder.save_model(*self._pending)
            self._pending = None


class RunLogger:
    """Writes means over the steps since the last line to metrics.jsonl, and validations to results.csv too.

    `scalars` gets every line for TensorBoard. Without a `folder`, in a process that is not the first of several,
    nothing is written.
    """

    def __init__(
        self,
        folder: RunFolder | None,
        console: Console,
        *,
        images_per_step: int,
        steps_per_epoch: float,
        best: BestWeights,
        waiting: ImageWait,
        scalars: Scalars | None = None,
    ) -> None:
        self.validated_step: int | None = None
        """the last step that was validated"""
        self._folder = folder
        self._console = console
        self._images_per_step = images_per_step
        self._steps_per_epoch = steps_per_epoch
        self._best = best
        self._waiting = waiting
        self._scalars = scalars
        self._drawn = time.monotonic()
        self._records: list[StepRecord] = []  # since the last line
        self._num_lines = 0
        self._progress = 0.0
        self._last_training: dict[str, float | None] = {}
        self._started = self._since = time.monotonic()
        self._seconds_before = 0.0  # in the processes before an interruption
        self._steps_since = 0  # steps and time since the last validation, for the pace

    @property
    def seconds(self) -> float:
        """Of training, without the time between an interruption and its resume."""
        return self._seconds_before + time.monotonic() - self._started

    def to_json(self) -> dict[str, Any]:
        """What a resumed logger must know."""
        return {
            "seconds": self.seconds,
            "records": [dataclasses.asdict(record) for record in self._records],
            "num_lines": self._num_lines,
            "progress": self._progress,
            "last_training": self._last_training,
            "validated_step": self.validated_step,
        }

    def resume(self, document: Mapping[str, Any]) -> None:
        """Goes on from `to_json`."""
        self._seconds_before = document["seconds"]
        self._records = [StepRecord(**_renamed(record)) for record in document["records"]]
        self._num_lines = document["num_lines"]
        self._progress = document["progress"]
        self._last_training = _renamed(document["last_training"])
        self.validated_step = document["validated_step"]

    def stepped(self, step: int, progress: float, record: StepRecord) -> None:
        """Step number `step` (from 1), begun at `progress`, is described by `record`."""
        self._steps_since += 1
        if record.skipped:
            self._console.say(f"step {step:,} skipped: its loss or gradient was not finite; nothing was changed by it")
        else:
            self._records.append(record)
        self._console.advance(progress, state=self._state(step, record), images_per_second=self._pace())
        if progress < self._progress:  # the run was given more epochs
            self._num_lines = int(progress * LINES_PER_RUN)
        self._progress = progress
        if self._records and progress * LINES_PER_RUN >= self._num_lines:
            self._num_lines = int(progress * LINES_PER_RUN) + 1
            self.flush(step)
            if time.monotonic() - self._drawn >= CURVES_SECONDS:
                self._draw()

    def flush(self, step: int) -> None:
        """Writes one line: means over the steps since the line before; progress and learning rate of the last."""
        records, self._records = self._records, list[StepRecord]()
        if not records:
            return
        auxiliary = [record.auxiliary_loss for record in records if record.auxiliary_loss is not None]
        self._last_training = {
            "learning_rate": records[-1].learning_rate,
            "loss": fmean(record.loss for record in records),
            "auxiliary_loss": fmean(auxiliary) if auxiliary else None,
        }
        fraction = self._waiting.fraction
        self._add_metrics(
            {
                "split": "train",
                **self._position(step),
                "progress": self._progress,
                **self._last_training,
                "gradient_norm": fmean(record.gradient_norm for record in records),
                "clipped_share": fmean(record.clipped for record in records),
                "images_per_second": round(self._pace(), 2),
                **({} if fraction is None else {"waiting_fraction": round(fraction, 4)}),
            }
        )

    def validated(self, step: int, score: Score | None, *, num_images: int = 0, is_best: bool = True) -> None:
        """After `step` steps the validation gave `score` on `num_images`; None where there are no such images."""
        if score is not None:
            self._write_validation(step, score, num_images=num_images, is_best=is_best)
        self._draw()
        self.validated_step = step
        self._since, self._steps_since = time.monotonic(), 0

    def _state(self, step: int, record: StepRecord) -> str:
        """Epoch, losses, learning rate and gradient, in a few words."""
        heads = f"loss {record.loss:.3f}"
        if record.auxiliary_loss is not None:
            heads += f" (auxiliary {record.auxiliary_loss:.3f})"
        clipped = 100 * fmean(one.clipped for one in self._records) if self._records else 0.0
        state = (
            f"epoch {step / self._steps_per_epoch:.1f}, {heads}, learning rate {record.learning_rate:.2g}, "
            f"gradient {record.gradient_norm:.2g} ({clipped:.0f} % clipped)"
        )
        best = self._best.score
        return state if best is None else f"{state}, best validation error {best.top1_error:.1f} %"

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
        """The learning curves as they stand. On a full disk the older drawing stays; the numbers wait for room."""
        self._drawn = time.monotonic()
        if self._folder is not None:
            with contextlib.suppress(ReinceptionError):
                refresh(self._folder.path)

    def _write_validation(self, step: int, score: Score, *, num_images: int, is_best: bool) -> None:
        position, scores = self._position(step), dataclasses.asdict(score)
        self._add_metrics({"split": "val", **position, "num_images": num_images, **scores})
        if self._folder is not None:
            self._folder.add_result(
                {
                    **position,
                    "learning_rate": self._last_training.get("learning_rate"),
                    "train_loss": self._last_training.get("loss"),
                    "train_auxiliary_loss": self._last_training.get("auxiliary_loss"),
                    **{f"val_{name}": value for name, value in scores.items()},
                }
            )
        best = " (best so far)" if is_best else ""
        self._console.say(
            f"epoch {position['epoch']:.1f}: validation error {score.top1_error:.2f} %, loss {score.loss:.3f}{best}"
        )


def _renamed(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """`numbers` of a checkpoint, of which older ones call the learning rate `rate`."""
    return {"learning_rate" if name == "rate" else name: value for name, value in numbers.items()}
