"""The trunk of a network as a list of its layers and modules, equal neighbours once."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass

from reinception.draw.block import Block, Blocks, concat_width, flat, single
from reinception.draw.drawing import Box
from reinception.spec import Arch, Aux, Chain, Concat, Layer, Shape


@dataclass(frozen=True, kw_only=True)
class Element:
    """One layer or module to draw on the trunk, with every path at which it occurs."""

    stage: str
    paths: tuple[str, ...]
    is_module: bool
    block: Block
    output: Shape

    @property
    def width(self) -> int:
        return max(self.block.width, concat_width(self.output)) if self.is_module else self.block.width

    @property
    def name(self) -> str:
        """`grid35.1-2` for grid35.1 and grid35.2."""
        first, last = self.paths[0], self.paths[-1]
        if first == last:
            return first
        return f"{first}-{last.rpartition('.')[2]}" if first.rpartition(".")[0] == last.rpartition(".")[0] else last


def heads_by_path(arch: Arch) -> dict[str, list[Aux]]:
    """The auxiliary classifiers by the path of the layer or module they read; a stage means its last one."""
    found: dict[str, list[Aux]] = {}
    stages = dict(arch.stages)
    for head in arch.aux:
        path = _parts(head.at, stages[head.at])[-1][0] if head.at in stages else head.at
        found.setdefault(path, []).append(head)
    return found


def elements(arch: Arch, blocks: Blocks, watched: Iterable[str]) -> list[Element]:
    """Every layer and module of the stages. Neighbours that look the same, channel counts included, become one element.

    An element always ends at a `watched` path, whose output an auxiliary classifier reads.
    """
    parts = [(name, path, layer) for name, stage in arch.stages for path, layer in _parts(name, stage)]
    box_width = max([blocks.label(path).width for _, path, layer in parts if not isinstance(layer, Concat)], default=0)
    found: list[Element] = []
    for stage, path, layer in parts:
        is_module = isinstance(layer, Concat)
        block = blocks.module(layer, path) if is_module else single(blocks.label(path).box(box_width))
        output = blocks.steps[path].output
        element = Element(stage=stage, paths=(path,), is_module=is_module, block=block, output=output)
        before = found[-1] if found else None
        if before is not None and is_module and _same(before, element) and before.paths[-1] not in watched:
            found[-1] = dataclasses.replace(
                before, paths=(*before.paths, path), block=_together(before.block, block), output=output
            )
        else:
            found.append(element)
    return found


def _parts(name: str, stage: Chain | Concat) -> list[tuple[str, Layer]]:
    return flat(stage, name) if isinstance(stage, Chain) else [(name, stage)]


def _same(one: Element, other: Element) -> bool:
    return (one.stage, one.block, one.output) == (other.stage, other.block, other.output)


def _together(one: Block, other: Block) -> Block:
    """A block whose boxes represent the layers of both."""
    boxes: tuple[Box, ...] = tuple(
        dataclasses.replace(box, facts=box.facts + twin.facts, paths=box.paths + twin.paths)
        for box, twin in zip(one.boxes, other.boxes, strict=True)
    )
    return dataclasses.replace(one, boxes=boxes)
