"""The frozen values: layers, chains and branches of them, heads, and the whole architecture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from reinception.spec.checks import Size, check_fraction, check_name, check_window, require

PoolKind = Literal["max", "average"]
Activation = Literal["relu", "linear"]
# The names a network already uses for itself; a stage called `classifier` would hide the classifier.
RESERVED_NAMES = frozenset({"aux", "classifier", "dropout", "features", "logits", "arch", "training"})


@dataclass(frozen=True, kw_only=True)
class BatchNorm:
    """Batch normalisation. `scale`: whether it learns gamma (TF-slim and Keras Inception-v3 have none)."""

    epsilon: float = 1e-3
    scale: bool = True

    def __post_init__(self) -> None:
        require(self.epsilon > 0, f"batch norm epsilon must be positive, got {self.epsilon}")


@dataclass(frozen=True, kw_only=True)
class Conv:
    """A convolution, its batch normalisation and its activation: one box of the paper's figures.

    `groups` splits input and output channels into that many independent convolutions. `init_stddev` is the standard
    deviation of the normal distribution, cut at two of them, its weights start from.
    """

    channels: int
    """channels of the output"""

    kernel: Size = (1, 1)
    """height and width of the window"""

    stride: Size = (1, 1)
    """step of the window, down and across"""

    padding: Size = (0, 0)
    """zeros at each border, above and below, left and right"""

    groups: int = 1
    """independent convolutions side by side"""

    bias: bool = False
    """whether it learns a constant for each channel"""

    batch_norm: BatchNorm | None = field(default_factory=BatchNorm)
    """its batch normalisation; null for none"""

    activation: Activation = "relu"
    """what follows: relu, or linear for nothing"""

    init_stddev: float = 0.1
    """standard deviation of the initial weights"""

    def __post_init__(self) -> None:
        require(self.channels > 0, f"a convolution needs at least one channel, got {self.channels}")
        check_window(self.kernel, self.stride, self.padding)
        fits = self.groups > 0 and self.channels % self.groups == 0
        require(fits, f"{self.groups} groups do not divide {self.channels} channels")
        require(self.activation in get_args(Activation), f"unknown activation {self.activation!r}")
        require(self.init_stddev > 0, f"init_stddev must be positive, got {self.init_stddev}")


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Maximum or average pooling.

    `count_include_pad`: whether an average divides by the whole window where it hangs over the border (torch's
    default) or only by the pixels that exist (TensorFlow's SAME, and so the released weights). `ceil_mode` lets the
    last window start inside and end outside the grid, as Caffe and GoogLeNet do.
    """

    kind: PoolKind
    """max or average"""

    kernel: Size = (3, 3)
    """height and width of the window"""

    stride: Size = (1, 1)
    """step of the window, down and across"""

    padding: Size = (0, 0)
    """width of the border, above and below, left and right"""

    count_include_pad: bool = False
    """whether an average counts the border"""

    ceil_mode: bool = False
    """whether the last window may end outside the grid"""

    def __post_init__(self) -> None:
        require(self.kind in get_args(PoolKind), f"unknown pooling {self.kind!r}")
        check_window(self.kernel, self.stride, self.padding)


@dataclass(frozen=True, kw_only=True)
class AdaptivePool:
    """Average pooling to a fixed `output` grid, whatever comes in: it hides a wrong grid, so only two heads use it."""

    output: Size

    def __post_init__(self) -> None:
        require(min(self.output) > 0, f"adaptive pooling needs a positive output, got {self.output}")


@dataclass(frozen=True, kw_only=True)
class LocalResponseNorm:
    """Normalisation across `size` neighbouring channels, GoogLeNet's (and AlexNet's) alternative to batch norm."""

    size: int = 5
    alpha: float = 1e-4
    beta: float = 0.75
    k: float = 1.0

    def __post_init__(self) -> None:
        require(self.size > 0, f"local response normalisation needs a positive size, got {self.size}")


@dataclass(frozen=True, kw_only=True)
class ChannelRange:
    """The channels from `start` to before `stop` of the input, then an activation.

    No figure has one: rewrites put it where a branch takes its part of a convolution that several of them share.
    """

    start: int
    stop: int
    activation: Activation = "linear"

    def __post_init__(self) -> None:
        require(0 <= self.start < self.stop, f"a slice needs 0 <= start < stop, got {self.start} and {self.stop}")
        require(self.activation in get_args(Activation), f"unknown activation {self.activation!r}")


