"""The training loop: fetch, step, log, validate, save; what can go wrong in a step is handled around it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

from reinception.data.loading.loader import Batch, TrainingStream
from reinception.distributed import RankLostError
from reinception.errors import Interrupted, ReinceptionError
from reinception.metrics import PredictionTable
from reinception.report.formatting import count
from reinception.train.ahead import Snapshot, Taken, on_device, records_of
from reinception.train.budget import Budget
from reinception.train.finetune import training_side
from reinception.train.optim import learning_rate_at
from reinception.train.run.checkpoint import Checkpointer
from reinception.train.run.log import BestWeights, RunLogger, Score
from reinception.train.run.out_of_memory import (
    DeviceLostError,
    OutOfMemoryError,
    device_lost,
    is_device_lost,
    is_out_of_memory,
    out_of_memory,
)
from reinception.train.run.signals import StopRequest
from reinception.train.step import StepRecord, TrainState, blind_step, train_step
from reinception.train.waiting import ImageWait

# So many steps in a row without a finite loss and gradient are no accident.
MOST_SKIPPED = 10


class DivergedError(ReinceptionError):
    """The loss or the weights are not finite any more; the state is not worth saving."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Training:
    """All that the loop works with. The position of a run is its step alone, because batches, distortions, dropout and
    the learning rate are functions of it. `predict_validation` is None where there are no validation images."""

    state: TrainState
    stream: TrainingStream
    budget: Budget
    logger: RunLogger
    best: BestWeights
    checkpointer: Checkpointer
    stop: StopRequest
    waiting: ImageWait
    predict_validation: Callable[[], PredictionTable] | None
    say: Callable[[str], None] = print
    rate_ceiling: float | None = None
    """what the learning rate may not exceed, in a run that was given more epochs"""

    window: int = 1
    """steps that are taken before the device is waited for"""

    @cached_property
    def snapshot(self) -> Snapshot:
        """Where a window of steps goes back to."""
        return Snapshot(self.state)

    def learning_rate(self, progress: float) -> float:
        """The learning rate of a step begun at `progress`."""
        recipe = self.state.recipe
        return learning_rate_at(recipe.schedule, progress=progress, epochs=recipe.epochs, ceiling=self.rate_ceiling)


class _Feed:
    """This rank's batches, with images of the side that the progress of the run asks for."""

    def __init__(self, training: Training) -> None:
        self._training = training
        self._side: int | None = None
        self._batches: Iterator[Batch] = iter(())

    def at(self, progress: float, step: int) -> Iterator[Batch]:
        """The batches from `step` on; those of another side replace what was read ahead."""
        stream, growth = self._training.stream, self._training.state.recipe.growth
        side = training_side(growth, self._training.state.network.arch, progress)
        if side != self._side:
            if growth is not None:
                self._training.say(f"from step {step + 1:,} on: training images of {side} pixels")
            numbers = _numbers(self._training.state, step)
            batches = self._training.waiting.batches(stream.resized(side).numbered(numbers))
            self._batches, self._side = on_device(batches, self._training.state.ranks.device), side
        return self._batches


def fit(training: Training, *, first_step: int = 0) -> int:
    """Trains until the budget is spent; returns the number of steps done. The best network has been saved.

    Interrupted, and every error but DivergedError and OutOfMemoryError, leave a checkpoint of the last whole step.
    """
    budget, ranks = training.budget, training.state.ranks
    step, skipped = first_step, 0
    feed = _Feed(training)
    try:
        if first_step:
            _validate_if_due(training, first_step)  # where the run was interrupted in the middle of it
        while (progress := ranks.from_first(budget.progress(step))) < 1.0:
            ranks.barrier()
            unfrozen, batches = training.state.unfreeze(progress), feed.at(progress, step)
            for begun, record in _steps(training, batches, progress, step):
                step += 1
                skipped = skipped + 1 if record.skipped else 0
                if skipped == MOST_SKIPPED:
                    raise _diverged(step, skipped)
                if unfrozen:
                    training.say(f"from step {step:,} on: {_learning(training.state)}")
                    unfrozen = False
                training.logger.stepped(step, begun, record)
            if not _validate_if_due(training, step):
                training.checkpointer.save_if_due(step)
        validate(training, step)
    except OutOfMemoryError:  # a checkpoint takes memory too, and safetensors ends the process where there is none
        if ranks.device.type != "cpu":  # but here it is the device's that is full
            training.checkpointer.save(step)
        raise
    except (DivergedError, DeviceLostError):  # nothing worth saving, nothing left to save
        raise
    except (Interrupted, Exception) as error:
        if skipped and isinstance(error, ReinceptionError) and not isinstance(error, RankLostError):
            raise _diverged(step, skipped) from error  # the network that was validated had no finite weights
        training.checkpointer.save(step)
        raise
    training.checkpointer.save(step)
    return step


