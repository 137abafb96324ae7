"""A rewritten network as an OpenVINO model that reads bytes and gives pooled features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import openvino
from openvino import opset13
from torch import Tensor

from reinception.rewrite.lowering import Pads, lower
from reinception.rewrite.program import Colours, Program
from reinception.spec import Conv, LocalResponseNorm, Pool

Node = Any
"""OpenVINO's `Output` or `Node`; it publishes no types."""

INPUT = "images"


def openvino_model(program: Program, side: int, *, takes_bytes: bool) -> openvino.Model:
    """The model: `images` (n, s, s, 3) uint8, n free, in; pooled features (n, num_features) float32 out.

    Args:
        program: the rewritten network, of values from 0 to 255.
        side: pixels per side.
        takes_bytes: whether the input is uint8; else it is float32 (n, s, s, 3), as the network reads it.
    """
    images = opset13.parameter([-1, side, side, 3], np.uint8 if takes_bytes else np.float32, name=INPUT)
    value = opset13.transpose(images, _numbers([0, 3, 1, 2]))
    if takes_bytes:
        value = opset13.convert(value, "f32")
        if program.mean is not None and any(program.mean):
            value = opset13.subtract(value, _colours(program.mean))
        if program.std is not None and program.std != (1.0, 1.0, 1.0):
            value = opset13.divide(value, _colours(program.std))
    features: Node = opset13.reduce_mean(lower(program, value, _Operators()), _numbers([2, 3]))
    make: Any = openvino.Model  # its own types lack what its constructor takes
    return make([features], [images], program.arch.name)


class _Operators:
    """OpenVINO's `Operators`, whose values are nodes."""

    def convolution(self, path: str, value: Node, layer: Conv, weight: Tensor, bias: Tensor | None) -> Node:
        pads, stride = list(layer.padding), list(layer.stride)
        values = np.ascontiguousarray(weight.float().numpy())
        if layer.groups > 1:
            values = values.reshape(layer.groups, -1, *values.shape[1:])
        make = opset13.convolution if layer.groups == 1 else opset13.group_convolution
        value = make(value, opset13.constant(values), stride, pads, pads, [1, 1], name=path)
        if bias is None:
            return value
        return opset13.add(value, opset13.constant(bias.float().numpy().reshape(1, -1, 1, 1)))

    def relu(self, path: str, value: Node) -> Node:
        return opset13.relu(value, name=path)

    def channels(self, path: str, value: Node, start: int, stop: int) -> Node:
        return opset13.slice(value, _numbers([start]), _numbers([stop]), _numbers([1]), _numbers([1]), name=path)

    def local_response_norm(self, path: str, value: Node, layer: LocalResponseNorm) -> Node:
        how = {"alpha": layer.alpha, "beta": layer.beta, "bias": layer.k, "size": layer.size}
        return opset13.lrn(value, _numbers([1]), **how, name=path)

    def zero_border(self, path: str, value: Node, padding: tuple[int, int]) -> Node:
        border = _numbers([0, 0, *padding])
        return opset13.pad(value, border, border, "constant", opset13.constant(np.float32(0)))

    def max_pool(self, path: str, value: Node, layer: Pool, pads: Pads) -> Node:
        window = (list(layer.stride), [1, 1], list(pads[:2]), list(pads[2:]), list(layer.kernel))
        return opset13.max_pool(value, *window, name=path).output(0)

    def average_pool(self, path: str, value: Node, layer: Pool, pads: Pads) -> Node:
        window = (list(layer.stride), list(pads[:2]), list(pads[2:]), list(layer.kernel))
        return opset13.avg_pool(value, *window, exclude_pad=True, name=path)

    def concat(self, path: str, values: Sequence[Node]) -> Node:
        return opset13.concat(list(values), 1, name=path)


def _colours(values: Colours) -> Node:
    return opset13.constant(np.array(values, dtype=np.float32).reshape(1, 3, 1, 1))


def _numbers(values: list[int]) -> Node:
    return opset13.constant(np.array(values, dtype=np.int64))
