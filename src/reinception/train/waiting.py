"""The fraction of training time that is spent waiting for images, and what to do when it is large."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from reinception.data.loading.loader import Batch
from reinception.machine import num_processors

LARGEST_FRACTION = 0.03
"""Above it `train` says what to do: more than this a user notices."""

PACKED_SIDE = 1.5
"""Shorter side of packed images over the input size: enough pixels for most random crops."""


class ImageWait:
    """Seconds of steps, and those of them spent waiting for images.

    The first step is not counted: it starts the loader processes, waits for their first batch and allocates memory.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.step_seconds = 0.0
        self.waiting_seconds = 0.0
        self._clock = clock
        self._total = 0.0  # of all steps, the first one too
        self._is_first = True

    def batches(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """`batches`, with the time each of them takes to come."""
        began = self._clock()
        for batch in batches:
            self._total += self._clock() - began
            yield batch
            began = self._clock()

    @contextmanager
    def step(self) -> Iterator[None]:
        """Around one step."""
        began, before = self._clock(), self._total
        yield
        if not self._is_first:
            self.step_seconds += self._clock() - began
            self.waiting_seconds += self._total - before
        self._is_first = False

    @property
    def fraction(self) -> float | None:
        """Waiting over all seconds of the steps; None before the second step."""
        return self.waiting_seconds / self.step_seconds if self.step_seconds else None


def describe_waiting(fraction: float | None, *, workers: int, input_size: int) -> str:
    """One line with the `fraction`; above LARGEST_FRACTION it names what to do."""
    if fraction is None:
        return "waited for images: not measured in a single step"
    said = f"waited for images: {100 * fraction:.1f} % of the time"
    if fraction <= LARGEST_FRACTION:
        return said
    cores = num_processors() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    more = f"--workers {cores} and, " if workers < cores else ""
    side = round(PACKED_SIDE * input_size)
    return (
        f"{said}; to wait less: {more}where images are much larger than {input_size} pixels, pack them once with "
        f"`reinception data pack --shorter-side {side}`"
    )
