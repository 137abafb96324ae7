"""Timing in turn: one process for each contestant, so that start-up and memory are its own, one computing at a time."""

from __future__ import annotations

import multiprocessing
import resource
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from reinception.bench.contestant import Contestant, LeftOutError, Subject
from reinception.errors import ReinceptionError

IMAGES_A_ROUND = 32
"""At least so many images are timed at once, except one by one."""

SINGLE_IMAGES = 4
START_SECONDS = 900.0
"""How long a contestant may take to start: torch.compile takes minutes."""


@dataclass(frozen=True, kw_only=True)
class Timed:
    """One contestant at one batch size: images a second in each round."""

    contestant: Contestant
    batch_size: int
    rates: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.rates)

    def to_json(self) -> dict[str, Any]:
        return {
            "what": self.contestant.what,
            "setting": self.contestant.setting,
            "precision": self.contestant.precision,
            "batch_size": self.batch_size,
            "n": len(self.rates),
            "median_images_per_second": round(self.median, 2),
            "spread": [round(min(self.rates), 2), round(max(self.rates), 2)],
            "median_milliseconds": round(1000 * self.batch_size / self.median, 2),
        }


@dataclass(eq=False)
class Entrant:
    """A contestant in its process. As a context manager it ends the process.

    Raises:
        LeftOutError: where it cannot take part.
    """

    contestant: Contestant
    subject: Subject
    threads: int
    start_seconds: float = 0.0
    _process: Any = field(init=False, default=None)
    _pipe: Connection = field(init=False)

    def __post_init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        began = time.perf_counter()
        arguments = (self.contestant, self.subject, self.threads, theirs)
        self._process = context.Process(target=_work, args=arguments, daemon=True)
        self._process.start()
        theirs.close()
        try:
            self._answer(START_SECONDS)
        except BaseException:
            self.close()
            raise
        self.start_seconds = time.perf_counter() - began

    def __enter__(self) -> Entrant:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.terminate()
        self._process.join()

    def rate(self, batch_size: int) -> float:
        """Images a second of one round."""
        self._pipe.send(batch_size)
        return float(self._answer(START_SECONDS))

    def peak_mib(self) -> int:
        """The most memory it has held so far."""
        self._pipe.send(0)
        return int(self._answer(START_SECONDS))

    def _answer(self, seconds: float) -> Any:
        try:
            if not self._pipe.poll(seconds):
                raise LeftOutError(f"does not answer within {seconds:g} s")
            found = self._pipe.recv()
        except (EOFError, OSError):
            raise LeftOutError("its process has died, perhaps for lack of memory") from None
        if isinstance(found, str):
            raise LeftOutError(found)
        return found


def interleaved(entries: Sequence[tuple[Entrant, int]], rounds: int) -> list[Timed]:
    """Each entrant at its batch size once in each of the rounds, in turn, after one round that nobody counts."""
    rates: list[list[float]] = [[] for _ in entries]
    for number in range(rounds + 1):
        for some, (entrant, batch_size) in zip(rates, entries, strict=True):
            rate = entrant.rate(batch_size)
            if number:
                some.append(rate)
    return [
        Timed(contestant=entrant.contestant, batch_size=size, rates=tuple(some))
        for some, (entrant, size) in zip(rates, entries, strict=True)
    ]


def _work(contestant: Contestant, subject: Subject, threads: int, pipe: Connection) -> None:
    """A contestant's process: a batch size in, images a second out; 0 asks for its peak memory in MiB."""
    import torch

    from reinception.bench import own, peers

    torch.set_num_threads(threads)
    images = np.random.default_rng(0).integers(0, 256, (1, subject.input_size, subject.input_size, 3), dtype=np.uint8)
    try:
        run = (own if contestant.what == own.NAME else peers).make(contestant, subject)
        run(images, 1)
        pipe.send(True)
        while True:
            batch_size = pipe.recv()
            if batch_size == 0:
                pipe.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
                continue
            num = SINGLE_IMAGES if batch_size == 1 else batch_size * -(-IMAGES_A_ROUND // batch_size)
            calls = num if batch_size == 1 else 1  # one by one: how long an image takes, not how many at once
            together = np.repeat(images, num // calls, axis=0)
            start = time.perf_counter()
            for _ in range(calls):
                run(together, batch_size)
            pipe.send(num / (time.perf_counter() - start))
    except (EOFError, OSError):
        return
    except ReinceptionError as error:
        pipe.send(str(error))
    except Exception as error:  # whatever a library finds: this contestant is left out, the others go on
        pipe.send(f"{type(error).__name__}: {str(error).strip().splitlines()[:1]}"[:200])
