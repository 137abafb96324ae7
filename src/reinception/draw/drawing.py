"""The parts of a drawing as values: boxes, texts, arrows and bands with positions in CSS pixels."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from reinception.spec import Shape, Size

Kind = Literal["pointwise", "square", "asymmetric", "pool", "plain", "linear", "concat", "base"]
Style = Literal["title", "text", "stage", "label", "count", "note", "times"]
Anchor = Literal["start", "middle", "end"]

# Font size in pixels and whether bold; nothing is smaller than 11 pixels.
FONTS: dict[Style, tuple[float, bool]] = {
    "title": (22, True),
    "text": (12, False),
    "stage": (14, True),
    "label": (12.5, True),
    "count": (11, False),
    "note": (11, False),
    "times": (15, True),
}

# Widths in em of the widest common system font (DejaVu Sans, as wide as Verdana), so that no text is wider than
# estimated; bold is a tenth wider.
_WIDTHS: dict[str, float] = {
    **dict.fromkeys("ijlI'|.,:;!/ ·", 0.34),
    **dict.fromkeys("ftr()[]-", 0.42),
    **dict.fromkeys("mwMW%@", 1.0),
    **dict.fromkeys("+=<>~×→", 0.84),
}
_LOWER, _UPPER, _BOLD = 0.64, 0.79, 1.1


def text_width(text: str, style: Style) -> float:
    """A width in pixels that `text` does not exceed in any usual system font."""
    size, bold = FONTS[style]
    ems = sum(_WIDTHS.get(letter, _UPPER if letter.isupper() or not letter.isascii() else _LOWER) for letter in text)
    return ems * size * (_BOLD if bold else 1)


class Point(NamedTuple):
    x: float
    y: float


class Area(NamedTuple):
    """A rectangle: its left and upper edges, then its right and lower ones."""

    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: Area) -> bool:
        """Whether the two share more than an edge."""
        beside = self.right <= other.left or other.right <= self.left
        return not (beside or self.bottom <= other.top or other.bottom <= self.top)

    def contains(self, other: Area) -> bool:
        across = self.left <= other.left and other.right <= self.right
        return across and self.top <= other.top and other.bottom <= self.bottom


@dataclass(frozen=True, kw_only=True)
class Text:
    """One line of text; `y` is the middle of its height."""

    x: float
    y: float
    text: str
    style: Style
    anchor: Anchor = "start"

    @property
    def area(self) -> Area:
        width, height = text_width(self.text, self.style), FONTS[self.style][0]
        left = self.x - {"start": 0, "middle": width / 2, "end": width}[self.anchor]
        return Area(left, self.y - height / 2, left + width, self.y + height / 2)

    def moved(self, dx: float, dy: float) -> Text:
        return dataclasses.replace(self, x=self.x + dx, y=self.y + dy)


@dataclass(frozen=True, kw_only=True)
class Glyph:
    """A layer's kernel at a fixed scale, left of its label: a horizontal bar is 1x7, a vertical one 7x1."""

    x: float
    y: float
    window: Size
    hollow: bool

    @property
    def area(self) -> Area:
        scale = min(GLYPH_SCALE, GLYPH / max(self.window))
        half_height, half_width = self.window[0] * scale / 2, self.window[1] * scale / 2
        return Area(self.x - half_width, self.y - half_height, self.x + half_width, self.y + half_height)

    def moved(self, dx: float, dy: float) -> Glyph:
        return dataclasses.replace(self, x=self.x + dx, y=self.y + dy)


GLYPH = 14
GLYPH_SCALE = 2.0


@dataclass(frozen=True, kw_only=True)
class Box:
    """A layer, or a bar under layers. `facts` has one line for every layer of the network that the box represents."""

    left: float
    top: float
    width: float
    height: float
    kind: Kind
    texts: tuple[Text, ...]
    glyph: Glyph | None = None
    # Not compared: modules whose boxes look alike are drawn once, whatever their paths and inputs.
    output: Shape | None = field(default=None, compare=False)
    facts: tuple[str, ...] = field(default=(), compare=False)
    paths: tuple[str, ...] = field(default=(), compare=False)

    @property
    def area(self) -> Area:
        return Area(self.left, self.top, self.left + self.width, self.top + self.height)

    @property
    def middle(self) -> float:
        """The x of its centre."""
        return self.left + self.width / 2

    @property
    def bottom(self) -> float:
        return self.top + self.height

    def moved(self, dx: float, dy: float) -> Box:
        return dataclasses.replace(
            self,
            left=self.left + dx,
            top=self.top + dy,
            texts=tuple(text.moved(dx, dy) for text in self.texts),
            glyph=None if self.glyph is None else self.glyph.moved(dx, dy),
        )


@dataclass(frozen=True)
class Arrow:
    """A line with a head at its last point."""

    points: tuple[Point, ...]

    def moved(self, dx: float, dy: float) -> Arrow:
        return Arrow(tuple(Point(x + dx, y + dy) for x, y in self.points))


@dataclass(frozen=True, kw_only=True)
class Band:
    """The background of a stage or of an auxiliary classifier."""

    area: Area
    aside: bool = False


@dataclass(frozen=True, kw_only=True)
class Bracket:
    """The mark beside a module that is drawn once and occurs several times in the network."""

    x: float
    top: float
    bottom: float


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """Everything to draw, with positions."""

    width: int
    height: int
    title: str
    description: str
    bands: tuple[Band, ...] = ()
    brackets: tuple[Bracket, ...] = ()
    arrows: tuple[Arrow, ...] = ()
    boxes: tuple[Box, ...] = ()
    texts: tuple[Text, ...] = ()

    @property
    def all_texts(self) -> tuple[Text, ...]:
        return self.texts + tuple(text for box in self.boxes for text in box.texts)


def even(width: float) -> int:
    """The next even number of pixels: then every centre lies on a whole pixel, and straight arrows stay straight."""
    return 2 * math.ceil(width / 2)
