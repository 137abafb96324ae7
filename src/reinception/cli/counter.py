"""How far a long command has come, on the terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable


def counter(what: str) -> Callable[[int, int | None], None] | None:
    """A counter of `what` that stays on one line of a terminal; None elsewhere, where nobody watches."""
    if not sys.stderr.isatty():
        return None

    def show(done: int, total: int | None) -> None:
        of = "" if total is None else f" of {total:,}"
        print(f"\r{done:,}{of} {what}", end="\n" if done == total else "", file=sys.stderr, flush=True)

    return show


def say(line: str) -> None:
    """A line of its own on the standard error stream, in place of a counter that stands there."""
    print(f"{chr(13) if sys.stderr.isatty() else ''}reinception: {line}", file=sys.stderr)
