"""The vocabulary of a network: frozen values for layers, heads and whole architectures, with shape arithmetic and JSON.

Nothing here imports torch. A network is a tree of these values; its shapes, cost, drawing, module and exported files
are functions of that tree, so a channel count is written once.

Paths name layers and, later, parameters: a chain counts its layers from zero, a concatenation names its branches,
`grid17.2.doubled.3` is layer 3 of the branch `doubled` of module 2 of the stage `grid17`.
"""

from __future__ import annotations

from reinception.spec.changes import change_layers, change_stage, count_border, rebuild, scale_width, with_scale
from reinception.spec.checks import Size, SpecError
from reinception.spec.document import current_path
from reinception.spec.shapes import Shape, Step, feature_shape, minimum_input_size, trace
from reinception.spec.values import (
    AdaptivePool,
    Arch,
    Aux,
    BatchNorm,
    Chain,
    ChannelRange,
    Concat,
    Conv,
    Layer,
    LocalResponseNorm,
    Pool,
    as_chain,
    endpoints,
)

__all__ = [
    "AdaptivePool",
    "Arch",
    "Aux",
    "BatchNorm",
    "Chain",
    "ChannelRange",
    "Concat",
    "Conv",
    "Layer",
    "LocalResponseNorm",
    "Pool",
    "Shape",
    "Size",
    "SpecError",
    "Step",
    "as_chain",
    "change_layers",
    "change_stage",
    "count_border",
    "current_path",
    "endpoints",
    "feature_shape",
    "minimum_input_size",
    "rebuild",
    "scale_width",
    "trace",
    "with_scale",
]
