"""The vocabulary of a network: frozen values for layers, heads and whole architectures, with shape arithmetic and JSON.

Nothing here knows torch. A network is a tree of these values; its shapes, cost, drawing, module and exported files
are functions of that tree, so a channel count is written once.

Paths name layers and, later, parameters: a chain counts its layers from zero, a concatenation names its branches,
`grid17.2.double.3` is layer 3 of the branch `double` of module 2 of the stage `grid17`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, NamedTuple, TypeVar, get_args

from reinception.errors import UsageError

Size = tuple[int, int]
PoolKind = Literal["max", "average"]
Activation = Literal["relu", "linear"]
# The names a network already uses for itself; a stage called `classifier` would hide the classifier.
RESERVED_NAMES = frozenset({"aux", "classifier", "dropout", "features", "logits", "arch", "training"})
MAX_LAYER_DEPTH = 16


class SpecError(UsageError):
    """A network that cannot exist: a bad field, a bad JSON document, or an input too small for a layer."""


class Shape(NamedTuple):
    """What flows between layers: `height` x `width` positions of `channels` values."""

    height: int
    width: int
    channels: int


@dataclass(frozen=True, kw_only=True)
class BatchNorm:
    """Batch normalisation. `scale` says whether it learns gamma (TF-slim and Keras Inception-v3 have none)."""

    epsilon: float = 1e-3
    scale: bool = True

    def __post_init__(self) -> None:
        _require(self.epsilon > 0, f"batch norm epsilon must be positive, got {self.epsilon}")


@dataclass(frozen=True, kw_only=True)
class Conv:
    """A convolution, its batch normalisation and its activation: one box of the paper's figures.

    `groups` splits input and output channels into that many independent convolutions. `init_stddev` is the standard
    deviation of the normal distribution, cut at two of them, its weights start from.
    """

    channels: int
    kernel: Size = (1, 1)
    stride: Size = (1, 1)
    padding: Size = (0, 0)
    groups: int = 1
    bias: bool = False
    batch_norm: BatchNorm | None = field(default_factory=BatchNorm)
    activation: Activation = "relu"
    init_stddev: float = 0.1

    def __post_init__(self) -> None:
        _require(self.channels > 0, f"a convolution needs at least one channel, got {self.channels}")
        _check_window(self.kernel, self.stride, self.padding)
        fits = self.groups > 0 and self.channels % self.groups == 0
        _require(fits, f"{self.groups} groups do not divide {self.channels} channels")
        _require(self.activation in get_args(Activation), f"unknown activation {self.activation!r}")
        _require(self.init_stddev > 0, f"init_stddev must be positive, got {self.init_stddev}")


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Maximum or average pooling.

    `count_include_pad` says whether an average divides by the whole window where it hangs over the border (torch's
    default) or only by the pixels that exist (TensorFlow's SAME, and so the released weights). `ceil_mode` lets the
    last window start inside and end outside the grid, as Caffe and GoogLeNet do.
    """

    kind: PoolKind
    kernel: Size = (3, 3)
    stride: Size = (1, 1)
    padding: Size = (0, 0)
    count_include_pad: bool = False
    ceil_mode: bool = False

    def __post_init__(self) -> None:
        _require(self.kind in get_args(PoolKind), f"unknown pooling {self.kind!r}")
        _check_window(self.kernel, self.stride, self.padding)


@dataclass(frozen=True, kw_only=True)
class AdaptivePool:
    """Average pooling to a fixed `output` grid, whatever comes in: it hides a wrong grid, so only two heads use it."""

    output: Size

    def __post_init__(self) -> None:
        _require(min(self.output) > 0, f"adaptive pooling needs a positive output, got {self.output}")


@dataclass(frozen=True, kw_only=True)
class LocalResponseNorm:
    """Normalisation across `size` neighbouring channels, GoogLeNet's (and AlexNet's) alternative to batch norm."""

    size: int = 5
    alpha: float = 1e-4
    beta: float = 0.75
    k: float = 1.0

    def __post_init__(self) -> None:
        _require(self.size > 0, f"local response normalisation needs a positive size, got {self.size}")


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
        _require(len(names) > 0 and len(set(names)) == len(names), f"branches need distinct names, got {names}")
        for name in names:
            _check_name(name)


Layer = Conv | Pool | AdaptivePool | LocalResponseNorm | Chain | Concat
L = TypeVar("L", Conv, Pool)


