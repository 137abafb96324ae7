"""Graceful shutdown: records SIGTERM and SIGINT; the loop checks between optimizer steps."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from types import FrameType, TracebackType

from reinception.distributed import Ranks
from reinception.errors import Interrupted

SIGNAL_OF_PARENTS_DEATH = 1  # PR_SET_PDEATHSIG of Linux


class StopRequest:
    """From `listen` to the end of the `with` block the first signal is recorded; a second Ctrl-C interrupts at once.

    The end of torchrun counts as a SIGTERM: without it a rank would go on unseen, beside the one that resumes its run.
    """

    def __init__(self) -> None:
        self.number = 0
        """the signal, 0 while there is none"""
        self._before: dict[int, object] = {}
        self._process = os.getpid()

    def listen(self) -> None:
        """Records signals from now on; before, they end the process as usual."""
        # Only Python's main thread receives signals; training in another one is stopped by whoever started it.
        is_main = threading.current_thread() is threading.main_thread()
        for number in (signal.SIGTERM, signal.SIGINT) if is_main else ():
            self._before[number] = signal.signal(number, self._record)
        if is_main and "TORCHELASTIC_RUN_ID" in os.environ and sys.platform == "linux":
            ctypes.CDLL(None).prctl(SIGNAL_OF_PARENTS_DEATH, signal.SIGTERM)

    def __enter__(self) -> StopRequest:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # pyrefly: ignore[bad-argument-type]

    def check(self) -> None:
        """Interrupted where this process has received a signal."""
        if self.number:
            raise Interrupted("", number=self.number)

    def check_all(self, ranks: Ranks) -> None:
        """Interrupted on all `ranks` where any of them has received a signal."""
        numbers = [int(number) for (number,) in ranks.all_gather_numbers(self.number)]
        self.number = self.number or max(numbers)
        self.check()

    def _record(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a loader process, which has inherited this handler and nothing to save
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        elif self.number and number == signal.SIGINT:
            raise KeyboardInterrupt
        else:
            self.number = number
