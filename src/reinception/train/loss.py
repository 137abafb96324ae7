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

SUM_TOLERANCE = 1e-2  # of a row of soft labels, which may have been stored in half precision
PRIOR_TOLERANCE = 1e-4  # a prior counted in float32 over thousands of classes does not sum to one exactly


def smoothed_cross_entropy(  # noqa: PLR0917 - the order of torch.nn.functional.cross_entropy's users
    logits: Tensor,
    target: Tensor,
    epsilon: float,
    prior: Tensor | None = None,
    weight: Tensor | None = None,
    ignore_index: int | None = None,
    *,
    example_weight: Tensor | None = None,
) -> Tensor:
    """Mean cross-entropy between q' = (1 - epsilon) q + epsilon u and the softmax of `logits`.

    The true class gets its part of u as well, so without `weight` the gradient of one row is p - q'.

    Args:
        logits: (n, k).
        target: (n,) class numbers, or (n, k) probabilities.
        epsilon: how much of the label is spread, from 0 to 1.
        prior: u (k,), which sums to one; uniform when None.
        weight: (k,) a factor for each class, as in torch.nn.functional.cross_entropy: with class numbers the mean is
            weighted by those of the true classes. With smoothing or probabilities it weighs the classes of the target,
            so the loss of one row is no longer smallest at q'.
        ignore_index: rows with this class number do not count; NaN where none does.
        example_weight: (k,) a factor for each class as well, but for a whole row: that of its class, or the mean over
            its probabilities; the mean over rows is weighted by it. The loss of one row stays smallest at q'.

    Returns:
        A scalar, computed in float32 or wider.

    Raises:
        UsageError: shapes, `epsilon`, `prior` or targets that make no sense.

    Source: Szegedy et al. 2015 (arXiv 1512.00567), section 7.

    Example:
        >>> import torch, reinception as ri
        >>> logits, target = torch.tensor([[2.0, 0.0]]), torch.tensor([0])
        >>> round(float(ri.smoothed_cross_entropy(logits, target, 0.1)), 4)
        0.2269
    """
    if logits.ndim != 2:
        raise UsageError(f"logits must have the shape (images, classes), got {tuple(logits.shape)}")
    if not 0 <= epsilon <= 1:
        raise UsageError(f"label smoothing must lie between 0 and 1, got {epsilon}")
    is_probability = _is_probability(target, logits.shape)
    if ignore_index is not None:
        if is_probability:
            raise UsageError("ignore_index is for class numbers; the targets are probabilities")
        kept = target != ignore_index
        logits, target = logits[kept], target[kept]
    if not torch.compiler.is_compiling():
        _check_values(target, logits.shape[1], is_probability=is_probability)
    return _cross_entropy(logits, target, epsilon, prior, weight, example_weight=example_weight)


def _cross_entropy(
    logits: Tensor,
    target: Tensor,
    epsilon: float,
    prior: Tensor | None = None,
    weight: Tensor | None = None,
    *,
    example_weight: Tensor | None = None,
) -> Tensor:
    """The same without a look at the values of the targets, for which a GPU would have to be waited for."""
    is_probability = _is_probability(target, logits.shape)
    log_p = torch.log_softmax(logits if logits.dtype == torch.float64 else logits.float(), dim=1)
    row_weights = None
    if weight is not None:
        weight = _checked_weight(weight, like=log_p)
        log_p = log_p * weight
        row_weights = None if is_probability else weight[target.long()]
    if is_probability:
        right = (target.to(log_p.dtype) * log_p).sum(dim=1)
    else:
        right = log_p.gather(1, target.long().unsqueeze(1)).squeeze(1)
    cross_entropy = (1 - epsilon) * -right
    if epsilon > 0:
        u = None if prior is None else _checked_prior(prior, like=log_p)
        cross_entropy = cross_entropy - epsilon * (log_p.mean(dim=1) if u is None else log_p @ u)
    if example_weight is not None:
        factors = _checked_weight(example_weight, like=log_p)
        own = target.to(log_p.dtype) @ factors if is_probability else factors[target.long()]
        cross_entropy = cross_entropy * own
        row_weights = own if row_weights is None else row_weights * own
    return cross_entropy.mean() if row_weights is None else cross_entropy.sum() / row_weights.sum()