@dataclass(frozen=True)
class Chain:
    """Layers one after another."""

    layers: tuple[Layer, ...]


@dataclass(frozen=True)
class Concat:
    """Named branches side by side on one input; their outputs are concatenated along the channels, in this order."""

    branches: tuple[tuple[str, Chain], ...]

    def __post_init__(self) -> None:
        names = [name for name, _ in self.branches]
        require(len(names) > 0 and len(set(names)) == len(names), f"branches need distinct names, got {names}")
        for name in names:
            check_name(name)


Layer = Conv | Pool | AdaptivePool | LocalResponseNorm | ChannelRange | Chain | Concat


@dataclass(frozen=True, kw_only=True)
class Aux:
    """An auxiliary classifier on the output of stage or module `at`: `body`, global average, dropout, linear.

    A fully connected layer on a 5x5 grid is the same thing as a 5x5 convolution without padding, and is written so.
    """

    name: str = "aux"
    """its name, as in the paths of its parameters"""

    at: str
    """the stage or module whose output it reads"""

    body: Chain
    """its layers before the global average"""

    dropout: float = 0.0
    """fraction of the features dropped before its linear layer"""

    classifier_init_stddev: float = 0.001
    """standard deviation of the linear layer's initial weights"""

    def __post_init__(self) -> None:
        check_name(self.name)
        check_fraction("auxiliary dropout", self.dropout)


@dataclass(frozen=True, kw_only=True)
class Arch:
    """A whole network: stages, global average, dropout, linear classifier, and its auxiliary classifiers."""

    name: str
    """the network's name, which nothing depends on"""

    stages: tuple[tuple[str, Chain | Concat], ...]
    """names and layers, in the order of execution"""

    aux: tuple[Aux, ...] = ()
    """the auxiliary classifiers, earliest first"""

    num_classes: int = 1000
    """outputs of the classifier"""

    dropout: float = 0.2
    """fraction of the features dropped before the classifier"""

    input_size: int = 299
    """pixels per side of the image it is meant for"""

    input_channels: int = 3
    """3 for colour"""

    classifier_init_stddev: float = 0.01
    """standard deviation of the classifier's initial weights"""

    def __post_init__(self) -> None:
        names = [name for name, _ in self.stages] + [head.name for head in self.aux]
        require(len(self.stages) > 0 and len(set(names)) == len(names), f"stages need distinct names, got {names}")
        for name, _ in self.stages:
            check_name(name)
            require(name not in RESERVED_NAMES, f"a stage cannot be called {name!r}")
        check_fraction("dropout", self.dropout)
        places = {name for name, _ in endpoints(self)}
        for head in self.aux:
            require(head.at in places, f"auxiliary classifier {head.name!r} at unknown endpoint {head.at!r}")
        require(self.num_classes > 0, f"a classifier needs at least one class, got {self.num_classes}")
        require(self.input_size > 0 and self.input_channels > 0, "the input needs a positive size and depth")

    def to_json(self) -> dict[str, Any]:
        """The whole spec as plain JSON values."""
        from reinception.spec.document import encode  # it reads and writes every value, so it stands above them

        return encode(self)

    @staticmethod
    def from_json(document: Mapping[str, Any]) -> Arch:
        """The architecture of `to_json`. Raises SpecError that names the first field that does not fit."""
        from reinception.spec.document import decode

        return decode(document)


def endpoints(arch: Arch) -> tuple[tuple[str, Layer], ...]:
    """The named places one may look at: each stage and each layer directly inside a stage, in order of execution."""
    found: list[tuple[str, Layer]] = []
    for name, stage in arch.stages:
        if isinstance(stage, Chain):
            found += [(f"{name}.{index}", layer) for index, layer in enumerate(stage.layers)]
        found.append((name, stage))
    return tuple(found)


def as_chain(layer: Layer) -> Chain:
    """`layer`, checked to be a chain."""
    assert isinstance(layer, Chain)
    return layer
