"""The batcher: one thread that computes what waits in a bounded queue, several images at a time.

A batch is cut when it is full, when its first image has waited long enough, or when more would take too long.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from reinception.data.images.decode import Pixels
from reinception.errors import ReinceptionError, first_line
from reinception.serve.counters import Counters
from reinception.serve.limits import ADMITTED_SHARE, BATCH_DELAY_SECONDS, BATCH_SECONDS, HUNG_SECONDS, ServeConfig
from reinception.serve.priority import lower_priority
from reinception.serve.refusal import Refusal
from reinception.serve.served_model import Kind, ServedModel


@dataclass(eq=False)
class Job:
    """One image to be computed: its pixels (s, s, 3) uint8, until when (monotonic), and where the result goes."""

    model: ServedModel
    kind: Kind
    pixels: Pixels
    deadline: float
    future: asyncio.Future[Any]
    arrived: float = field(default_factory=time.monotonic)

    @property
    def group(self) -> tuple[int, Kind]:
        """Jobs of one group can be computed together."""
        return id(self.model), self.kind


class Batcher:
    """Belongs to one event loop, from which all methods are called; `supervise` once in a while."""

    def __init__(self, config: ServeConfig, counters: Counters) -> None:
        self._config, self._counters = config, counters
        self._queue: deque[Job] = deque()
        self._condition = threading.Condition()
        self._current: list[Job] = []
        self._began: float | None = None
        self._busy_since: float | None = None
        self._is_closed = False
        self._places = 0
        self.seconds_per_image = 0.0
        """As measured at the start, then by batches that are at least half full; 0 where it is not known.

        While images wait it is the time from one batch's end to the next one's, with what decoding and answering take.
        """
        self.failure: str | None = None
        """Why nothing will ever be computed again."""
        self._loop = asyncio.get_running_loop()
        self._thread = self._start()

    # -- places in the queue -------------------------------------------------------------------------------------------

    @property
    def num_places(self) -> int:
        """Images that are waiting for their answer, from the moment they are admitted."""
        return self._places

    def check_room(self, num: int = 1) -> None:
        """Refusal where `num` more images would not fit, or not be done before their deadline."""
        if self.failure:
            raise Refusal.busy(503, "backend_hung", self.failure, 10)
        free = self._config.queue_size - self._places
        wait = (self._places + num) * self.seconds_per_image
        if num > free or wait > ADMITTED_SHARE * self._config.deadline_seconds:
            self._counters.refused.labels("queue_full").inc()
            raise Refusal.busy(429, "queue_full", f"{self._places} images are waiting; try again", wait)

    @contextlib.contextmanager
    def places(self, num: int) -> Iterator[None]:
        """Holds `num` places while the block runs."""
        self.check_room(num)
        self._places += num
        try:
            yield
        finally:
            self._places -= num

    # -- jobs ----------------------------------------------------------------------------------------------------------

    async def compute(
        self, model: ServedModel, kind: Kind, pixels: Pixels, deadline: float, *, is_urgent: bool = False
    ) -> Any:
        """The result for one image. Refusal where it is not there by `deadline` (monotonic). Urgent ones go first."""
        job = Job(model, kind, pixels, deadline, self._loop.create_future())
        with self._condition:
            if self.failure:
                raise Refusal.busy(503, "backend_hung", self.failure, 10)
            (self._queue.appendleft if is_urgent else self._queue.append)(job)
            self._condition.notify()
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                return await job.future
        except TimeoutError:
            raise late() from None
        finally:
            with self._condition, contextlib.suppress(ValueError):
                self._queue.remove(job)

    def supervise(self) -> None:
        """Starts a thread that has died again; gives up, in `failure`, on one that never ends its batch."""
        began = self._began
        if self._is_closed or self.failure:
            return
        if not self._thread.is_alive():
            self._counters.restarts.labels("batcher").inc()
            self._thread = self._start()
        elif began is not None and time.monotonic() - began > HUNG_SECONDS + 5 * BATCH_SECONDS:
            self.failure = f"a batch has not ended for {time.monotonic() - began:.0f} s: the backend hangs"
            with self._condition:
                waiting = [*self._current, *self._queue]
                self._queue.clear()
            _deliver(waiting, [Refusal.busy(503, "backend_hung", self.failure, 10)] * len(waiting))

    def close(self) -> None:
        with self._condition:
            self._is_closed = True
            self._condition.notify()

    # -- the thread ----------------------------------------------------------------------------------------------------

    def _start(self) -> threading.Thread:
        thread = threading.Thread(target=self._run, name="batcher", daemon=True)
        thread.start()
        return thread

    def _run(self) -> None:
        batch: list[Job] = []
        try:
            lower_priority()
            while batch := self._next_batch():
                self._began = time.monotonic()
                results = self._results(batch)
                seconds = self._measure(len(batch), self._began)
                self._began = None
                self._counters.batch_size.observe(len(batch))
                self._counters.batch_seconds.observe(seconds)
                self._hand_over(batch, results)
        finally:  # also where the thread dies: whoever waits is told
            self._began, self._current = None, list[Job]()
            died = Refusal.busy(503, "batcher_died", "the batcher died and is started again; try again")
            self._hand_over(batch, [died] * len(batch))

    def _next_batch(self) -> list[Job]:
        """Waits for jobs and takes a batch of them; none when closed."""
        with self._condition:
            while True:
                now = time.monotonic()
                while self._queue and self._queue[0].deadline <= now:
                    self._queue.popleft()  # whoever waited has been refused
                if self._is_closed:
                    return []
                if not self._queue:
                    self._condition.wait()
                    continue
                head = self._queue[0]
                ready = [job for job in self._queue if job.group == head.group and job.deadline > now]
                rest = head.arrived + BATCH_DELAY_SECONDS - now
                if len(ready) >= self._most() or rest <= 0:
                    break
                self._condition.wait(rest)
            self._current = ready[: self._most()]
            taken = set(map(id, self._current))
            self._queue = deque(job for job in self._queue if id(job) not in taken)
            return self._current

    def _measure(self, num: int, began: float) -> float:
        """Seconds that a batch of `num` images, which has just been computed, took; and what an image takes by it."""
        ended = time.monotonic()
        seconds = ended - began
        # At most three times as long, for the place of an image that cannot be decoded is held for long too.
        busy = seconds if self._busy_since is None else min(ended - self._busy_since, 3 * seconds)
        self._busy_since = ended if self._places > num else None
        if 2 * num >= self._config.batch_size or seconds > BATCH_SECONDS / 2:
            before = self.seconds_per_image or busy / num
            self.seconds_per_image = (before + busy / num) / 2
        return seconds

    def _most(self) -> int:
        """As many as `BATCH_SECONDS` allow, a power of two: so many are computed anyway."""
        if not self.seconds_per_image:
            return self._config.batch_size
        allowed = max(1, int(BATCH_SECONDS / self.seconds_per_image))
        return min(self._config.batch_size, 1 << (allowed.bit_length() - 1))

    def _results(self, batch: Sequence[Job]) -> list[Any]:
        """A result or an exception for each job; where a batch fails, each of its images is tried alone."""
        try:
            return batch[0].model.compute(batch[0].kind, [job.pixels for job in batch])
        except ReinceptionError as error:
            failure = Refusal(500, "non_finite_output", f"the model has no answer: {first_line(error)}")
        except Exception as error:
            failure = Refusal(500, "backend_failed", f"computing failed: {first_line(error)}")
        return [failure] if len(batch) == 1 else [self._results([job])[0] for job in batch]

    def _hand_over(self, batch: list[Job], results: list[Any]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has been closed: nobody waits
            self._loop.call_soon_threadsafe(_deliver, batch, results)


def late() -> Refusal:
    return Refusal.busy(503, "deadline", "no answer within the deadline; try again")


def _deliver(batch: Sequence[Job], results: Sequence[Any]) -> None:
    for job, result in zip(batch, results, strict=True):
        if job.future.done():
            continue
        if isinstance(result, Exception):
            job.future.set_exception(result)
        else:
            job.future.set_result(result)
