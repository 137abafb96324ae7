"""What a Keras model's configuration says: whether its trunk is Inception-v3, its pixels, its head as one layer.

The configuration is JSON and is only read: no layer of it is ever built.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from reinception.errors import ReinceptionError
from reinception.spec import Arch, Chain, Concat, Conv, Layer, Pool, feature_shape

# Layers that do nothing once a model is trained.
_IDENTITY = re.compile(r"InputLayer|\w*Dropout\w*|GaussianNoise|ActivityRegularization|Identity")
_AUGMENTATION = re.compile(r"Random(Flip|Rotation|Zoom|Translation|Contrast|Brightness|Hue|Saturation|Shear)")
_MODELS = ("Functional", "Model", "Sequential")
_LEAVES = {"Dense": ("kernel", "bias"), "BatchNormalization": ("gamma", "beta", "moving_mean", "moving_variance")}
# What Keras 2 and 3 call the arithmetic before a trunk.
_ARITHMETIC = {"truediv": "TrueDivide", "multiply": "Multiply", "subtract": "Subtract", "add": "Add"}
# Names of layers of Inception-v3 itself, of models around it, and of heads that weights alone prove.
_PLAIN = re.compile(
    r"(conv2d|batch_normalization|activation|(max|average)_pooling2d|concatenate|mixed\d+|input(_layer)?|functional|model|"
    r"sequential|inception_v3|global_average_pooling2d|avg_pool|dense|predictions|dropout|random_\w+)(_\d+)?"
)
_AVERAGE = re.compile("global_average_pooling2d|avg_pool")


class Unproved(ReinceptionError):
    """Why the head of a model cannot be written as one linear layer on globally averaged features."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Node:
    """A layer in its place: its class and options, where Keras 3 stores it, a number it computes with, its inputs."""

    kind: str
    config: Mapping[str, Any]
    stored: str
    number: float | None
    inputs: tuple[Node, ...]

    @property
    def name(self) -> str:
        return f"{self.config.get('name')} ({self.kind})"


@dataclass(frozen=True, kw_only=True, eq=False)
class Head:
    """A classifier as one linear layer: `kernel` (num_features, k), `bias` (k,); None where a model has none, and
    `why_not` says why one could not be taken. `stored` are the tensors it was made from; `pixels` are fields of
    `Preprocessing` that the model itself determines."""

    kernel: Tensor | None
    bias: Tensor | None
    why_not: str
    layers: tuple[str, ...]
    stored: tuple[str, ...]
    pixels: Mapping[str, Any]


def read_head(document: Mapping[str, Any], tensors: Mapping[str, Tensor], arch: Arch) -> Head:
    """The head and pixels of the model that `document` configures. ReinceptionError where its trunk is not `arch`."""
    try:
        nodes: list[Node] = []
        outputs = _outputs(document, None, "", nodes)
        end, stem = _trunk(arch, nodes)
        pixels = _pixels(stem)
        after = _descendants(end, nodes)
        used = {node: _tensors_of(node, tensors) for node in after if node.kind in _LEAVES}
        kernel, bias, why_not = None, None, ""
        try:
            shape = feature_shape(arch, pixels.get("input_size"))
            affine = _Affine(shape.channels, shape[:2])
            for node in _chain(outputs, end):
                affine.apply(node, {leaf: tensors[name] for leaf, name in used.get(node, {}).items()})
            kernel, bias = affine.classifier(_loss(document))
        except Unproved as error:
            why_not = str(error)
        return Head(
            kernel=kernel,
            bias=bias,
            why_not=why_not,
            layers=tuple(node.name for node in after),
            stored=tuple(name for leaves in used.values() for name in leaves.values()),
            pixels=pixels,
        )
    except ReinceptionError:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RuntimeError):  # anyone may write one
        raise ReinceptionError("its configuration is none that is understood here; save the weights alone") from None


def doubt(layers: Sequence[str]) -> str:
    """Why a head cannot be known from weights without a configuration, whose file lists `layers`; "" where it can."""
    strange = [name for name in layers if not _PLAIN.fullmatch(name)]
    if strange:
        return f"without a configuration nobody can say what its layer {strange[0]} does; save the whole model"
    kinds = Counter(re.sub(r"_\d+$", "", name) for name in layers)
    if kinds["batch_normalization"] > kinds["conv2d"]:
        return "without a configuration nobody can say where its last batch normalisation stands; save the whole model"
    if any(name.startswith("activation") for name in layers) and not any(map(_AVERAGE.match, layers)):
        return "its file lists layers without weights, and no global average pooling among them"
    return ""


