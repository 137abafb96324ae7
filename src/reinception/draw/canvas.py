"""Places blocks one below the other, with the arrows and notes between them."""

from __future__ import annotations

from reinception.draw.block import Block, gap_between, join
from reinception.draw.boxes import by
from reinception.draw.drawing import Anchor, Arrow, Band, Box, Bracket, Drawing, Style, Text, even, text_width

MARGIN = 16
NOTE_GAP = 8


class Canvas:
    """What has been placed so far; `y` is where the next block may begin, `last` where the next arrow starts."""

    def __init__(self, *, y: float) -> None:
        self.y = y
        self.last: Block | None = None
        self.boxes: list[Box] = []
        self.arrows: list[Arrow] = []
        self.texts: list[Text] = []
        self.bands: list[Band] = []
        self.brackets: list[Bracket] = []

    def put(self, block: Block, middle: float) -> Block:
        """Place a block around the line x = `middle`, at `y` or as far below as the arrow to it needs."""
        if self.last is not None:
            self.y = max(self.y, self.last.bottom + gap_between(self.last, block))
        placed = block.moved(middle - block.width / 2, self.y)
        if self.last is not None:
            self.arrows += join(self.last, placed)
        self.boxes += placed.boxes
        self.arrows += placed.arrows
        self.y += block.height
        self.last = placed
        return placed

    def say(self, x: float, y: float, text: str, style: Style, anchor: Anchor = "start") -> None:
        self.texts.append(Text(x=x, y=y, text=text, style=style, anchor=anchor))

    def put_column(self, block: Block, middle: float) -> None:
        """Place boxes one below the other, each with its output grid beside it."""
        boxes = self.put(block, middle).boxes
        if len({box.middle for box in boxes}) > 1:
            return  # branches have no room beside them; the bar below them shows the grid
        for box in boxes:
            if box.output is not None:
                self.say(box.area.right + NOTE_GAP, box.top + box.height / 2, by(box.output[:2]), "note")

    def drawing(self, title: str, description: str) -> Drawing:
        """Everything put so far, with a margin around it."""
        areas = [thing.area for thing in (*self.bands, *self.boxes, *self.texts)]
        return Drawing(
            width=even(max(area.right for area in areas)) + MARGIN,
            height=even(max(area.bottom for area in areas)) + MARGIN,
            title=title,
            description=description,
            bands=tuple(self.bands),
            brackets=tuple(self.brackets),
            arrows=tuple(self.arrows),
            boxes=tuple(self.boxes),
            texts=tuple(self.texts),
        )


def notes_width(*blocks: Block) -> float:
    """The width, in pixels, of the notes right of these columns."""
    shapes = [box.output for block in blocks for box in block.boxes if box.output is not None]
    return max((NOTE_GAP + text_width(by(shape[:2]), "note") for shape in shapes), default=0)
