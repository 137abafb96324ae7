"""Evaluation, prediction and features by several processes: each image once, and the same bits as by one."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from processes import SOAK, ends, start_ranks
from reinception import family
from reinception.data.images.crops import evaluation_pixels
from reinception.data.images.decode import decode
from reinception.data.loading.loader import normalise
from reinception.data.sources.open_source import open_source
from reinception.model.artifact import Manifest, save
from reinception.model.build import build
from reinception.preprocess import Preprocessing

NUM_IMAGES, NUM_BAD = 403, 3
CLASSES = tuple(f"cell{index}" for index in range(7))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A very narrow Inception-v3 with random weights, batch-norm statistics of real pixels and seven classes."""
    arch = family.network("inception_v3", num_classes=len(CLASSES), width=0.05, input_size=75, aux="none")
    network, preprocessing = build(arch, seed=0), Preprocessing(input_size=75, resize="whole")
    network.set_batch_norm_decay(0)
    cells = [evaluation_pixels(decode(record.path), preprocessing) for record in open_source("elpv").records[:8]]
    with torch.no_grad():
        network.train()(normalise(torch.from_numpy(np.stack(cells)).permute(0, 3, 1, 2), preprocessing))
        network.classifier.weight *= 20
    manifest = Manifest(arch=arch, classes=CLASSES, preprocessing=preprocessing)
    path = tmp_path_factory.mktemp("model") / "narrow.safetensors"
    save(network, path, manifest)
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """403 small pictures cut from solar cells in seven class folders, three of them damaged, at both ends too."""
    root, records = tmp_path_factory.mktemp("images"), open_source("elpv").records
    paths = []
    for index in range(NUM_IMAGES):
        path = root / CLASSES[index % len(CLASSES)] / f"{index:04}.png"
        path.parent.mkdir(exist_ok=True)
        with Image.open(records[index].path) as cell:
            cell.resize((80, 75)).save(path)
        paths.append(path)
    ordered = sorted(paths)
    for path in (ordered[0], ordered[200], ordered[-1]):
        path.write_bytes(path.read_bytes()[:200])
    return root


def torchrun(world: int, *words: object, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={world}"]
    return subprocess.run(
        [*launcher, "-m", "reinception", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
    )


def judged(out: Path) -> tuple[str, dict[str, object]]:
    """The table's sha256, and the summary without the words of the command."""
    summary = json.loads((out / "summary.json").read_text())
    return hashlib.sha256((out / "table.csv").read_bytes()).hexdigest(), summary


def words_for(model: Path, images: Path, out: Path, *more: object) -> Sequence[object]:
    out.mkdir()
    files = ("--predictions", out / "table.csv", "--json", out / "summary.json")
    return ["evaluate", model, images, "--backend", "torch", *files, *more]


@pytest.fixture(scope="module")
def alone(model: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, object]]:
    """What one process finds."""
    out = tmp_path_factory.mktemp("alone") / "one"
    log = out.with_name("log")
    assert ends(*start_ranks(words_for(model, images, out), log, world=1)) == [1]  # some of the images are damaged
    found = judged(out)
    summary = found[1]
    assert (summary["num_listed"], summary["num_images"]) == (NUM_IMAGES, NUM_IMAGES - NUM_BAD)
    assert np.array(summary["confusion"]).sum() == NUM_IMAGES - NUM_BAD
    assert np.count_nonzero(np.array(summary["confusion"]).sum(axis=0)) > 1  # else this would prove little
    rows = (out / "table.csv").read_text().splitlines()[1:]
    names = [row.split(",")[0] for row in rows]
    assert len(set(names)) == len(names) == NUM_IMAGES - NUM_BAD
    assert names == sorted(names)
    return found


GRID = [(world, size, workers) for world in (1, 2, 3, 4) for size in (1, 8, 32, 200) for workers in (0, 2)]


@pytest.mark.parametrize(
    ("world", "size", "workers"),
    [(2, 7, 0), (3, 300, 1), *(pytest.param(*case, marks=[SOAK, pytest.mark.slow]) for case in GRID)],
)
def test_each_image_is_judged_once_whatever_the_ranks_batches_and_workers(
    model: Path, images: Path, alone: tuple[str, dict[str, object]], tmp_path: Path, world: int, size: int, workers: int
) -> None:
    out = tmp_path / "out"
    result = torchrun(world, *words_for(model, images, out, "--batch-size", size, "--workers", workers))
    assert result.returncode == 1, result.stderr[-3000:]
    assert judged(out) == alone
    assert result.stdout.count("top-1 error") == 1
    # Each is named by one process only, and the last line counts them.
    assert result.stderr.count("reinception: ") == NUM_BAD + 1


def test_the_ranks_compute_with_the_backend_that_the_first_chose(
    model: Path, images: Path, alone: tuple[str, dict[str, object]], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    result = torchrun(2, *words_for(model, images, out, "--backend", "auto"))
    assert result.returncode == 1, result.stderr[-3000:]
    assert result.stderr.count("reinception: backend ") == 1
    found = judged(out)[1]
    assert found["top1_error"] == pytest.approx(alone[1]["top1_error"], abs=100 / NUM_IMAGES)


def test_features_and_predictions_of_several_ranks_are_those_of_one(model: Path, images: Path, tmp_path: Path) -> None:
    files = sorted((images / CLASSES[0]).iterdir())[:25]  # the first is damaged
    wanted: dict[str, bytes] = {}
    for world in (1, 3):
        out = tmp_path / str(world)
        out.mkdir()
        verbs = (["features", model, *files, "-o", out / "f.npz"], ["predict", model, *files, "--csv", out / "p.csv"])
        for words in verbs:
            log = out / str(words[0])
            # What could not be read is the first rank's to say, and its exit code.
            assert ends(*start_ranks(words, log, world=world)) == [1] + [0] * (world - 1)
            assert "1 could not be read" in (said := log.with_name(f"{log.name}.0").read_text()) or "1 of 25" in said
            assert all(not log.with_name(f"{log.name}.{rank}").read_text() for rank in range(1, world))
        with np.load(out / "f.npz") as found:
            assert found["paths"].tolist() == [str(path) for path in files[1:]]
            got = {"features": found["features"].tobytes(), "predictions": (out / "p.csv").read_bytes()}
        wanted = wanted or got
        assert got == wanted


def die() -> None:
    """This process is killed as soon as it has scored its share."""
    from reinception.inference import evaluate

    if os.environ["RANK"] == "1":
        evaluate.collect = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)  # pyrefly: ignore[bad-assignment]


def test_a_rank_that_dies_ends_the_evaluation_with_one_line_that_names_it(
    model: Path, images: Path, tmp_path: Path
) -> None:
    words = words_for(model, images, tmp_path / "out")
    processes = start_ranks(
        words, tmp_path / "log", world=2, before=die, environment={"REINCEPTION_PEER_SECONDS": "20"}
    )
    assert ends(*processes, timeout=120) == [1, -signal.SIGKILL]
    lines = (tmp_path / "log.0").read_text().splitlines()
    said = [line for line in lines if line.startswith("reinception: ")]
    assert len(said) == 1
    assert said[0].startswith("reinception: rank 1 is dead")
    assert not list((tmp_path / "out").iterdir())
