"""What a recipe is made of: optimizers, schedules, averaging, and the mixing of a batch's images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from reinception.errors import UsageError

# Above it nearly every pair is mixed half and half, and rejection sampling is slow; sources have 0.2 to 1.
LARGEST_ALPHA = 2.0


class RecipeError(UsageError):
    """A recipe that cannot be followed: an unknown name, a number out of range, or JSON that does not fit."""


require = RecipeError.require
check_fraction = RecipeError.require_fraction


@dataclass(frozen=True, kw_only=True)
class RMSPropTF:
    """TensorFlow's RMSProp: accumulator from one, epsilon inside the root, learning rate inside the momentum buffer."""

    decay: Annotated[float, "fraction of the mean square kept at each step"]
    momentum: Annotated[float, "fraction of the last update that is repeated"]
    epsilon: Annotated[float, "added to the mean square, inside the root"]
    weight_decay: Annotated[float, "L2 on convolution and classifier weights, added to their gradient"]

    def __post_init__(self) -> None:
        check_fraction("decay", self.decay)
        check_fraction("momentum", self.momentum)
        require(self.epsilon > 0, f"epsilon must be positive, got {self.epsilon}")
        require(self.weight_decay >= 0, f"weight_decay must not be negative, got {self.weight_decay}")


@dataclass(frozen=True, kw_only=True)
class SGD:
    """Stochastic gradient descent with momentum: the paper's earlier experiments."""

    momentum: Annotated[float, "fraction of the last update that is repeated"]
    weight_decay: Annotated[float, "L2 on convolution and classifier weights, added to their gradient"]

    def __post_init__(self) -> None:
        check_fraction("momentum", self.momentum)
        require(self.weight_decay >= 0, f"weight_decay must not be negative, got {self.weight_decay}")


@dataclass(frozen=True, kw_only=True)
class AdamW:
    """Adam with decoupled weight decay."""

    beta1: Annotated[float, "fraction of the mean gradient kept at each step"]
    beta2: Annotated[float, "fraction of the mean square kept at each step"]
    epsilon: Annotated[float, "added to the root of the mean square"]
    weight_decay: Annotated[
        float, "decoupled: learning rate x this x weight is subtracted from convolution and classifier weights"
    ]

    def __post_init__(self) -> None:
        check_fraction("beta1", self.beta1)
        check_fraction("beta2", self.beta2)
        require(self.epsilon > 0, f"epsilon must be positive, got {self.epsilon}")
        require(self.weight_decay >= 0, f"weight_decay must not be negative, got {self.weight_decay}")


@dataclass(frozen=True, kw_only=True)
class Exponential:
    """`base_rate` times `factor` for every `every_epochs` epochs done; with `staircase` only at whole multiples."""

    base_rate: Annotated[float, "learning rate after warm-up"]
    factor: Annotated[float, "what the learning rate is multiplied by"]
    every_epochs: Annotated[float, "how often, in epochs"]
    staircase: Annotated[bool, "in steps (true) or smoothly (false)"]
    warm_up_fraction: Annotated[
        float, "fraction of the run in which the learning rate rises to base_rate, linearly from zero"
    ]

    def __post_init__(self) -> None:
        check_schedule(self.base_rate, self.warm_up_fraction)
        require(0 < self.factor <= 1, f"factor must be above 0 and at most 1, got {self.factor}")
        require(self.every_epochs > 0, f"every_epochs must be positive, got {self.every_epochs}")


@dataclass(frozen=True, kw_only=True)
class OneCycle:
    """Up along half a cosine to `base_rate`, then down along another half."""

    base_rate: Annotated[float, "highest learning rate"]
    start_fraction: Annotated[float, "first learning rate, as a fraction of base_rate"]
    final_fraction: Annotated[float, "last learning rate, as a fraction of base_rate"]
    warm_up_fraction: Annotated[float, "fraction of the run in which the learning rate rises"]

    def __post_init__(self) -> None:
        check_schedule(self.base_rate, self.warm_up_fraction)
        check_fraction("start_fraction", self.start_fraction)
        check_fraction("final_fraction", self.final_fraction)


@dataclass(frozen=True, kw_only=True)
class Cosine:
    """Linear warm-up to `base_rate`, then down along half a cosine."""

    base_rate: Annotated[float, "learning rate after warm-up"]
    final_fraction: Annotated[float, "last learning rate, as a fraction of base_rate"]
    warm_up_fraction: Annotated[float, "fraction of the run in which the learning rate rises, linearly from zero"]

    def __post_init__(self) -> None:
        check_schedule(self.base_rate, self.warm_up_fraction)
        check_fraction("final_fraction", self.final_fraction)


@dataclass(frozen=True, kw_only=True)
class Averaging:
    """The running average of parameters and batch-norm statistics that is evaluated and kept."""

    decay: Annotated[float, "fraction of the average kept at each step"]
    warm_up: Annotated[bool, "use min(decay, (1 + n) / (10 + n)) at step n, so that early steps are forgotten"]

    def __post_init__(self) -> None:
        check_fraction("decay", self.decay)


@dataclass(frozen=True, kw_only=True)
class Mixing:
    """Each image of a batch is mixed with its neighbour, and their labels in the same proportion (train/mixing.py).

    Mixup blends two images, cutmix puts a box of one into the other; the weights are drawn from Beta(alpha, alpha).
    """

    mixup_alpha: Annotated[float, "mixup's weight of the first image is drawn from Beta(alpha, alpha)"]
    cutmix_alpha: Annotated[float, "cutmix's area of the first image is drawn from Beta(alpha, alpha)"]
    cutmix_share: Annotated[float, "fraction of the batches that get cutmix; the others get mixup"]

    def __post_init__(self) -> None:
        for name in ("mixup_alpha", "cutmix_alpha"):
            alpha = getattr(self, name)
            require(0 < alpha <= LARGEST_ALPHA, f"{name} must be above 0 and at most {LARGEST_ALPHA:g}, got {alpha}")
        require(0 <= self.cutmix_share <= 1, f"cutmix_share must lie between 0 and 1, got {self.cutmix_share}")


Optimizer = RMSPropTF | SGD | AdamW
Schedule = Exponential | OneCycle | Cosine


def check_schedule(base_rate: float, warm_up_fraction: float) -> None:
    require(base_rate > 0, f"base_rate must be positive, got {base_rate}")
    check_fraction("warm_up_fraction", warm_up_fraction)
