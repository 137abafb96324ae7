"""Lays out a branch or a module by itself: boxes and arrows from top to bottom, its upper left corner at the origin."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from reinception.draw.boxes import LayerLabel, bar, bar_width, classifier_labels, layer_label
from reinception.draw.drawing import Arrow, Box, Point
from reinception.spec import Aux, Chain, Concat, Conv, Layer, Shape, Step

ROW_GAP = 16  # room for an arrow between two boxes
FORK_GAP = 24  # room for an arrow that first goes sideways
COLUMN_GAP = 8
LEAST_BOX_WIDTH = 90  # room for `7x1` and three digits: columns of one module stand under those of another


@dataclass(frozen=True, kw_only=True)
class Block:
    """Boxes and arrows with the points where arrows enter and leave; a bar takes and gives them anywhere."""

    width: int
    height: int
    boxes: tuple[Box, ...]
    arrows: tuple[Arrow, ...] = ()
    entries: tuple[Point, ...]
    exits: tuple[Point, ...]
    is_bar: bool = False

    @property
    def bottom(self) -> float:
        return max(box.bottom for box in self.boxes)

    def moved(self, dx: float, dy: float) -> Block:
        return dataclasses.replace(
            self,
            boxes=tuple(box.moved(dx, dy) for box in self.boxes),
            arrows=tuple(arrow.moved(dx, dy) for arrow in self.arrows),
            entries=tuple(Point(x + dx, y + dy) for x, y in self.entries),
            exits=tuple(Point(x + dx, y + dy) for x, y in self.exits),
        )


def single(box: Box, *, is_bar: bool = False) -> Block:
    """A single box, at the origin, as a block."""
    return Block(
        width=int(box.width),
        height=int(box.height),
        boxes=(box,),
        entries=(Point(box.width / 2, 0),),
        exits=(Point(box.width / 2, box.height),),
        is_bar=is_bar,
    )


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """Makes blocks of layers; knows every layer's shapes by its path."""

    steps: Mapping[str, Step]

    @cached_property
    def _some_normalised(self) -> bool:
        return any(isinstance(step.layer, Conv) and step.layer.batch_norm is not None for step in self.steps.values())

    def label(self, path: str, *, with_channels: bool = False) -> LayerLabel:
        """The label of the layer at `path`; where some convolutions are normalised, one that is not says so."""
        return layer_label(self.steps[path], mark_unnormalised=self._some_normalised, with_channels=with_channels)

    def module(self, module: Concat, path: str) -> Block:
        """The branches side by side, first layers in one row; the bar of the concatenation must follow."""
        branches = [self.branch(branch, f"{path}.{name}") for name, branch in module.branches]
        placed: list[Block] = []
        x = 0
        for branch in branches:
            placed.append(branch.moved(x, 0))
            x += branch.width + COLUMN_GAP
        return Block(
            width=x - COLUMN_GAP,
            height=max(branch.height for branch in placed),
            boxes=tuple(box for branch in placed for box in branch.boxes),
            arrows=tuple(arrow for branch in placed for arrow in branch.arrows),
            entries=tuple(point for branch in placed for point in branch.entries),
            exits=tuple(point for branch in placed for point in branch.exits),
        )

    def branch(self, branch: Chain, path: str, *, least_width: int = LEAST_BOX_WIDTH, goes_on: bool = False) -> Block:
        """The layers one below the other, in boxes of one width, those of a concatenation side by side.

        A concatenation ends on a bar, except at the end of a branch that does not `goes_on`: its branches then lead to
        the concatenation outside.
        """
        layers = flat(branch, path)
        if not layers:
            identity = LayerLabel(kind="plain", label="identity", path=path)
            return single(identity.box(identity.width))
        last = layers[-1][0]
        labels = {
            place: self.label(place, with_channels=place == last)
            for place, layer in layers
            if not isinstance(layer, Concat)
        }
        box_width = max([least_width, *(label.width for label in labels.values())])
        rows: list[Block | Step] = []
        for place, layer in layers:
            if not isinstance(layer, Concat):
                rows.append(single(labels[place].box(box_width)))
                continue
            rows.append(self.module(layer, place))
            if place != last or goes_on:
                rows.append(self.steps[place])  # a bar, once its width is known
        width = max(concat_width(row.output) if isinstance(row, Step) else row.width for row in rows)
        return stack([concat_bar(row, width) if isinstance(row, Step) else row for row in rows], width)

    def head(self, head: Aux, num_classes: int) -> tuple[Shape, Block]:
        """The input shape of an auxiliary classifier, and its layers down to its logits."""
        body = self.steps[f"{head.name}.body"]
        ends = classifier_labels(f"{head.name}.classifier", body.output, head.dropout, num_classes)
        least_width = max(label.width for label in ends)
        branch = self.branch(head.body, body.path, least_width=least_width, goes_on=True)
        width = max([least_width, *(int(box.width) for box in branch.boxes)])
        return body.input, stack([branch, *(single(label.box(width)) for label in ends)], max(branch.width, width))


def concat_width(shape: Shape) -> int:
    return bar_width("Filter Concat", shape)


def concat_bar(step: Step, width: int) -> Block:
    """The bar under a module, to which all its branches lead."""
    fact = f"{step.path}: filter concatenation, {step.output.channels} channels"
    return single(bar("concat", width, "Filter Concat", step.output, fact=fact), is_bar=True)


def stack(rows: Sequence[Block], width: int) -> Block:
    """Blocks one below the other around one centre line, joined by arrows."""
    boxes: list[Box] = []
    arrows: list[Arrow] = []
    placed: list[Block] = []
    y = 0
    for row in rows:
        if placed:
            y += gap_between(placed[-1], row)
        block = row.moved((width - row.width) // 2, y)
        if placed:
            arrows += join(placed[-1], block)
        boxes += block.boxes
        arrows += block.arrows
        placed.append(block)
        y += row.height
    return Block(
        width=width,
        height=y,
        boxes=tuple(boxes),
        arrows=tuple(arrows),
        entries=placed[0].entries,
        exits=placed[-1].exits,
    )


def gap_between(above: Block, below: Block) -> int:
    return FORK_GAP if len(below.entries) > 1 and not above.is_bar else ROW_GAP


def join(above: Block, below: Block) -> list[Arrow]:
    """Arrows from one placed block to the next: straight from or to a bar, forked from one box to several."""
    if below.is_bar:
        top = below.entries[0].y
        return [Arrow((point, Point(point.x, top))) for point in above.exits]
    bottom = above.exits[0].y
    if above.is_bar:
        return [Arrow((Point(point.x, bottom), point)) for point in below.entries]
    start = above.exits[0]
    found = []
    for point in below.entries:
        if point.x == start.x:
            found.append(Arrow((start, point)))
        else:
            turn = start.y + (FORK_GAP - ROW_GAP) + 2
            found.append(Arrow((start, Point(start.x, turn), Point(point.x, turn), point)))
    return found


def flat(chain: Chain, path: str) -> list[tuple[str, Layer]]:
    """The layers of a chain with their paths; chains within it are flattened."""
    found: list[tuple[str, Layer]] = []
    for index, layer in enumerate(chain.layers):
        place = f"{path}.{index}"
        found += flat(layer, place) if isinstance(layer, Chain) else [(place, layer)]
    return found
