"""The learning-rate finder: a few steps at a rate that rises from next to nothing, and the loss at each of them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch

from reinception.errors import ReinceptionError, UsageError
from reinception.report.charts import Line, chart
from reinception.report.curves import drawing
from reinception.train.config import FindRateConfig, TrainConfig
from reinception.train.loop import guarded_step
from reinception.train.run.open_run import rehearse
from reinception.train.run.start import wire

SMOOTHING = 0.9
DIVERGED_FACTOR = 3.0
"""The finder ends where the smoothed loss is so many times its lowest."""


@dataclass(frozen=True, kw_only=True)
class RateCurve:
    """What the finder saw: at step i the learning rate, the loss before that step, and the loss smoothed.

    `suggested` is the rate at which the smoothed loss falls fastest, `lowest_loss_at` that of its minimum: a schedule's
    highest rate is best between them. None where the loss never fell. `recipe_rate` is what the recipe has.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    suggested: float | None
    lowest_loss_at: float | None
    recipe_rate: float
    about: str

    def to_json(self) -> dict[str, Any]:
        """All fields as plain JSON values."""
        return dataclasses.asdict(self)

    def rows(self) -> list[tuple[str, ...]]:
        """The curve as text cells below a heading, every digit kept."""
        values = zip(self.rates, self.losses, self.smoothed, strict=True)
        return [("learning_rate", "loss", "smoothed_loss"), *(tuple(map(repr, row)) for row in values)]

    def svg(self) -> str:
        """The curve as a file that stands alone."""
        raw = [(math.log10(rate), loss) for rate, loss in zip(self.rates, self.losses, strict=True)]
        smooth = [(math.log10(rate), loss) for rate, loss in zip(self.rates, self.smoothed, strict=True)]
        lines = [
            Line(name="", points=raw, style="line-faint"),
            Line(name="smoothed loss", points=smooth, style="line-a"),
        ]
        note = "The loss never fell." if self.suggested is None else f"Falls fastest at {self.suggested:.2g}."
        return drawing([chart("Loss", lines, note=note, x_label="log10 of the learning rate")])

    def lines(self) -> Sequence[str]:
        """For people."""
        if self.suggested is None or self.lowest_loss_at is None:
            return (self.about, f"in {len(self.rates)} steps the loss never fell: give a wider range of rates")
        return (
            self.about,
            f"the loss falls fastest at {self.suggested:.2g} and is lowest at {self.lowest_loss_at:.2g}; "
            f"the recipe's highest rate is {self.recipe_rate:.2g}",
            "a curve of a hundred steps is a hint: it knows neither the schedule nor how long the run is",
        )


def find_rate(
    config: TrainConfig, sweep: FindRateConfig, progress: Callable[[int, int], None] | None = None
) -> RateCurve:
    """The curve of `train(config)`'s first batches under a rising learning rate.

    Nothing is written, and nothing that a later training in this process depends on is changed: the network, the
    optimizer and the average are its own, and torch's generator is put back. The curve depends on `config` alone.

    Args:
        config: what would be trained; `out` plays no part.
        sweep: the range.
        progress: called with (steps done, steps).

    Returns:
        The `RateCurve`, shorter than `sweep.steps` where the loss left the range.

    Raises:
        ReinceptionError: the data, the network or the weights cannot be used.
    """
    if config.freeze == "trunk":
        raise UsageError("--freeze trunk: its classifier is solved for, which takes no learning rate")
    with torch.random.fork_rng(enabled=True):
        run = rehearse(dataclasses.replace(config, step="plain" if config.step == "auto" else config.step))
        training, recipe = wire(run), run.plan.recipe
        training.state.unfreeze(1.0)
        batches = training.stream.batches()
        ratio = (sweep.highest / sweep.lowest) ** (1 / (sweep.steps - 1))
        rates: list[float] = []
        losses: list[float] = []
        smoothed: list[float] = []
        average = 0.0
        for step in range(sweep.steps):
            rate = sweep.lowest * ratio**step
            record = guarded_step(training, islice(batches, recipe.replicas), learning_rate=rate, step=step)
            if record.skipped:
                break
            average = SMOOTHING * average + (1 - SMOOTHING) * record.loss
            rates.append(rate)
            losses.append(record.loss)
            smoothed.append(average / (1 - SMOOTHING ** (step + 1)))
            if progress:
                progress(step + 1, sweep.steps)
            if smoothed[-1] > DIVERGED_FACTOR * min(smoothed):
                break
    if not rates:
        raise ReinceptionError(f"{config.data}: the loss of the very first step is not finite; try --precision fp32")
    plan = run.plan
    about = (
        f"{plan.arch.name} at {plan.arch.input_size} px, recipe {recipe.name}, {plan.images_per_step} images a step: "
        f"{len(rates)} steps from {rates[0]:.2g} to {rates[-1]:.2g}"
    )
    return RateCurve(
        rates=tuple(rates),
        losses=tuple(losses),
        smoothed=tuple(smoothed),
        **_points(rates, smoothed),
        recipe_rate=recipe.schedule.base_rate,
        about=about,
    )


def _points(rates: Sequence[float], smoothed: Sequence[float]) -> Mapping[str, Any]:
    """Where the smoothed loss is lowest, and where before that it falls fastest."""
    lowest = min(range(len(smoothed)), key=smoothed.__getitem__)
    slopes = {index: smoothed[index + 1] - smoothed[index - 1] for index in range(1, lowest)}
    if not slopes or min(slopes.values()) >= 0:
        return {"suggested": None, "lowest_loss_at": None}
    return {"suggested": rates[min(slopes, key=slopes.__getitem__)], "lowest_loss_at": rates[lowest]}
