"""Jobs done in this process or in others, their results in order; a file that kills or hangs a process is named."""

from __future__ import annotations

import contextlib
import faulthandler
import multiprocessing
import os
import signal
import time
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

import torch

from reinception.errors import BadImage, ReinceptionError

Task = TypeVar("Task")
Result = TypeVar("Result")

# Forked processes share what the parent holds, pictures in memory above all; where there is no fork, each gets a copy.
START_METHOD = "fork" if "fork" in multiprocessing.get_all_start_methods() else None

PATIENCE_SECONDS = 10.0
"""How long one picture may keep a process busy while the parent waits for it."""

_NOTHING = -1
_LOOK_SECONDS = 0.5
# A process that dies before it has turned to any picture would die again: the parent does not try for ever.
_DEATHS_WITHOUT_CAUSE = 3


class LoaderDiedError(ReinceptionError):
    """A process that reads pictures has died, and no picture is to blame; what it was to do can be asked for again."""


@dataclass
class _Here:
    """What this process is busy with: in a worker, a number that its parent sees, and what is known to be deadly."""

    busy: Any = None
    deadly: dict[int, BadImage] = field(default_factory=dict)


_here = _Here()


def turn_to(item: int) -> None:
    """To be called by a job before it decodes picture `item`: should this process die or hang, that was the one.

    Raises the `BadImage` (`crash` or `hang`) of a picture that has cost a process its life before. In the parent itself
    (no workers) it does nothing: there a crash can not be survived.
    """
    if item in _here.deadly:
        raise _here.deadly[item]
    if _here.busy is not None:
        _here.busy[1] += 1
        _here.busy[0] = item


@contextlib.contextmanager
def waiting() -> Iterator[None]:
    """To be put around waiting for a network: no decoder is at work, and no picture is to blame for the time."""
    if _here.busy is None:
        yield
        return
    item, _here.busy[0] = _here.busy[0], _NOTHING
    try:
        yield
    finally:
        _here.busy[1] += 1
        _here.busy[0] = item


def in_order(
    job: Callable[[Task], Result], tasks: Iterable[Task], workers: int, *, patience: float = PATIENCE_SECONDS
) -> Generator[Result, None, None]:
    """job(task) for each task, in order, done here (`workers` 0) or in `workers` processes that run ahead a little.

    A `ReinceptionError` of a job is raised here as it was raised there. When a process dies, or is busy with one
    picture for `patience` seconds while this one waits, a new one does its task again, and there `turn_to` refuses the
    picture by name: whether that ends the work is the job's decision. Three processes that die without having turned
    to any picture are a `LoaderDiedError`. Closing the iterator ends the processes. Results go through a pipe, not
    /dev/shm, which containers keep small.
    """
    if workers == 0:
        for task in tasks:
            yield job(task)
        return
    pool = _Pool(job, workers, patience)
    try:
        yield from pool.run(iter(tasks))
    finally:
        pool.close()


@dataclass(eq=False)
class _Worker(Generic[Task]):
    """One process, its pipe, the tasks it has been given, and how long it has been seen busy with one picture."""

    process: Any
    pipe: Connection
    busy: Any
    tasks: deque[tuple[int, Task]] = field(default_factory=deque)
    seen: int = 0
    seconds: float = 0.0


