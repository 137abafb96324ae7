"""Checkpoints: nothing half-written is ever loaded, every damaged bit is noticed, a full disk costs nothing."""

from __future__ import annotations

import builtins
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from processes import CONTEXT, SOAK
from reinception import family
from reinception.errors import ReinceptionError
from reinception.model.build import Network, build
from reinception.recipe import PAPER_2015
from reinception.train.optim import ParameterAverage, make_optimizer
from reinception.train.run.checkpoint import Checkpoint, Checkpointer, Checkpoints, capture, restore
from reinception.train.run.metadata import differences
from tensors import fingerprint


def checkpoint(step: int) -> Checkpoint:
    generator = torch.Generator().manual_seed(step)
    tensors = {f"network/{name}": torch.randn(17, 5, generator=generator) for name in "abc"}
    return Checkpoint(step=step, tensors=tensors, document={"journal": {"best": None, "seconds": 0.25 * step}})


def same(one: Checkpoint | None, other: Checkpoint) -> bool:
    return one is not None and (one.step, one.document) == (other.step, other.document) and (
        fingerprint(one.tensors) == fingerprint(other.tensors)
    )  # fmt: skip


def test_a_checkpoint_comes_back_to_the_bit_and_only_the_last_two_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "state")
    for step in (3, 5, 9):
        checkpoints.save(checkpoint(step))
    assert checkpoints.steps() == [5, 9]
    assert {path.suffix for path in checkpoints.folder.iterdir()} == {".json", ".safetensors"}
    assert len(list(checkpoints.folder.iterdir())) == 4
    found, skipped = checkpoints.newest()
    assert same(found, checkpoint(9))
    assert skipped == []


def test_a_checkpoint_from_before_a_branch_was_renamed_is_restored() -> None:
    def training(seed: int) -> tuple[Network, ParameterAverage[Network], torch.optim.Optimizer]:
        arch = family.network("inception_v3", width=0.05, num_classes=2, input_size=75, aux="none")
        network = build(arch, seed=seed)
        optimizer = make_optimizer(network, PAPER_2015.optimizer)
        network(torch.randn(2, 3, 75, 75, generator=torch.Generator().manual_seed(seed))).sum().backward()
        optimizer.step()
        return network, ParameterAverage(network, PAPER_2015.parameter_average), optimizer

    saved = {name: tensor.clone() for name, tensor in capture(*training(1)).items()}
    old = {name.replace(".doubled.", ".double."): tensor for name, tensor in saved.items()}
    assert len(set(old) - set(saved)) > 100
    fresh = training(2)
    assert fingerprint(capture(*fresh)) != fingerprint(saved)
    restore(old, *fresh)
    assert fingerprint(capture(*fresh)) == fingerprint(saved)


def test_what_is_skipped_is_put_aside_and_not_counted_again(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "state")
    for step in (1, 2):
        checkpoints.save(checkpoint(step))
    (checkpoints.folder / ".step-000000003.safetensors.ab.tmp").touch()
    checkpoints.forget_after(1)
    assert checkpoints.steps() == [1]
    assert sorted(path.name for path in checkpoints.folder.iterdir()) == [
        "skipped-step-000000002.json",
        "skipped-step-000000002.safetensors",
        "step-000000001.json",
        "step-000000001.safetensors",
    ]


# -- damage ----------------------------------------------------------------------------------------------------------


def damage(path: Path, chance: random.Random) -> str:
    """One random bit flipped, or the end cut off."""
    content = bytearray(path.read_bytes())
    if chance.random() < 0.3:
        length = chance.randrange(len(content))
        path.write_bytes(content[:length])
        return f"{path.name} cut at {length}"
    bit = chance.randrange(8 * len(content))
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)
    return f"{path.name} bit {bit}"


@pytest.mark.parametrize("times", [60, pytest.param(1000, marks=[SOAK, pytest.mark.slow])])
def test_every_flipped_bit_and_every_truncation_is_noticed_and_the_one_before_is_used(
    times: int, tmp_path: Path
) -> None:
    chance, checkpoints = random.Random(0), Checkpoints(tmp_path / "state")
    for step in (1, 2):
        checkpoints.save(checkpoint(step))
    files = sorted(checkpoints.folder.glob("step-000000002.*"))
    whole = {path: path.read_bytes() for path in files}
    for _ in range(times):
        path = chance.choice(files)
        what = damage(path, chance)
        with pytest.raises(ReinceptionError):
            checkpoints.load(2)
        found, skipped = checkpoints.newest()
        assert same(found, checkpoint(1)), what
        assert len(skipped) == 1
        path.write_bytes(whole[path])
    assert same(checkpoints.newest()[0], checkpoint(2))


# -- crashes ---------------------------------------------------------------------------------------------------------


