"""Lowering: the walk over a rewritten network that gives another runtime one operator for each layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

from torch import Tensor

from reinception.errors import ReinceptionError
from reinception.rewrite.program import Program
from reinception.spec import Chain, ChannelRange, Concat, Conv, Layer, LocalResponseNorm, Pool, Shape, trace

Value = TypeVar("Value")
"""What a runtime calls the result of an operator: a node, or the name of one."""

Pads = tuple[int, int, int, int]
"""Cells added above, left, below and right of a grid."""


class Operators(Protocol[Value]):
    """The operators of a runtime on grids (n, channels, h, w). `path` names the result in the runtime's graph."""

    def convolution(self, path: str, value: Value, layer: Conv, weight: Tensor, bias: Tensor | None) -> Value: ...

    def relu(self, path: str, value: Value) -> Value: ...

    def channels(self, path: str, value: Value, start: int, stop: int) -> Value:
        """Those from `start` up to `stop`."""
        ...

    def local_response_norm(self, path: str, value: Value, layer: LocalResponseNorm) -> Value: ...

    def zero_border(self, path: str, value: Value, padding: tuple[int, int]) -> Value: ...

    def max_pool(self, path: str, value: Value, layer: Pool, pads: Pads) -> Value:
        """The kernel and stride of `layer`; `pads` in place of its padding."""
        ...

    def average_pool(self, path: str, value: Value, layer: Pool, pads: Pads) -> Value:
        """The same; what `pads` adds does not count in an average."""
        ...

    def concat(self, path: str, values: Sequence[Value]) -> Value: ...


def lower(program: Program, value: Value, operators: Operators[Value]) -> Value:
    """The grid of the last stage, computed by `operators` of `value`, the input of the first.

    Args:
        program: a network without batch norm; its auxiliary classifiers are left out.
        value: the images (n, 3, h, w), as `Program.input` gives them.
        operators: the runtime.

    Raises:
        ReinceptionError: a layer that pools to a fixed grid, whatever the size of its input.
    """
    walk = _Walk(program, operators)
    for path, stage in program.arch.stages:
        value = walk.layer(stage, path, value)
    return value


class _Walk(Generic[Value]):
    """The shapes on the way through one network."""

    def __init__(self, program: Program, operators: Operators[Value]) -> None:
        self.tensors, self.operators = program.tensors, operators
        steps = {step.path: step for step in trace(program.arch, with_aux=False)}
        self.inputs: dict[str, Shape] = {path: step.input for path, step in steps.items()}
        self.outputs: dict[str, Shape] = {path: step.output for path, step in steps.items()}

    def layer(self, layer: Layer, path: str, value: Value) -> Value:
        operators = self.operators
        if isinstance(layer, Chain):
            for index, child in enumerate(layer.layers):
                value = self.layer(child, f"{path}.{index}", value)
            return value
        if isinstance(layer, Concat):
            return operators.concat(path, [self.layer(one, f"{path}.{own}", value) for own, one in layer.branches])
        if isinstance(layer, Conv | ChannelRange):
            is_active = layer.activation == "relu"
            inner = f"{path}.conv" if isinstance(layer, Conv) else f"{path}.slice"
            if isinstance(layer, Conv):
                bias = self.tensors[f"{path}.conv.bias"] if layer.bias else None
                value = operators.convolution(inner, value, layer, self.tensors[f"{path}.conv.weight"], bias)
            else:
                value = operators.channels(inner, value, layer.start, layer.stop)
            return operators.relu(path, value) if is_active else value
        if isinstance(layer, LocalResponseNorm):
            return operators.local_response_norm(path, value, layer)
        if not isinstance(layer, Pool):
            raise ReinceptionError(f"{path} pools to a fixed grid, which only torch computes here")
        return self.pool(layer, path, value)

    def pool(self, layer: Pool, path: str, value: Value) -> Value:
        """A window that hangs over the end is written as padding: runtimes disagree about `ceil_mode`."""
        before, after = self.inputs[path], self.outputs[path]
        below, right = (_end(layer, axis, before, after) for axis in (0, 1))
        top, left = layer.padding
        if layer.kind == "max":
            return self.operators.max_pool(path, value, layer, (top, left, below, right))
        if layer.count_include_pad and any(layer.padding):
            # Explicit zeros in place of `count_include_pad`, whose divisor runtimes have got wrong.
            value = self.operators.zero_border(path, value, layer.padding)
            top, left, below, right = 0, 0, max(0, below - top), max(0, right - left)
        return self.operators.average_pool(path, value, layer, (top, left, below, right))


def _end(layer: Pool, axis: int, before: Shape, after: Shape) -> int:
    """How many cells the last window needs behind the grid."""
    needed = (after[axis] - 1) * layer.stride[axis] + layer.kernel[axis] - before[axis] - layer.padding[axis]
    return max(0, needed)
