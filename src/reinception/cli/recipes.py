"""The verb `recipe`: how a recipe trains, every number with its meaning and its source."""

from __future__ import annotations

import argparse
import textwrap

from reinception.cli.table import aligned
from reinception.errors import UsageError
from reinception.files import write_json
from reinception.recipe import RECIPES, Recipe, named

WIDTH = 100  # of what a recipe says about itself


def recipe(arguments: argparse.Namespace) -> None:
    """Every recipe in a line, or one of them in full."""
    if arguments.action == "list":
        if arguments.name is not None:
            raise UsageError("recipe list takes no NAME; `reinception recipe show NAME` prints one recipe")
        chosen = list(RECIPES.values())
        if arguments.json is not None:
            write_json([one.to_json() for one in chosen], arguments.json)
            return
        rows = [(one.name, f"{one.batch_size} x {one.replicas}", str(one.epochs), _gist(one)) for one in chosen]
        print(aligned(("NAME", "IMAGES PER STEP", "EPOCHS", "FOR"), rows, right=(1, 2)))
        return
    if arguments.name is None:
        raise UsageError(f"recipe show needs a NAME: {', '.join(RECIPES)}")
    shown = named(arguments.name)
    if arguments.json is not None:
        rows_json = [row._asdict() for row in shown.rows()]
        write_json({"name": shown.name, "about": shown.about, "values": rows_json}, arguments.json)
        return
    kinds = f"optimizer: {type(shown.optimizer).__name__}, schedule: {type(shown.schedule).__name__}"
    rows = [(row.path, _value(row.value), row.meaning, row.source) for row in shown.rows()]
    print("\n".join([shown.name, *textwrap.wrap(shown.about, WIDTH), kinds, ""]))
    print(aligned(("VALUE OF", "IS", "MEANING", "SOURCE"), rows, right=(1,)))


def _gist(shown: Recipe) -> str:
    """What it says about itself first."""
    return shown.about.split(". ")[0].rstrip(".")


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
