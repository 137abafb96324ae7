"""How far a long command has come, on the terminal."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable

TERMINAL_SECONDS, LOG_SECONDS = 0.1, 30.0
"""How often a count is shown: on a line of a terminal, and as lines of a log."""


def counter(what: str) -> Callable[[int, int | None], None] | None:
    """A counter of `what` that stays on one line of a terminal; None elsewhere, where nobody watches."""
    return job_counter(what) if sys.stderr.isatty() else None


def job_counter(what: str, count: Callable[[], int] | None = None) -> Callable[[int, int | None], None]:
    """A counter of `what` with their rate and the remaining time: on one line of a terminal, in a log now and then.

    `count` finds how many there are; it is called beside the work, for a long list takes a while.
    """
    interval = TERMINAL_SECONDS if sys.stderr.isatty() else LOG_SECONDS
    began = shown = time.monotonic()
    before: int | None = None
    counted: list[int] = []
    if count is not None:

        def find() -> None:
            with contextlib.suppress(Exception):  # the work itself finds out and says so
                counted.append(count())

        threading.Thread(target=find, daemon=True).start()

    def show(done: int, total: int | None) -> None:
        nonlocal shown, before
        before = done - 1 if before is None else before
        now, total = time.monotonic(), total if total is not None or not counted else counted[0]
        is_end = done == total and sys.stderr.isatty()
        if now - shown < interval and not is_end:
            return
        shown = now
        line = f"{progress_line(done, total, what, done - before, now - began)}"
        if sys.stderr.isatty():
            print(f"\r{line:<60}", end="\n" if is_end else "", file=sys.stderr, flush=True)
        else:
            say(line)

    return show


def progress_line(done: int, total: int | None, what: str, new: int, seconds: float) -> str:
    """How far the work is, at which rate, and how long it still takes, from `new` of them in so many seconds."""
    rate = new / max(seconds, 1e-9)
    of = "" if total is None else f" of {total:,}"
    line = f"{done:,}{of} {what}, {rate:,.1f}/s"
    if total is None or done >= total:
        return line
    return f"{line}, {_duration((total - done) / rate)} left"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def say(line: str) -> None:
    """A line of its own on the standard error stream, in place of a counter that stands there."""
    print(f"{chr(13) if sys.stderr.isatty() else ''}reinception: {line}", file=sys.stderr)
