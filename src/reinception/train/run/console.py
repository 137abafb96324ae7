"""Messages of a run in progress: a progress bar on a terminal, plain lines elsewhere, all lines in its log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TextIO

from rich.console import Console as Terminal
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from reinception.report.formatting import duration

PLAIN_LINES = 20  # progress lines per run where there is no terminal: one for every twentieth of it


class Console:
    """Writes to `stream`, by default the standard error stream.

    A silent console writes nothing: in a process that is not the first of several. Lines before `log_to` are kept and
    written to the log as soon as there is one.
    """

    def __init__(self, stream: TextIO | None = None, *, is_silent: bool = False) -> None:
        self._is_silent = is_silent
        self._stream = sys.stderr if stream is None else stream
        self._write_log: Callable[[str], None] | None = None
        self._unlogged: list[str] = []
        self._bar: Progress | None = None
        self._started = time.monotonic()
        self._first_progress: float | None = None
        self._said_twentieth = -1

    def say(self, line: str) -> None:
        """One line, on the stream and in the log."""
        if self._is_silent:
            return
        if self._bar is not None:
            self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            print(line, file=self._stream, flush=True)
        stamped = f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {line}\n"
        if self._write_log is None:
            self._unlogged.append(stamped)
        else:
            self._write_log(stamped)

    def log_to(self, write: Callable[[str], None]) -> None:
        """From now on `write` gets every line with its time, and first the lines so far."""
        self._write_log = write
        for line in self._unlogged:
            write(line)
        self._unlogged.clear()

    def __enter__(self) -> Console:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop_bar()

    def advance(self, progress: float, *, state: str, images_per_second: float) -> None:
        """Shows `progress` (0 to 1) with `state`, a few words."""
        if self._is_silent:
            return
        if self._first_progress is None:
            self._started, self._first_progress = time.monotonic(), progress
        seconds = self._remaining(progress)
        left = "remaining time not known yet" if seconds is None else f"{duration(seconds)} left"
        pace = f"{images_per_second:.1f} images/s, {left}"
        if self._stream.isatty():
            bar = self._bar or self._start_bar()
            bar.update(bar.task_ids[0], completed=progress, state=state, pace=pace)
        elif int(progress * PLAIN_LINES) > self._said_twentieth:
            self._said_twentieth = int(progress * PLAIN_LINES)
            self.say(f"{progress:4.0%}  {state}, {pace}")

    def stop_bar(self) -> None:
        """Leaves the bar as it is; later lines are below it."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _start_bar(self) -> Progress:
        self._bar = Progress(
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TextColumn("{task.fields[state]}, {task.fields[pace]}", markup=False),
            console=Terminal(file=self._stream),
        )
        self._bar.add_task("training", total=1.0, state="", pace="")
        self._bar.start()
        return self._bar

    def _remaining(self, progress: float) -> float | None:
        """Seconds left at the pace since the first progress; None while that is not known."""
        done = progress - (self._first_progress or 0.0)
        return (time.monotonic() - self._started) / done * (1 - progress) if done > 0 else None