@dataclass(frozen=True, kw_only=True)
class Aux:
    """An auxiliary classifier on the output of stage or module `at`: `body`, global average, dropout, linear.

    A fully connected layer on a 5x5 grid is the same thing as a 5x5 convolution without padding, and is written so.
    """

    name: str = "aux"
    at: str
    body: Chain
    dropout: float = 0.0
    classifier_init_stddev: float = 0.001

    def __post_init__(self) -> None:
        _check_name(self.name)
        _check_probability("auxiliary dropout", self.dropout)


@dataclass(frozen=True, kw_only=True)
class Arch:
    """A whole network: stages, global average, dropout, linear classifier, and its auxiliary classifiers."""

    name: str
    stages: tuple[tuple[str, Chain | Concat], ...]
    aux: tuple[Aux, ...] = ()
    num_classes: int = 1000
    dropout: float = 0.2
    input_size: int = 299
    input_channels: int = 3
    classifier_init_stddev: float = 0.01

    def __post_init__(self) -> None:
        names = [name for name, _ in self.stages] + [head.name for head in self.aux]
        _require(len(self.stages) > 0 and len(set(names)) == len(names), f"stages need distinct names, got {names}")
        for name, _ in self.stages:
            _check_name(name)
            _require(name not in RESERVED_NAMES, f"a stage cannot be called {name!r}")
        _check_probability("dropout", self.dropout)
        places = {name for name, _ in endpoints(self)}
        for head in self.aux:
            _require(head.at in places, f"auxiliary classifier {head.name!r} at unknown endpoint {head.at!r}")
        _require(self.num_classes > 0, f"a classifier needs at least one class, got {self.num_classes}")
        _require(self.input_size > 0 and self.input_channels > 0, "the input needs a positive size and depth")

    def to_json(self) -> dict[str, Any]:
        """Every field, written out, as plain JSON values."""
        document = _encode(self)
        assert isinstance(document, dict)
        return document

    @staticmethod
    def from_json(document: Mapping[str, Any]) -> Arch:
        """The architecture of `to_json`. SpecError names the first field that does not fit."""
        value = _decode(document, Arch, "arch")
        assert isinstance(value, Arch)
        return value


# -- shapes --------------------------------------------------------------------------------------------------------


class Step(NamedTuple):
    """One layer in its place: where it is, what it is, what goes in and what comes out."""

    path: str
    layer: Layer
    input: Shape
    output: Shape


def trace(arch: Arch, input_size: int | Size | None = None, *, with_aux: bool = True) -> Iterator[Step]:
    """Every layer of `arch` in order of execution, containers after what they contain.

    `input_size` is in pixels, one number for a square or (height, width). SpecError where a window does not fit.
    """
    size = arch.input_size if input_size is None else input_size
    height, width = (size, size) if isinstance(size, int) else size
    shape = Shape(height, width, arch.input_channels)
    heads = {head.at: head for head in arch.aux} if with_aux else {}
    for name, stage in arch.stages:
        for step in _walk(stage, name, shape):
            yield step
            if step.path in heads:
                head = heads[step.path]
                yield from _walk(head.body, f"{head.name}.body", step.output)
            shape = step.output


def endpoints(arch: Arch) -> tuple[tuple[str, Layer], ...]:
    """The named places one may look at: each stage and each layer directly inside a stage, in order of execution."""
    found: list[tuple[str, Layer]] = []
    for name, stage in arch.stages:
        if isinstance(stage, Chain):
            found += [(f"{name}.{index}", layer) for index, layer in enumerate(stage.layers)]
        found.append((name, stage))
    return tuple(found)


def feature_shape(arch: Arch, input_size: int | Size | None = None) -> Shape:
    """The shape before the global average: 8x8x2048 for Inception-v3 at 299."""
    *_, last = trace(arch, input_size, with_aux=False)
    return last.output


@lru_cache(maxsize=256)
def minimum_input_size(arch: Arch, *, with_aux: bool) -> int:
    """The smallest square input, in pixels, that every layer accepts: 75 for the trunk of Inception-v3."""
    low, high = 0, 4096  # growing the input never shrinks a grid, so the first size that fits can be bisected
    while high - low > 1:
        middle = (low + high) // 2
        try:
            for _ in trace(arch, middle, with_aux=with_aux):
                pass
            high = middle
        except SpecError:
            low = middle
    return high


def _walk(layer: Layer, path: str, shape: Shape) -> Generator[Step, None, Shape]:
    if isinstance(layer, Chain):
        output = shape
        for index, child in enumerate(layer.layers):
            output = yield from _walk(child, f"{path}.{index}", output)
    elif isinstance(layer, Concat):
        outputs = []
        for name, branch in layer.branches:
            outputs.append((yield from _walk(branch, f"{path}.{name}", shape)))
        grids = {output[:2] for output in outputs}
        if len(grids) > 1:
            raise SpecError(f"{path}: the branches end on different grids {sorted(grids)} and cannot be concatenated")
        output = Shape(*outputs[0][:2], sum(output.channels for output in outputs))
    else:
        output = _leaf_output(layer, path, shape)
    yield Step(path, layer, shape, output)
    return output


