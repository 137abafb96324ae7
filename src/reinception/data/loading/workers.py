"""Ordered parallel map over worker processes; an image that crashes or hangs a worker is identified and skipped."""

from __future__ import annotations

import contextlib
import faulthandler
import mmap
import multiprocessing
import os
import resource
import signal
import struct
import time
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

import torch

from reinception.data.loading.watchdog import NO_IMAGE, Watchdog
from reinception.errors import BadImage, ReinceptionError

Task = TypeVar("Task")
Result = TypeVar("Result")

# Forked processes share the parent's memory, cached images above all; where there is no fork, each gets a copy.
START_METHOD = "fork" if "fork" in multiprocessing.get_all_start_methods() else None

PATIENCE_SECONDS = 10.0
"""How long one image may keep a worker busy while the parent waits for it."""

_POLL_SECONDS = 0.5
# A pipe to the worker and one that tells of its end; while one is started, both ends of each.
_FILES_PER_WORKER, _FILES_BESIDE = 2, 16
# A worker that dies before it has begun any image would die again: the parent gives up after so many.
_MAX_DEATHS_WITHOUT_IMAGE = 3


class LoaderDiedError(ReinceptionError):
    """A worker process has died and no image is to blame; its tasks can be asked for again."""


Job = Callable[[Task, Watchdog], Result]


def ordered_map(
    job: Job[Task, Result], tasks: Iterable[Task], workers: int, *, patience: float = PATIENCE_SECONDS
) -> Generator[Result, None, None]:
    """job(task, watchdog) for each task, in order: here (`workers` 0) or in `workers` processes that run ahead.

    A `ReinceptionError` of a job is raised here. When a worker dies, or is busy with one image for `patience` seconds
    while this process waits, another one does its task again, and there `Watchdog.mark_current` raises the `BadImage`:
    whether that ends the work is the job's decision. Three workers that die without having marked an image are a
    `LoaderDiedError`. Closing the iterator ends the workers. Results go through a pipe, not /dev/shm, which is small in
    containers.
    """
    if workers == 0:
        for task in tasks:
            yield job(task, Watchdog())
        return
    pool = _Pool(job, workers, patience)
    try:
        yield from pool.run(iter(tasks))
    finally:
        pool.close()


@dataclass(eq=False)
class _Worker(Generic[Task]):
    """One process, its pipe and tasks, and for how many `seconds` it has been seen busy with one image."""

    process: Any
    pipe: Connection
    busy: Any
    tasks: deque[tuple[int, Task]] = field(default_factory=deque)
    num_changes: int = 0
    seconds: float = 0.0


