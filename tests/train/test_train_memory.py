"""Memory that runs out, for real: processes under a limit on their address space, and what they then say and do."""

from __future__ import annotations

import errno
import json
import re
import resource
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from cells import class_folders

from processes import ends, start
from reinception.data.loading.loader import TrainingStream
from reinception.data.sources.open_source import open_source
from reinception.model.artifact import load
from reinception.train.run.checkpoint import Checkpoints
from reinception.train.run.out_of_memory import at_most_half, is_out_of_memory

ROOM = (1 << 30) + (700 << 20)  # bytes beside what a process has at first: the cache of pictures, and 64 small images
BATCH = 1024
SMALL = ("--epochs", 1, "--batch-size", BATCH, "--width", 0.1, "--input-size", 75, "--precision", "fp32")


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two class folders of 12 real solar cells each."""
    return class_folders(tmp_path_factory.mktemp("cells"), per_class=12)


def limit(room: int) -> None:
    """From now on this process gets `room` bytes of address space more, and no others."""
    size = re.search(r"VmSize:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert size is not None
    most = 1024 * int(size[1]) + room
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def run(words: Sequence[object], log: Path, before: Callable[[], None]) -> tuple[int | None, str]:
    (code,) = ends(start(words, log, before=before))
    return code, log.read_text()


def test_a_batch_too_large_ends_in_one_line_that_says_how_the_run_goes_on_with_smaller_ones(
    cells: Path, tmp_path: Path
) -> None:
    code, said = run(["train", cells, "-o", tmp_path / "run", *SMALL], tmp_path / "log", partial(limit, ROOM))
    assert code == 1, said[-3000:]
    assert said.splitlines()[-1] == (
        f"reinception: out of memory: a batch of {BATCH} images does not fit on cpu; try --batch-size {BATCH // 2} "
        f"--replicas 2: as many images a step, added up {BATCH // 2} at a time, which batch norm then sees, so it is "
        f"not quite the same run; to go on: reinception train --resume {tmp_path / 'run'} "
        f"--batch-size {BATCH // 2} --replicas 2"
    )
    resume = ["train", "--resume", tmp_path / "run", "--batch-size", 16, "--replicas"]
    code, said = run([*resume, 63], tmp_path / "other", partial(limit, ROOM))
    assert (code, said.splitlines()[-1]) == (
        2,
        f"reinception: --batch-size 16 --replicas 63 beside --resume: steps of this run have {BATCH} x 1 images, and "
        "as many they must keep",
    )
    code, said = run([*resume, BATCH // 16], tmp_path / "log2", partial(limit, ROOM))
    assert code == 0, said[-3000:]  # under the same limit
    assert f"from here on a step is {BATCH // 16} x 16 images: the same ones, but not quite the same run" in said
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["batch_size"], config["replicas"], config["recipe"]["batch_size"]) == (16, BATCH // 16, 16)
    assert load(tmp_path / "run")[1].training["recipe"]["sources"]["batch_size"] == "beside --resume"


def test_a_run_that_goes_on_in_smaller_batches_remembers_it_and_misses_no_step(cells: Path, tmp_path: Path) -> None:
    out, flags = tmp_path / "run", (*SMALL, "--epochs", 6, "--batch-size", 8, "--checkpoint-steps", 1)
    process = start(["train", cells, "-o", out, *flags], tmp_path / "log")
    steps = Checkpoints(out / "state").steps
    while max(steps(), default=0) < 2:
        assert process.is_alive()
    process.kill()
    ends(process)
    process = start(["train", "--resume", out, "--batch-size", 4, "--replicas", 2], tmp_path / "log")
    begun = max(steps())
    while max(steps()) < begun + 2:
        assert process.is_alive()
    process.kill()
    ends(process)
    last = tmp_path / "last"
    assert ends(start(["train", "--resume", out], last)) == [0], last.read_text()[-3000:]
    assert "from here on" not in last.read_text()
    lines = map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
    trained = [line["step"] for line in lines if line["split"] == "train"]
    assert trained == list(range(1, trained[-1] + 1))
    assert trained[-1] == 12  # 16 images, 8 a step, 6 epochs
    assert json.loads((out / "config.json").read_text())["replicas"] == 2


def test_a_dry_run_says_it_too(cells: Path, tmp_path: Path) -> None:
    words = ["train", cells, "-o", tmp_path / "run", *SMALL, "--dry-run"]
    code, said = run(words, tmp_path / "log", partial(limit, ROOM))
    assert code == 1, said[-2000:]
    assert f"out of memory: a batch of {BATCH} images does not fit" in said.splitlines()[-1]


@pytest.mark.parametrize(("batch_size", "half"), [(32, 16), (30, 15), (15, 5), (6, 3), (7, None), (2, None)])
def test_a_batch_is_divided_so_that_no_image_is_left_over(batch_size: int, half: int | None) -> None:
    assert at_most_half(batch_size) == half


@pytest.mark.parametrize(("batch_size", "replicas"), [(8, 2), (2, 8)])
def test_smaller_batches_and_more_replicas_are_the_same_images_in_the_same_order(
    batch_size: int, replicas: int
) -> None:
    records = open_source("elpv").records[:20]
    sizes: Any = {"input_size": 32, "augmentation": "crop", "seed": 0, "workers": 0}
    whole = next(TrainingStream(records, batch_size=16, **sizes).batches())
    parts = list(islice(TrainingStream(records, batch_size=batch_size, **sizes).batches(), replicas))
    assert torch.equal(torch.cat([batch.indices for batch in parts]), whole.indices)
    assert torch.equal(torch.cat([batch.images for batch in parts]), whole.images)


def test_other_errors_are_not_taken_for_it() -> None:
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"))
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(OSError(errno.ENOMEM, "Cannot allocate memory"))
    assert not is_out_of_memory(OSError(errno.ENOSPC, "No space left on device"))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("not enough memory"))
