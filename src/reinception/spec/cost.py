"""Cost and receptive field of a network, folded over its spec: parameters, multiply-adds, activations, cuts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from reinception.spec import (
    AdaptivePool,
    Arch,
    Chain,
    ChannelRange,
    Concat,
    Conv,
    Layer,
    Pool,
    Shape,
    Size,
    trace,
)


@dataclass(frozen=True, kw_only=True)
class LayerCost:
    """One layer's line in `reinception show`. `multiply_adds` counts one multiplication and its addition as one."""

    path: str
    kind: str
    kernel: Size | None = None
    stride: Size | None = None
    padding: Size | None = None
    output: Shape
    parameters: int = 0
    multiply_adds: int = 0

    @property
    def stage(self) -> str:
        return self.path.split(".", 1)[0]

    @property
    def activations(self) -> int:
        """Values this layer writes for one image."""
        return self.output.height * self.output.width * self.output.channels


@dataclass(frozen=True, kw_only=True)
class StageCost:
    """The rows of one stage, added up, with the shape that leaves it."""

    name: str
    output: Shape
    parameters: int
    multiply_adds: int
    activations: int


@dataclass(frozen=True, kw_only=True)
class Cut:
    """The representation at a cut right after `path`: how many values carry the whole image there (principle 1).

    `receptive_field` and `stride` are in input pixels along (height, width), of one unit of this grid.
    """

    path: str
    shape: Shape
    receptive_field: Size
    stride: Size

    @property
    def size(self) -> int:
        return self.shape.height * self.shape.width * self.shape.channels


def rows(arch: Arch, input_size: int | Size | None = None, *, with_aux: bool = True) -> Iterator[LayerCost]:
    """Every layer that computes something, in order of execution; auxiliary classifiers where they branch off."""
    bodies = {f"{head.name}.body": head.name for head in arch.aux}
    for step in trace(arch, input_size, with_aux=with_aux):
        if not isinstance(step.layer, Chain | Concat):
            yield _row(step.path, step.layer, step.input, step.output)
        elif step.path in bodies:
            yield linear_row(f"{bodies[step.path]}.classifier", step.output.channels, arch.num_classes)
    yield linear_row("classifier", step.output.channels, arch.num_classes)


def linear_row(path: str, inputs: int, outputs: int) -> LayerCost:
    """A fully connected layer with bias, on globally averaged channels."""
    return LayerCost(
        path=path,
        kind="linear",
        output=Shape(1, 1, outputs),
        parameters=inputs * outputs + outputs,
        multiply_adds=inputs * outputs,
    )


def parameters(arch: Arch, *, with_aux: bool) -> int:
    """Learned numbers: convolution and linear weights and biases, batch norm's gamma and beta."""
    # No input size enters: a convolution has the same weights on every grid.
    return sum(row.parameters for row in rows(arch, with_aux=with_aux))


def multiply_adds(arch: Arch, input_size: int | Size | None = None, *, with_aux: bool = False) -> int:
    """Multiply-adds of the convolutions and linear layers for one image."""
    return sum(row.multiply_adds for row in rows(arch, input_size, with_aux=with_aux))


def stages(arch: Arch, input_size: int | Size | None = None, *, with_aux: bool = True) -> tuple[StageCost, ...]:
    """Cost by stage, in order of execution, the classifier last."""
    sums: dict[str, list[LayerCost]] = defaultdict(list)
    outputs: dict[str, Shape] = {}
    for row in rows(arch, input_size, with_aux=with_aux):
        sums[row.stage].append(row)
        outputs[row.stage] = row.output
    for step in trace(arch, input_size, with_aux=with_aux):
        outputs[step.path] = step.output  # a stage ends on its concatenation, not on its last convolution
    return tuple(
        StageCost(
            name=name,
            output=outputs[name],
            parameters=sum(row.parameters for row in stage),
            multiply_adds=sum(row.multiply_adds for row in stage),
            activations=sum(row.activations for row in stage),
        )
        for name, stage in sums.items()
    )


def cuts(arch: Arch, input_size: int | Size | None = None) -> tuple[Cut, ...]:
    """Every cut of the main path where all information passes one tensor: after each layer or module of a stage."""
    shapes = {step.path: step.output for step in trace(arch, input_size, with_aux=False)}
    field: Field = ((1, 1), (1, 1))
    found = []
    for name, stage in arch.stages:
        modules = stage.layers if isinstance(stage, Chain) else (stage,)
        for index, layer in enumerate(modules):
            path = f"{name}.{index}" if isinstance(stage, Chain) else name
            field = _seen(layer, field)
            found.append(Cut(path=path, shape=shapes[path], receptive_field=field[0], stride=field[1]))
    return tuple(found)


# A grid's (receptive field, stride) in input pixels, each along (height, width).
Field = tuple[Size, Size]


def _seen(layer: Layer, field: Field) -> Field:
    """The field after `layer`; of parallel branches the widest, since a unit after the concatenation depends on all."""
    if isinstance(layer, Chain):
        for child in layer.layers:
            field = _seen(child, field)
        return field
    if isinstance(layer, Concat):
        branches = [_seen(branch, field) for _, branch in layer.branches]
        widest = (max(seen[0] for seen, _ in branches), max(seen[1] for seen, _ in branches))
        return widest, branches[0][1]
    if isinstance(layer, Conv | Pool):
        (height, width), (down, across) = field
        seen = (height + (layer.kernel[0] - 1) * down, width + (layer.kernel[1] - 1) * across)
        return seen, (down * layer.stride[0], across * layer.stride[1])
    return field


def _row(path: str, layer: Layer, before: Shape, after: Shape) -> LayerCost:
    if isinstance(layer, Conv):
        weights = layer.kernel[0] * layer.kernel[1] * before.channels // layer.groups * layer.channels
        extra = layer.channels if layer.bias else 0
        if layer.batch_norm is not None:
            extra += layer.channels * (2 if layer.batch_norm.scale else 1)
        return LayerCost(
            path=path,
            kind="conv",
            kernel=layer.kernel,
            stride=layer.stride,
            padding=layer.padding,
            output=after,
            parameters=weights + extra,
            multiply_adds=weights * after.height * after.width,
        )
    if isinstance(layer, Pool):
        window = {"kernel": layer.kernel, "stride": layer.stride, "padding": layer.padding}
        return LayerCost(path=path, kind=f"{layer.kind}_pool", output=after, **window)
    if isinstance(layer, ChannelRange):
        return LayerCost(path=path, kind="slice", output=after)
    kind = "adaptive_average_pool" if isinstance(layer, AdaptivePool) else "local_response_norm"
    return LayerCost(path=path, kind=kind, output=after)
