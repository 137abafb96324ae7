"""Writes a drawing as SVG: text in system fonts, colours by CSS class for light and dark mode, nothing external."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from xml.sax.saxutils import escape

from reinception.draw.drawing import FONTS, Arrow, Band, Box, Bracket, Drawing, Glyph, Text

FAMILY = "'Helvetica Neue', Helvetica, Arial, 'Liberation Sans', sans-serif"
HEAD = 4  # half the width of an arrow's head, in pixels
ROUND = 4

# CSS class -> (fill, stroke). A convolution is coloured by the shape of its kernel: in greyscale 1x1 is the lightest,
# then square kernels, then asymmetric ones (in dark mode from dark to light); pools have round ends and hollow glyphs.
LIGHT: Mapping[str, tuple[str, str]] = {
    "ground": ("#ffffff", "none"),
    "band": ("#f3f4f6", "none"),
    "aside": ("#ffffff", "#aab2bd"),
    "pointwise": ("#fdf5e0", "#b3923f"),
    "square": ("#cfe1f5", "#4f7fb5"),
    "asymmetric": ("#abd4c0", "#3b8464"),
    "pool": ("#f7dfda", "#b9705f"),
    "plain": ("#e6e8ec", "#87909c"),
    "linear": ("#ddd4ee", "#7a63a8"),
    "concat": ("#3d4859", "#3d4859"),
    "base": ("#ffffff", "#3d4859"),
    "ink": ("#1b2430", "#1b2430"),
    "faint": ("#485465", "#485465"),
    "arrow": ("#5f6b7a", "#5f6b7a"),
    "concat-ink": ("#ffffff", "#ffffff"),
}
DARK: Mapping[str, tuple[str, str]] = {
    "ground": ("#0f141a", "none"),
    "band": ("#191f27", "none"),
    "aside": ("#0f141a", "#566273"),
    "pointwise": ("#312b1a", "#a88f4e"),
    "square": ("#233f61", "#6a9bd1"),
    "asymmetric": ("#215741", "#63b592"),
    "pool": ("#4d2b25", "#c98a7b"),
    "plain": ("#2a313a", "#7b8695"),
    "linear": ("#3c3155", "#9f8bcb"),
    "concat": ("#c3ccd8", "#c3ccd8"),
    "base": ("#0f141a", "#c3ccd8"),
    "ink": ("#f0f3f7", "#f0f3f7"),
    "faint": ("#bac4d0", "#bac4d0"),
    "arrow": ("#93a0b0", "#93a0b0"),
    "concat-ink": ("#10161d", "#10161d"),
}


def write_svg(drawing: Drawing) -> str:
    """The drawing as an SVG document, one element a line."""
    return "\n".join(_lines(drawing)) + "\n"


def _lines(drawing: Drawing) -> Iterator[str]:
    width, height = drawing.width, drawing.height
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="drawn-network" role="img" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}">'
    )
    yield f"<title>{escape(drawing.title)}</title>"
    yield f"<desc>{escape(drawing.description)}</desc>"
    yield "<style>"
    yield from _style()
    yield "</style>"
    yield f'<rect class="ground" width="{width}" height="{height}"/>'
    yield '<g transform="translate(.5 .5)">'  # lines of one pixel lie on pixels
    for band in drawing.bands:
        yield _band(band)
    for bracket in drawing.brackets:
        yield _bracket(bracket)
    for arrow in drawing.arrows:
        yield _arrow(arrow)
    for box in drawing.boxes:
        yield from _box(box)
    for text in drawing.texts:
        yield _text(text)
    yield "</g>"
    yield "</svg>"


def _style() -> Iterator[str]:
    """The CSS rules, each under the drawing's own class, so that they do not change a page that contains it."""
    yield f".drawn-network text {{ font-family: {FAMILY}; font-variant-numeric: tabular-nums }}"
    for style, (size, bold) in FONTS.items():
        yield f".drawn-network .{style} {{ font-size: {size:g}px; font-weight: {600 if bold else 400} }}"
    yield from _colours(LIGHT)
    yield "@media (prefers-color-scheme: dark) {"
    yield from _colours(DARK)
    yield "}"