class _Pool(Generic[Task, Result]):
    """Workers that each have up to two tasks: the current one and the next."""

    def __init__(self, job: Job[Task, Result], num: int, patience: float) -> None:
        self._job, self._patience = job, patience
        self._context: Any = multiprocessing.get_context(START_METHOD)
        self._known_bad: dict[int, BadImage] = {}
        self._num_deaths = 0
        self._workers: list[_Worker[Task]] = []
        _require_descriptors(num)
        for _ in range(num):
            self._workers.append(self._start())

    def run(self, tasks: Iterator[Task]) -> Iterator[Result]:
        results: dict[int, Result | Exception] = {}
        given = done = 0
        for _ in range(2):
            for worker in self._workers:
                given += self._give(worker, given, tasks)
        while done < given:
            while done not in results:
                for worker in self._receive(results):
                    given += self._give(worker, given, tasks)
            result = results.pop(done)
            done += 1
            if isinstance(result, Exception):
                raise result
            yield result

    def close(self) -> None:
        for worker in self._workers:
            worker.pipe.close()
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join(2)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()

    def _start(self) -> _Worker[Task]:
        ours, theirs = self._context.Pipe()
        busy = _shared_numbers(self._context)
        # A forked child inherits the parent's ends of all pipes; while it holds them, no worker sees the parent die.
        others = (ours, *(worker.pipe for worker in self._workers)) if START_METHOD == "fork" else ()
        process = self._context.Process(target=_work, args=(self._job, theirs, busy, others), daemon=True)
        with warnings.catch_warnings():
            # Python 3.12 and later warn of forking beside threads: it is meant, the child starts none of its own.
            warnings.filterwarnings("ignore", message=".*use of fork.*", category=DeprecationWarning)
            process.start()
        theirs.close()
        return _Worker(process=process, pipe=ours, busy=busy)

    def _give(self, worker: _Worker[Task], number: int, tasks: Iterator[Task]) -> int:
        """One more task for `worker`: how many it got, 0 when there are no more."""
        for task in tasks:
            worker.tasks.append((number, task))
            self._send(worker, task)
            return 1
        return 0

    def _send(self, worker: _Worker[Task], task: Task) -> None:
        with contextlib.suppress(OSError):  # a dead worker is noticed later, and its tasks are given to another
            worker.pipe.send((task, self._known_bad))

    def _receive(self, results: dict[int, Result | Exception]) -> list[_Worker[Task]]:
        """The workers that have finished a task within a moment; what they made is in `results`."""
        start = time.monotonic()
        by_pipe = {worker.pipe: worker for worker in self._workers if worker.tasks}
        ready = wait(list(by_pipe), _POLL_SECONDS)
        # Time during which this process was stopped (Ctrl-Z, suspend) does not count.
        waited = min(time.monotonic() - start, 2 * _POLL_SECONDS)
        finished = []
        for pipe, worker in by_pipe.items():
            if pipe in ready:
                try:
                    result = worker.pipe.recv()
                except (EOFError, OSError):
                    self._replace(worker)
                    continue
                number, _ = worker.tasks.popleft()
                results[number] = result
                worker.seconds = 0.0
                finished.append(worker)
            elif worker.busy[0] != NO_IMAGE:
                worker.seconds = worker.seconds + waited if worker.busy[1] == worker.num_changes else 0.0
                worker.num_changes = worker.busy[1]
                if worker.seconds >= self._patience:
                    worker.process.kill()
                    self._replace(worker, hung=True)
        return finished

    def _replace(self, worker: _Worker[Task], *, hung: bool = False) -> None:
        """Note which image the dead worker was busy with and give its tasks to a new process."""
        worker.process.join()
        item = int(worker.busy[0])
        if item == NO_IMAGE:
            self._num_deaths += 1
            if self._num_deaths >= _MAX_DEATHS_WITHOUT_IMAGE:
                raise LoaderDiedError(
                    "a loader process died, most likely for lack of memory: use fewer workers or a smaller batch"
                )
        elif hung:
            self._known_bad[item] = BadImage(
                "", "hang", f"keeps the decoder busy for more than {self._patience:g} seconds: remove or convert it"
            )
        else:
            self._known_bad[item] = BadImage(
                "", "crash", f"makes the decoder crash ({_cause(worker.process.exitcode)}): remove or convert it"
            )
        worker.pipe.close()
        new = self._start()
        self._workers[self._workers.index(worker)] = new
        new.tasks = worker.tasks
        for _, task in new.tasks:
            self._send(new, task)


def _shared_numbers(context: Any) -> Any:
    """Two numbers that a process and its parent both see: the image it is at, and how often that has changed.

    Forked processes share a mapping without a file, for which /dev/shm need not be there.
    """
    if START_METHOD != "fork":
        return context.RawArray("q", [NO_IMAGE, 0])
    numbers = memoryview(mmap.mmap(-1, 2 * struct.calcsize("q"))).cast("q")
    numbers[0] = NO_IMAGE
    return numbers


def _require_descriptors(workers: int) -> None:
    """ReinceptionError where the system allows too few open files for so many processes; the soft limit is raised."""
    needed = (
        workers * _FILES_PER_WORKER + _FILES_BESIDE + len(os.listdir("/dev/fd") if os.path.isdir("/dev/fd") else ())
    )
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft in (resource.RLIM_INFINITY, -1) or soft >= needed:
        return
    if hard in (resource.RLIM_INFINITY, -1) or hard >= needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
        return
    fewer = max(0, workers - -(-(needed - hard) // _FILES_PER_WORKER))
    raise ReinceptionError(
        f"--workers {workers} needs about {needed} open files and this process may have {hard}: use --workers {fewer}, "
        "or raise the limit (`ulimit -n`)"
    )


def _cause(exit_code: int) -> str:
    if exit_code >= 0:
        return f"exit code {exit_code}"
    with contextlib.suppress(ValueError):
        if -exit_code == signal.SIGKILL:
            return "SIGKILL, perhaps for lack of memory"
        return signal.Signals(-exit_code).name
    return f"signal {-exit_code}"


def _work(job: Callable[[Any, Watchdog], Any], pipe: Connection, busy: Any, others: Iterable[Connection]) -> None:
    """A worker's main loop: tasks in, results out, until the parent closes the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops its workers
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    faulthandler.disable()  # the parent reports a crash in one line
    for other in others:
        other.close()
    torch.set_num_threads(1)
    watchdog = Watchdog(busy)
    with contextlib.suppress(EOFError, OSError):
        while True:
            task, watchdog.known_bad = pipe.recv()
            try:
                result = job(task, watchdog)
            except Exception as error:
                result = error if isinstance(error, ReinceptionError) else _with_traceback(error)
            watchdog.clear()
            pipe.send(result)
    os._exit(0)  # without the handlers at exit, which are the parent's


def _with_traceback(error: Exception) -> RuntimeError:
    """An error of the program itself; its traceback belongs to another process and is handed over as text."""
    import traceback

    return RuntimeError("".join(traceback.format_exception(error)))
