"""The loop, on one screen: fetch, step, log, validate, save."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch

from reinception.data.loading.loader import Batch, TrainingStream
from reinception.distributed import RankLostError, Ranks
from reinception.errors import Interrupted, ReinceptionError
from reinception.model.build import Network
from reinception.recipe import Recipe
from reinception.train.budget import Budget
from reinception.train.config import Freeze
from reinception.train.finetune import training_mode
from reinception.train.optim import ParameterAverage, clip_by_global_norm, rate_at, set_rate
from reinception.train.reduction import Replicas
from reinception.train.run.checkpointer import Keeper
from reinception.train.run.log import Journal, StepRecord
from reinception.train.run.out_of_memory import OutOfMemoryError, is_out_of_memory, out_of_memory
from reinception.train.run.signals import Stop

# So many steps in a row without a finite loss and gradient are no accident.
MOST_SKIPPED = 10


class DivergedError(ReinceptionError):
    """Training has left the numbers; its state is not worth keeping."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """All that the loop works with. The network, its average and the optimizer change; the position is the step alone,
    because batches, distortions, dropout and the rate are functions of it."""

    network: Network
    average: ParameterAverage[Network]
    optimizer: torch.optim.Optimizer
    recipe: Recipe
    replicas: Replicas
    ranks: Ranks
    stream: TrainingStream
    budget: Budget
    journal: Journal
    keeper: Keeper
    stop: Stop
    freeze: Freeze


def fit(training: Training, *, first_step: int = 0) -> int:
    """Trains until the budget is spent; returns the number of steps done. The journal has kept the best network.

    Interrupted, and every error but DivergedError and OutOfMemoryError, leave a checkpoint of the last whole step.
    """
    recipe, budget, journal, ranks = training.recipe, training.budget, training.journal, training.ranks
    step, skipped, batches = first_step, 0, training.stream.numbered(_numbers(training, first_step))
    try:
        if first_step:
            _validate_if_due(training, first_step)  # where the run was interrupted in the middle of it
        while (progress := ranks.from_first(budget.progress(step))) < 1.0:
            ranks.barrier()
            rate = rate_at(recipe.schedule, progress=progress, epochs=recipe.epochs)
            record = careful_step(training, batches, rate=rate, step=step)
            step += 1
            skipped = skipped + 1 if record.skipped else 0
            if skipped == MOST_SKIPPED:
                raise _diverged(step, skipped)
            journal.stepped(step, progress, record)
            if not _validate_if_due(training, step):
                training.keeper.keep_if_due(step)
        journal.validate(step)
    except OutOfMemoryError:  # a checkpoint takes memory too, and safetensors ends the process where there is none
        raise
    except DivergedError:
        raise
    except (Interrupted, Exception) as error:
        if skipped and isinstance(error, ReinceptionError) and not isinstance(error, RankLostError):
            raise _diverged(step, skipped) from error  # what was validated was no network any more
        training.keeper.keep(step)
        raise
    training.keeper.keep(step)
    return step


def careful_step(training: Training, batches: Iterable[Batch], *, rate: float, step: int) -> StepRecord:
    """`take_step`; OutOfMemoryError, one line with a smaller batch to try, where memory runs out."""
    try:
        return take_step(training, batches, rate=rate, step=step)
    except (RuntimeError, MemoryError, OSError) as error:
        if not is_out_of_memory(error):
            raise
    raise out_of_memory(
        training.recipe, training.ranks.device
    )  # here the tensors are gone that the error's frames held


def take_step(training: Training, batches: Iterable[Batch], *, rate: float, step: int) -> StepRecord:
    """One step: the gradients of all replicas, each with its own statistics and random numbers, averaged.

    A loss, statistic or gradient that is not finite, on whatever rank, and the step changes nothing on any.
    """
    network, recipe = training_mode(training.network, training.freeze), training.recipe
    combined = training.replicas.combine(batches, step=step, stop=training.stop)
    norm = math.nan
    if not combined.unhealthy:
        norm = float(clip_by_global_norm(network.parameters(), recipe.clip_norm))
    is_usable = math.isfinite(norm)
    if is_usable:
        set_rate(training.optimizer, rate)
        with training.keeper.changing():
            training.optimizer.step()
            training.replicas.statistics.update(combined.statistics)
            training.average.update()
    return StepRecord(
        loss=combined.main,
        auxiliary_loss=combined.auxiliary,
        rate=rate,
        gradient_norm=norm,
        clipped=recipe.clip_norm is not None and norm > recipe.clip_norm,
        skipped=not is_usable,
    )


def _validate_if_due(training: Training, step: int) -> bool:
    """Validates where the budget says so and keeps a checkpoint: what was chosen and what is known then agree."""
    due = training.budget.validation_due(step) and training.journal.validated_step != step
    if not training.ranks.from_first(due):
        return False
    training.budget.validated(training.journal.validate(step))
    training.keeper.keep(step)
    return True


def _numbers(training: Training, step: int) -> Iterator[int]:
    """The batches of this rank's replicas from `step` on: replica r of step s trains on batch s * R + r."""
    while True:
        yield from (step * training.replicas.num + replica for replica in training.replicas.shard)
        step += 1


def _diverged(step: int, skipped: int) -> DivergedError:
    return DivergedError(
        f"training diverged at step {step}: {skipped} step{'s' * (skipped > 1)} in a row had a loss or gradient that "
        "is not finite; train with a lower rate, or with --precision fp32"
    )
