"""Optimizers, TensorFlow's RMSProp among them; learning-rate schedules, gradient clipping, parameter average (EMA)."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from reinception import recipe as values
from reinception.recipe import Averaging, Schedule

# A staircase reached by dividing whole steps must not be missed by the last bit of the division.
STAIR_TOLERANCE = 1e-9

N = TypeVar("N", bound=nn.Module)


class RMSPropTFOptimizer(torch.optim.Optimizer):
    """RMSProp as TensorFlow computes it, which with the paper's epsilon of 1.0 is not what torch.optim.RMSprop does.

    The mean square starts at one, epsilon stands inside the root, and the momentum buffer holds updates already
    multiplied by the learning rate of their step: m = momentum m + lr g / sqrt(ms + epsilon); w = w - m.
    """

    def __init__(
        self, params: Iterable[Any], *, lr: float, decay: float, momentum: float, epsilon: float, weight_decay: float
    ) -> None:
        defaults = {"lr": lr, "decay": decay, "momentum": momentum, "epsilon": epsilon, "weight_decay": weight_decay}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # pyrefly: ignore[bad-override]
        """One update from the gradients; `closure`, where given, is called first, as torch's optimizers do."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            learning = [(p, p.grad) for p in group["params"] if p.grad is not None]
            for together in _passes(learning):
                self._update([p for p, _ in together], [g for _, g in together], group)
        return loss

    def _update(self, parameters: list[Tensor], gradients: list[Tensor], group: dict[str, Any]) -> None:
        mean_squares, updates = self._state_of(parameters)
        if group["weight_decay"]:
            gradients = list(torch._foreach_add(gradients, parameters, alpha=group["weight_decay"]))
        torch._foreach_mul_(mean_squares, group["decay"])
        torch._foreach_addcmul_(mean_squares, gradients, gradients, value=1 - group["decay"])
        roots = torch._foreach_add(mean_squares, group["epsilon"])
        torch._foreach_sqrt_(roots)
        torch._foreach_mul_(updates, group["momentum"])
        torch._foreach_addcdiv_(updates, gradients, roots, value=group["lr"])
        torch._foreach_sub_(parameters, updates)

    def _state_of(self, parameters: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state["mean_square"] = torch.ones_like(parameter, memory_format=torch.preserve_format)
                state["update"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        return [self.state[p]["mean_square"] for p in parameters], [self.state[p]["update"] for p in parameters]


def _passes(learning: list[tuple[Tensor, Tensor]]) -> list[list[tuple[Tensor, Tensor]]]:
    """Which parameters are updated together: on a GPU all of them, to launch few kernels; on a processor one by one, so
    that the whole update of a tensor happens while it is in the cache."""
    return [learning] if learning and learning[0][0].is_cuda else [[pair] for pair in learning]


def make_optimizer(
    network: nn.Module, optimizer: values.Optimizer, *, rates: Mapping[str, float] | None = None
) -> torch.optim.Optimizer:
    """The recipe's optimizer for the parameters of `network` that learn; its learning rate is set at every step.

    Weight decay holds for convolution and classifier weights only, as in TF-slim: not for batch norm, not for biases.
    `rates` has for children of `network` by name their learning rate as a multiple of the schedule's; 1 for the others.
    """
    groups = [group for rate, part in _by_rate(network, rates or {}).items() for group in _groups(part, rate)]
    match optimizer:
        case values.RMSPropTF(decay=decay, momentum=momentum, epsilon=epsilon, weight_decay=weight_decay):
            return RMSPropTFOptimizer(
                groups, lr=0.0, decay=decay, momentum=momentum, epsilon=epsilon, weight_decay=weight_decay
            )
        case values.SGD(momentum=momentum, weight_decay=weight_decay):
            return torch.optim.SGD(groups, lr=0.0, momentum=momentum, weight_decay=weight_decay, fused=True)
        case values.AdamW(beta1=beta1, beta2=beta2, epsilon=epsilon, weight_decay=weight_decay):
            return torch.optim.AdamW(
                groups, lr=0.0, betas=(beta1, beta2), eps=epsilon, weight_decay=weight_decay, fused=True
            )


def _by_rate(network: nn.Module, rates: Mapping[str, float]) -> dict[float, list[Tensor]]:
    """The parameters that learn, by the multiple of the learning rate; those of one rate in the network's order."""
    found: dict[float, list[Tensor]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            found.setdefault(rates.get(name.partition(".")[0], 1.0), []).append(parameter)
    return found


def _groups(parameters: list[Tensor], rate: float) -> list[dict[str, Any]]:
    weights = [parameter for parameter in parameters if parameter.ndim > 1]
    others = [parameter for parameter in parameters if parameter.ndim <= 1]
    return [{"params": weights, "rate": rate}, {"params": others, "weight_decay": 0.0, "rate": rate}]


def stage_rates(stages: Sequence[str], layer_decay: float) -> dict[str, float]:
    """The multiple of the learning rate of each of `stages`, first to last: the last is `layer_decay` times the
    classifiers', and each below it `layer_decay` times the one above."""
    return {name: layer_decay**depth for depth, name in enumerate(reversed(stages), start=1)}


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """To each group its own multiple, so that their ratios hold at every point of a schedule."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group.get("rate", 1.0)


def learning_rate_at(schedule: Schedule, *, progress: float, epochs: float, ceiling: float | None = None) -> float:
    """The learning rate at `progress` (0 at the first step, 1 at the end) of a run that stands for `epochs` epochs.

    A run bounded by time stands for its recipe's epochs, however many of them it gets through: the learning rate
    comes down by the end of the budget all the same. A run that was given more epochs after its warm-up has a
    `ceiling`: it warms up no more and stays at or below that.
    """
    warm_up = schedule.warm_up_fraction
    if ceiling is not None:
        return min(ceiling, learning_rate_at(schedule, progress=max(progress, warm_up), epochs=epochs))
    rising = progress < warm_up
    done = (
        progress / warm_up if rising else (progress - warm_up) / (1 - warm_up)
    )  # fraction of the rise, or of the rest
    match schedule:
        case values.Exponential(base_rate=base, factor=factor, every_epochs=every, staircase=staircase):
            periods = progress * epochs / every
            falling = factor ** (math.floor(periods + STAIR_TOLERANCE) if staircase else periods)
            return base * falling * (done if rising else 1.0)
        case values.OneCycle(base_rate=base, start_fraction=start, final_fraction=final):
            return base * (_half_cosine(start, 1.0, done) if rising else _half_cosine(1.0, final, done))
        case values.Cosine(base_rate=base, final_fraction=final):
            return base * (done if rising else _half_cosine(1.0, final, done))


def _half_cosine(first: float, last: float, done: float) -> float:
    return last + (first - last) * (1 + math.cos(math.pi * min(done, 1.0))) / 2


def clip_by_global_norm(parameters: Iterable[Tensor], clip_norm: float | None) -> Tensor:
    """The norm of all gradients together, a scalar; where it is above `clip_norm` they are scaled down to it."""
    with_gradient = [parameter for parameter in parameters if parameter.grad is not None]
    norm = nn.utils.get_total_norm([parameter.grad for parameter in with_gradient if parameter.grad is not None])
    if clip_norm is not None:
        nn.utils.clip_grads_with_norm_(with_gradient, clip_norm, norm)
    return norm


class ParameterAverage(Generic[N]):
    """The running average of a network's parameters and batch-norm statistics: `network`, ready to be evaluated.

    Both are averaged, as in TF inception_distributed_train.py: the statistics, being averages already, twice.
    """

    def __init__(self, live: N, averaging: Averaging) -> None:
        self.averaging = averaging
        self.num_updates = 0
        self.network: N = copy.deepcopy(live)
        self.network.eval().requires_grad_(False)
        tensors = list(zip(_tensors(self.network), _tensors(live), strict=True))
        self._averaged = [pair for pair in tensors if pair[0].is_floating_point()]
        self._counters = [pair for pair in tensors if not pair[0].is_floating_point()]

    def decay(self) -> float:
        """The weight of the average in the next update."""
        warmed = (1 + self.num_updates) / (10 + self.num_updates)
        return min(self.averaging.decay, warmed) if self.averaging.warm_up else self.averaging.decay

    @torch.no_grad()
    def update(self) -> None:
        """Moves the average towards the live network; after each optimizer step."""
        averages, current = [average for average, _ in self._averaged], [live for _, live in self._averaged]
        torch._foreach_lerp_(averages, current, 1 - self.decay())
        for average, live in self._counters:
            average.copy_(live)
        self.num_updates += 1


def _tensors(network: nn.Module) -> list[Tensor]:
    return [*network.parameters(), *network.buffers()]
