"""How long training goes on: whole epochs exactly, or a time that is kept, validations included."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reinception.train.budget import StepBudget, TimeBudget


@given(num_images=st.integers(1, 400), batch=st.integers(1, 64), epochs=st.integers(1, 7))
def test_a_budget_of_steps_validates_once_an_epoch(num_images: int, batch: int, epochs: int) -> None:
    per_epoch = num_images / batch
    budget = StepBudget(num_steps=max(1, round(epochs * per_epoch)), steps_per_epoch=per_epoch)
    steps = [step for step in range(1, budget.num_steps + 1) if budget.validation_due(step)]
    for step in steps:
        ended = math.floor(step / per_epoch)
        assert (step - 1) / per_epoch < ended <= step / per_epoch
    assert len(steps) == min(math.floor(budget.num_steps / per_epoch), budget.num_steps)
    assert [budget.progress(step) for step in (0, budget.num_steps)] == [0.0, 1.0]


class Simulation:
    """A run whose steps and validations take as long as we say, on a clock of our own."""

    def __init__(self, *, seconds: float, step: float, validation: float, spent: float = 0.0) -> None:
        self.now = 1000.0
        self.progress: list[float] = []
        self.validations: list[float] = []
        budget = TimeBudget(seconds=seconds, batches_per_validation=7, spent_seconds=spent, clock=lambda: self.now)
        done = 0
        while (progress := budget.progress(done)) < 1:
            self.progress.append(progress)
            self.now += step
            done += 1
            if budget.validation_due(done):
                self._validate(budget, validation)
        self._validate(budget, validation)
        self.elapsed = self.now - 1000.0

    def _validate(self, budget: TimeBudget, seconds: float) -> None:
        self.validations.append(self.now - 1000.0)
        self.now += seconds
        budget.validated(seconds)


@given(seconds=st.floats(60, 300), step=st.floats(0.1, 5), validation=st.floats(0.01, 10))
def test_a_time_budget_is_kept_validations_included(seconds: float, step: float, validation: float) -> None:
    run = Simulation(seconds=seconds, step=step, validation=validation)
    guessed = 2 * validation if len(run.validations) <= 2 else 0.0  # until one is measured its cost is a guess
    assert run.elapsed <= seconds + step / 2 + guessed + 1e-6
    assert run.elapsed >= seconds - 8 * step - 1e-6


@given(seconds=st.floats(60, 300), step=st.floats(0.1, 2), validation=st.floats(0.01, 10))
def test_progress_rises_to_the_end_of_the_budget(seconds: float, step: float, validation: float) -> None:
    progress = Simulation(seconds=seconds, step=step, validation=validation).progress
    assert progress[0] == 0.0
    assert progress == sorted(progress)
    assert progress[-1] >= 1 - (3 * step + validation) / (seconds / 2)


@pytest.mark.parametrize(("validation", "least", "most"), [(0.1, 9, 11), (3.0, 5, 6), (30.0, 1, 2)])
def test_validations_are_fewer_the_more_they_cost(validation: float, least: int, most: int) -> None:
    run = Simulation(seconds=300, step=0.5, validation=validation)
    assert least <= len(run.validations) <= most


def test_a_resumed_run_gets_only_the_rest_of_its_budget() -> None:
    run = Simulation(seconds=300, step=0.5, validation=1.0, spent=200)
    assert run.elapsed == pytest.approx(100, abs=1)
    assert run.progress[0] == pytest.approx(200 / 300, abs=0.01)
