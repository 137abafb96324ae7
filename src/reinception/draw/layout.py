"""Lays out a whole network from the image at the top to the classifier at the bottom, auxiliary classifiers aside."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

from reinception.draw.block import ROW_GAP, Blocks, concat_bar, single, stack
from reinception.draw.boxes import BOX_HEIGHT, LayerLabel, bar, by, classifier_labels, source
from reinception.draw.canvas import MARGIN, NOTE_GAP, Canvas, notes_width
from reinception.draw.drawing import Area, Arrow, Band, Box, Bracket, Drawing, Point, even, text_width
from reinception.draw.trunk import Element, elements, heads_by_path
from reinception.spec import Arch, Aux, Shape, SpecError, Step, cost, trace

LINE = 18
BAND_PAD = 12  # between a band's edge and its content
BAND_GAP = 6
LEAST_BAND_HEIGHT = 58  # two lines of label
LABEL_GAP = 14  # between the labels of a band and its boxes
ASIDE_GAP = 28  # between the bands and the auxiliary classifiers
ASIDE_CAPTION = "auxiliary classifier"
LEAST_CONTENT_WIDTH = 360

SAMPLE = LayerLabel(kind="square", label="3x3/2", note="V", count="384", window=(3, 3))
KEY = ("one layer: its window to scale, kernel/stride, V where nothing is", "padded, and how many channels it hands on")


def arrange(arch: Arch) -> Drawing:
    """The drawing of `arch`.

    Auxiliary classifiers that do not fit the network's input size are left out, and the header says so; SpecError when
    the trunk does not fit either.
    """
    try:
        return _Network(arch, {step.path: step for step in trace(arch)}).drawn()
    except SpecError:
        trunk = dataclasses.replace(arch, aux=())
        steps = {step.path: step for step in trace(trunk)}
        return _Network(trunk, steps, "Its auxiliary classifiers need a larger input and are left out.").drawn()


class _Network:
    """The columns are decided first; then everything is placed in one pass downwards."""

    def __init__(self, arch: Arch, steps: Mapping[str, Step], *remarks: str) -> None:
        self.canvas = Canvas(y=MARGIN)
        self.arch, self.remarks = arch, remarks
        self.blocks = Blocks(steps=steps)
        self.image = steps[arch.stages[0][0]].input
        self.heads = heads_by_path(arch)
        self.looked_at: list[tuple[Aux, Box]] = []
        self.elements = elements(arch, self.blocks, self.heads)

        columns = [each.block for each in self.elements if not each.is_module]
        ends = classifier_labels("classifier", self.elements[-1].output, arch.dropout, arch.num_classes)
        width = max([label.width for label in ends] + [block.width for block in columns])
        self.ends = stack([single(label.box(width)) for label in ends], width)
        notes = notes_width(self.ends, *columns)
        content_width = max(LEAST_CONTENT_WIDTH, even(width + 2 * notes), *(each.width for each in self.elements))
        self.left = MARGIN + BAND_PAD + self._label_width() + LABEL_GAP
        self.right = self.left + content_width
        self.middle = self.left + content_width / 2

    def _label_width(self) -> int:
        """The width of the column left of the boxes: stage names, shapes, and how often a module is repeated."""
        heading = max(
            *(text_width(name, "stage") for name in [*dict(self.arch.stages), "classifier"]),
            *(text_width(f"to {by(each.output)}", "note") for each in self.elements),
            text_width(f"to {self.arch.num_classes} logits", "note"),
        )
        repeats = [text_width(_times(each), "times") for each in self.elements if len(each.paths) > 1]
        names = [text_width(each.name, "note") for each in self.elements if each.is_module]
        return even(max([heading + max([LABEL_GAP + width for width in repeats], default=0), *names]))

    def drawn(self) -> Drawing:
        self._header()
        self.canvas.put(single(source("Image", self.image, self.ends.width)), self.middle)
        for stage, group in groupby(self.elements, key=lambda element: element.stage):
            self._stage(stage, list(group))
        top = self._open_band("classifier", f"to {self.arch.num_classes} logits")
        self.canvas.put_column(self.ends, self.middle)
        self._close_band(top)
        least_y = 0.0
        for head, box in self.looked_at:
            least_y = self._aside(head, box, least_y)
        return self.canvas.drawing(self.arch.name, " ".join(self._sentences()))

    def _header(self) -> None:
        """The network's name, its cost, and how to read a box."""
        self.canvas.say(MARGIN, self.canvas.y + 11, self.arch.name, "title")
        self.canvas.y += 22 + LINE / 2
        for line in [_costs(self.arch), *self.remarks]:
            self.canvas.say(MARGIN, self.canvas.y + LINE / 2, line, "text")
            self.canvas.y += LINE
        self.canvas.y += LINE / 2
        sample = SAMPLE.box(SAMPLE.width).moved(MARGIN, self.canvas.y + (len(KEY) * LINE - BOX_HEIGHT) / 2)
        self.canvas.boxes.append(sample)
        for line in KEY:
            self.canvas.say(sample.area.right + NOTE_GAP, self.canvas.y + LINE / 2, line, "text")
            self.canvas.y += LINE
        self.canvas.y += LINE

    def _open_band(self, name: str, shape: str) -> float:
        top = self.canvas.y + BAND_GAP
        self.canvas.say(MARGIN + BAND_PAD, top + 20, name, "stage")
        self.canvas.say(MARGIN + BAND_PAD, top + 39, shape, "note")
        self.canvas.y = top + BAND_PAD
        return top

    def _close_band(self, top: float) -> None:
        self.canvas.y = max(self.canvas.y + BAND_PAD, top + LEAST_BAND_HEIGHT)
        self.canvas.bands.append(Band(area=Area(MARGIN, top, self.right + BAND_PAD, self.canvas.y)))

    def _stage(self, name: str, parts: Sequence[Element]) -> None:
        top = self._open_band(name, f"to {by(parts[-1].output)}")
        for part in parts:
            heads = self.heads.get(part.paths[-1], [])
            if part.is_module:
                self._module(part)
            else:
                self.canvas.put_column(part.block, self.middle)
                if heads:
                    self._base(part.output)  # an auxiliary classifier branches off a bar, as from a module
            self.looked_at += [(head, self.canvas.boxes[-1]) for head in heads]
        self._close_band(top)

    def _module(self, part: Element) -> None:
        if self.canvas.last is None or not self.canvas.last.is_bar:
            self._base(self.blocks.steps[part.paths[0]].input)
        top = self.canvas.put(part.block, self.middle).entries[0].y
        self.canvas.put(concat_bar(self.blocks.steps[part.paths[-1]], int(self.right - self.left)), self.middle)
        edge = self.left - LABEL_GAP
        if part.name != part.stage:
            self.canvas.say(edge, self.canvas.y - BOX_HEIGHT / 2, part.name, "note", "end")
        if len(part.paths) > 1:
            self.canvas.brackets.append(Bracket(x=self.left - LABEL_GAP / 2, top=top, bottom=self.canvas.y))
            self.canvas.say(edge, (top + self.canvas.y - BOX_HEIGHT) / 2, _times(part), "times", "end")

    def _base(self, shape: Shape) -> None:
        self.canvas.put(single(bar("base", int(self.right - self.left), "Base", shape), is_bar=True), self.middle)

    def _aside(self, head: Aux, looked_at: Box, least_y: float) -> float:
        """Draw `head` right of the bar it reads, or below `least_y`; returns where the next one may begin."""
        shape, block = self.blocks.head(head, self.arch.num_classes)
        base = source(head.name, shape, block.width)
        column = max(base.width, block.width)
        # The column is narrow, so its notes need room on the right only.
        inner = even(max(column, (column + block.width) / 2 + notes_width(block), text_width(ASIDE_CAPTION, "note")))
        left = self.right + BAND_PAD + ASIDE_GAP
        middle = left + BAND_PAD + column / 2
        top = max(looked_at.top - LINE - BAND_PAD / 2, least_y)
        self.canvas.say(left + BAND_PAD, top + BAND_PAD / 2 + LINE / 2, ASIDE_CAPTION, "note")
        self.canvas.y, self.canvas.last = top + LINE + BAND_PAD / 2, None
        base = self.canvas.put(single(base, is_bar=True), middle).boxes[0]
        self.canvas.put_column(block, middle)
        bottom = self.canvas.y + BAND_PAD
        self.canvas.bands.append(Band(area=Area(left, top, left + 2 * BAND_PAD + inner, bottom), aside=True))
        self.canvas.arrows.append(_sideways(looked_at, base, turn=left - ASIDE_GAP / 2))
        return bottom + ROW_GAP

    def _sentences(self) -> Iterator[str]:
        """The drawing in words, for screen readers."""
        yield f"{self.arch.name} from the image, {by(self.image)}, at the top to {self.arch.num_classes} logits below."
        for stage, group in groupby(self.elements, key=lambda element: element.stage):
            parts = list(group)
            counted = Counter("module" if part.is_module else "layer" for part in parts for _ in part.paths)
            what = " and ".join(f"{number} {noun}{'s' if number > 1 else ''}" for noun, number in counted.items())
            yield f"{stage}: {what}, to {by(parts[-1].output)}."
        for head, _ in self.looked_at:
            yield f"Auxiliary classifier {head.name} looks at {head.at}."


def _times(part: Element) -> str:
    return f"x {len(part.paths)}"


def _sideways(start: Box, end: Box, *, turn: float) -> Arrow:
    """From the right edge of one bar to the left edge of another, level or over a step at x = `turn`."""
    first, last = Point(start.area.right, start.top + start.height / 2), Point(end.left, end.top + end.height / 2)
    if first.y == last.y:
        return Arrow((first, last))
    return Arrow((first, Point(turn, first.y), Point(turn, last.y), last))


def _costs(arch: Arch) -> str:
    size = f"input {arch.input_size}x{arch.input_size}, {cost.multiply_adds(arch) / 1e9:.2f} billion multiply-adds"
    parameters = f"{cost.parameters(arch, with_aux=False):,} parameters"
    if arch.aux:
        heads = "classifier" if len(arch.aux) == 1 else "classifiers"
        parameters += f", {cost.parameters(arch, with_aux=True):,} with auxiliary {heads}"
    return f"{size}, {parameters}"
