"""What a recipe is made of: optimizers, schedules, averaging, and the mixing of a batch's images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from reinception.errors import UsageError

# Above it nearly every pair is mixed half and half, and rejection sampling is slow; sources have 0.2 to 1.
LARGEST_ALPHA = 2.0


class RecipeError(UsageError):
    """A recipe that cannot be followed: an unknown name, a number out of range, or JSON that does not fit."""


require = RecipeError.require
_Rule = tuple[Callable[[float], bool], str]
_FRACTION: _Rule = (lambda value: 0 <= value < 1, "must be at least 0 and below 1")
_POSITIVE: _Rule = (lambda value: value > 0, "must be positive")
_NOT_NEGATIVE: _Rule = (lambda value: value >= 0, "must not be negative")
_UP_TO_1: _Rule = (lambda value: 0 < value <= 1, "must be above 0 and at most 1")
_ALPHA: _Rule = (lambda value: 0 < value <= LARGEST_ALPHA, f"must be above 0 and at most {LARGEST_ALPHA:g}")
_FRACTIONS = (
    "decay momentum beta1 beta2 warm_up_fraction start_fraction final_fraction label_smoothing dropout "
    "unfreeze_fraction full_from"
)
_RULES: Mapping[str, _Rule] = {
    **dict.fromkeys([*_FRACTIONS.split(), "batch_norm_decay"], _FRACTION),
    **dict.fromkeys(["epsilon", "base_rate", "every_epochs", "clip_norm"], _POSITIVE),
    **dict.fromkeys(["epochs", "batch_size", "replicas", "patience"], _POSITIVE),
    **dict.fromkeys(("weight_decay", "auxiliary_weight"), _NOT_NEGATIVE),
    **dict.fromkeys(("factor", "crop_fraction", "layer_decay", "first_side"), _UP_TO_1),
    **dict.fromkeys(("mixup_alpha", "cutmix_alpha"), _ALPHA),
    "num_sides": (lambda value: value >= 2, "must be at least 2"),
    "cutmix_share": (lambda value: 0 <= value <= 1, "must lie between 0 and 1"),
}


def check_numbers(part: Any) -> None:
    """RecipeError for a number of `part` that its name does not allow."""
    for name, (fits, words) in _RULES.items():
        value = getattr(part, name, None)
        require(value is None or fits(value), f"{name} {words}, got {value}")


class Part:
    """A part of a recipe: its numbers are checked."""

    def __post_init__(self) -> None:
        check_numbers(self)


@dataclass(frozen=True, kw_only=True)
class RMSPropTF(Part):
    """TensorFlow's RMSProp: accumulator from one, epsilon inside the root, learning rate inside the momentum buffer."""

    decay: Annotated[float, "fraction of the mean square kept at each step"]
    momentum: Annotated[float, "fraction of the last update that is repeated"]
    epsilon: Annotated[float, "added to the mean square, inside the root"]
    weight_decay: Annotated[float, "L2 on convolution and classifier weights, added to their gradient"]


@dataclass(frozen=True, kw_only=True)
class SGD(Part):
    """Stochastic gradient descent with momentum: the paper's earlier experiments."""

    momentum: Annotated[float, "fraction of the last update that is repeated"]
    weight_decay: Annotated[float, "L2 on convolution and classifier weights, added to their gradient"]


@dataclass(frozen=True, kw_only=True)
class AdamW(Part):
    """Adam with decoupled weight decay."""

    beta1: Annotated[float, "fraction of the mean gradient kept at each step"]
    beta2: Annotated[float, "fraction of the mean square kept at each step"]
    epsilon: Annotated[float, "added to the root of the mean square"]
    weight_decay: Annotated[
        float, "decoupled: learning rate x this x weight is subtracted from convolution and classifier weights"
    ]


@dataclass(frozen=True, kw_only=True)
class Exponential(Part):
    """`base_rate` times `factor` for every `every_epochs` epochs done; with `staircase` only at whole multiples."""

    base_rate: Annotated[float, "learning rate after warm-up"]
    factor: Annotated[float, "what the learning rate is multiplied by"]
    every_epochs: Annotated[float, "how often, in epochs"]
    staircase: Annotated[bool, "in steps (true) or smoothly (false)"]
    warm_up_fraction: Annotated[
        float, "fraction of the run in which the learning rate rises to base_rate, linearly from zero"
    ]


@dataclass(frozen=True, kw_only=True)
class OneCycle(Part):
    """Up along half a cosine to `base_rate`, then down along another half."""

    base_rate: Annotated[float, "highest learning rate"]
    start_fraction: Annotated[float, "first learning rate, as a fraction of base_rate"]
    final_fraction: Annotated[float, "last learning rate, as a fraction of base_rate"]
    warm_up_fraction: Annotated[float, "fraction of the run in which the learning rate rises"]


@dataclass(frozen=True, kw_only=True)
class Cosine(Part):
    """Linear warm-up to `base_rate`, then down along half a cosine."""

    base_rate: Annotated[float, "learning rate after warm-up"]
    final_fraction: Annotated[float, "last learning rate, as a fraction of base_rate"]
    warm_up_fraction: Annotated[float, "fraction of the run in which the learning rate rises, linearly from zero"]


@dataclass(frozen=True, kw_only=True)
class Averaging(Part):
    """The running average of parameters and batch-norm statistics that is evaluated and kept."""

    decay: Annotated[float, "fraction of the average kept at each step"]
    warm_up: Annotated[bool, "use min(decay, (1 + n) / (10 + n)) at step n, so that early steps are forgotten"]


@dataclass(frozen=True, kw_only=True)
class Mixing(Part):
    """Each image of a batch is mixed with its neighbour, and their labels in the same proportion (train/mixing.py).

    Mixup blends two images, cutmix puts a box of one into the other; the weights are drawn from Beta(alpha, alpha).
    """

    mixup_alpha: Annotated[float, "mixup's weight of the first image is drawn from Beta(alpha, alpha)"]
    cutmix_alpha: Annotated[float, "cutmix's area of the first image is drawn from Beta(alpha, alpha)"]
    cutmix_share: Annotated[float, "fraction of the batches that get cutmix; the others get mixup"]


@dataclass(frozen=True, kw_only=True)
class Growth(Part):
    """Training images are small at first and of the input size at last, for a small one costs a fraction of a step."""

    first_side: Annotated[float, "side of the first training images, as a fraction of the input size"]
    full_from: Annotated[float, "fraction of the run after which training images have the input size"]
    num_sides: Annotated[int, "how many sides there are, the first and the last among them, evenly apart"]

    def side(self, input_size: int, progress: float) -> int:
        """Pixels of the side of training images at `progress` (0 at the first step, 1 at the end)."""
        if progress >= self.full_from:
            return input_size
        grown = int(progress / self.full_from * (self.num_sides - 1)) / (self.num_sides - 1)
        return round(input_size * (self.first_side + (1 - self.first_side) * grown))


Optimizer = RMSPropTF | SGD | AdamW
Schedule = Exponential | OneCycle | Cosine
