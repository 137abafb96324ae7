"""One optimizer step, in order: forward, loss, backward, reduce, clip, update, average."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from reinception.data.images.random_stream import RandomStream
from reinception.data.loading.loader import Batch, normalise
from reinception.distributed import Ranks
from reinception.machine import autocast
from reinception.model.build import Network
from reinception.preprocess import Preprocessing
from reinception.recipe import Recipe
from reinception.train.config import Freeze, Reduction, StepKind
from reinception.train.distill import TeacherTargets
from reinception.train.finetune import fix, learning_stages, training_mode
from reinception.train.forward import forward_of
from reinception.train.loss import training_loss
from reinception.train.loss_scale import LossScale
from reinception.train.mixing import mix
from reinception.train.optim import (
    ParameterAverage,
    clip_by_global_norm,
    make_optimizer,
    set_learning_rate,
    stage_rates,
)
from reinception.train.reduction import BatchStatistics, Reducer, make_reducer
from reinception.train.run.signals import StopRequest


@dataclass(kw_only=True, eq=False)
class TrainState:
    """A network in training and all that its steps change; what they compute depends on nothing else but the step.

    `network` is on the device of `ranks`. Its parameters in the part named by `freeze` do not learn; of the rest of the
    trunk those of the stages in `learning` do. `preprocessing` says how pixels become its input; `dtype` is what its
    heavy layers compute in, `step` how; `frequencies` (classes,) is each class's part of the training images, where it
    is known. With a `teacher` the loss has its answers beside the labels.
    """

    network: Network
    recipe: Recipe
    ranks: Ranks
    preprocessing: Preprocessing
    reduction: Reduction = "exact"
    freeze: Freeze = "none"
    seed: int = 0
    dtype: torch.dtype = torch.float32
    teacher: TeacherTargets | None = None
    step: StepKind = "plain"
    frequencies: Tensor | None = None
    learning: tuple[str, ...] = field(init=False)
    scale: LossScale = field(init=False)
    optimizer: torch.optim.Optimizer = field(init=False)
    average: ParameterAverage[Network] = field(init=False)
    statistics: BatchStatistics = field(init=False)
    reducer: Reducer = field(init=False)

    def __post_init__(self) -> None:
        self.network.set_batch_norm_decay(self.recipe.batch_norm_decay)
        fix(self.network, self.freeze, self.recipe.batch_norm)
        self.scale = LossScale(is_used=self.dtype == torch.float16)
        self.average = ParameterAverage(self.network, self.recipe.parameter_average)
        stages = [name for name, _ in self.network.arch.stages]
        rates = stage_rates(stages, self.recipe.layer_decay)
        self.optimizer = make_optimizer(self.network, self.recipe.optimizer, rates=rates)
        self.statistics = BatchStatistics(self.network)
        self._forward = forward_of(self.step, self.network)
        self._learnable = {name: _learning_parameters(self.network, name) for name in stages}
        self.learning = ()
        self._learn(self._stages_at(0.0))

    def unfreeze(self, progress: float) -> bool:
        """Lets those stages learn whose time has come at `progress`, for good; whether there were any."""
        new = self._stages_at(progress)
        if len(new) <= len(self.learning):
            return False
        self._learn(new)
        return True

    def resume_learning(self, stages: Iterable[str]) -> None:
        """Goes on with the stages that learned when a checkpoint was written. KeyError for one that is unknown."""
        wanted = set(stages)
        if unknown := wanted - self._learnable.keys():
            raise KeyError(f"stages {', '.join(sorted(unknown))}")
        self._learn(tuple(name for name in self._learnable if name in wanted))

    @property
    def num_learning(self) -> int:
        """Parameters that learn now."""
        return sum(parameter.numel() for parameter in self.network.parameters() if parameter.requires_grad)

    def _stages_at(self, progress: float) -> tuple[str, ...]:
        fraction = self.recipe.unfreeze_fraction
        return learning_stages(self.network, self.freeze, unfreeze_fraction=fraction, progress=progress)

    def _learn(self, stages: tuple[str, ...]) -> None:
        """The optimizer has a place for every parameter from the beginning; the sum of gradients is made anew."""
        self.learning = stages
        for name, parameters in self._learnable.items():
            for parameter in parameters:
                parameter.requires_grad_(name in stages)
        self.reducer = make_reducer(
            self.reduction, self.network, replicas=self.recipe.replicas, ranks=self.ranks, forward=self._forward
        )

    @property
    def shard(self) -> range:
        """The replicas of a step that this rank computes."""
        return self.ranks.shard(self.recipe.replicas)

    def record(self, numbers: Sequence[float], *, learning_rate: float, is_finite: bool) -> StepRecord:
        """A step with these `numbers`: main loss, auxiliary loss, norm of the gradient."""
        loss, auxiliary_loss, norm = numbers
        return StepRecord(
            loss=loss,
            auxiliary_loss=auxiliary_loss if self.network.arch.aux else None,
            learning_rate=learning_rate,
            gradient_norm=norm,
            clipped=self.recipe.clip_norm is not None and norm > self.recipe.clip_norm,
            skipped=not is_finite,
        )


@dataclass(frozen=True, kw_only=True)
class StepRecord:
    """One step in numbers: losses before weighting, the learning rate, the gradient's norm before clipping."""

    loss: float
    auxiliary_loss: float | None
    learning_rate: float
    gradient_norm: float
    clipped: bool
    skipped: bool = False
    """its loss or gradient was not finite, so it changed nothing"""