def _leaf_output(layer: Conv | Pool | AdaptivePool | LocalResponseNorm, path: str, shape: Shape) -> Shape:
    if isinstance(layer, LocalResponseNorm):
        return shape
    if isinstance(layer, AdaptivePool):
        return Shape(*layer.output, shape.channels)
    grid = []
    for axis in (0, 1):
        kernel, stride, padding, extent = layer.kernel[axis], layer.stride[axis], layer.padding[axis], shape[axis]
        room = extent + 2 * padding - kernel
        if room < 0:
            raise SpecError(
                f"{path}: a {layer.kernel[0]}x{layer.kernel[1]} window does not fit a {shape.height}x{shape.width} grid"
            )
        cells = room // stride + 1
        if isinstance(layer, Pool) and layer.ceil_mode and room % stride and cells * stride < extent + padding:
            cells += 1  # torch's rule: the extra window must start inside the grid or its left padding
        grid.append(cells)
    return Shape(grid[0], grid[1], layer.channels if isinstance(layer, Conv) else shape.channels)


# -- changes: a variant is a function of a network -------------------------------------------------------------------


def rebuild(layer: Layer, change: Callable[[Layer], Layer]) -> Layer:
    """`layer` with `change` applied to every node of its tree, children first."""
    if isinstance(layer, Chain):
        layer = Chain(tuple(rebuild(child, change) for child in layer.layers))
    elif isinstance(layer, Concat):
        layer = Concat(tuple((name, _chain(rebuild(branch, change))) for name, branch in layer.branches))
    return change(layer)


def change_layers(arch: Arch, change: Callable[[Layer], Layer]) -> Arch:
    """`arch` with `change` applied to every layer of its stages and auxiliary classifiers."""
    stages = []
    for name, stage in arch.stages:
        changed = rebuild(stage, change)
        assert isinstance(changed, Chain | Concat)
        stages.append((name, changed))
    heads = tuple(dataclasses.replace(head, body=_chain(rebuild(head.body, change))) for head in arch.aux)
    return dataclasses.replace(arch, stages=tuple(stages), aux=heads)


def change_stage(arch: Arch, **stages: Chain | Concat) -> Arch:
    """`arch` with the named stages replaced."""
    unknown = set(stages) - {name for name, _ in arch.stages}
    _require(not unknown, f"{arch.name} has no stage {sorted(unknown)}")
    return dataclasses.replace(arch, stages=tuple((name, stages.get(name, stage)) for name, stage in arch.stages))


def scale_width(arch: Arch, multiplier: float, *, min_channels: int = 16) -> Arch:
    """Every convolution with `max(int(channels * multiplier), min_channels)` channels (TF-slim's depth_multiplier)."""
    _require(multiplier > 0, f"the width multiplier must be greater than 0, got {multiplier}")
    if multiplier == 1:
        return arch

    def scale(layer: Layer) -> Layer:
        if isinstance(layer, Conv) and layer.groups == 1:  # a depthwise one follows its input
            return dataclasses.replace(layer, channels=max(int(layer.channels * multiplier), min_channels))
        return layer

    return change_layers(arch, scale)


def count_border(arch: Arch, count_include_pad: bool) -> Arch:
    """`arch` with every padded average pool counting the border, or not."""

    def change(layer: Layer) -> Layer:
        if isinstance(layer, Pool) and layer.kind == "average" and layer.padding != (0, 0):
            return dataclasses.replace(layer, count_include_pad=count_include_pad)
        return layer

    return change_layers(arch, change)


def _chain(layer: Layer) -> Chain:
    assert isinstance(layer, Chain)
    return layer


# -- JSON ------------------------------------------------------------------------------------------------------------

_KINDS: dict[str, type[Any]] = {
    "conv": Conv,
    "pool": Pool,
    "adaptive_pool": AdaptivePool,
    "local_response_norm": LocalResponseNorm,
    "batch_norm": BatchNorm,
    "aux": Aux,
    "arch": Arch,
}
_KIND_OF = {kind: name for name, kind in _KINDS.items()}


