"""Shape arithmetic: every layer in its place, with what goes in and what comes out."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from functools import lru_cache
from typing import NamedTuple

from reinception.spec.checks import Size, SpecError
from reinception.spec.values import (
    AdaptivePool,
    Arch,
    Chain,
    ChannelRange,
    Concat,
    Conv,
    Layer,
    LocalResponseNorm,
    Pool,
)


class Shape(NamedTuple):
    """What flows between layers: `height` x `width` positions of `channels` values."""

    height: int
    width: int
    channels: int


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


def _leaf_output(
    layer: Conv | Pool | AdaptivePool | LocalResponseNorm | ChannelRange, path: str, shape: Shape
) -> Shape:
    if isinstance(layer, LocalResponseNorm):
        return shape
    if isinstance(layer, AdaptivePool):
        return Shape(*layer.output, shape.channels)
    if isinstance(layer, ChannelRange):
        if layer.stop > shape.channels:
            raise SpecError(f"{path}: a slice up to channel {layer.stop} of {shape.channels}")
        return Shape(*shape[:2], layer.stop - layer.start)
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
