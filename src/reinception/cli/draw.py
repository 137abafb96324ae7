"""The verb `draw`: a network, or one part of it, as an SVG file."""

from __future__ import annotations

import argparse

from reinception import family
from reinception.draw import draw as drawn
from reinception.files import new_text_file


def draw(arguments: argparse.Namespace) -> None:
    """Write the drawing. Nothing is created when the network or the part does not exist."""
    arch = family.network(arguments.name, width=arguments.width, input_size=arguments.input_size)
    text = drawn(arch, at=arguments.at)
    with new_text_file(arguments.out) as file:
        file.write(text)
