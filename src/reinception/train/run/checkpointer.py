"""When a checkpoint is written, and what becomes of a run that cannot write one: it goes on and says so."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from reinception.train.run.checkpoint import Checkpoint, Checkpoints

# Held back while weights, statistics and average change together.
_HELD_BACK = {signal.SIGINT, signal.SIGTERM}


class Keeper:
    """Writes what `capture` gives after a step into `checkpoints`: every `seconds`, every `steps`, and when told.

    Without `checkpoints` it writes nothing: in a process that is not the first of several. A failure to write is told
    to `say`, the older checkpoints stay, and the next interval tries again.
    """

    def __init__(
        self,
        checkpoints: Checkpoints | None,
        capture: Callable[[int], Checkpoint],
        *,
        seconds: float,
        steps: int | None,
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._checkpoints = checkpoints
        self._capture = capture
        self._seconds = seconds
        self._steps = steps
        self._say = say
        self._clock = clock
        self._last = clock()
        self._is_whole = True

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Around what must happen together or not at all: no signal interrupts it, and after a failure within it there
        is nothing left worth keeping."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD_BACK)
        self._is_whole = False
        try:
            yield
            self._is_whole = True
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def keep_if_due(self, step: int) -> None:
        """After `step` steps, where time or steps since the last checkpoint ask for one."""
        by_steps = self._steps is not None and step % self._steps == 0
        if by_steps or self._clock() - self._last >= self._seconds:
            self.keep(step)

    def keep(self, step: int) -> bool:
        """Writes a checkpoint of the state after `step` steps; whether it is on the disk now."""
        if self._checkpoints is None or not self._is_whole:
            return False
        self._last = self._clock()
        try:
            self._checkpoints.save(self._capture(step))
        except OSError as error:
            self._say(
                f"no checkpoint after step {step:,}: {self._checkpoints.folder}: {error.strerror or error}; training "
                "goes on, older checkpoints are whole, the next interval tries again"
            )
            return False
        return True
