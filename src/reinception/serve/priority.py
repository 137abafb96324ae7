"""Computing gives way to answering: a refusal or a health check must not wait for a core that a batch keeps busy."""

from __future__ import annotations

import os
import threading

_NICENESS = 5


def lower_priority() -> None:
    """Lowers the priority of the calling thread and of all threads that it starts, where the system can (Linux)."""
    if hasattr(os, "setpriority") and os.uname().sysname == "Linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
