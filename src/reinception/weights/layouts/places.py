"""The convolutions of Inception-v3 as the rules that name them see them, and the orders libraries keep them in."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from reinception.spec import Arch, Chain, Concat, Conv, Layer, Size, trace


@dataclass(frozen=True, kw_only=True)
class Place:
    """One convolution as the naming rules see it.

    `level` counts the convolutions of its branch, two side by side as one; `position` counts the branch's layers, pools
    included. `side` is "wide" (1x3) or "tall" (3x1) where two stand side by side. `index` counts all convolutions in
    the order of the spec, which is the order every library constructs them in.
    """

    path: str
    index: int
    stage: str
    module: int
    branch: str
    branch_index: int
    level: int
    num_levels: int
    position: int
    side: str
    kernel: Size
    stride: Size


@lru_cache(maxsize=8)
def places(arch: Arch) -> tuple[Place, ...]:
    """Every convolution of a network built like the released one, auxiliary heads last."""
    heads = {head.name for head in arch.aux}
    branches = {
        step.path: tuple(name for name, _ in step.layer.branches)
        for step in trace(arch)
        if isinstance(step.layer, Concat)
    }
    steps = [step for step in trace(arch) if isinstance(step.layer, Conv)]
    steps.sort(key=lambda step: step.path.split(".")[0] in heads)  # stable: the trunk first, each in its own order
    levels: dict[str, list[str]] = {}
    for step in steps:
        chain, level = _chain_of(step.path)
        if level not in levels.setdefault(chain, []):
            levels[chain].append(level)
    found = []
    for index, step in enumerate(steps):
        layer = step.layer
        assert isinstance(layer, Conv)
        chain, level = _chain_of(step.path)
        stage, *rest = step.path.replace(".body.", ".").split(".")
        module = rest.pop(0) if len(rest) > 1 and rest[0].isdigit() else None
        branch = "" if rest[0].isdigit() else rest.pop(0)
        parent = stage if module is None else f"{stage}.{module}"
        found.append(
            Place(
                path=step.path,
                index=index,
                stage=stage,
                module=int(module or 0),
                branch=branch,
                branch_index=branches[parent].index(branch) if branch else 0,
                level=levels[chain].index(level),
                num_levels=len(levels[chain]),
                position=int(rest[0]),
                side=rest[1] if len(rest) > 1 else "",
                kernel=layer.kernel,
                stride=layer.stride,
            )
        )
    return tuple(found)


def _chain_of(path: str) -> tuple[str, str]:
    """The chain a convolution stands in and its place there; two side by side stand at one place."""
    path = re.sub(r"\.(wide|tall)\.0$", "", path)
    chain, _, level = path.rpartition(".")
    return chain, level


def topological(arch: Arch) -> tuple[Place, ...]:
    """The trunk's convolutions in the order Keras stores layers: farthest from the output first, then as made."""
    distance = _distances(arch)
    trunk = [place for place in places(arch) if place.path in distance]
    return tuple(sorted(trunk, key=lambda place: (-distance[place.path], place.index)))


def keras_layers(arch: Arch) -> tuple[tuple[str, int], ...]:
    """Kind and construction number of every layer with weights, in the order Keras stores layers.

    A batch norm is one nearer to the output than its convolution, so those of long branches come among convolutions.
    """
    distance = _distances(arch)
    layers = []
    for place in places(arch):
        if place.path in distance:
            layers.append((-distance[place.path], place.index, "conv2d"))
            layers.append((1 - distance[place.path], place.index, "batch_normalization"))
    return tuple((kind, index) for _, index, kind in sorted(layers))


def _distances(arch: Arch) -> dict[str, int]:
    """How many Keras layers lie from each convolution of the trunk to the last concatenation, the longest way.

    Convolution, batch norm and activation are three layers, a pool or a concatenation one.
    """
    distance: dict[str, int] = {}
    after = 0
    for name, stage in reversed(arch.stages):
        after = _measure(stage, name, after, distance)
    return distance


def _measure(layer: Layer, path: str, after: int, distance: dict[str, int]) -> int:
    """Layers from the start of `layer` to the network's end, when `after` of them follow it."""
    if isinstance(layer, Chain):
        for index in reversed(range(len(layer.layers))):
            after = _measure(layer.layers[index], f"{path}.{index}", after, distance)
        return after
    if isinstance(layer, Concat):
        return max(_measure(branch, f"{path}.{name}", after + 1, distance) for name, branch in layer.branches)
    if isinstance(layer, Conv):
        distance[path] = after + 3
        return after + 3
    return after + 1
