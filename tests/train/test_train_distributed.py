"""Several processes train as one: the same bits for any number, one bad batch for all, a hung peer by its name."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from cells import class_folders
from safetensors.torch import load_file

from processes import SOAK, Losses, ends, start, start_ranks
from reinception.data.sources.open_source import open_source
from reinception.train.loop import Training
from reinception.train.run.checkpoint import Checkpoints
from reinception.train.run.open_run import OpenRun

PER_CLASS = 24
REPLICAS = 6
SMALL = (
    *("--epochs", 6, "--batch-size", 2, "--replicas", REPLICAS, "--width", 0.1, "--input-size", 75),
    *("--precision", "fp32", "--checkpoint-steps", 1, "--test-fraction", 0.5, "--val-fraction", 0.2),
)  # 15 images to train on, 12 a step: steps end in the middle of epochs


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of class folders with real solar cells."""
    return class_folders(tmp_path_factory.mktemp("cells"), per_class=PER_CLASS)


def trained(
    cells: Path,
    run: Path,
    *flags: object,
    world: int,
    before: Callable[[], None] | None = None,
    timeout: float = 240,
) -> Path:
    log = run.with_name(f"{run.name}.log")
    processes = start_ranks(["train", cells, "-o", run, *SMALL, *flags], log, world=world, before=before)
    codes = ends(*processes, timeout=timeout)
    assert codes == [0] * world, log.with_name(f"{log.name}.0").read_text()[-2000:]
    return run


