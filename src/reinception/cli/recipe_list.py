"""`reinception recipe list`: every recipe in a line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from reinception.cli.table import aligned
from reinception.files import write_json
from reinception.recipe import RECIPES


@dataclass(frozen=True, kw_only=True)
class RecipeListOptions:
    json: Path | None = None


def run(options: RecipeListOptions) -> None:
    """List every recipe in a line.

    Example: reinception recipe list
    """
    chosen = RECIPES.values()
    if options.json is not None:
        write_json([one.to_json() for one in chosen], options.json)
        return
    rows = [
        (one.name, f"{one.batch_size} x {one.replicas}", str(one.epochs), one.about.split(". ")[0].rstrip("."))
        for one in chosen
    ]
    print(aligned(("NAME", "IMAGES PER STEP", "EPOCHS", "FOR"), rows, right=(1, 2)))