# -- the graph ---------------------------------------------------------------------------------------------------------


def _outputs(model: Mapping[str, Any], source: Node | None, path: str, nodes: list[Node]) -> tuple[Node, ...]:
    """The outputs of a model on `source`, nested models opened; every layer is appended to `nodes`."""
    config = model["config"]
    layers = config["layers"] if isinstance(config, Mapping) else config
    by_name: dict[str, Node] = {}
    numbers: Counter[str] = Counter()
    last: tuple[Node, ...] = () if source is None else (source,)
    for layer in layers:
        kind, options = layer["class_name"], layer["config"]
        snake = re.sub("([a-z])([A-Z])", r"\1_\2", re.sub("(.)([A-Z][a-z]+)", r"\1_\2", kind)).lower()
        stored = f"{path}layers/{snake}" + (f"_{numbers[snake]}" if numbers[snake] else "")
        numbers[snake] += 1
        calls = layer.get("inbound_nodes") or []
        if model["class_name"] != "Sequential" and kind != "InputLayer":
            if len(calls) != 1:
                raise ValueError
            last = tuple(by_name[name] for name in _sources(calls[0]))
        if kind in _MODELS:
            (given,) = last or (Node(kind="InputLayer", config={}, stored="", number=None, inputs=()),)
            last = _outputs(layer, given, f"{stored}/", nodes)
            if len(last) != 1:
                raise ValueError
        elif kind != "InputLayer" or source is None:
            inputs = () if kind == "InputLayer" else last
            last = (Node(kind=kind, config=options, stored=stored, number=_number(calls), inputs=inputs),)
            nodes += last
        else:
            last = (source,)
        by_name[options.get("name", layer.get("name"))] = last[0]
    if model["class_name"] == "Sequential":
        return last
    return tuple(by_name[name] for name in _sources(config["output_layers"]))


def _sources(call: Any) -> Iterator[str]:
    """The names of the layers that a call, or a list of outputs, mentions, in order; Keras 2 and 3 write them apart."""
    if isinstance(call, Mapping):
        if "keras_history" in call:
            yield call["keras_history"][0]
        else:
            for item in call.values():
                yield from _sources(item)
    elif isinstance(call, list):
        if len(call) >= 3 and isinstance(call[0], str) and type(call[1]) is int:
            yield call[0]
        else:
            for item in call:
                yield from _sources(item)


def _number(calls: Any) -> float | None:
    """The number that an operation such as a division has beside its tensor, which comes first."""
    call = calls[0] if calls else []
    if isinstance(call, list):  # Keras 2
        others = list(call[-1].values()) if call and isinstance(call[-1], Mapping) else []
    else:
        others = call.get("args", [])[1:]
    numbers = [float(item) for item in others if isinstance(item, int | float)]
    return numbers[0] if len(numbers) == 1 else None


def _descendants(end: Node, nodes: list[Node]) -> list[Node]:
    found = {end}
    for node in nodes:  # inputs come before the layers that read them
        if found & set(node.inputs):
            found.add(node)
    return [node for node in nodes if node in found and node is not end]


def _chain(outputs: tuple[Node, ...], end: Node) -> list[Node]:
    """The layers from the trunk's end to the one output."""
    if len(outputs) != 1:
        raise Unproved(f"the model has {len(outputs)} outputs")
    node = outputs[0]
    found: list[Node] = []
    while node is not end:
        found.append(node)
        if len(node.inputs) != 1:
            raise Unproved(f"{node.name} joins or leaves the trunk")
        node = node.inputs[0]
    return found[::-1]


# -- the trunk ---------------------------------------------------------------------------------------------------------


def _trunk(arch: Arch, nodes: list[Node]) -> tuple[Node, Node]:
    """The last node of a trunk that is exactly `arch`'s, and the node it starts from."""
    whole = Chain(tuple(stage for _, stage in arch.stages))
    why = ""  # of the last concatenation, the trunk's in most models
    for node in reversed(nodes):
        if node.kind == "Concatenate":
            try:
                return node, _before(whole, node)
            except (Unproved, IndexError) as error:
                why = why or str(error)
    raise ReinceptionError(f"its configuration is not that of Inception-v3: {why or 'nothing is concatenated'}")


