"""Changes: a variant is a function of a network."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

from reinception.spec.checks import require
from reinception.spec.values import Arch, BatchNorm, Chain, Concat, Conv, Layer, Pool, as_chain


def rebuild(layer: Layer, change: Callable[[Layer], Layer]) -> Layer:
    """`layer` with `change` applied to every node of its tree, children first."""
    if isinstance(layer, Chain):
        layer = Chain(tuple(rebuild(child, change) for child in layer.layers))
    elif isinstance(layer, Concat):
        layer = Concat(tuple((name, as_chain(rebuild(branch, change))) for name, branch in layer.branches))
    return change(layer)


def change_layers(arch: Arch, change: Callable[[Layer], Layer]) -> Arch:
    """`arch` with `change` applied to every layer of its stages and auxiliary classifiers."""
    stages = []
    for name, stage in arch.stages:
        changed = rebuild(stage, change)
        assert isinstance(changed, Chain | Concat)
        stages.append((name, changed))
    heads = tuple(dataclasses.replace(head, body=as_chain(rebuild(head.body, change))) for head in arch.aux)
    return dataclasses.replace(arch, stages=tuple(stages), aux=heads)


def change_stage(arch: Arch, **stages: Chain | Concat) -> Arch:
    """`arch` with the named stages replaced."""
    unknown = set(stages) - {name for name, _ in arch.stages}
    require(not unknown, f"{arch.name} has no stage {sorted(unknown)}")
    return dataclasses.replace(arch, stages=tuple((name, stages.get(name, stage)) for name, stage in arch.stages))


def scale_width(arch: Arch, multiplier: float, *, min_channels: int = 16) -> Arch:
    """Every convolution with `max(int(channels * multiplier), min_channels)` channels (TF-slim's depth_multiplier)."""
    require(multiplier > 0, f"the width multiplier must be greater than 0, got {multiplier}")
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


def with_scale(arch: Arch, scale: bool) -> Arch:
    """`arch` with a gamma in every batch norm, or in none."""

    def change(layer: Layer) -> Layer:
        if isinstance(layer, Conv) and layer.batch_norm is not None:
            return dataclasses.replace(layer, batch_norm=BatchNorm(epsilon=layer.batch_norm.epsilon, scale=scale))
        return layer

    return change_layers(arch, change)


def scale_depth(arch: Arch, multiplier: float) -> Arch:
    """The first part of the modules of every grid, rounded up: a grid of four keeps two at 0.5."""
    require(0 < multiplier <= 1, f"the depth multiplier must lie above 0 and up to 1, got {multiplier}")
    if multiplier == 1:
        return arch

    def fewer(stage: Chain | Concat) -> Chain | Concat:
        if not isinstance(stage, Chain):
            return stage
        left = math.ceil(multiplier * sum(isinstance(layer, Concat) for layer in stage.layers))
        kept: list[Layer] = []
        for layer in stage.layers:
            left -= isinstance(layer, Concat)
            if not isinstance(layer, Concat) or left >= 0:
                kept.append(layer)
        return Chain(tuple(kept))

    return dataclasses.replace(arch, stages=tuple((name, fewer(stage)) for name, stage in arch.stages))
