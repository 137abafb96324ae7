"""How long a run goes on and when it validates: bounded by steps or by the clock, in both cases as progress to 1."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

MOST_VALIDATIONS = 10
# After an early stop the schedule comes to its end within this fraction of the run.
COOL_DOWN = 0.1
# Validations take at most this fraction of a time budget, whatever one of them costs.
VALIDATION_FRACTION = 0.05
# Before the first validation is measured, one of its images is taken to cost this fraction of a training image.
VALIDATION_IMAGE_COST = 0.4


@dataclass(frozen=True, kw_only=True)
class Turn:
    """From `first` to `last`, in steps or in seconds, progress goes from `reached` to 1: faster than it went before."""

    first: float
    last: float
    reached: float

    def progress(self, now: float) -> float:
        """Progress at `now`, above 1 after `last`."""
        return self.reached + (1 - self.reached) * (now - self.first) / max(self.last - self.first, 1e-9)


class StepBudget:
    """`num_steps` steps, with a validation at the end of every epoch. Nothing in it depends on the machine."""

    def __init__(self, *, num_steps: int, steps_per_epoch: float) -> None:
        self.num_steps = num_steps
        self.steps_per_epoch = steps_per_epoch
        self.elapsed = 0.0  # a budget of steps does not look at the clock
        self.turn: Turn | None = None

    def progress(self, step: int) -> float:
        """How much of the run is done when `step` steps are: 1 when there is nothing left to do."""
        return min(step / self.num_steps if self.turn is None else self.turn.progress(step), 1.0)

    def cool_down(self, step: int) -> bool:
        """Brings the schedule to its end soon after `step` steps; False where it is about to end anyway."""
        length = max(1, round(COOL_DOWN * self.num_steps))
        if self.turn is not None or step + length >= self.num_steps:
            return False
        self.turn = Turn(first=step, last=step + length, reached=self.progress(step))
        return True

    def validation_due(self, step: int) -> bool:
        """Whether the last of `step` steps ended an epoch."""
        return math.floor(step / self.steps_per_epoch) > math.floor((step - 1) / self.steps_per_epoch)

    def validated(self, seconds: float) -> None:
        """A validation took `seconds`, which changes nothing for a budget of steps."""


class TimeBudget:
    """`seconds` for steps and validations together, counted from the first look at `progress`.

    Progress is the time spent over the time there is before the last validation, so that the learning rate has come
    all the way down when the budget ends. Validations are evenly spread, and the fewer the more they cost.
    `spent_seconds` are those that an interrupted run has used already.
    """

    def __init__(
        self,
        *,
        seconds: float,
        batches_per_validation: float,
        spent_seconds: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.seconds = seconds
        self.spent_seconds = spent_seconds
        self.batches_per_validation = batches_per_validation
        self._clock = clock
        self._started: float | None = None
        self._first_step = 0
        self._progress = 0.0
        self._validation_seconds: float | None = None
        self._validating = 0.0
        self._last_validation = spent_seconds
        self.turn: Turn | None = None

    @property
    def elapsed(self) -> float:
        """Seconds of the budget that are gone."""
        return self.spent_seconds if self._started is None else self.spent_seconds + self._clock() - self._started

    def progress(self, step: int) -> float:
        """How much of the run is done when `step` steps are: 1 where another step would overrun the budget."""
        if self._started is None:
            self._started, self._first_step = self._clock(), step
        usable = self.seconds - self._cost_of_validation(step) if self.turn is None else self.turn.last
        if self.elapsed + self._cost_of_step(step) / 2 >= usable:
            return 1.0
        now = self.elapsed / usable if self.turn is None else self.turn.progress(self.elapsed)
        self._progress = max(self._progress, now)  # a slow validation moves the end, never the past
        return self._progress

    def cool_down(self, step: int) -> bool:
        """Brings the schedule to its end soon after `step` steps; False where it is about to end anyway."""
        now = self.elapsed
        last = now + COOL_DOWN * self.seconds
        if self.turn is not None or last >= self.seconds - self._cost_of_validation(step):
            return False
        self.turn = Turn(first=now, last=last, reached=self._progress)
        return True

    def validation_due(self, step: int) -> bool:
        """Whether enough was trained since the last validation, and there is time for one more besides the last."""
        cost, elapsed = self._cost_of_validation(step), self.elapsed
        enough = elapsed - self._last_validation >= max(self.seconds / MOST_VALIDATIONS, cost / VALIDATION_FRACTION)
        return enough and elapsed + self._cost_of_step(step) + 2 * cost <= self.seconds

    def validated(self, seconds: float) -> None:
        """A validation has just ended and took `seconds`: the next ones are planned by that."""
        self._validation_seconds = seconds
        self._validating += seconds
        self._last_validation = self.elapsed

    def _cost_of_step(self, step: int) -> float:
        steps = step - self._first_step
        return (self.elapsed - self.spent_seconds - self._validating) / steps if steps else 0.0

    def _cost_of_validation(self, step: int) -> float:
        if self._validation_seconds is not None:
            return self._validation_seconds
        return self._cost_of_step(step) * self.batches_per_validation * VALIDATION_IMAGE_COST


Budget = StepBudget | TimeBudget