@dataclass(frozen=True, kw_only=True)
class Losses:
    """One batch's losses, scalars: `total` is `main` plus the weighted `auxiliary`, the sum over auxiliary heads."""

    main: Tensor
    auxiliary: Tensor | None
    total: Tensor


def training_loss(outputs: Outputs, target: Tensor, recipe: Recipe, frequencies: Tensor | None = None) -> Losses:
    """The loss of a step: smoothed on every head (as TF losses.py), auxiliary heads by the recipe's weight.

    `frequencies` (classes,) is each class's part of the training images, which some recipes need: UsageError without.
    """

    def loss_of(logits: Tensor) -> Tensor:
        own = logits + offset if offset is not None else logits
        return _cross_entropy(own, target, recipe.label_smoothing, prior, example_weight=weight)

    prior, weight, offset = _class_terms(recipe, frequencies)
    main = loss_of(outputs.logits)
    heads = [loss_of(logits) for logits in outputs.auxiliaries]
    if not heads:
        return Losses(main=main, auxiliary=None, total=main)
    auxiliary = torch.stack(heads).sum()
    return Losses(main=main, auxiliary=auxiliary, total=main + recipe.auxiliary_weight * auxiliary)


def _class_terms(recipe: Recipe, frequencies: Tensor | None) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """What the classes' frequencies give to the loss: smoothing's prior, weights of examples, offsets of logits.

    Weights are inversely proportional to the frequencies. Logit adjustment adds log frequency to the logits of training
    alone, so that without it the network's answer is that of equally frequent classes (Menon et al., arXiv 2007.07314).
    """
    by_frequency = recipe.smoothing_prior == "class_frequencies"
    if not by_frequency and recipe.balance in ("none", "sampling"):
        return None, None, None
    if frequencies is None:
        raise UsageError(f"recipe {recipe.name} needs to know how frequent each class is")
    present = frequencies.clamp(min=frequencies[frequencies > 0].min())  # a class without images is never a target
    return (
        frequencies if by_frequency else None,
        1 / (len(present) * present) if recipe.balance == "class_weights" else None,
        present.log() if recipe.balance == "logit_adjustment" else None,
    )


def _is_probability(target: Tensor, shape: torch.Size) -> bool:
    """Whether targets for logits of this shape are probabilities, not class numbers. UsageError for neither."""
    n, k = shape
    if target.shape == (n,) and not target.is_floating_point():
        return False
    if target.shape == (n, k) and target.is_floating_point():
        return True
    raise UsageError(
        f"targets for logits {(n, k)} must be {n} class numbers or probabilities of that shape, "
        f"got {tuple(target.shape)} {target.dtype}"
    )


def _check_values(target: Tensor, k: int, *, is_probability: bool) -> None:
    """UsageError for class numbers outside 0 to k - 1 and for rows that are no probabilities."""
    if is_probability:
        bad = ((target.sum(dim=1) - 1).abs() > SUM_TOLERANCE) | (target < 0).any(dim=1) | ~target.isfinite().all(dim=1)
        if bool(bad.any()):
            row = int(bad.nonzero()[0, 0])
            raise UsageError(f"target row {row} must hold probabilities that sum to one, got {_short(target[row])}")
    elif target.numel() and bool((outside := (target < 0) | (target >= k)).any()):
        number = int(target[outside][0])
        raise UsageError(f"class number {number} is not one of 0 to {k - 1}; ignore_index={number} leaves its rows out")


def _short(row: Tensor) -> str:
    return f"{', '.join(f'{value:g}' for value in row[:5].tolist())}{', ...' if len(row) > 5 else ''}"


def _checked_weight(weight: Tensor, *, like: Tensor) -> Tensor:
    if weight.shape != (like.shape[1],):
        raise UsageError(
            f"weight must hold a factor for each of the {like.shape[1]} classes, got {tuple(weight.shape)}"
        )
    return weight.to(like)


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