def _encode(value: Any) -> Any:
    if isinstance(value, Chain):
        return [_encode(layer) for layer in value.layers]
    if isinstance(value, Concat):
        return {"type": "concat", "branches": [{"name": n, "layers": _encode(b)} for n, b in value.branches]}
    if isinstance(value, Arch):
        own: dict[str, Any] = {"type": "arch"}
        own |= {f.name: _encode(getattr(value, f.name)) for f in dataclasses.fields(value) if f.name != "stages"}
        own["stages"] = [{"name": name, "layers": _encode(stage)} for name, stage in value.stages]
        return own
    if type(value) in _KIND_OF:
        fields = {f.name: _encode(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"type": _KIND_OF[type(value)], **fields}
    if isinstance(value, tuple):
        return [_encode(item) for item in value]
    return value


def _decode(document: Any, expected: type[Any] | None, where: str, depth: int = 0) -> Any:
    _require(depth <= MAX_LAYER_DEPTH, f"{where}: layers are nested more than {MAX_LAYER_DEPTH} deep")
    if isinstance(document, list):
        _require(expected in (None, Chain), f"{where}: expected {expected and expected.__name__}, found a list")
        return Chain(tuple(_decode(item, None, f"{where}.{i}", depth + 1) for i, item in enumerate(document)))
    _require(isinstance(document, Mapping), f"{where}: expected a layer, found {type(document).__name__}")
    kind = document.get("type")
    if kind == "concat":
        return Concat(_decode_named(document.get("branches"), f"{where}.branches", Chain, depth))
    _require(kind in _KINDS, f"{where}: unknown type {kind!r}")
    cls = _KINDS[kind]
    _require(expected in (None, cls), f"{where}: expected {expected and expected.__name__}, found {kind!r}")
    known = {f.name: f for f in dataclasses.fields(cls)}
    unknown = set(document) - set(known) - {"type"}
    _require(not unknown, f"{where}: unknown field {sorted(unknown)}; written by a newer version?")
    values = {}
    for name, value in document.items():
        if name != "type":
            values[name] = _decode_field(value, str(known[name].type), f"{where}.{name}", depth)
    try:
        return cls(**values)
    except TypeError as error:
        raise SpecError(f"{where}: {error}") from None


def _decode_field(value: Any, annotation: str, where: str, depth: int) -> Any:
    """One field, by its annotation: the file may come from anyone, so nothing is taken on trust."""
    if annotation == "Size":
        fits = isinstance(value, list) and len(value) == 2 and all(type(item) is int for item in value)
        _require(fits, f"{where}: expected [height, width], found {value!r}")
        return tuple(value)
    if annotation == "Chain":
        return _decode(value, Chain, where, depth + 1)
    if annotation == "BatchNorm | None":
        return None if value is None else _decode(value, BatchNorm, where, depth + 1)
    if annotation == "tuple[Aux, ...]":
        _require(isinstance(value, list), f"{where}: expected a list of heads")
        return tuple(_decode(item, Aux, f"{where}.{i}", depth + 1) for i, item in enumerate(value))
    if annotation.startswith("tuple[tuple[str, Chain | Concat]"):
        return _decode_named(value, where, None, depth)
    wanted: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "bool": (bool,)}
    types = wanted.get(annotation, (str,))
    _require(type(value) in types, f"{where}: expected {annotation}, found {value!r}")
    return float(value) if annotation == "float" else value


def _decode_named(items: Any, where: str, expected: type[Any] | None, depth: int) -> tuple[tuple[str, Any], ...]:
    _require(isinstance(items, list), f"{where}: expected a list of named layers")
    pairs = []
    for item in items:
        fits = isinstance(item, Mapping) and set(item) == {"name", "layers"} and isinstance(item["name"], str)
        _require(fits, f"{where}: expected objects with a name and layers")
        pairs.append((item["name"], _decode(item["layers"], expected, f"{where}.{item['name']}", depth + 1)))
    return tuple(pairs)


# -- checks ------------------------------------------------------------------------------------------------------------


def _require(condition: object, message: str) -> None:
    if not condition:
        raise SpecError(message)


def _check_name(name: str) -> None:
    _require(name.isidentifier(), f"{name!r} cannot be a name: letters, digits and underscores only")


def _check_probability(what: str, value: float) -> None:
    _require(0 <= value < 1, f"{what} must be at least 0 and below 1, got {value}")


def _check_window(kernel: Size, stride: Size, padding: Size) -> None:
    _require(min(kernel) > 0 and min(stride) > 0, f"kernel {kernel} and stride {stride} must be positive")
    fits = min(padding) >= 0 and all(2 * p <= k for p, k in zip(padding, kernel, strict=True))
    _require(fits, f"padding {padding} must lie between 0 and half the kernel {kernel}")
