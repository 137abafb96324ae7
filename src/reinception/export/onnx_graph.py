"""A rewritten network as an ONNX model: one node for each layer, in the order of the spec."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from torch import Tensor

from reinception import __version__
from reinception.export.resize_graph import preprocessing_nodes
from reinception.preprocess import Preprocessing
from reinception.rewrite.lowering import Pads, lower
from reinception.rewrite.program import Program
from reinception.spec import Conv, LocalResponseNorm, Pool, trace

OPSET, IR = 18, 9
INPUT = "images"
METADATA_KEY = "reinception"
_TYPES = {"fp32": (TensorProto.FLOAT, np.float32), "fp16": (TensorProto.FLOAT16, np.float16)}


def onnx_model(
    program: Program,
    preprocessing: Preprocessing,
    *,
    metadata: Mapping[str, Any],
    precision: str,
    features: bool,
    activation_map: bool = False,
) -> ModelProto:
    """The model: `images` (n, h, w, 3) uint8 in; `probabilities` (n, classes) or `features` (n, num_features) out.

    Args:
        program: the network without batch norm and auxiliary classifiers.
        preprocessing: what becomes of an image's pixels.
        metadata: written last, as JSON, into the file's own metadata.
        precision: fp32, or fp16 for the network between the preprocessing and the softmax.
        features: the pooled features in place of the probabilities.
        activation_map: a second output, `map` (n, rows, columns): the class-activation map of the most probable class.
    """
    graph = _Graph(program, precision)
    graph.nodes += preprocessing_nodes(preprocessing, program)
    name = graph.cast("values", graph.type) if precision != "fp32" else "values"
    output, width, grid = graph.network(name, features=features)
    value = helper.make_tensor_value_info(INPUT, TensorProto.UINT8, ["batch", "height", "width", 3])
    results = [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", width])]
    if activation_map:
        sides = graph.activation_map(grid, output)
        results.append(helper.make_tensor_value_info("map", TensorProto.FLOAT, ["batch", *sides]))
    model = helper.make_model(
        helper.make_graph(graph.nodes, program.arch.name, [value], results, graph.weights),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR,
        producer_name="reinception",
        producer_version=__version__,
    )
    onnx.checker.check_model(model)
    set_metadata(model, metadata)
    return model


def set_metadata(model: ModelProto, metadata: Mapping[str, Any]) -> None:
    """Writes `metadata` into the model, in place of what was there."""
    del model.metadata_props[:]
    helper.set_model_props(model, {METADATA_KEY: json.dumps(metadata, sort_keys=True)})


class _Graph:
    """The nodes and weights so far: ONNX's `Operators`, whose values are names."""

    def __init__(self, program: Program, precision: str) -> None:
        self.program = program
        self.type, self.numpy_type = _TYPES[precision]
        self.nodes: list[NodeProto] = []
        self.weights: list[TensorProto] = []

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def weight(self, name: str, tensor: Tensor) -> str:
        values = np.ascontiguousarray(tensor.detach().cpu().numpy()).astype(self.numpy_type)
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def numbers(self, name: str, values: list[int]) -> str:
        self.weights.append(numpy_helper.from_array(np.array(values, dtype=np.int64), name))
        return name

    def cast(self, name: str, kind: int) -> str:
        return self.node("Cast", [name], f"{name}_cast", to=kind)

    def network(self, name: str, *, features: bool) -> tuple[str, int, str]:
        """The name and width of the output, (n, width) float32, and the name of the last grid."""
        arch, tensors = self.program.arch, self.program.tensors
        name = grid = lower(self.program, name, self)
        name = self.node("GlobalAveragePool", [name], "pooled")
        name = self.node("Flatten", [name], "pooled_features", axis=1)
        if features:
            width = int(tensors["classifier.weight"].shape[1])
            return self.node("Cast", [name], "features", to=TensorProto.FLOAT), width, grid
        weights = [self.weight(f"classifier.{kind}", tensors[f"classifier.{kind}"]) for kind in ("weight", "bias")]
        name = self.node("Gemm", [name, *weights], "logits", transB=1)
        name = self.cast(name, TensorProto.FLOAT) if self.type != TensorProto.FLOAT else name
        return self.node("Softmax", [name], "probabilities", axis=1), arch.num_classes, grid

    def activation_map(self, grid: str, probabilities: str) -> tuple[int, int]:
        """What each position of the last grid adds to the most probable class's logit, and the sides of that grid."""
        arch = self.program.arch
        last = {step.path: step.output for step in trace(arch, with_aux=False)}[arch.stages[-1][0]]
        sides = (last.height, last.width)
        best = self.node("ArgMax", [probabilities], "best", axis=1, keepdims=1)
        # (n, 1, channels) times (n, channels, positions). Weights of its own: quantization replaces the classifier's.
        weight = self.program.tensors["classifier.weight"] / (last.height * last.width)
        chosen = self.node("Gather", [self.weight("map.weight", weight), best], "map_weights", axis=0)
        flat = self.node("Reshape", [grid, self.numbers("map.flat", [0, 0, -1])], "map_grid")
        product = self.node("MatMul", [chosen, flat], "map_values")
        shaped = self.node("Reshape", [product, self.numbers("map.sides", [-1, *sides])], "map_shaped")
        self.node("Cast", [shaped], "map", to=TensorProto.FLOAT)
        return sides

    def convolution(self, path: str, value: str, layer: Conv, weight: Tensor, bias: Tensor | None) -> str:
        owner = path.removesuffix(".conv")
        weights = [
            self.weight(f"{owner}.{kind}", one) for kind, one in (("weight", weight), ("bias", bias)) if one is not None
        ]
        window = {"kernel_shape": layer.kernel, "strides": layer.stride, "pads": [*layer.padding, *layer.padding]}
        return self.node("Conv", [value, *weights], path, group=layer.groups, **window)

    def relu(self, path: str, value: str) -> str:
        return self.node("Relu", [value], path)

    def channels(self, path: str, value: str, start: int, stop: int) -> str:
        owner = path.removesuffix(".slice")
        ends = [self.numbers(f"{owner}.{kind}", [one]) for kind, one in (("start", start), ("stop", stop), ("axis", 1))]
        return self.node("Slice", [value, *ends], path)

    def local_response_norm(self, path: str, value: str, layer: LocalResponseNorm) -> str:
        return self.node("LRN", [value], path, size=layer.size, alpha=layer.alpha, beta=layer.beta, bias=layer.k)

    def zero_border(self, path: str, value: str, padding: tuple[int, int]) -> str:
        border = [0, 0, *padding]
        return self.node("Pad", [value, self.numbers(f"{path}.border", [*border, *border])], f"{path}.padded")

    def max_pool(self, path: str, value: str, layer: Pool, pads: Pads) -> str:
        return self.node("MaxPool", [value], path, pads=pads, kernel_shape=layer.kernel, strides=layer.stride)

    def average_pool(self, path: str, value: str, layer: Pool, pads: Pads) -> str:
        window = {"kernel_shape": layer.kernel, "strides": layer.stride}
        return self.node("AveragePool", [value], path, pads=pads, count_include_pad=0, **window)

    def concat(self, path: str, values: Sequence[str]) -> str:
        return self.node("Concat", list(values), path, axis=1)
