"""Computing gives way to answering: a refusal or a health check must not wait for a core that a batch keeps busy."""

from __future__ import annotations

import contextlib
import os
import sys
import threading

_STEPS, _LOWEST = 5, 19


def lower_priority() -> None:
    """Puts the calling thread, and all threads that it starts, five steps below the process's first one, on Linux."""
    if sys.platform == "linux":
        lower = min(_LOWEST, os.getpriority(os.PRIO_PROCESS, os.getpid()) + _STEPS)
        with contextlib.suppress(OSError):  # a sandbox may forbid it, and it is no condition for serving
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), lower)
