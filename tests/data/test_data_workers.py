"""That an image which kills or hangs a process is named, and the work goes on without it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from functools import partial

import pytest

from reinception.data.loading.watchdog import Watchdog
from reinception.data.loading.workers import LoaderDiedError, ordered_map
from reinception.errors import BadImage


def look_at(items: list[int], watchdog: Watchdog, *, deadly: int, how: str) -> list[int | str]:
    """The items; for one that killed the process before, the kind of its refusal."""
    seen: list[int | str] = []
    for item in items:
        try:
            watchdog.mark_current(item)
        except BadImage as refused:
            seen.append(refused.kind)
            continue
        if item == deadly:
            if how == "sleep":
                time.sleep(60)
            os.kill(os.getpid(), getattr(signal, how))
        seen.append(item)
    return seen


@pytest.mark.parametrize("how", ["SIGSEGV", "SIGKILL", "sleep"])
@pytest.mark.parametrize("workers", [1, 2])
def test_an_image_that_kills_or_hangs_a_process_is_named_and_the_rest_goes_on(how, workers):
    tasks = [[0, 1, 2], [3, 4, 5], [6, 7], [8], [9, 10]]
    results = list(ordered_map(partial(look_at, deadly=4, how=how), tasks, workers, patience=1.0))
    kind = "hang" if how == "sleep" else "crash"
    assert results == [[0, 1, 2], [3, kind, 5], [6, 7], [8], [9, 10]]


def refuse_the_deadly(items: list[int], watchdog: Watchdog) -> list[int]:
    for item in items:
        watchdog.mark_current(item)
        if item == 4:
            os.abort()
    return items


def test_a_job_that_lets_the_refusal_through_ends_the_work_with_the_cause():
    results = ordered_map(refuse_the_deadly, [[0], [4], [5]], 2)
    assert next(results) == [0]
    with pytest.raises(BadImage, match=r"makes the decoder crash \(SIGABRT\)") as caught:
        next(results)
    assert caught.value.kind == "crash"


def die(_: int, _watchdog: Watchdog) -> int:
    os._exit(7)


def test_processes_that_die_for_no_image_are_not_started_for_ever():
    with pytest.raises(LoaderDiedError, match="a loader process died"):
        list(ordered_map(die, range(5), 2))


def big(size: int, _watchdog: Watchdog) -> bytes:
    return bytes(size)


def test_results_larger_than_a_pipe_come_ordered_map():
    sizes = [5_000_000, 3, 1_000_000, 0, 7_000_000, 11, 2_000_000]
    assert [len(result) for result in ordered_map(big, sizes, 2)] == sizes


def broken(_: int, _watchdog: Watchdog) -> int:
    raise KeyError("a fault of ours")


def test_a_fault_of_ours_keeps_its_traceback():
    with pytest.raises(RuntimeError, match=r"(?s)Traceback.*broken.*KeyError"):
        list(ordered_map(broken, [1], 1))


def test_closing_the_iterator_ends_the_processes():
    results = ordered_map(big, iter(lambda: 4, None), 2)
    next(results)
    processes = multiprocessing.active_children()
    assert len(processes) >= 2
    results.close()
    assert not any(process.is_alive() for process in processes)
