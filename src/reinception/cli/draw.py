"""`reinception draw`: a network, or one part of it, as an SVG file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from reinception.files import new_text_file
from reinception.train.config import TrainConfig


@dataclass(frozen=True, kw_only=True)
class DrawOptions:
    name: str
    """a network of `reinception models`"""

    out: Path
    """the SVG file to write, never over another; - is the standard output"""

    at: str | None = None
    """draw only this module or auxiliary classifier, as grid17.0 or aux, upwards as in the paper's figures"""

    input_size: int | None = None
    width: float = TrainConfig.width


def run(options: DrawOptions) -> None:
    """Draw one network as an SVG file.

    The drawing is like the paper's figures, from the image at the top to the classifier at the bottom; what looks the
    same several times in a row is drawn once. Each box says its path and shapes when pointed at.

    Example: reinception draw inception_v3 -o inception_v3.svg
    """
    from reinception import family
    from reinception.draw import draw

    arch = family.network(options.name, width=options.width, input_size=options.input_size)
    text = draw(arch, at=options.at)
    with new_text_file(options.out) as file:
        file.write(text)