def _steps(
    training: Training, batches: Iterator[Batch], progress: float, step: int
) -> Iterator[tuple[float, StepRecord]]:
    """The next step, or on a GPU a window of them, each with the progress it was begun at.

    Of a window with a number that is not finite everything is taken back and done once more, step by step: the same
    bits as if each had been looked at.
    """
    state, snapshot = training.state, training.snapshot
    if training.window == 1 or not snapshot.is_possible:
        rate = training.learning_rate(progress)
        yield progress, guarded_step(training, batches, learning_rate=rate, step=step)
        return
    snapshot.take()
    try:
        taken = _blind_steps(training, batches, progress, step)
        records = records_of(state, taken)
    except BaseException:
        snapshot.restore()
        raise
    if records is not None:
        yield from ((one.progress, record) for one, record in zip(taken, records, strict=True))
        return
    snapshot.restore()
    for number, one in enumerate(taken):
        rate = one.learning_rate
        yield one.progress, guarded_step(training, one.batches, learning_rate=rate, step=step + number)


def _blind_steps(training: Training, batches: Iterator[Batch], progress: float, step: int) -> list[Taken]:
    """Steps up to the end of the window, or to one after which something has to be looked at or written."""
    state, budget, taken = training.state, training.budget, list[Taken]()
    while progress < 1.0 and not (taken and training.stop.number):
        rate = training.learning_rate(progress)
        with training.waiting.step(), _faults_named(state):
            mine = list(islice(batches, len(state.shard)))
            numbers = blind_step(
                state,
                mine,
                learning_rate=rate,
                step=step + len(taken),
                stop=training.stop,
                changing=training.checkpointer.changing,
            )
        taken.append(Taken(progress=progress, learning_rate=rate, batches=mine, numbers=numbers))
        done = step + len(taken)
        if len(taken) == training.window or budget.validation_due(done) or training.checkpointer.is_due(done):
            break
        progress = budget.progress(done)
    return taken


def guarded_step(training: Training, batches: Iterable[Batch], *, learning_rate: float, step: int) -> StepRecord:
    """`train_step`, timed; where memory runs out OutOfMemoryError, one line with a smaller batch to try."""
    with training.waiting.step(), _faults_named(training.state):
        return train_step(
            training.state,
            batches,
            learning_rate=learning_rate,
            step=step,
            stop=training.stop,
            changing=training.checkpointer.changing,
        )


@contextmanager
def _faults_named(state: TrainState) -> Iterator[None]:
    """OutOfMemoryError where memory runs out, DeviceLostError where the device is gone, in place of torch's errors."""
    try:
        yield
        return
    except (RuntimeError, MemoryError, OSError) as error:
        if is_device_lost(error):
            raise device_lost(error, state.ranks.device) from None
        if not is_out_of_memory(error):
            raise
    raise out_of_memory(state.recipe, state.ranks.device)  # here the tensors are gone that the error's frames held


def validate(training: Training, step: int) -> float:
    """Scores the parameter average after `step` steps and saves it where it is the best; returns the seconds taken."""
    logger, table = training.logger, None
    if step == logger.validated_step:
        return 0.0
    began = time.monotonic()
    logger.flush(step)
    if training.predict_validation is not None:
        table = training.predict_validation()
    score = None if table is None else Score.of(table)
    is_best = training.best.offer(step, score)
    logger.validated(step, score, num_images=0 if table is None else len(table), is_best=is_best)
    return time.monotonic() - began


def _validate_if_due(training: Training, step: int) -> bool:
    """Validates where the budget says so and saves a checkpoint: the best weights and what is known of them agree."""
    due = training.budget.validation_due(step) and training.logger.validated_step != step
    if not training.state.ranks.from_first(due):
        return False
    training.budget.validated(validate(training, step))
    _stop_early(training, step)
    training.checkpointer.save(step)
    return True


def _stop_early(training: Training, step: int) -> None:
    """Where `patience` is used up the schedule is brought to its end, not broken off: the last steps count most."""
    patience, stale = training.state.recipe.patience, training.best.num_stale
    if patience is None or stale < patience:
        return
    if training.budget.cool_down(step):
        training.say(f"{count(stale, 'validation')} without a better one: the learning rate comes down, then it ends")


def _numbers(state: TrainState, step: int) -> Iterator[int]:
    """The batches of this rank's replicas from `step` on: replica r of step s trains on batch s * R + r."""
    while True:
        yield from (step * state.recipe.replicas + replica for replica in state.shard)
        step += 1


def _learning(state: TrainState) -> str:
    """Which stages learn, and how many parameters had a gradient in the step before."""
    had = sum(one.numel() for one in state.network.parameters() if one.grad is not None)
    return f"{', '.join(state.learning)} and the classifiers learn: {count(had, 'parameter')} had a gradient"


def _diverged(step: int, skipped: int) -> DivergedError:
    return DivergedError(
        f"training diverged at step {step}: {count(skipped, 'step')} in a row had a loss or gradient that is not "
        "finite; train with a lower learning rate, or with --precision fp32"
    )
