"""`reinception ablate`: the paper's ladder, or one of its small experiments, on anyone's data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from reinception.cli.flags import Given, exclusive
from reinception.train.config import AblateConfig


@dataclass(frozen=True, kw_only=True)
class AblateOptions:
    table: str = AblateConfig.study.removeprefix("table_")
    """a table of the paper: 3 is the ladder from Inception-v2 to v3, 2 is 79, 151 and 299 pixels at equal cost"""

    experiment: str | None = None
    """one of the paper's small experiments instead: figure_2, figure_9, section_3_2, auxiliary or
    factorization_place"""


def run(given: Annotated[Given, AblateConfig], which: Annotated[Given, AblateOptions]) -> None:
    """Train the rows of one of the paper's tables on your images, side by side.

    Every row and seed gets the same budget and becomes a run folder of its own. Killed at any moment, the same command
    goes on with the rows that are missing.

    Example: reinception ablate photos -o study --table 3 --budget 10m --seeds 3
    """
    exclusive(which, "table", "experiment")
    exclusive(given, "budget_seconds", "epochs")
    from reinception.train.ablate import ablate

    if "experiment" in which:
        given = {**given, "study": which["experiment"]}
    elif "table" in which:
        given = {**given, "study": f"table_{which['table']}"}
    config = AblateConfig(**given)
    try:
        print(ablate(config))
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"finished rows are kept; the same command goes on: {config.command()}") from None