class _Pool(Generic[Task, Result]):
    """Workers that each have up to two tasks: one in hand and one to go on with."""

    def __init__(self, job: Callable[[Task], Result], num: int, patience: float) -> None:
        self._job, self._patience = job, patience
        self._context: Any = multiprocessing.get_context(START_METHOD)
        self._deadly: dict[int, BadImage] = {}
        self._num_deaths = 0
        self._workers: list[_Worker[Task]] = []
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
        busy = self._context.RawArray("q", [_NOTHING, 0])
        # A forked child holds its parent's ends of all pipes; as long as it does, nobody would notice the parent's end.
        others = (ours, *(worker.pipe for worker in self._workers)) if START_METHOD == "fork" else ()
        process = self._context.Process(target=_work, args=(self._job, theirs, busy, others), daemon=True)
        with warnings.catch_warnings():
            # Python 3.12 and later remark on forking beside threads: it is meant, the child starts none of its own.
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
        with contextlib.suppress(OSError):  # a worker that has died is found dead, and its tasks are given to another
            worker.pipe.send((task, self._deadly))

    def _receive(self, results: dict[int, Result | Exception]) -> list[_Worker[Task]]:
        """Wait a little; the workers that have finished a task, which is in `results` now."""
        start = time.monotonic()
        by_pipe = {worker.pipe: worker for worker in self._workers if worker.tasks}
        ready = wait(list(by_pipe), _LOOK_SECONDS)
        # A process that was stopped (Ctrl-Z, suspend) does not count the time it did not look.
        waited = min(time.monotonic() - start, 2 * _LOOK_SECONDS)
        finished = []
        for pipe, worker in by_pipe.items():
            if pipe in ready:
                try:
                    result = worker.pipe.recv()
                except (EOFError, OSError):
                    self._bury(worker)
                    continue
                number, _ = worker.tasks.popleft()
                results[number] = result
                worker.seconds = 0.0
                finished.append(worker)
            elif worker.busy[0] != _NOTHING:
                worker.seconds = worker.seconds + waited if worker.busy[1] == worker.seen else 0.0
                worker.seen = worker.busy[1]
                if worker.seconds >= self._patience:
                    worker.process.kill()
                    self._bury(worker, hung=True)
        return finished

    def _bury(self, worker: _Worker[Task], *, hung: bool = False) -> None:
        """Name what the worker was busy with and give its tasks to a new process."""
        worker.process.join()
        item = int(worker.busy[0])
        if item == _NOTHING:
            self._num_deaths += 1
            if self._num_deaths >= _DEATHS_WITHOUT_CAUSE:
                raise LoaderDiedError(
                    "a loader process died, most likely for lack of memory: use fewer workers or a smaller batch"
                )
        elif hung:
            self._deadly[item] = BadImage(
                "", "hang", f"keeps the decoder busy for more than {self._patience:g} seconds: remove or convert it"
            )
        else:
            self._deadly[item] = BadImage(
                "", "crash", f"makes the decoder crash ({_cause(worker.process.exitcode)}): remove or convert it"
            )
        worker.pipe.close()
        heir = self._start()
        self._workers[self._workers.index(worker)] = heir
        heir.tasks = worker.tasks
        for _, task in heir.tasks:
            self._send(heir, task)


def _cause(exit_code: int) -> str:
    if exit_code >= 0:
        return f"exit code {exit_code}"
    with contextlib.suppress(ValueError):
        if -exit_code == signal.SIGKILL:
            return "SIGKILL, perhaps for lack of memory"
        return signal.Signals(-exit_code).name
    return f"signal {-exit_code}"


def _work(job: Callable[[Any], Any], pipe: Connection, busy: Any, others: Iterable[Connection]) -> None:
    """The life of a worker: tasks in, results out, until the parent closes the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops its workers; they need not each say so
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    faulthandler.disable()  # the parent has one line for it
    for other in others:
        other.close()
    torch.set_num_threads(1)
    _here.busy = busy
    with contextlib.suppress(EOFError, OSError):
        while True:
            task, _here.deadly = pipe.recv()
            try:
                result = job(task)
            except Exception as error:
                result = error if isinstance(error, ReinceptionError) else _told(error)
            busy[0] = _NOTHING
            pipe.send(result)
    os._exit(0)  # not the parent's handlers at exit: they are the parent's


def _told(error: Exception) -> RuntimeError:
    """A fault of ours, not of the data; its traceback belongs to another process and goes along as text."""
    import traceback

    return RuntimeError("".join(traceback.format_exception(error)))