@pytest.fixture(scope="module")
def alone(cells: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All six replicas of a step in one process."""
    return trained(cells, tmp_path_factory.mktemp("alone") / "run", world=1)


def last(run: Path) -> Path:
    """The last checkpoint's tensors: weights, batch-norm buffers, optimizer and average."""
    return max((run / "state").glob("step-*.safetensors"))


def sha256(run: Path) -> str:
    return hashlib.sha256(last(run).read_bytes()).hexdigest()


@pytest.mark.parametrize("world", [3, pytest.param(2, marks=[SOAK, pytest.mark.slow])])
def test_six_replicas_on_any_number_of_processes_are_one_sha256(
    world: int, cells: Path, alone: Path, tmp_path: Path
) -> None:
    run = trained(cells, tmp_path / "run", world=world)
    assert last(run).name == last(alone).name
    assert sha256(run) == sha256(alone)
    for name in ("predictions/val.csv", "predictions/test.csv"):
        assert (run / name).read_bytes() == (alone / name).read_bytes()


@SOAK
@pytest.mark.slow
def test_soak_the_papers_fifty_replicas_of_the_whole_network_are_one_sha256(cells: Path, tmp_path: Path) -> None:
    """Three steps at 299 pixels, by one process and by two; a replica has two images here, not 32."""
    flags = ("--replicas", 50, "--width", 1, "--input-size", 299, "--epochs", 20, "--recipe", "paper_2015")
    first, second = (trained(cells, tmp_path / f"{world}", *flags, world=world, timeout=1800) for world in (1, 2))
    assert last(first).name == last(second).name == "step-000000003.safetensors"
    assert sha256(first) == sha256(second)


def until(run: Path, step: int) -> None:
    deadline = time.monotonic() + 240
    while max(Checkpoints(run / "state").steps(), default=-1) < step:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_the_number_of_processes_may_change_at_every_restart(cells: Path, alone: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ["train", cells, "-o", run, *SMALL]
    for world, step in ((2, 2), (3, 5)):
        processes = start_ranks(words, tmp_path / "log", world=world)
        until(run, step)
        for process in reversed(processes):
            process.kill()
        ends(*processes)
        words = ["train", "--resume", run]
    assert ends(start(words, tmp_path / "log")) == [0]
    assert sha256(run) == sha256(alone)


def test_fast_is_the_same_step_to_rounding(cells: Path, tmp_path: Path) -> None:
    """After one step with momentum alone: later ones carry the rounding on."""
    flags = ("--recipe", "paper_2015", "--epochs", 1, "--reduction")
    exact = trained(cells, tmp_path / "exact", *flags, "exact", world=1)
    fast = trained(cells, tmp_path / "fast", *flags, "fast", world=2)
    one, other = load_file(last(exact)), load_file(last(fast))
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        if name.startswith("network/"):
            torch.testing.assert_close(tensor, other[name], rtol=1e-3, atol=1e-4)


# -- faults ----------------------------------------------------------------------------------------------------------


def poison(step: int, rank: int, share: int) -> None:
    """On one rank the images of one step become NaN, before the first layer: nature, at the outer edge."""
    from reinception.train.run import start

    wire, calls = start.wire, 0

    def wired(run: OpenRun) -> Training:
        training = wire(run)

        def spoil(module: torch.nn.Module, inputs: tuple[torch.Tensor]) -> torch.Tensor | None:
            nonlocal calls
            if not module.training:
                return None
            calls += 1
            return inputs[0] * float("nan") if calls == step * share + 1 else None

        if run.ranks.rank == rank:
            training.state.network.get_submodule("stem.0").register_forward_pre_hook(spoil)
        return training

    start.wire = wired


def test_a_bad_batch_on_one_of_three_ranks_leaves_the_state_of_a_run_without_it(
    cells: Path, alone: Path, tmp_path: Path
) -> None:
    run = trained(cells, tmp_path / "run", world=3, before=partial(poison, 2, 1, REPLICAS // 3))
    assert "step 3 skipped: its loss or gradient was not finite" in (run / "log.txt").read_text()
    without = tmp_path / "without"
    process = start(["train", cells, "-o", without, *SMALL], tmp_path / "log")
    until(without, 2)
    process.kill()
    ends(process)
    checkpoints = Checkpoints(without / "state")
    for step in checkpoints.steps():
        if step > 2:
            checkpoints.forget_after(2)
    before = checkpoints.load(2)
    checkpoints.save(replace(before, step=3))  # step 3 never was
    assert ends(start(["train", "--resume", without], tmp_path / "log")) == [0], (tmp_path / "log").read_text()
    assert sha256(run) == sha256(without)
    assert sha256(run) != sha256(alone)


def test_a_hung_rank_is_named_within_the_set_time(cells: Path, tmp_path: Path) -> None:
    run, patience = tmp_path / "run", 8  # less may be between ranks on a busy machine
    environment = {"REINCEPTION_PEER_SECONDS": str(patience)}
    words = ["train", cells, "-o", run, *SMALL, "--epochs", 500]
    processes = start_ranks(words, tmp_path / "log", world=3, environment=environment)
    until(run, 2)
    assert processes[1].pid is not None
    os.kill(processes[1].pid, signal.SIGSTOP)
    began = time.monotonic()
    assert ends(processes[0]) == [1]
    assert time.monotonic() - began < 4 * patience + 30
    assert "rank 1 is dead or has not answered for 8 s" in (tmp_path / "log.0").read_text().splitlines()[-1]
    processes[1].kill()
    assert ends(processes[2])[0] not in (0, None)
    ends(processes[1])
    assert Checkpoints(run / "state").newest()[0] is not None


def test_more_processes_than_replicas_are_refused(cells: Path, tmp_path: Path) -> None:
    words = ["train", cells, "-o", tmp_path / "run", *SMALL, "--replicas", 1]
    assert ends(*start_ranks(words, tmp_path / "log", world=2)) == [2, 2]
    assert "2 processes for 1 replica: start at most 1, or train with --replicas 2" in (tmp_path / "log.0").read_text()
    assert not (tmp_path / "run").exists()


# What torchrun runs: the command line, where after a restart rank 0 is the last to come. What it said of itself the
# time before is in torchrun's store until then, and the others must not believe it.
LATE = """
import os, sys, time
from reinception.cli import main
if os.environ["RANK"] == "0" and os.environ["TORCHELASTIC_RESTART_COUNT"] != "0":
    time.sleep(1.5)
sys.exit(main(sys.argv[1:]))
"""


def under_torchrun(program: Sequence[object], run: Path, *words: object, restarts: int) -> subprocess.Popen[str]:
    """`program` on two ranks, told to train; what is said goes to the file `said` beside the run."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    launch += [f"--max-restarts={restarts}", *map(str, program), "train", *map(str, words)]
    launch += [] if "--resume" in words else ["-o", str(run)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    with run.with_name("said").open("w") as said:
        return subprocess.Popen(launch, stderr=said, stdout=said, text=True, env=environment)


def test_torchrun_starts_a_killed_rank_again_and_the_bits_are_the_same(
    cells: Path, alone: Path, tmp_path: Path
) -> None:
    run, late = tmp_path / "run", tmp_path / "late.py"
    late.write_text(LATE)
    launcher = under_torchrun([late], run, cells, *SMALL, restarts=1)
    until(run, 2)
    os.kill(rank_of(launcher.pid, "1"), signal.SIGKILL)
    launcher.wait(timeout=600)
    said = (tmp_path / "said").read_text()
    assert launcher.returncode == 0, said[-3000:]
    assert "goes on after step" in said
    assert sha256(run) == sha256(alone)


@SOAK
@pytest.mark.slow
def test_soak_twenty_kills_of_a_rank_under_one_torchrun_change_no_bit(
    cells: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of either rank, at random moments; what torchrun and the imports of torch take is part of what is lost."""
    run, kills, chance = tmp_path / "run", 20, random.Random(0)
    flags = (*SMALL, "--epochs", 96)  # 120 steps
    whole = trained(cells, tmp_path / "whole", *flags, world=1)
    launcher = under_torchrun(["-m", "reinception"], run, cells, *flags, restarts=kills)
    losses = Losses(run)
    until(run, 1)
    for kill in range(kills):
        losses.watch(chance.uniform(0, 1))
        victim, now = rank_of(launcher.pid, chance.choice("01")), time.time()
        os.kill(victim, signal.SIGKILL)
        time.sleep(0.5)  # the other may be about to write what both have computed; no start is as quick as this
        losses.happened(now)
        losses.watch(60, is_over=lambda through=kill + 1: len(losses.seconds) == through)
    launcher.wait(timeout=600)
    assert launcher.returncode == 0, (tmp_path / "said").read_text()[-3000:]
    assert len(losses.seconds) == kills
    with capsys.disabled():
        print(f"\n{losses.in_words()}")
    assert sha256(run) == sha256(whole)


@pytest.mark.parametrize("kills", [1, pytest.param(5, marks=[SOAK, pytest.mark.slow])])
def test_a_killed_launcher_takes_its_ranks_with_it_and_the_bits_are_the_same(
    kills: int, cells: Path, alone: Path, tmp_path: Path
) -> None:
    """They save and leave: left alone, they would train on beside the run that resumes them."""
    run, chance, flags, whole = tmp_path / "run", random.Random(0), SMALL, alone
    if kills > 1:
        flags = (*SMALL, "--epochs", 96)  # 120 steps
        whole = trained(cells, tmp_path / "whole", *flags, world=1)
    words: list[object] = [cells, *flags]
    for _ in range(kills):
        launcher = under_torchrun(["-m", "reinception"], run, *words, restarts=0)
        until(run, max(Checkpoints(run / "state").steps(), default=0) + 1)
        ranks = [rank_of(launcher.pid, rank) for rank in "01"]
        time.sleep(chance.uniform(0, 0.3) if kills > 1 else 0)
        launcher.kill()
        launcher.wait()
        deadline = time.monotonic() + 10
        while not all(map(has_ended, ranks)):
            assert time.monotonic() < deadline, run.with_name("said").read_text()[-2000:]
            time.sleep(0.01)
        assert f"to go on: reinception train --resume {run}" in run.with_name("said").read_text()
        words = ["--resume", run]
    assert ends(start(["train", *words], tmp_path / "log")) == [0], (tmp_path / "log").read_text()
    assert sha256(run) == sha256(whole)


def has_ended(process: int) -> bool:
    """Also where nobody has asked how it ended."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def rank_of(launcher: int, rank: str) -> int:
    """The process that `launcher` has started as that rank."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parent = re.search(r"\) \S (\d+)", (folder / "stat").read_text())
                environment = (folder / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if parent and int(parent[1]) == launcher and f"RANK={rank}".encode() in environment:
                return int(folder.name)
    raise AssertionError(f"no rank {rank} below {launcher}")


# -- evaluation ------------------------------------------------------------------------------------------------------


def held_out(run: Path) -> tuple[int, list[str]]:
    """The number of images judged, and the predicted class of each, in order."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    rows = (run / "predictions" / "test.csv").read_text().splitlines()[1:]
    return next(line["num_images"] for line in lines if line["split"] == "test"), [row.split(",")[2] for row in rows]


@pytest.mark.parametrize(
    ("images", "cases"),
    [
        (53, ((1, 7, 0), (3, 7, 0))),
        pytest.param(
            1003,
            tuple((world, batch, workers) for world in (1, 2, 3, 4) for batch in (7, 32) for workers in (0, 2)),
            marks=[SOAK, pytest.mark.slow],
        ),
    ],
)
def test_each_image_is_judged_once_by_any_number_of_processes(
    images: int, cases: tuple[tuple[int, int, int], ...], tmp_path: Path
) -> None:
    """A model file judges the same held-out images after no training to speak of: one step of two images a replica."""
    data, source = tmp_path / "data", open_source("elpv")
    for index in range(images + 16):
        record = source.records[index]
        to = data / ("test" if index < images else "train") / source.classes[record.target]
        to.mkdir(parents=True, exist_ok=True)
        shutil.copy(record.path, to)
    seen = set()
    for number, (world, batch, workers) in enumerate(cases):
        run = tmp_path / f"run{number}"
        flags = ("--batch-size", batch, "--workers", workers, "--replicas", 4, "--epochs", 1, "--recipe", "paper_2015")
        log = tmp_path / f"log{number}"
        words = ["train", data, "-o", run, *SMALL, *flags, "--val-fraction", 0]
        assert ends(*start_ranks(words, log, world=world)) == [0] * world, (tmp_path / f"log{number}.0").read_text()
        num, predicted = held_out(run)
        assert num == len(predicted) == images
        seen.add((batch, hashlib.sha256("".join(predicted).encode()).hexdigest()))
    assert len(seen) == len({batch for _, batch, _ in cases})
