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
