"""A classifier on fixed features: multinomial logistic regression, solved, with the weight decay left to choose."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

WEIGHT_DECAYS = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 3e-3, 1e-3, 3e-4, 1e-4)
"""What is tried, strongest first, on features scaled to a deviation of 1."""

PATIENCE = 3
"""After so many in a row that were worse on validation the weaker ones are not tried: they overfit more."""

_MOST_ITERATIONS = 300
_LEAST_DEVIATION = 1e-6


@dataclass(frozen=True, kw_only=True, eq=False)
class SolvedHead:
    """The solution: `weight` (classes, d), `bias` (classes,) in float32, for features as they are; the mean
    cross-entropy `loss` on the training features, and the norm of the gradient that is left."""

    weight: Tensor
    bias: Tensor
    loss: float
    gradient_norm: float


def solve_heads(features: Tensor, targets: Tensor, weight_decays: Sequence[float]) -> Iterator[SolvedHead]:
    """For each weight decay the classifier with the least mean cross-entropy plus half of it times its squared weights.

    Features are scaled to mean 0 and deviation 1, so one list of decays suits every network; the scale goes into the
    solution. The problem is convex and solved in float64 by L-BFGS, each from the solution before, the first from
    zeros: there is no seed, order or learning rate.

    Args:
        features: (n, d).
        targets: (n, classes), probabilities.
        weight_decays: of the scaled weights, strongest first; the bias has none.

    Returns:
        An iterator that solves as it goes.
    """
    values = features.double()
    mean, deviation = values.mean(dim=0), values.std(dim=0, correction=0).clamp_(min=_LEAST_DEVIATION)
    scaled, wanted = (values - mean) / deviation, targets.double()
    weight = torch.zeros(wanted.shape[1], scaled.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(wanted.shape[1], dtype=torch.float64, requires_grad=True)
    for decay in weight_decays:
        loss, norm = _solve(scaled, wanted, weight, bias, decay)
        own = weight.detach() / deviation
        yield SolvedHead(weight=own.float(), bias=(bias.detach() - own @ mean).float(), loss=loss, gradient_norm=norm)


def _solve(scaled: Tensor, wanted: Tensor, weight: Tensor, bias: Tensor, decay: float) -> tuple[float, float]:
    """Moves `weight` and `bias` to the solution; the cross-entropy there, and the norm of the gradient that is left."""
    solver = torch.optim.LBFGS(
        [weight, bias],
        max_iter=_MOST_ITERATIONS,
        history_size=20,
        tolerance_grad=1e-7,
        tolerance_change=1e-10,
        line_search_fn="strong_wolfe",
    )
    losses: list[float] = []

    def closure() -> Tensor:
        solver.zero_grad()
        entropy = -(wanted * torch.log_softmax(scaled @ weight.T + bias, dim=1)).sum(dim=1).mean()
        losses.append(float(entropy.detach()))
        loss = entropy + decay / 2 * weight.square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        solver.step(closure)
        closure()
    gradients = [one.grad for one in (weight, bias) if one.grad is not None]
    return losses[-1], float(torch.cat([one.reshape(-1) for one in gradients]).norm())
