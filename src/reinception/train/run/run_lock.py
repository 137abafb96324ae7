"""One process trains a run at a time: a lock that the system takes back when its process ends, however it ends."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
from collections.abc import Callable
from pathlib import Path

from reinception.errors import ReinceptionError
from reinception.train.run.checkpoint import FOLDER_NAME

LOCK_NAME = "lock"
_HELD: set[int] = set()


def _let_go_of_the_parents() -> None:
    """In a forked child: a loader process that outlives a killed run must not keep its lock."""
    for file in _HELD:
        os.close(file)
    _HELD.clear()


os.register_at_fork(after_in_child=_let_go_of_the_parents)


class RunLock:
    """The lock of the run in `out`, to be taken once; released at the end of the `with` block or of the process.

    It is a lock on the file RUN/state/lock, whose text names the process for people; the file is gone when the run is.
    Where the file system has no locks, `say` says so and the run goes on.
    """

    def __init__(self, out: Path, say: Callable[[str], None]) -> None:
        self._out = out
        self._path = (out / FOLDER_NAME / LOCK_NAME).resolve()
        self._say = say
        self._file: int | None = None

    def take(self) -> None:
        """ReinceptionError, one line with the process's number, where another one has it."""
        try:
            self._file = self._locked()
        except BlockingIOError:
            holder = "another process"
            with contextlib.suppress(OSError):
                holder = self._path.read_text(encoding="utf-8", errors="replace").strip() or holder
            raise ReinceptionError(f"{self._out}: {holder} is training it; wait for its end, or end it first") from None
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP):
                raise ReinceptionError(
                    f"{self._out}: cannot write: {error.strerror}; a run is resumed where it may be written"
                ) from None
            self._say(f"WARNING: {self._path}: {error.strerror}: two processes could train this run at once")
            return
        _HELD.add(self._file)
        with contextlib.suppress(OSError):  # on a full disk the lock holds all the same, without a name
            self._path.write_text(f"process {os.getpid()} on {socket.gethostname()}\n", encoding="utf-8")

    def _locked(self) -> int:
        """The open file with the lock on it. BlockingIOError where another process has it, OSError where none can."""
        while True:
            self._path.parent.mkdir(exist_ok=True)
            # Not open for writing, so that its disk may become read-only; NFS locks nothing else.
            for access in (os.O_RDONLY, os.O_RDWR):
                file = os.open(self._path, access | os.O_CREAT, 0o644)
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except OSError as error:
                    os.close(file)
                    if error.errno != errno.EBADF or access == os.O_RDWR:
                        raise
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file), os.stat(self._path)):
                    return file
            os.close(file)  # its holder removed it meanwhile

    def __enter__(self) -> RunLock:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):  # while the lock is held: who opened the file before, looks again
                self._path.unlink()
                self._path.parent.rmdir()  # where the run has nothing else there
            _HELD.discard(self._file)
            os.close(self._file)
            self._file = None
