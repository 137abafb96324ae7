"""The training loss: label-smoothed cross-entropy with any prior, and the weighted loss of auxiliary classifiers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from reinception.errors import UsageError
from reinception.recipe import Recipe

if TYPE_CHECKING:
    from reinception.model.build import Outputs

PRIOR_TOLERANCE = 1e-4  # a prior counted in float32 over thousands of classes does not sum to one exactly


def smoothed_cross_entropy(logits: Tensor, target: Tensor, epsilon: float, prior: Tensor | None = None) -> Tensor:
    """Mean cross-entropy between q' = (1 - epsilon) q + epsilon u and the softmax of `logits` (paper, section 7).

    `logits` (n, k); `target` (n,) class numbers, or (n, k) probabilities; `prior` u is (k,) and sums to one, uniform
    when None. The true class gets its part of u as well, so the gradient of one row is p - q'. Returns a scalar,
    computed in float32 or wider. UsageError where shapes, `epsilon` or `prior` make no sense.
    """
    if logits.ndim != 2:
        raise UsageError(f"logits must have the shape (images, classes), got {tuple(logits.shape)}")
    if not 0 <= epsilon <= 1:
        raise UsageError(f"label smoothing must lie between 0 and 1, got {epsilon}")
    log_p = torch.log_softmax(logits if logits.dtype == torch.float64 else logits.float(), dim=1)
    cross_entropy = (1 - epsilon) * _cross_entropy_of_target(log_p, target)
    if epsilon > 0:
        u = None if prior is None else _checked_prior(prior, like=log_p)
        cross_entropy = cross_entropy - epsilon * (log_p.mean(dim=1) if u is None else log_p @ u)
    return cross_entropy.mean()


@dataclass(frozen=True, kw_only=True)
class Losses:
    """One batch's losses, scalars: `total` is `main` plus the weighted `auxiliary`, the sum over auxiliary heads."""

    main: Tensor
    auxiliary: Tensor | None
    total: Tensor


def training_loss(outputs: Outputs, target: Tensor, recipe: Recipe) -> Losses:
    """The loss of a step: smoothed on every head (as TF losses.py), auxiliary heads by the recipe's weight."""
    main = smoothed_cross_entropy(outputs.logits, target, recipe.label_smoothing)
    heads = [smoothed_cross_entropy(logits, target, recipe.label_smoothing) for logits in outputs.auxiliaries]
    if not heads:
        return Losses(main=main, auxiliary=None, total=main)
    auxiliary = torch.stack(heads).sum()
    return Losses(main=main, auxiliary=auxiliary, total=main + recipe.auxiliary_weight * auxiliary)


def _cross_entropy_of_target(log_p: Tensor, target: Tensor) -> Tensor:
    """(n,) the cross-entropy of each row with its target, unsmoothed."""
    n, k = log_p.shape
    if target.shape == (n,) and not target.is_floating_point():
        return -log_p.gather(1, target.long().unsqueeze(1)).squeeze(1)
    if target.shape == (n, k) and target.is_floating_point():
        return -(target.to(log_p.dtype) * log_p).sum(dim=1)
    raise UsageError(
        f"targets for logits {(n, k)} must be {n} class numbers or probabilities of that shape, "
        f"got {tuple(target.shape)} {target.dtype}"
    )


def _checked_prior(prior: Tensor, *, like: Tensor) -> Tensor:
    u = prior.to(like)
    k = like.shape[1]
    if u.shape != (k,):
        raise UsageError(f"the prior must hold one probability for each of the {k} classes, got {tuple(u.shape)}")
    if not bool(torch.isfinite(u).all()) or bool((u < 0).any()):
        raise UsageError("the prior must hold probabilities: finite and not negative")
    if abs(float(u.sum()) - 1) > PRIOR_TOLERANCE:
        raise UsageError(f"the prior must sum to one, got {float(u.sum()):.6g}")
    return u
