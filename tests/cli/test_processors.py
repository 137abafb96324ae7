"""Processors are shared: threads wait briefly, containers are believed, and what the user has set stays."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from reinception.machine import num_processors, running_threads, share_processors, use_free_processors

SETTINGS = ("GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_WAIT_POLICY", "OMP_NUM_THREADS")
SAYS = f"import os; print([os.environ.get(name) for name in {SETTINGS}], 'torch' in sys.modules)"


@pytest.fixture
def unset(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment without any of the settings."""
    for name in SETTINGS:
        monkeypatch.setenv(name, "")  # so that it is put back, whatever the test sets
        monkeypatch.delenv(name)
    return monkeypatch


def said(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; {code}; {SAYS}"], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def test_verbs_that_compute_set_how_threads_wait_before_torch_loads(unset: pytest.MonkeyPatch) -> None:
    unset.setenv("OMP_NUM_THREADS", "1")
    assert said("from reinception.cli import main; main(['train', '--help'])") == "['10000', '1', None, '1'] False"


def test_importing_the_library_sets_nothing(unset: pytest.MonkeyPatch) -> None:
    unset.setenv("OMP_NUM_THREADS", "1")
    assert said("import reinception; reinception.create") == "[None, None, None, '1'] True"


def test_what_the_user_has_set_stays(unset: pytest.MonkeyPatch) -> None:
    unset.setenv("OMP_WAIT_POLICY", "ACTIVE")
    unset.setenv("OMP_NUM_THREADS", "7")
    share_processors()
    assert [os.environ.get(name) for name in SETTINGS] == [None, None, "ACTIVE", "7"]


def test_fewer_processors_than_the_machine_has_mean_fewer_threads(unset: pytest.MonkeyPatch) -> None:
    unset.setattr(os, "cpu_count", lambda: 64)
    unset.setattr(os, "sched_getaffinity", lambda _: range(3))
    share_processors()
    assert int(os.environ["OMP_NUM_THREADS"]) == min(3, num_processors())


@pytest.mark.parametrize(
    ("processors", "others", "threads"), [(2, 4, 1), (2, 1, 1), (16, 8, 8), (16, 7, None), (2, 0, None)]
)
def test_beside_busy_programs_training_uses_the_free_processors_and_says_so(
    processors: int, others: int, threads: int | None, unset: pytest.MonkeyPatch
) -> None:
    unset.setattr(os, "cpu_count", lambda: processors)
    unset.setattr("reinception.machine.num_processors", lambda: processors)
    line = use_free_processors(others)
    assert os.environ.get("OMP_NUM_THREADS") == (None if threads is None else str(threads))
    assert (line is None) == (threads is None)
    assert line is None or f"this one uses {threads} of its own" in line


def test_a_number_of_threads_that_the_user_has_set_stays_beside_busy_programs(unset: pytest.MonkeyPatch) -> None:
    unset.setenv("OMP_NUM_THREADS", "2")
    assert use_free_processors(100) is None and os.environ["OMP_NUM_THREADS"] == "2"


@pytest.mark.skipif(not Path("/proc/loadavg").exists(), reason="this system does not say how many threads run")
def test_threads_of_other_programs_are_counted() -> None:
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(3)]
    try:
        assert running_threads() >= 3
    finally:
        for process in busy:
            process.kill()
            process.wait()


def test_where_the_system_does_not_say_nothing_runs(tmp_path: Path) -> None:
    assert running_threads(tmp_path / "none") == 0
    (tmp_path / "odd").write_text("0.1 0.2 0.3\n")
    assert running_threads(tmp_path / "odd") == 0
    (tmp_path / "idle").write_text("0.1 0.2 0.3 1/200 5\n")
    assert running_threads(tmp_path / "idle", seconds=0) == 0


@pytest.mark.parametrize(
    ("files", "right"),
    [
        ({"cpu.max": "200000 100000\n"}, 2),
        ({"cpu.max": "max 100000\n"}, 40),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 40),
        ({}, 40),
    ],
)
def test_the_processors_of_a_container_are_counted(
    files: dict[str, str], right: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(40))
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert num_processors(tmp_path) == right
