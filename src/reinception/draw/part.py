"""Lays out one module or one auxiliary classifier, upwards from its base as in the paper's figures."""

from __future__ import annotations

import dataclasses

from reinception.draw.block import Blocks, concat_bar, concat_width, single
from reinception.draw.boxes import bar, bar_width, source
from reinception.draw.canvas import MARGIN, Canvas
from reinception.draw.drawing import FONTS, Arrow, Drawing, Point, Text
from reinception.errors import UsageError
from reinception.spec import Arch, Aux, Concat, Step, endpoints, trace

HEADER_HEIGHT = 34


def arrange_part(arch: Arch, at: str) -> Drawing:
    """The part called `at`. UsageError when `arch` has no such module or auxiliary classifier."""
    heads = {head.name: head for head in arch.aux}
    modules = [path for path, layer in endpoints(arch) if isinstance(layer, Concat)]
    if at not in heads and at not in modules:
        known = f"it has {', '.join([*modules, *heads])}" if modules or heads else "it has none"
        raise UsageError(f"{arch.name} has no module or auxiliary classifier {at!r}; {known}")
    steps = {step.path: step for step in trace(arch, with_aux=at in heads)}
    canvas = Canvas(y=0)
    if at in heads:
        _head(canvas, Blocks(steps=steps), heads[at], arch.num_classes)
    else:
        _module(canvas, Blocks(steps=steps), steps[at])
    return _upwards(canvas, f"{arch.name}: {at}")


def _module(canvas: Canvas, blocks: Blocks, step: Step) -> None:
    assert isinstance(step.layer, Concat)
    block = blocks.module(step.layer, step.path)
    width = max(block.width, concat_width(step.output), bar_width("Base", step.input))
    middle = MARGIN + width / 2
    canvas.put(single(bar("base", width, "Base", step.input), is_bar=True), middle)
    canvas.put(block, middle)
    canvas.put(concat_bar(step, width), middle)


def _head(canvas: Canvas, blocks: Blocks, head: Aux, num_classes: int) -> None:
    shape, block = blocks.head(head, num_classes)
    base = source("Base", shape, block.width)
    middle = MARGIN + max(base.width, block.width) / 2
    canvas.put(single(base, is_bar=True), middle)
    canvas.put_column(block, middle)


def _upwards(canvas: Canvas, title: str) -> Drawing:
    """The canvas upside down, its texts upright, under the title."""
    top = MARGIN + HEADER_HEIGHT
    fold = top + canvas.y

    def up(text: Text) -> Text:
        return dataclasses.replace(text, y=fold - text.y)

    canvas.boxes = [
        dataclasses.replace(
            box,
            top=fold - box.bottom,
            texts=tuple(up(text) for text in box.texts),
            glyph=None if box.glyph is None else dataclasses.replace(box.glyph, y=fold - box.glyph.y),
        )
        for box in canvas.boxes
    ]
    canvas.arrows = [Arrow(tuple(Point(x, fold - y) for x, y in arrow.points)) for arrow in canvas.arrows]
    canvas.texts = [up(text) for text in canvas.texts]
    canvas.say(MARGIN, MARGIN + FONTS["stage"][0] / 2, title, "stage")
    facts = [fact for box in reversed(canvas.boxes) for fact in box.facts]
    return canvas.drawing(title, f"From the base at the bottom to the top. {'; '.join(facts)}.")
