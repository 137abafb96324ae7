"""`reinception recipe show`: how a recipe trains, every number with its meaning and its source."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from pathlib import Path

from reinception.cli.table import aligned
from reinception.files import write_json
from reinception.recipe import named

WIDTH = 100  # of what a recipe says about itself


@dataclass(frozen=True, kw_only=True)
class RecipeShowOptions:
    name: str
    """a recipe of `reinception recipe list`"""

    json: Path | None = None


def run(options: RecipeShowOptions) -> None:
    """Print one recipe in full, every number with its meaning and its source.

    Example: reinception recipe show from_scratch
    """
    shown = named(options.name)
    if options.json is not None:
        values = [row._asdict() for row in shown.rows()]
        write_json({"name": shown.name, "about": shown.about, "values": values}, options.json)
        return
    kinds = f"optimizer: {type(shown.optimizer).__name__}, schedule: {type(shown.schedule).__name__}"
    rows = [(row.path, _value(row.value), row.meaning, row.source) for row in shown.rows()]
    print("\n".join([shown.name, *textwrap.wrap(shown.about, WIDTH), kinds, ""]))
    print(aligned(("VALUE OF", "IS", "MEANING", "SOURCE"), rows, right=(1,)))


def _value(value: float | bool | str | None) -> str:
    match value:
        case None:
            return "none"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:g}"
        case _:
            return str(value)
