"""`reinception shrink`: smaller networks that answer as a trained one does."""

from __future__ import annotations

from typing import Annotated

from reinception.cli.counter import say
from reinception.cli.flags import Given, exclusive
from reinception.shrink.shrink_config import ShrinkConfig


def run(given: Annotated[Given, ShrinkConfig]) -> None:
    """Train smaller networks that answer as MODEL does, and show what each gains in speed and costs in accuracy.

    Students of the same family (narrower, shallower, with smaller inputs) that reach the goal on this machine learn
    from the labels and from MODEL's probabilities. The table has MODEL, the students, and one student without a
    teacher, each judged on the images that MODEL's own training held out. Killed at any moment, the same command goes
    on.

    Example: reinception shrink runs/large photos -o small --speed-up 20 --time-budget 40m
    """
    exclusive(given, "speed_up", "latency_seconds", "multiply_adds")
    from reinception.shrink.shrinking import shrink

    print(shrink(ShrinkConfig(**given), say=say))