def _before(layer: Layer, node: Node) -> Node:
    """The node that goes into `layer`, whose output is `node`. Unproved where the two differ."""
    if isinstance(layer, Chain):
        for child in reversed(layer.layers):
            node = _before(child, node)
        return node
    node = _without_identities(node)
    if isinstance(layer, Concat):
        _same(node, "Concatenate", {})
        if len(node.inputs) != len(layer.branches):
            raise Unproved(f"{node.name} joins {len(node.inputs)} branches")
        starts = [_before(branch, one) for (_, branch), one in zip(layer.branches, node.inputs, strict=True)]
        if any(start is not starts[0] for start in starts):
            raise Unproved(f"the branches of {node.name} start at different places")
        return starts[0]
    if isinstance(layer, Pool):
        kind = "MaxPooling2D" if layer.kind == "max" else "AveragePooling2D"
        _same(node, kind, {"pool_size": layer.kernel, "strides": layer.stride, "padding": _padding(layer)})
        return _without_identities(node.inputs[0])
    assert isinstance(layer, Conv) and layer.batch_norm is not None
    if node.kind != "ReLU":
        _same(node, "Activation", {"activation": "relu"})
    norm = _without_identities(node.inputs[0])
    _same(norm, "BatchNormalization", {"epsilon": layer.batch_norm.epsilon, "center": True})
    conv = norm.inputs[0]
    wanted = {"filters": layer.channels, "kernel_size": layer.kernel, "strides": layer.stride, "use_bias": False}
    _same(conv, "Conv2D", wanted | {"activation": "linear", "dilation_rate": (1, 1), "padding": _padding(layer)})
    return _without_identities(conv.inputs[0])


def _padding(layer: Conv | Pool) -> object:
    """Without stride `same` for a window that is padded; for one of a single pixel the two are alike."""
    return None if layer.kernel == (1, 1) else "valid" if layer.padding == (0, 0) else "same"


def _same(node: Node, kind: str, wanted: Mapping[str, object]) -> None:
    if node.kind != kind:
        raise Unproved(f"{node.name} stands where Inception-v3 has a {kind}")
    for option, value in wanted.items():
        found = node.config.get(option, value)
        found = tuple(found) if isinstance(found, list) else found
        if value is not None and found != value:
            raise Unproved(f"{node.name} has {option} {found}, where Inception-v3 has {value}")


def _without_identities(node: Node) -> Node:
    while _IDENTITY.fullmatch(node.kind) and node.inputs:
        node = node.inputs[0]
    return node


def _pixels(node: Node) -> dict[str, Any]:
    """What the layers before the trunk say of its input: a side in pixels, and values from 0 to 255 to its numbers."""
    scale, offset = 1.0, 0.0  # the trunk's input is scale * x + offset, of what `node` puts out
    found: dict[str, Any] = {}
    while node.inputs:
        first, second = _step(node)
        if node.kind == "Resizing":
            found.setdefault("input_size", _side((None, node.config["height"], node.config["width"])))
        scale, offset = scale * first, offset + scale * second
        node = node.inputs[0]
    shape = node.config.get("batch_shape") or node.config.get("batch_input_shape")
    if shape and None not in shape[1:3]:
        found.setdefault("input_size", _side(shape))
    if (scale, offset) != (1.0, 0.0):
        std = 1 / (255 * scale)
        if not 0.05 < std < 2:
            raise ReinceptionError("it rescales values that are not from 0 to 255: what pixels it expects is unknown")
        found |= {"mean": (-offset * std,) * 3, "std": (std,) * 3}
    return found


def _step(node: Node) -> tuple[float, float]:
    """What one layer before the trunk makes of a value x: the a and b of a x + b."""
    kind, number = node.kind, node.number
    if kind == "TFOpLambda":
        kind = _ARITHMETIC.get(str(node.config.get("function")).rpartition(".")[2].strip("_"), kind)
    scale, offset = node.config.get("scale"), node.config.get("offset")
    if kind == "Rescaling" and isinstance(scale, int | float) and isinstance(offset, int | float):
        return float(scale), float(offset)
    if kind in ("TrueDivide", "Multiply") and number:
        return (1 / number if kind == "TrueDivide" else number), 0.0
    if kind in ("Subtract", "Add") and number is not None:
        return 1.0, (-number if kind == "Subtract" else number)
    if kind != "Resizing" and not _IDENTITY.fullmatch(kind) and not _AUGMENTATION.fullmatch(kind):
        raise ReinceptionError(f"{node.name} before its trunk is not understood: what pixels it expects is unknown")
    return 1.0, 0.0


def _side(shape: Any) -> int:
    if shape[1] != shape[2]:
        raise ReinceptionError(f"it takes images of {shape[1]} x {shape[2]} pixels; only square ones can be described")
    return int(shape[1])


# -- the head ----------------------------------------------------------------------------------------------------------