def _colours(palette: Mapping[str, tuple[str, str]]) -> Iterator[str]:
    inks = {"ink": "text", "faint": ".note, .drawn-network .text", "concat-ink": ".concat-ink"}
    for name, (fill, line) in palette.items():
        if name in inks:
            yield f".drawn-network {inks[name]} {{ fill: {fill} }}"
        elif name == "arrow":
            yield f".drawn-network .arrow {{ fill: none; stroke: {line} }}"
            yield f".drawn-network .head {{ fill: {fill} }}"
        else:
            yield f".drawn-network .{name} {{ fill: {fill}; stroke: {line} }}"
            if name in ("pointwise", "square", "asymmetric", "pool"):
                yield f".drawn-network .{name}-window {{ fill: {'none' if name == 'pool' else line}; stroke: {line} }}"
    yield ".drawn-network .aside { stroke-dasharray: 4 3 }"


def _band(band: Band) -> str:
    left, top, right, bottom = band.area
    name = "aside" if band.aside else "band"
    return f'<rect class="{name}" {_rectangle(left, top, right - left, bottom - top)} rx="8"/>'


def _bracket(bracket: Bracket) -> str:
    x, top, bottom = _number(bracket.x), _number(bracket.top), _number(bracket.bottom)
    return f'<path class="arrow" d="M{x} {top}h-4V{bottom}h4"/>'


def _arrow(arrow: Arrow) -> str:
    points = " ".join(f"{_number(x)},{_number(y)}" for x, y in arrow.points)
    (x0, y0), (x, y) = arrow.points[-2:]
    # The head is drawn, not a marker: a marker needs an id, and ids of two drawings on one page would collide.
    dx, dy = (x > x0) - (x < x0), (y > y0) - (y < y0)
    back_x, back_y = x - 7 * dx, y - 7 * dy
    head = " ".join(
        f"{_number(px)},{_number(py)}"
        for px, py in ((x, y), (back_x - HEAD * dy, back_y + HEAD * dx), (back_x + HEAD * dy, back_y - HEAD * dx))
    )
    return f'<polyline class="arrow" points="{points}"/><polygon class="head" points="{head}"/>'


def _box(box: Box) -> Iterator[str]:
    yield "<g>"
    if box.facts:
        facts = "\n".join(box.facts)
        yield f"<title>{escape(facts)}</title>"
    corner = box.height / 2 if box.kind == "pool" else ROUND
    yield f'<rect class="{box.kind}" {_rectangle(box.left, box.top, box.width, box.height)} rx="{_number(corner)}"/>'
    if box.glyph is not None:
        yield _glyph(box.glyph, box.kind)
    for text in box.texts:
        yield _text(text, extra=" concat-ink" if box.kind == "concat" else "")
    yield "</g>"


def _glyph(glyph: Glyph, kind: str) -> str:
    left, top, right, bottom = glyph.area
    return f'<rect class="{kind}-window" {_rectangle(left, top, right - left, bottom - top)}/>'


def _text(text: Text, *, extra: str = "") -> str:
    size = FONTS[text.style][0]
    anchor = "" if text.anchor == "start" else f' text-anchor="{text.anchor}"'
    # With the baseline a third of the size below the middle, digits and capitals are centred.
    x, y = _number(text.x), _number(text.y + 0.35 * size)
    return f'<text class="{text.style}{extra}" x="{x}" y="{y}"{anchor}>{escape(text.text)}</text>'


def _rectangle(x: float, y: float, width: float, height: float) -> str:
    return f'x="{_number(x)}" y="{_number(y)}" width="{_number(width)}" height="{_number(height)}"'


def _number(value: float) -> str:
    return f"{round(value, 1):g}"
