"""Progress of long work: how far, at which rate, how long still; on a terminal, and as lines of a log."""

from __future__ import annotations

import threading

import pytest

from reinception.cli import counter
from reinception.cli.counter import job_counter, progress_line


@pytest.mark.parametrize(
    ("done", "total", "new", "seconds", "line"),
    [
        (64, None, 64, 2.0, "64 images, 32.0/s"),
        (1500, 2000, 500, 10.0, "1,500 of 2,000 images, 50.0/s, 10 s left"),
        (10, 10_000_000, 10, 1.0, "10 of 10,000,000 images, 10.0/s, 277 h 46 min left"),
        (100, 1000, 100, 10.0, "100 of 1,000 images, 10.0/s, 1 min 30 s left"),
        (5, 5, 5, 0.0, "5 of 5 images, 5,000,000,000.0/s"),
    ],
)
def test_a_line_says_how_far_how_fast_and_how_long_still(
    done: int, total: int | None, new: int, seconds: float, line: str
) -> None:
    assert progress_line(done, total, "images", new, seconds) == line


def test_a_log_gets_a_line_now_and_then(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(counter.time, "monotonic", lambda: now)
    show = job_counter("images")
    for done in range(1, 101):
        now += 1.0
        show(1000 + done, 1100)  # a job that goes on with the 1,001st
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "reinception: 1,030 of 1,100 images, 1.0/s, 1 min 10 s left"
    assert len(lines) == 3


def test_the_total_is_counted_beside_the_work(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counter, "LOG_SECONDS", 0.0)
    counted = threading.Event()

    def count() -> int:
        counted.set()
        return 7

    show = job_counter("images", count)
    assert counted.wait(10)
    for done in range(1, 5):
        show(done, None)
    assert "4 of 7 images" in capsys.readouterr().err.splitlines()[-1]


def test_a_count_that_fails_is_no_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counter, "LOG_SECONDS", 0.0)

    def count() -> int:
        raise OSError("no such manifest")

    show = job_counter("images", count)
    show(1, None)
    assert capsys.readouterr().err.startswith("reinception: 1 images, ")
