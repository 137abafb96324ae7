"""Jobs done in this process or in others, their results in the order of the tasks."""

from __future__ import annotations

import multiprocessing
import signal
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

import torch
from torch.utils.data import DataLoader

from reinception.errors import ReinceptionError

Task = TypeVar("Task")
Result = TypeVar("Result")

# Forked processes share what the parent holds, pictures in memory above all; where there is no fork, each gets a copy.
START_METHOD = "fork" if "fork" in multiprocessing.get_all_start_methods() else None


def in_order(job: Callable[[Task], Result], tasks: Iterable[Task], workers: int) -> Iterator[Result]:
    """job(task) for each task, in order, done here (`workers` 0) or in `workers` processes that run ahead a little.

    A `ReinceptionError` of a job is raised here as it was raised there. A process that dies is a `ReinceptionError`.
    Closing the iterator ends the processes. Results go through a pipe, not /dev/shm, which containers keep small.
    """
    loader = DataLoader(
        _Jobs(job),
        batch_size=None,
        sampler=tasks,
        num_workers=workers,
        collate_fn=_as_it_is,
        worker_init_fn=_start_worker if workers else None,
        multiprocessing_context=START_METHOD if workers else None,
        generator=torch.Generator(),  # else DataLoader would draw from the global one, once per iterator
    )
    with warnings.catch_warnings():
        # Python 3.12 and later remark on forking beside threads, torch on more workers than cores: both are meant.
        warnings.filterwarnings("ignore", message=".*use of fork.*", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message="This DataLoader will create", category=UserWarning)
        results = iter(loader)
    try:
        while True:
            try:
                result = next(results)
            except StopIteration:
                return
            except RuntimeError as error:
                if "DataLoader worker" not in str(error):
                    raise
                raise ReinceptionError(
                    "a loader process died, most likely for lack of memory: use fewer workers or a smaller batch"
                ) from error
            if isinstance(result, ReinceptionError):
                raise result
            yield result
    finally:
        del results  # ends the processes now, even while somebody keeps the traceback of what was raised


class _Jobs(torch.utils.data.Dataset[Any], Generic[Task, Result]):
    """What DataLoader indexes: a task in, its result or its ReinceptionError out.

    Errors travel as values because DataLoader would rebuild them from the text of their traceback.
    """

    def __init__(self, job: Callable[[Task], Result]) -> None:
        self._job = job

    def __getitem__(self, index: Task) -> Result | ReinceptionError:
        try:
            return self._job(index)
        except ReinceptionError as error:
            return error


def _as_it_is(item: object) -> object:
    return item


def _start_worker(_: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops its workers; they need not each say so
