"""Real processes that run the command line, forked from one that has torch loaded: a hundred of them are cheap."""

from __future__ import annotations

import multiprocessing
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from reinception.train.run.checkpoint import Checkpoints

# What takes too long for every day: `make soak` runs it, all other runs leave it out.
SOAK = pytest.mark.slow
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["reinception.train.run.start", "reinception.cli.train"])

Before = Callable[[], None]
"""What a process does before it runs its command: where tests put in what nature would."""


def surrounded(setup: str, script: str, *words: object, environment: Mapping[str, str]) -> CompletedProcess[str]:
    """`script` with `words` as $1, $2 ... in a mount namespace of its own, in which `setup` has mounted what it wants.

    Skips the test where mounting is not allowed.
    """
    # torch's compiler, which other tests use in this process, leaves the name of its folder in the environment.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TORCHINDUCTOR")}
    source = str(Path(sys.modules["reinception"].__file__ or "").parents[1])
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", f"{{ {setup}; }} || exit 77; {script}", "sh", *map(str, words)],
        capture_output=True,
        check=False,
        text=True,
        errors="replace",
        env={**inherited, "PYTHONPATH": source, **environment},
    )
    if done.returncode == 77 or "unshare failed" in done.stderr:
        pytest.skip("this container may not mount")
    return done


READ_ONLY = (
    'mount --bind "$1" /mnt && mount -t tmpfs -o ro tmpfs /dev/shm && mount -t tmpfs -o ro tmpfs "$HOME" && '
    "mount --bind /tmp /tmp && mount -o remount,bind,ro /tmp"
)
"""For `surrounded`: /dev/shm, /tmp and the home are read-only, and the folder $1 is writable as /mnt."""


def start(
    words: Sequence[object],
    log: Path,
    *,
    rank: int = 0,
    world: int = 1,
    port: int = 0,
    before: Before | None = None,
    environment: Mapping[str, str] | None = None,
) -> ForkServerProcess:
    """`reinception WORDS` in a process of its own; what it says goes to `log`."""
    settings = {"OMP_NUM_THREADS": "1", "COLUMNS": "100"} | dict(environment or {})
    if world > 1:
        ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        settings |= {name: str(value) for name, value in ranks.items()}
    process = CONTEXT.Process(target=_run, args=([str(word) for word in words], str(log), settings, before))
    process.start()
    return process


def start_ranks(
    words: Sequence[object],
    log: Path,
    *,
    world: int,
    before: Before | None = None,
    environment: Mapping[str, str] | None = None,
) -> list[ForkServerProcess]:
    """The same command on `world` ranks; rank r says what it has to say to `log` with .r at its end."""
    port = free_port()
    return [
        start(
            words,
            log.with_name(f"{log.name}.{rank}"),
            rank=rank,
            world=world,
            port=port,
            before=before,
            environment=environment,
        )
        for rank in range(world)
    ]


def ends(*processes: ForkServerProcess, timeout: float = 240) -> list[int | None]:
    """Their exit codes, negative for signals, after the last has ended; None for one that would not end."""
    for process in processes:
        process.join(timeout)
    codes = [process.exitcode for process in processes]
    for process in processes:
        if process.exitcode is None:
            process.kill()
            process.join()
    return codes


class Losses:
    """Seconds that kills have cost a run with a checkpoint at every step, as its checkpoints show them.

    A kill costs the work since the last checkpoint, which is done again, and the time to the next one.
    """

    def __init__(self, run: Path) -> None:
        self._checkpoints = Checkpoints(run / "state")
        self._seen = -1
        self._open: tuple[float, float] | None = None  # when it was killed, and seconds of work lost
        self.seconds: list[tuple[float, float]] = []

    def watch(self, seconds: float, *, is_over: Callable[[], bool] = lambda: False) -> None:
        """Looks for new steps for so long."""
        deadline = time.time() + seconds
        while time.time() < deadline and not is_over():
            self._look()
            time.sleep(0.01)

    def happened(self, when: float) -> None:
        """All of the run is dead, and has been doing nothing since `when`."""
        self._look()
        written = (self._checkpoints.folder / f"step-{self._seen:09d}.json").stat().st_mtime
        self._open = when, max(0.0, when - written)

    def _look(self) -> None:
        step = max(self._checkpoints.steps(), default=-1)
        if step > self._seen and self._open is not None:
            killed, again = self._open
            self.seconds.append((again, time.time() - killed))
            self._open = None
        self._seen = max(self._seen, step)

    def in_words(self) -> str:
        """Medians and ranges."""
        again, idle = (
            f"{statistics.median(column):.2f} s (range {min(column):.2f} to {max(column):.2f})"
            for column in zip(*self.seconds, strict=True)
        )
        return f"n = {len(self.seconds)} kills: work done again {again}; from the kill to the next step {idle}"


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _run(words: list[str], log: str, settings: dict[str, str], before: Before | None) -> None:
    import torch

    from reinception.cli import main

    file = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(file, stream)
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
    os.environ |= settings
    torch.set_num_threads(1)
    if before is not None:
        before()
    code = main(words)
    sys.stdout.flush()
    sys.stderr.flush()
    sys.exit(code)