def save_and_die(folder: str, at: int, report: Any) -> None:
    """Saves checkpoint 3 and dies by SIGKILL at its `at`-th write, fsync, rename or unlink; a write is done by half.

    What is replaced here is the operating system: the outer edge.
    """
    count = 0

    def dies(half: Callable[[], object] | None = None) -> None:
        nonlocal count
        count += 1
        if count == at:
            if half is not None:
                half()
            os.kill(os.getpid(), signal.SIGKILL)

    real_open = builtins.open

    def opening(path: Any, mode: str = "r", *rest: Any, **named: Any) -> Any:
        dies()
        file = real_open(path, mode, *rest, **named)
        if "w" in mode:
            real_write = file.write

            class Writing:
                def write(self, content: bytes) -> int:
                    def half() -> None:
                        real_write(content[: len(content) // 2])
                        file.flush()

                    dies(half)
                    return int(real_write(content))

                def __enter__(self) -> Writing:
                    return self

                def __exit__(self, *error: object) -> None:
                    file.close()

                def __getattr__(self, name: str) -> Any:
                    return getattr(file, name)

            return Writing()
        return file

    def before(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            dies()
            return real(*arguments, **named)

        return call

    builtins.open = opening  # pyrefly: ignore[bad-assignment]
    for name in ("fsync", "replace", "unlink"):
        setattr(os, name, before(getattr(os, name)))
    Checkpoints(Path(folder)).save(checkpoint(3))
    report.send(count)


def test_a_crash_at_every_write_fsync_and_rename_leaves_the_newest_or_the_one_before(tmp_path: Path) -> None:
    at, ended = 0, False
    while not ended:
        at += 1
        folder = tmp_path / f"{at}" / "state"
        folder.parent.mkdir()
        checkpoints = Checkpoints(folder)
        for step in (1, 2):
            checkpoints.save(checkpoint(step))
        _, theirs = CONTEXT.Pipe(duplex=False)
        process = CONTEXT.Process(target=save_and_die, args=(str(folder), at, theirs))
        process.start()
        theirs.close()
        process.join(60)
        ended = process.exitcode == 0
        assert ended or process.exitcode == -signal.SIGKILL
        found, skipped = checkpoints.newest()
        assert same(found, checkpoint(2)) or same(found, checkpoint(3)), at
        assert skipped == []
        checkpoints.save(checkpoint(4))  # and what the crash left behind is in nobody's way
        assert same(checkpoints.newest()[0], checkpoint(4))
    assert at - 1 >= 10  # two files, each opened, written, synced, renamed, its folder synced; then the oldest removed


# -- no room ---------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
def test_at_forty_fill_levels_of_a_small_disk_the_old_checkpoint_stays_and_the_run_is_told(tmp_path: Path) -> None:
    code = """
import subprocess, sys
from pathlib import Path
sys.path[:0] = sys.argv[2:]
from test_train_state import checkpoint, same
import torch
from reinception.train.run.checkpoint import Checkpoint, Checkpointer, Checkpoints
if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", sys.argv[1]]).returncode:
    sys.exit(77)
def large(step):
    small = checkpoint(step)
    tensors = dict(small.tensors) | {"large": torch.full((40000,), float(step))}
    return Checkpoint(step=step, document=small.document, tensors=tensors)
root = Path(sys.argv[1])
told = []
for level in range(40):
    checkpoints = Checkpoints(root / "state")
    checkpointer = Checkpointer(checkpoints, large, seconds=1e9, num_steps=None, say=told.append)
    assert checkpointer.save(1)
    free = 1 << 20
    (root / "ballast").write_bytes(bytes(free - 200_000 - level * 5_000))
    before = len(told)
    kept = checkpointer.save(2)
    assert kept == (len(told) == before)
    newest, skipped = checkpoints.newest()
    assert same(newest, large(2 if kept else 1)) and not skipped, level
    (root / "ballast").unlink()
    assert checkpointer.save(3) and same(checkpoints.newest()[0], large(3))
    for path in (root / "state").iterdir():
        path.unlink()
print(len(told), "of 40 without room")
print(told[0])
"""
    words = ["unshare", "--mount", sys.executable, "-c", code, str(tmp_path)]
    words += [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode == 77 or "unshare failed" in done.stderr:
        pytest.skip("this container may not mount")
    assert done.returncode == 0, done.stderr[-2000:]
    counted, told = done.stdout.splitlines()
    assert 5 < int(counted.split()[0]) < 40
    assert "no checkpoint after step 2" in told
    assert "No space left on device; training goes on, older checkpoints are whole" in told


def test_a_save_that_fails_is_told_and_tried_again(tmp_path: Path) -> None:
    told: list[str] = []
    checkpoints = Checkpoints(tmp_path / "folder" / "state")
    checkpointer = Checkpointer(checkpoints, checkpoint, seconds=1e9, num_steps=2, say=told.append)
    checkpointer.save_if_due(2)  # the folder is not there
    assert "no checkpoint after step 2" in told[0]
    (tmp_path / "folder").mkdir()
    checkpointer.save_if_due(3)
    assert checkpoints.steps() == []
    checkpointer.save_if_due(4)
    assert checkpoints.steps() == [4]
    assert len(told) == 1


def test_checkpoints_follow_the_clock(tmp_path: Path) -> None:
    now = 0.0
    checkpoints = Checkpoints(tmp_path / "state", kept=9)
    checkpointer = Checkpointer(checkpoints, checkpoint, seconds=10, num_steps=None, say=print, clock=lambda: now)
    for step in range(1, 31):
        now += 1
        checkpointer.save_if_due(step)
    assert checkpoints.steps() == [10, 20, 30]


def test_a_state_caught_in_the_middle_of_a_change_is_never_written(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "state")
    checkpointer = Checkpointer(checkpoints, checkpoint, seconds=10, num_steps=None, say=print)
    with pytest.raises(MemoryError), checkpointer.changing():
        raise MemoryError
    assert not checkpointer.save(1)
    assert checkpoints.steps() == []


def test_what_differs_from_the_machine_of_before_is_listed() -> None:
    assert differences({"torch": "2", "threads": 1}, {"torch": "3", "threads": 1}) == ["torch 3, was 2"]


def test_nothing_in_a_checkpoint_can_run_code(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "state")
    checkpoints.save(checkpoint(1))
    document, tensors = sorted(checkpoints.folder.iterdir())
    assert json.loads(document.read_bytes())["step"] == 1
    header = int.from_bytes(tensors.read_bytes()[:8], "little")
    assert set(json.loads(tensors.read_bytes()[8 : 8 + header])) == {"network/a", "network/b", "network/c"}
    shutil.rmtree(checkpoints.folder)
    assert checkpoints.newest() == (None, [])
