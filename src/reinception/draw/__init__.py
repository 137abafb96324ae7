"""Draws a spec as SVG in the style of the paper's figures."""

from __future__ import annotations

from reinception.draw.layout import arrange
from reinception.draw.part import arrange_part
from reinception.draw.svg import write_svg
from reinception.spec import Arch


def draw(arch: Arch, *, at: str | None = None) -> str:
    """SVG text of `arch`, or of its module or auxiliary classifier `at`; the same spec gives the same bytes.

    A whole network flows from top to bottom, as in Table 1 and in `reinception show`; one module flows upwards from its
    base to its filter concatenation, as in the paper's figures. The SVG refers to nothing outside itself, and its
    colours follow light or dark mode. UsageError when there is no `at`, SpecError when a layer's kernel does not fit
    the network's input size.

        draw(ri.family.network("inception_v3"), at="grid17.0")
    """
    return write_svg(arrange(arch) if at is None else arrange_part(arch, at))
