"""The errors a user can meet: each is one line that says what failed, where, and what to do."""

from __future__ import annotations

import signal


class ReinceptionError(Exception):
    """The work failed for a reason the user can mend. `str(error)` is one line; the command line exits with 1."""


class UsageError(ReinceptionError):
    """The request itself makes no sense (a flag, a name, a combination). The command line exits with 2."""


class Interrupted(KeyboardInterrupt):
    """A signal asked the work to end, and it has ended in order. The command line exits with 128 + `number`."""

    def __init__(self, message: str, *, number: int = signal.SIGINT) -> None:
        super().__init__(message)
        self.number = int(number)
