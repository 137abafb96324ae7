"""A rewritten network as an ONNX model: one node for each layer, in the order of the spec."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from torch import Tensor

from reinception import __version__
from reinception.errors import ReinceptionError
from reinception.export.resize_graph import preprocessing_nodes
from reinception.preprocess import Preprocessing
from reinception.rewrite.program import Program
from reinception.spec import Chain, ChannelRange, Concat, Conv, Layer, LocalResponseNorm, Pool, Shape, trace

OPSET, IR = 18, 9
INPUT = "images"
METADATA_KEY = "reinception"
_TYPES = {"fp32": (TensorProto.FLOAT, np.float32), "fp16": (TensorProto.FLOAT16, np.float16)}


def onnx_model(
    program: Program, preprocessing: Preprocessing, *, metadata: Mapping[str, Any], precision: str, features: bool
) -> ModelProto:
    """The model: `images` (n, h, w, 3) uint8 in; `probabilities` (n, classes) or `features` (n, num_features) out.

    Args:
        program: the network without batch norm and auxiliary classifiers.
        preprocessing: what becomes of an image's pixels.
        metadata: written last, as JSON, into the file's own metadata.
        precision: fp32, or fp16 for the network between the preprocessing and the softmax.
        features: the pooled features in place of the probabilities.
    """
    graph = _Graph(program, precision)
    graph.nodes += preprocessing_nodes(preprocessing, program)
    name = graph.cast("values", graph.type) if precision != "fp32" else "values"
    output, width = graph.network(name, features=features)
    value = helper.make_tensor_value_info(INPUT, TensorProto.UINT8, ["batch", "height", "width", 3])
    result = helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", width])
    model = helper.make_model(
        helper.make_graph(graph.nodes, program.arch.name, [value], [result], graph.weights),
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
    """The nodes and weights so far."""

    def __init__(self, program: Program, precision: str) -> None:
        self.program = program
        self.type, self.numpy_type = _TYPES[precision]
        self.nodes: list[NodeProto] = []
        self.weights: list[TensorProto] = []
        arch = program.arch
        self.inputs = {step.path: step.input for step in trace(arch, with_aux=False)}
        self.outputs = {step.path: step.output for step in trace(arch, with_aux=False)}

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

    def network(self, name: str, *, features: bool) -> tuple[str, int]:
        """The name and width of the output, (n, width) float32."""
        arch, tensors = self.program.arch, self.program.tensors
        for path, stage in arch.stages:
            name = self.layer(stage, path, name)
        name = self.node("GlobalAveragePool", [name], "pooled")
        name = self.node("Flatten", [name], "pooled_features", axis=1)
        if features:
            width = int(tensors["classifier.weight"].shape[1])
            return self.node("Cast", [name], "features", to=TensorProto.FLOAT), width
        weights = [self.weight(f"classifier.{kind}", tensors[f"classifier.{kind}"]) for kind in ("weight", "bias")]
        name = self.node("Gemm", [name, *weights], "logits", transB=1)
        name = self.cast(name, TensorProto.FLOAT) if self.type != TensorProto.FLOAT else name
        return self.node("Softmax", [name], "probabilities", axis=1), arch.num_classes

    def layer(self, layer: Layer, path: str, name: str) -> str:
        if isinstance(layer, Chain):
            for index, child in enumerate(layer.layers):
                name = self.layer(child, f"{path}.{index}", name)
            return name
        if isinstance(layer, Concat):
            names = [self.layer(branch, f"{path}.{own}", name) for own, branch in layer.branches]
            return self.node("Concat", names, path, axis=1)
        if isinstance(layer, Conv):
            return self.activated(layer, path, self.conv(layer, path, name))
        if isinstance(layer, ChannelRange):
            ends = [self.numbers(f"{path}.{kind}", [value]) for kind, value in _ends(layer)]
            return self.activated(layer, path, self.node("Slice", [name, *ends], f"{path}.slice"))
        if isinstance(layer, LocalResponseNorm):
            how = {"size": layer.size, "alpha": layer.alpha, "beta": layer.beta, "bias": layer.k}
            return self.node("LRN", [name], path, **how)
        if not isinstance(layer, Pool):
            raise ReinceptionError(f"export: {path} pools to a fixed grid, which no exported file does")
        return self.pool(layer, path, name)

    def activated(self, layer: Conv | ChannelRange, path: str, name: str) -> str:
        return self.node("Relu", [name], path) if layer.activation == "relu" else name

    def conv(self, layer: Conv, path: str, name: str) -> str:
        tensors = self.program.tensors
        kinds = ("weight", "bias") if layer.bias else ("weight",)
        weights = [self.weight(f"{path}.{kind}", tensors[f"{path}.conv.{kind}"]) for kind in kinds]
        window = {"kernel_shape": layer.kernel, "strides": layer.stride, "pads": [*layer.padding, *layer.padding]}
        return self.node("Conv", [name, *weights], f"{path}.conv", group=layer.groups, **window)

    def pool(self, layer: Pool, path: str, name: str) -> str:
        """A window that hangs over the end is written as padding: runtimes disagree about `ceil_mode`."""
        before, after = self.inputs[path], self.outputs[path]
        pads = [*layer.padding, *(_end(layer, axis, before, after) for axis in (0, 1))]
        window = {"kernel_shape": layer.kernel, "strides": layer.stride}
        if layer.kind == "max":
            return self.node("MaxPool", [name], path, pads=pads, **window)
        if layer.count_include_pad and any(layer.padding):
            # Explicit zeros in place of `count_include_pad`, whose divisor runtimes have got wrong.
            border = [0, 0, *layer.padding]
            zeros = self.numbers(f"{path}.border", [*border, *border])
            name = self.node("Pad", [name, zeros], f"{path}.padded")
            pads = [0, 0, *(max(0, end - padding) for end, padding in zip(pads[2:], layer.padding, strict=True))]
        return self.node("AveragePool", [name], path, pads=pads, count_include_pad=0, **window)


def _ends(layer: ChannelRange) -> list[tuple[str, int]]:
    return [("start", layer.start), ("stop", layer.stop), ("axis", 1)]


def _end(layer: Pool, axis: int, before: Shape, after: Shape) -> int:
    """How many cells the last window needs behind the grid."""
    needed = (after[axis] - 1) * layer.stride[axis] + layer.kernel[axis] - before[axis] - layer.padding[axis]
    return max(0, needed)