def accumulate(state: TrainState, batches: Iterable[Batch], *, step: int, stop: StopRequest) -> Tensor:
    """Forward and backward passes of this rank's replicas: changes `state.reducer`, which adds gradients, and no more.

    Returns a row for every replica of all ranks, (R, 3 + c) on the device: main loss, auxiliary loss (0 without one),
    a number that is finite where the gradient is, and the batch statistics.
    """
    rows: list[Tensor] = []
    state.reducer.begin()
    with state.statistics.apart():
        for replica, batch in zip(state.shard, batches, strict=False):
            # Dropout is a function of its purpose, not of how many replicas this process has computed.
            torch.manual_seed(RandomStream("dropout", state.seed, step, replica).integer(2**32))
            images, labels = _inputs(state, batch, step, replica)
            with state.reducer.replica(is_last=replica == state.shard[-1]):
                with autocast(state.dtype, state.ranks.device):
                    outputs = state.reducer.forward(images)
                losses = training_loss(outputs, labels, state.recipe, state.frequencies)
                if state.teacher is not None:
                    losses = state.teacher.added(losses, outputs.logits, batch)
                usable = state.reducer.backward(losses.total * state.scale.factor)
            auxiliary = torch.zeros_like(losses.main) if losses.auxiliary is None else losses.auxiliary
            numbers = [number.detach().float().reshape(1) for number in (losses.main, auxiliary, usable)]
            rows.append(torch.cat([*numbers, state.statistics.row().to(state.ranks.device)]))
            if stop.number and state.reducer.can_stop_early:
                break
    stop.check_all(state.ranks)
    return state.ranks.all_gather_rows(torch.stack(rows))


def train_step(
    state: TrainState,
    batches: Iterable[Batch],
    *,
    learning_rate: float,
    step: int,
    stop: StopRequest,
    changing: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> StepRecord:
    """One step: the gradients of all replicas, each with its own statistics and random numbers, averaged.

    `batches` are this rank's, one for each replica of its shard. A loss, statistic or gradient that is not finite, on
    whatever rank, and the step changes nothing on any. `changing` surrounds what must happen together or not at all.
    Interrupted, before anything is changed, where any rank was asked to stop.
    """
    training_mode(state.network, state.learning, state.recipe.batch_norm)
    norm, rows = math.nan, accumulate(state, batches, step=step, stop=stop)
    if bool(rows.isfinite().all()):
        norm = float(_gradient_norm(state))
    is_finite = math.isfinite(norm)
    if is_finite:
        with changing():
            _update(state, rows, learning_rate)
    state.scale.update(is_finite=is_finite)
    losses = rows[:, :2].double().mean(dim=0).tolist()
    return state.record([*losses, norm], learning_rate=learning_rate, is_finite=is_finite)


def blind_step(
    state: TrainState,
    batches: Iterable[Batch],
    *,
    learning_rate: float,
    step: int,
    stop: StopRequest,
    changing: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Tensor:
    """`train_step` without a look at its numbers, and so without waiting for the device: it changes everything in any
    case. Returns main loss, auxiliary loss and norm of the gradient, (3,) on the device, NaN where one is not finite:
    then the caller has to go back."""
    training_mode(state.network, state.learning, state.recipe.batch_norm)
    rows = accumulate(state, batches, step=step, stop=stop)
    norm = _gradient_norm(state).double()
    with changing():
        _update(state, rows, learning_rate)
    state.scale.update(is_finite=True)
    numbers = torch.cat([rows[:, :2].double().mean(dim=0), norm.reshape(1)])
    return torch.where(rows.isfinite().all(), numbers, torch.nan)


def _gradient_norm(state: TrainState) -> Tensor:
    """Leaves the mean gradient in the parameters, clipped; its norm before that, a scalar on the device."""
    state.reducer.finish()
    state.scale.unscale(state.network.parameters())
    return clip_by_global_norm(state.network.parameters(), state.recipe.clip_norm)


def _update(state: TrainState, rows: Tensor, learning_rate: float) -> None:
    """The optimizer's step, the batch statistics of `rows`, the average."""
    set_learning_rate(state.optimizer, learning_rate)
    state.optimizer.step()
    state.statistics.update(rows[:, 3:])
    state.average.update()


def _inputs(state: TrainState, batch: Batch, step: int, replica: int) -> tuple[Tensor, Tensor]:
    """Normalised images (n, 3, s, s) and labels (n,) or (n, classes) on the device; mixed where the recipe says so."""
    images = normalise(batch.images.to(state.ranks.device), state.preprocessing)
    labels = batch.labels.to(state.ranks.device)
    if state.recipe.mixing is None:
        return images, labels
    stream = RandomStream("mix", state.seed, step, replica)
    return mix(images, labels, state.recipe.mixing, num_classes=state.network.arch.num_classes, stream=stream)


def _learning_parameters(network: Network, name: str) -> list[nn.Parameter]:
    return [one for one in network.get_submodule(name).parameters() if one.requires_grad]
