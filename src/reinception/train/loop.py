"""The loop, on one screen: fetch, step, log, validate, save."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import torch

from reinception.data.counter import Draws
from reinception.data.loader import Batch, TrainingStream, normalise
from reinception.errors import ReinceptionError
from reinception.model.build import Network
from reinception.protocol import Preprocessing
from reinception.recipe import Recipe
from reinception.runtime import autocast
from reinception.train.budget import Budget
from reinception.train.finetune import Freeze, training_mode
from reinception.train.journal import Journal, StepRecord
from reinception.train.loss import training_loss
from reinception.train.optim import ParameterAverage, clip_by_global_norm, rate_at, set_rate


@dataclass(frozen=True, kw_only=True)
class Training:
    """All that the loop works with. The network, its average and the optimizer change; the position is the step alone,
    because batches, distortions, dropout and the rate are functions of it."""

    network: Network
    average: ParameterAverage[Network]
    optimizer: torch.optim.Optimizer
    recipe: Recipe
    stream: TrainingStream
    budget: Budget
    journal: Journal
    preprocessing: Preprocessing
    seed: int
    freeze: Freeze
    dtype: torch.dtype
    device: torch.device


def fit(training: Training, *, first_step: int = 0) -> int:
    """Trains until the budget is spent; returns the number of steps done. The journal has kept the best network."""
    step, recipe, budget, journal = first_step, training.recipe, training.budget, training.journal
    batches = training.stream.batches(start_step=step * recipe.replicas)
    while (progress := budget.progress(step)) < 1.0:
        rate = rate_at(recipe.schedule, progress=progress, epochs=recipe.epochs)
        record = take_step(training, list(islice(batches, recipe.replicas)), rate=rate, step=step)
        step += 1
        journal.stepped(step, progress, record)
        if budget.validation_due(step):
            budget.validated(journal.validate(step))
    journal.validate(step)
    return step


def take_step(training: Training, batches: Sequence[Batch], *, rate: float, step: int) -> StepRecord:
    """One step: the gradients of all replicas, each with its own statistics and random numbers, averaged in order."""
    network, recipe = training_mode(training.network, training.freeze), training.recipe
    training.optimizer.zero_grad(set_to_none=True)
    main, auxiliary = 0.0, 0.0
    for replica, batch in enumerate(batches):
        torch.manual_seed(Draws("dropout", training.seed, step, replica).integer(2**32))
        images = normalise(batch.images.to(training.device), training.preprocessing)
        with autocast(training.dtype, training.device):
            outputs = network.outputs(images)
        losses = training_loss(outputs, batch.targets.to(training.device), recipe)
        (losses.total / len(batches)).backward()
        main += losses.main.item() / len(batches)
        auxiliary += losses.auxiliary.item() / len(batches) if losses.auxiliary is not None else 0.0
    norm = float(clip_by_global_norm(network.parameters(), recipe.clip_norm))
    if not math.isfinite(main + auxiliary + norm):
        raise ReinceptionError(
            f"training diverged at step {step + 1}: loss {main:.3g}, gradient norm {norm:.3g}; "
            "train with a lower rate, or with --precision fp32"
        )
    set_rate(training.optimizer, rate)
    training.optimizer.step()
    training.average.update()
    clipped = recipe.clip_norm is not None and norm > recipe.clip_norm
    return StepRecord(loss=main, auxiliary_loss=auxiliary, rate=rate, gradient_norm=norm, clipped=clipped)
