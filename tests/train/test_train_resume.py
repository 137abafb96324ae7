"""A run that is killed, told to stop, or left without a disk goes on to the same bits as one that never was."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cells import class_folders

from processes import SOAK, ends, start, start_ranks
from reinception.train.run.checkpoint import Checkpoints

PER_CLASS = 24
# Two replicas with statistics of their own, distortions, dropout, an average, a loader process, four checkpoints.
SMALL = (
    *("--epochs", 2, "--batch-size", 4, "--replicas", 2, "--width", 0.1, "--input-size", 75, "--precision", "fp32"),
    *("--workers", 1, "--checkpoint-steps", 2, "--seed", 3),
)
STEPS = 8  # 32 images, 8 a step, 2 epochs


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of class folders with real solar cells, 24 of each class."""
    return class_folders(tmp_path_factory.mktemp("cells"), per_class=PER_CLASS)


@pytest.fixture(scope="module")
def whole(cells: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nothing happens to."""
    run = tmp_path_factory.mktemp("whole") / "run"
    assert ends(start(["train", cells, "-o", run, *SMALL], run.with_name("log"))) == [0], run.with_name(
        "log"
    ).read_text()
    return run


def outcome(run: Path) -> dict[str, str]:
    """SHA-256 of all that training changes (the last checkpoint's tensors) and of what was predicted with the best."""
    files = [f"state/step-{STEPS:09d}.safetensors", "predictions/val.csv", "predictions/test.csv"]
    return {name: hashlib.sha256((run / name).read_bytes()).hexdigest() for name in files}


def trained_on(run: Path) -> list[tuple[int, float, float]]:
    """(step, loss, gradient norm) of every training line: a step that was missed or done twice would show."""
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [(line["step"], line["loss"], line["gradient_norm"]) for line in lines if line["split"] == "train"]


def wait_for(run: Path) -> None:
    """Until there is something to resume from."""
    deadline = time.monotonic() + 240
    while not Checkpoints(run / "state").steps():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def again(first: Sequence[object], run: Path) -> Sequence[object]:
    """What goes on with `run`, whenever it was killed: the first command until there is a run to resume."""
    return ["train", "--resume", run] if (run / "config.json").exists() else first


def kill_again_and_again(
    flags: Sequence[object], folder: Path, *, kills: int, seconds: float, seed: int, worlds: Sequence[int]
) -> list[Path]:
    """Kills all processes of a run at random moments until `kills` of them have hit, each of them while all were alive
    and none was through. A run that gets to its end is followed by another one; all of them are returned, finished."""
    chance, runs, hits = random.Random(seed), [folder / "run0"], 0
    while hits < kills:
        run, world = runs[-1], chance.choice(worlds)
        log, words = run.with_name("log"), again(["train", *flags, "-o", run], run)
        processes = start_ranks(words, log, world=world) if world > 1 else [start(words, log)]
        for process in processes:
            process.join(chance.uniform(0, seconds) / world)
        hits += all(process.is_alive() for process in processes)
        for process in chance.sample(processes, len(processes)):  # one rank first, then the others, in any order
            process.kill()
        assert {*ends(*processes)} <= {0, -signal.SIGKILL}, log.read_text()[-2000:]
        if (run / "state" / "finished.json").exists():
            runs.append(folder / f"run{len(runs)}")
    words = again(["train", *flags, "-o", runs[-1]], runs[-1])
    assert ends(start(words, runs[-1].with_name("log"))) == [0], runs[-1].with_name("log").read_text()[-2000:]
    return runs


def test_ten_kills_at_random_moments_change_no_bit(cells: Path, whole: Path, tmp_path: Path) -> None:
    runs = kill_again_and_again([cells, *SMALL], tmp_path, kills=10, seconds=1.5, seed=0, worlds=(1,))
    for run in runs:
        assert outcome(run) == outcome(whole)
        assert trained_on(run) == trained_on(whole)


def die_before(change: int, run: str) -> None:
    """Dies by SIGKILL before the system is asked for the `change`-th time to make, sync or rename anything in `run`."""
    count = 0

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal count
            place = os.readlink(f"/proc/self/fd/{arguments[0]}") if isinstance(arguments[0], int) else arguments[0]
            count += str(place).startswith(run)
            if count == change:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **named)

        return call

    for name in ("mkdir", "replace", "fsync"):
        setattr(os, name, counted(getattr(os, name)))


# What the changes are: the folder, config.json, environment.json, state, then the checkpoint's two files; each file is
# synced, given its name, and its folder synced. The last one comes after the rename from which the checkpoint counts.
CHANGES = {1: "nothing", 2: "empty", 3: "empty", **dict.fromkeys(range(4, 14), "begun"), 14: "kept"}


@pytest.mark.parametrize(
    ("change", "left"),
    [
        pytest.param(change, left, marks=[] if change in (3, 4, 13) else [SOAK, pytest.mark.slow])
        for change, left in CHANGES.items()
    ],
)
def test_a_kill_between_the_run_folder_and_its_first_checkpoint_changes_no_bit(
    change: int, left: str, cells: Path, whole: Path, tmp_path: Path
) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    first = ["train", cells, "-o", run, *SMALL]
    assert ends(start(first, log, before=partial(die_before, change, str(run)))) == [-signal.SIGKILL]
    found = "nothing"
    if run.exists():
        found = "begun" if (run / "config.json").exists() else "empty"
        found = "kept" if Checkpoints(run / "state").steps() else found
    assert found == left
    if found in ("begun", "kept"):
        assert ends(start(first, tmp_path / "refused")) == [1]
        assert f"`reinception train --resume {run}` goes on with" in (tmp_path / "refused").read_text()
    assert ends(start(again(first, run), log)) == [0], log.read_text()[-2000:]
    assert ("begins at its first step, having no checkpoint yet" in log.read_text()) == (found == "begun")
    assert outcome(run) == outcome(whole)
    assert trained_on(run) == trained_on(whole)
    assert (run / "results.csv").read_text().count("epoch") == 1
    assert not list(run.rglob("*.tmp"))


@SOAK
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_soak_a_hundred_kills_on_one_and_two_processes_change_no_bit(
    seed: int, cells: Path, whole: Path, tmp_path: Path
) -> None:
    """Ten times eleven kills, also during a save: half of the run is saving."""
    flags = [cells, *SMALL, "--checkpoint-steps", 1]
    for run in kill_again_and_again(flags, tmp_path, kills=11, seconds=3.0, seed=seed, worlds=(1, 2)):
        assert outcome(run) == outcome(whole)
        assert trained_on(run) == trained_on(whole)


def stop_at(words: Sequence[object], run: Path, number: int, delay: float) -> bool:
    """Sends signal `number` `delay` seconds after there is something to resume; whether it came in time to be heard."""
    log = run.with_name("log")
    said_before = len(log.read_text()) if log.exists() else 0
    process = start(words, log)
    wait_for(run)
    time.sleep(delay)
    asked = time.monotonic()
    assert process.pid is not None
    signal_was_sent = process.is_alive()
    if signal_was_sent:
        os.kill(process.pid, number)
    (code,) = ends(process)
    if code == 0 or len(log.read_text()) == said_before:  # it was through, or Python had not even begun with us
        return False
    assert time.monotonic() - asked < 10
    assert code == 128 + number, log.read_text()[-2000:]
    assert f"to go on: reinception train --resume {run}" in log.read_text()
    assert Checkpoints(run / "state").newest()[0] is not None
    return True


@pytest.mark.parametrize(("number", "delay"), [(signal.SIGTERM, 0.3), (signal.SIGINT, 0.7), (signal.SIGTERM, 1.5)])
def test_a_signal_leaves_a_checkpoint_and_says_how_to_go_on(
    number: int, delay: float, cells: Path, whole: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    stop_at(["train", cells, "-o", run, *SMALL], run, number, delay)
    assert ends(start(["train", "--resume", run], tmp_path / "log")) == [0]
    assert outcome(run) == outcome(whole)


@SOAK
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_soak_fifty_signals_at_random_points(seed: int, cells: Path, whole: Path, tmp_path: Path) -> None:
    """Ten that are heard; a run that gets to its end is followed by another one."""
    chance, runs, heard = random.Random(seed), [tmp_path / "run0"], 0
    while heard < 10:
        run = runs[-1]
        words = again(["train", cells, "-o", run, *SMALL], run)
        heard += stop_at(words, run, chance.choice([signal.SIGTERM, signal.SIGINT]), chance.uniform(0, 1.2))
        if (run / "state" / "finished.json").exists():
            runs.append(tmp_path / f"run{len(runs)}")
    assert ends(start(again(["train", cells, "-o", runs[-1], *SMALL], runs[-1]), tmp_path / "log")) == [0]
    for run in runs:
        assert outcome(run) == outcome(whole)


def interrupted_copy(whole: Path, to: Path) -> Path:
    """The finished run as if it had been killed after its last checkpoint but one."""
    shutil.copytree(whole, to)
    for name in ("state/finished.json", "report.html", "last.safetensors"):
        (to / name).unlink()
    return to


def test_a_damaged_checkpoint_is_skipped_aloud_and_the_one_before_gives_the_same_bits(
    whole: Path, tmp_path: Path
) -> None:
    run = interrupted_copy(whole, tmp_path / "run")
    newest = run / "state" / f"step-{STEPS:09d}.safetensors"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    assert ends(start(["train", "--resume", run], tmp_path / "log")) == [0]
    log = (tmp_path / "log").read_text()
    assert f"skipped a checkpoint: step-{STEPS:09d}.safetensors: damaged" in log
    assert "goes on after step 6" in log
    assert outcome(run) == outcome(whole)


def test_with_no_checkpoint_left_there_is_one_line(whole: Path, tmp_path: Path) -> None:
    run = interrupted_copy(whole, tmp_path / "run")
    for path in (run / "state").glob("*.json"):
        path.write_bytes(path.read_bytes()[:-1])
    assert ends(start(["train", "--resume", run], tmp_path / "log")) == [1]
    assert "can be used; start the run anew" in (tmp_path / "log").read_text().splitlines()[-1]


def test_a_run_whose_checkpoints_were_removed_is_not_trained_anew_over_its_model(whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    shutil.rmtree(run / "state")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert ends(start(["train", "--resume", run], tmp_path / "log")) == [1]
    assert "can be used; start the run anew" in (tmp_path / "log").read_text().splitlines()[-1]
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_a_finished_run_is_left_as_it_is(whole: Path, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*")}
    assert ends(start(["train", "--resume", whole], tmp_path / "log")) == [0]
    assert "finished already" in (tmp_path / "log").read_text()
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("*")} == before


def test_other_images_other_flags_and_no_run_are_refused(cells: Path, whole: Path, tmp_path: Path) -> None:
    run = interrupted_copy(whole, tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    other = tmp_path / "other"
    shutil.copytree(cells, other)
    next(other.rglob("*.png")).unlink()
    config["request"]["data"] = str(other)
    (run / "config.json").write_text(json.dumps(config))
    for words, code, message in (
        (["train", "--resume", run], 1, "these are not the images"),
        (["train", "--resume", run, "--seed", 4], 2, "--seed beside --resume"),
        (["train", "--resume", cells], 1, "no config.json that can be read"),
        (["train", cells], 2, "train needs DATA and -o RUN, or --resume RUN"),
    ):
        log = tmp_path / f"log{message[:5]}"
        assert ends(start(words, log)) == [code]
        assert message in log.read_text().splitlines()[-1]


def test_another_machine_is_said_aloud(whole: Path, tmp_path: Path) -> None:
    run = interrupted_copy(whole, tmp_path / "run")
    with_document(run, lambda document: document["surroundings"].update(torch="1.0"))
    assert ends(start(["train", "--resume", run], tmp_path / "log")) == [0]
    assert "WARNING: torch 2" in (tmp_path / "log").read_text()
    assert "was 1.0: the run goes on, but not to the same bits" in (tmp_path / "log").read_text()


def with_document(run: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes the document of the newest checkpoint, as another version might have written it."""
    checkpoints = Checkpoints(run / "state")
    newest = checkpoints.newest()[0]
    assert newest is not None
    document = json.loads(json.dumps(newest.document))
    change(document)
    checkpoints.save(replace(newest, document=document))


def test_a_checkpoint_that_calls_the_learning_rate_rate_goes_on(whole: Path, tmp_path: Path) -> None:
    run = interrupted_copy(whole, tmp_path / "run")

    def older(document: dict[str, Any]) -> None:
        journal = document["journal"]
        journal["best"] = document["kept"]["validation"]
        journal["last_training"]["rate"] = journal["last_training"].pop("learning_rate")

    with_document(run, older)
    assert ends(start(["train", "--resume", run], tmp_path / "log")) == [0], (tmp_path / "log").read_text()
    assert outcome(run)["predictions/test.csv"] == outcome(whole)["predictions/test.csv"]


def test_a_checkpoint_that_another_version_wrote_otherwise_is_refused_in_one_line(whole: Path, tmp_path: Path) -> None:
    run = interrupted_copy(whole, tmp_path / "run")
    with_document(run, lambda document: document.pop("kept"))
    assert ends(start(["train", "--resume", run], tmp_path / "log")) == [1]
    said = (tmp_path / "log").read_text().splitlines()[-1]
    assert f"the checkpoint of step {STEPS} is not one that this version can resume ('kept')" in said


# -- a disk that is full, or read-only for a while -------------------------------------------------------------------


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
@pytest.mark.parametrize("trouble", ["full", "read-only"])
def test_a_disk_that_is_full_or_read_only_for_a_while_costs_nothing(trouble: str, whole: Path, tmp_path: Path) -> None:
    """Training goes on and says so; when there is room again, everything that waited is written."""
    code = """
import os, subprocess, sys, time
from pathlib import Path
disk, run, trouble = Path(sys.argv[1]), Path(sys.argv[1]) / "run", sys.argv[2]
def mount(*words):
    return subprocess.run(["mount", *words, str(disk)]).returncode
if mount("-t", "tmpfs", "-o", "size=220m", "tmpfs"):
    sys.exit(77)
said = open(sys.argv[3], "w+")
words = [sys.executable, "-m", "reinception", "train", *sys.argv[4:]]
training = subprocess.Popen(words, stderr=said)
def wait_for(happened):
    deadline = time.monotonic() + 120
    while not happened() and training.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.002)
wait_for(lambda: any((run / "state").glob("*.json")) if (run / "state").exists() else False)
if trouble == "full":
    with open(disk / "ballast", "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
else:
    while mount("-o", "remount,ro"):
        time.sleep(0.001)
wait_for(lambda: "no checkpoint after step" in Path(sys.argv[3]).read_text())
(disk / "ballast").unlink() if trouble == "full" else mount("-o", "remount,rw")
code = training.wait()
subprocess.run(["cp", "-r", str(run), sys.argv[3] + ".run"], check=True)
sys.exit(code)
"""
    config = json.loads((whole / "config.json").read_text())["request"]
    (tmp_path / "disk").mkdir()
    flags = [str(flag) for flag in (*SMALL, "--epochs", 12, "--checkpoint-steps", 1)]
    words = ["unshare", "--mount", sys.executable, "-c", code, str(tmp_path / "disk"), trouble, str(tmp_path / "log")]
    words += [config["data"], "-o", str(tmp_path / "disk" / "run"), *flags]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
    if done.returncode == 77 or "unshare failed" in done.stderr:
        pytest.skip("this container may not mount")
    said = (tmp_path / "log").read_text()
    assert done.returncode == 0, done.stderr[-2000:] + said[-2000:]
    assert "training goes on, older checkpoints are whole, the next interval tries again" in said
    steps = [step for step, _, _ in trained_on(tmp_path / "log.run")]
    assert steps == list(range(1, 12 * STEPS // 2 + 1))
