"""A network as a picture that looks like the paper's figures: a function of the spec, written as SVG text."""

from __future__ import annotations

from reinception.draw.layout import arrange
from reinception.draw.part import arrange_part
from reinception.draw.svg import write_svg
from reinception.spec import Arch


def draw(arch: Arch, *, at: str | None = None) -> str:
    """SVG text of `arch`, or of its module or auxiliary classifier `at`; the same spec gives the same bytes.

    A whole network flows from top to bottom: that is the order of reading, of Table 1 and of `reinception show`. One
    module flows upwards from its base to its filter concatenation, so that it can be laid beside the paper's figures.
    The text refers to nothing outside itself, and its colours follow the reader's light or dark mode.
    UsageError when there is no `at`, or when a layer's window does not fit the network's input size.
    """
    return write_svg(arrange(arch) if at is None else arrange_part(arch, at))
