"""Journal: the rows of a job so far, in a folder beside the file to be; what has been committed survives any kill."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from reinception.documents import Documents
from reinception.errors import ReinceptionError
from reinception.files import publish, refuse_existing, write_json

FORMAT = 1
COMMIT_SECONDS = 2.0
"""How often rows are committed: what a kill costs at most, beside what was being computed."""

_STATE, _LOCK = "state.json", "lock"


@dataclass(frozen=True, kw_only=True)
class JobState:
    """What is committed: `rows`, of which `failed` have no result, in streams of so many bytes, of images whose names
    hash to `listed`; and what had been asked."""

    format: int
    request: Mapping[str, str]
    rows: int
    failed: int
    sizes: tuple[int, ...]
    listed: str


class Journal:
    """The folder `OUT.job` of a job that writes `out`, held by this process until the block ends.

    Args:
        out: the file to be; it is not there yet.
        request: what determines the rows, as texts by name. A job is only continued with the same.
        streams: by name, the files that rows are appended to, each with what it begins with.
        resume: whether to go on where an interrupted job stopped, if there is one.

    Raises:
        ReinceptionError: `out` exists; an interrupted job without `resume`, or of another request, or in use by another
            process; a folder of that name that is no job's.
    """

    def __init__(self, out: Path, request: Mapping[str, str], streams: Mapping[str, bytes], *, resume: bool) -> None:
        self.out, self.folder = out, out.with_name(f"{out.name}.job")
        self._request, self._starts, self._resume = dict(request), streams, resume
        self.rows = self.failed = 0
        self._names = hashlib.sha256()
        self._files: list[IO[bytes]] = []
        self._stack = ExitStack()
        self._committed = time.monotonic()

    def __enter__(self) -> Journal:
        with ExitStack() as stack:
            state = self._entered(stack)
            if state is not None:
                self._check(state)
                self.rows, self.failed = state.rows, state.failed
                self._listed = state.listed
            for number, (path, start) in enumerate(zip(self.paths, self._starts.values(), strict=True)):
                file = stack.enter_context(path.open("wb" if state is None else "r+b"))
                self._files.append(file)
                if state is None:
                    file.write(start)
                elif file.seek(0, os.SEEK_END) < state.sizes[number]:
                    raise ReinceptionError(
                        f"{path}: is shorter than its job left it: remove {self.folder} and start again"
                    )
                else:
                    file.truncate(state.sizes[number])
                    file.seek(0, os.SEEK_END)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def paths(self) -> list[Path]:
        """The files of the streams."""
        return [self.folder / name for name in self._starts]

    def skip(self, names: Iterable[str]) -> None:
        """Take the names of the first images of the list, as many as there are rows, for those of the rows.

        ReinceptionError where they are others: then the list has changed.
        """
        num = 0
        for name in names:
            self._note(name)
            num += 1
        if self.rows and (num < self.rows or self._names.hexdigest() != self._listed):
            raise ReinceptionError(
                f"{self.folder}: the images are no longer those of the first {self.rows:,} rows: list the same, or "
                "remove the folder and start again"
            )

    def append(self, name: str, parts: Sequence[bytes], *, failed: bool) -> None:
        """The row of the next image: what it adds to each stream."""
        for file, part in zip(self._files, parts, strict=True):
            file.write(part)
        self._note(name)
        self.rows += 1
        self.failed += failed

    @property
    def is_due(self) -> bool:
        """Whether rows have waited long enough to be committed."""
        return time.monotonic() - self._committed >= COMMIT_SECONDS

    def commit(self) -> None:
        """All rows so far survive from now on."""
        for file in self._files:
            file.flush()
            os.fsync(file.fileno())
        state = JobState(
            format=FORMAT,
            request=self._request,
            rows=self.rows,
            failed=self.failed,
            sizes=tuple(file.tell() for file in self._files),
            listed=self._names.hexdigest(),
        )
        write_json(Documents().encode(state), self.folder / _STATE, replace=True)
        self._committed = time.monotonic()

    def finish(self, result: Path | None) -> None:
        """The file `result` of the folder becomes the output, whole, and the folder goes; None for no output."""
        if result is not None:
            publish(result, self.out)
        shutil.rmtree(self.folder)

    def _note(self, name: str) -> None:
        self._names.update(name.encode(errors="surrogateescape") + b"\0")

    def _entered(self, stack: ExitStack) -> JobState | None:
        """Make the folder, lock it, and read what is committed."""
        is_new = not self.folder.exists()
        if not is_new and not (self.folder.is_dir() and _is_ours(self.folder)):
            raise ReinceptionError(f"{self.folder}: is in the way and not ours: remove it or name another output")
        self.folder.mkdir(exist_ok=True)
        stack.enter_context(_locked(self.folder / _LOCK))
        refuse_existing(self.out)  # another process may have finished it meanwhile
        if not (self.folder / _STATE).exists():
            return None
        if not self._resume:
            raise ReinceptionError(
                f"{self.folder}: an interrupted job of this output: --resume continues it, or remove the folder"
            )
        return read_state(self.folder)

    def _check(self, state: JobState) -> None:
        names = [*state.request, *(name for name in self._request if name not in state.request)]
        differing = [name for name in names if state.request.get(name) != self._request.get(name)]
        if state.format != FORMAT or len(state.sizes) != len(self._starts):
            raise ReinceptionError(f"{self.folder}: a job of another version: remove the folder and start again")
        if differing:
            said = "; ".join(
                f"{name}: {state.request.get(name, 'none')} then, {self._request.get(name, 'none')} now"
                for name in differing
            )
            raise ReinceptionError(
                f"{self.folder}: the interrupted job asked for something else ({said}): ask the same, or remove the "
                "folder and start again"
            )


def read_state(folder: Path) -> JobState:
    """What is committed in a job's folder. ReinceptionError where it cannot be read."""
    path = folder / _STATE
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ReinceptionError(f"{path}: cannot be read ({error}): remove {folder} and start again") from None
    return Documents().decode(document, JobState, str(path))


def tidy(out: Path) -> None:
    """Remove the folder of the job that wrote `out`, which a kill just afterwards leaves."""
    folder = out.with_name(f"{out.name}.job")
    if folder.is_dir() and _is_ours(folder):
        with contextlib.suppress(ReinceptionError), _locked(folder / _LOCK):
            shutil.rmtree(folder)


def _is_ours(folder: Path) -> bool:
    names = {entry.name for entry in folder.iterdir()}
    return not names or _LOCK in names


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """The lock of a folder, which ends with this process however it ends. ReinceptionError where another has it."""
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            who = file.read().strip() or "unknown"
            raise ReinceptionError(f"{path.parent}: process {who} is writing this output; wait for it") from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
