"""What a run says while it goes on: a moving bar on a terminal, plain lines elsewhere, and all lines in its log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TextIO

from rich.console import Console as Terminal
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

PLAIN_LINES = 20  # progress lines per run where there is no terminal: one for every twentieth of it


class Console:
    """Speaks on `stream`, the standard error stream unless told otherwise.

    A silent one says nothing: that of a process which is not the first of several. Lines said before `log_to` are kept
    and written to the log as soon as there is one.
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
        """From now on `write` gets every line too, stamped with its time, and first those said so far."""
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
        """Training is at `progress`; `state` says where and how well, in a few words."""
        if self._is_silent:
            return
        if self._first_progress is None:
            self._started, self._first_progress = time.monotonic(), progress
        pace = f"{images_per_second:.1f} images/s, {_left(self._remaining(progress))}"
        if self._stream.isatty():
            bar = self._bar or self._start_bar()
            bar.update(bar.task_ids[0], completed=progress, state=state, pace=pace)
        elif int(progress * PLAIN_LINES) > self._said_twentieth:
            self._said_twentieth = int(progress * PLAIN_LINES)
            self.say(f"{progress:4.0%}  {state}, {pace}")

    def stop_bar(self) -> None:
        """Leaves the bar as it stands; what is said afterwards stands below it."""
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
        """Seconds to go at the pace since the first progress; None while there is no pace."""
        done = progress - (self._first_progress or 0.0)
        return (time.monotonic() - self._started) / done * (1 - progress) if done > 0 else None


def _left(seconds: float | None) -> str:
    if seconds is None:
        return "remaining time not known yet"
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min left"
    return f"{whole // 60} min {whole % 60:02d} s left" if whole >= 60 else f"{whole} s left"