class _Affine:
    """What layers after the trunk do to its averaged features, as one linear layer in float64, as long as it is one."""

    def __init__(self, channels: int, grid: tuple[int, ...]) -> None:
        self.weight = torch.eye(channels, dtype=torch.float64)
        self.bias = torch.zeros(channels, dtype=torch.float64)
        self.place, self.grid, self.activation, self.is_dense = "grid", grid, "linear", False

    def apply(self, node: Node, values: Mapping[str, Tensor]) -> None:
        """Adds one layer, with the tensors it has. Unproved for one that is not linear, or at another place."""
        kind, config = node.kind, node.config
        if _IDENTITY.fullmatch(kind) or (kind == "Flatten" and self.place == "vector"):
            return
        if self.activation != "linear":
            raise Unproved(f"{node.name} follows {self.activation}")
        if self.place == "grid" and kind == "GlobalAveragePooling2D":
            self.place = "one" if config.get("keepdims") else "vector"
        elif self.place == "grid" and kind == "AveragePooling2D" and tuple(config["pool_size"]) == self.grid:
            self.place = "one"
        elif self.place == "one" and kind == "Flatten":
            self.place = "vector"
        elif kind == "BatchNormalization":
            self._normalise(node, {name: value.double() for name, value in values.items()})
        elif self.place == "vector" and kind == "Dense":
            kernel = values["kernel"].double()
            if kernel.ndim != 2 or len(kernel) != len(self.bias):
                raise Unproved(f"{node.name} does not fit what comes before it")
            self.weight, self.bias = kernel.T @ self.weight, kernel.T @ self.bias
            self.bias = self.bias + values["bias"].double() if "bias" in values else self.bias
            self.activation, self.is_dense = config.get("activation") or "linear", True
        elif self.place == "vector" and kind in ("Activation", "Softmax"):
            self.activation = "softmax" if kind == "Softmax" else config["activation"]
        else:
            raise Unproved(f"{node.name} is neither a global average nor linear")

    def _normalise(self, node: Node, values: Mapping[str, Tensor]) -> None:
        axis = node.config.get("axis", -1)
        if (axis[0] if isinstance(axis, list) else axis) not in (-1, 1 if self.place == "vector" else 3):
            raise Unproved(f"{node.name} does not normalise channels")
        factor = (values["moving_variance"] + node.config.get("epsilon", 1e-3)).rsqrt() * values.get("gamma", 1.0)
        self.weight = factor[:, None] * self.weight
        self.bias = factor * (self.bias - values["moving_mean"]) + values.get("beta", 0.0)

    def classifier(self, loss: str) -> tuple[Tensor | None, Tensor | None]:
        """The kernel (num_features, k) and bias (k,) whose softmax, or for k = 1 sigmoid, is the model's answer."""
        if not self.is_dense and self.activation == "linear":
            return None, None
        num = len(self.bias)
        wanted, of = ("sigmoid", "binary") if num == 1 else ("softmax", "categorical")
        fits = self.activation == wanted or (self.activation == "linear" and (not loss or of in loss))
        if not self.is_dense or not fits:
            trained = f", trained with {loss}," if loss else ""
            raise Unproved(f"{num} outputs with activation {self.activation}{trained} are no probabilities of classes")
        return self.weight.T.float().contiguous(), self.bias.float()


def _loss(document: Mapping[str, Any]) -> str:
    """The loss the model was compiled with, "" where that is not known."""
    loss = (document.get("compile_config") or {}).get("loss")
    named = loss.get("class_name", "") if isinstance(loss, Mapping) else loss
    return re.sub(r"[^a-z]", "", (named if isinstance(named, str) else json.dumps(named or "")).lower())


def _tensors_of(node: Node, tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """The file's name of each tensor of a layer, by the leaf Keras calls it."""
    skipped = {"bias": "use_bias", "gamma": "scale", "beta": "center"}
    leaves = [leaf for leaf in _LEAVES[node.kind] if node.config.get(skipped.get(leaf, ""), True)]
    stored = {leaf: f"{node.stored}/vars/{index}" for index, leaf in enumerate(leaves)}
    if all(name in tensors for name in stored.values()):
        return stored
    name = node.config.get("name")
    for leaf in leaves:
        fits = [
            one
            for one in tensors
            if name in one.split("/")[:-1] and one.split("/")[-1].removesuffix(":0") == leaf and "optimizer" not in one
        ]
        if len(fits) != 1:
            raise ReinceptionError(f"its {node.name} has {len(fits)} tensors called {leaf}; is the file whole?")
        stored[leaf] = fits[0]
    return stored
