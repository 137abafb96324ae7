"""int8: quantized on the user's own images, judged on others, refused where it disagrees, kept with its report."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from reinception import family
from reinception.errors import ReinceptionError, UsageError
from reinception.inference.backends import int8, kept
from reinception.inference.backends.choice import computed, named
from reinception.inference.backends.int8 import int8_backend, kept_report
from reinception.inference.backends.network_backend import Task
from reinception.inference.calibration_images import LEAST, calibration_images
from reinception.inference.compute import Compute
from reinception.preprocess import Preprocessing, Scaling
from reinception.rewrite.check import random_network

pytest.importorskip("openvino")
pytest.importorskip("nncf")

SIDE = 75
HOW = Preprocessing(input_size=SIDE)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache folder for each test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield kept.folder()


@pytest.fixture(scope="module")
def images(solar_cells: Path) -> Tensor:
    return calibration_images(str(solar_cells), HOW, workers=0)


def task_of(preprocessing: Preprocessing = HOW) -> Task:
    arch = family.network("inception_v3", width=0.1, num_classes=3, input_size=SIDE, aux="none")
    network = random_network(dataclasses.replace(arch, stages=arch.stages[:2]))
    return Task(network=network, preprocessing=preprocessing, precision="int8", device=torch.device("cpu"))


def unasked() -> Tensor:
    raise AssertionError("no image is to be read")


@pytest.mark.parametrize("scaling", ["fixed", "per_image"])
def test_int8_computes_in_int8_and_agrees_with_float32(images: Tensor, scaling: Scaling) -> None:
    task = task_of(dataclasses.replace(HOW, scaling=scaling))
    said: list[str] = []
    backend = int8_backend(task, "cells", lambda: images, least_agreement=0.5, tell=said.append)
    assert (backend.name, backend.precision) == ("openvino", "int8")
    report = kept_report(task)
    assert report is not None
    assert (report.num_calibrated, report.num_judged) == (16, 16)
    assert report.num_quantized >= 0.9 * report.num_layers > 0
    assert said == [f"int8: {report.words} (quantized now)"]
    exact = named("torch", dataclasses.replace(task, precision="fp32"))
    rows, expected = (computed(one, images, "probabilities") for one in (backend, exact))
    assert 0 < np.abs(rows - expected).max() < 0.25
    assert (rows[::2].argmax(1) == expected[::2].argmax(1)).mean() == pytest.approx(report.top1_agreement, abs=0.13)


def test_what_was_quantized_is_used_again_without_naming_images(images: Tensor) -> None:
    first = int8_backend(task_of(), "cells", lambda: images, least_agreement=0.5)
    said: list[str] = []
    second = int8_backend(task_of(), None, unasked, least_agreement=0.5, tell=said.append)
    assert said[0].endswith("(quantized before)")
    assert (computed(first, images, "features") == computed(second, images, "features")).all()
    int8_backend(task_of(), "cells", lambda: images, least_agreement=0.5, tell=said.append)
    assert said[1].endswith("(quantized before)")
    int8_backend(task_of(), "others", lambda: images.flip(3), least_agreement=0.5, tell=said.append)
    assert "of others" in said[2] and said[2].endswith("(quantized now)")


def test_without_images_and_without_a_kept_network_it_says_what_to_give() -> None:
    with pytest.raises(UsageError, match="int8 needs --calibrate DATA, once for each model"):
        int8_backend(task_of(), None, unasked)


def test_labels_that_disagree_are_refused_and_nothing_is_kept(
    images: Tensor, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    # Images that hardly differ, and a classifier whose border runs between them: what int8 rounds decides.
    alike = images[:1] + torch.randint(0, 2, (32, *images.shape[1:]), generator=torch.Generator().manual_seed(0))
    alike = alike.clamp(max=255).to(torch.uint8)
    task = task_of()
    features = computed(named("torch", dataclasses.replace(task, precision="fp32")), alike, "features")
    with torch.no_grad():
        weight, bias = task.network.classifier.weight, task.network.classifier.bias
        weight[1:] = 0
        bias.zero_()
        bias[0] = -float(features.mean(axis=0) @ weight[0].numpy())
        weight.mul_(1000)
        bias.mul_(1000)
    monkeypatch.setattr(int8, "MOST_REVERTED", 1)
    with pytest.raises(ReinceptionError, match=r"int8 is refused and not kept: .* asked are 100.0%; calibrate on more"):
        int8_backend(task, "cells", lambda: alike, least_agreement=1.0)
    assert kept_report(task) is None and not list(cache.glob("*.int8.*"))


def test_a_kept_network_below_what_is_asked_is_refused(images: Tensor) -> None:
    backend = int8_backend(task_of(), "cells", lambda: images, least_agreement=0.1)
    report = kept_report(task_of())
    assert backend.precision == "int8" and report is not None
    if report.top1_agreement < 1:
        with pytest.raises(ReinceptionError, match="int8 is refused"):
            int8_backend(task_of(), None, unasked, least_agreement=1.0)


@pytest.mark.parametrize("part", ["json", "xml", "bin"])
def test_a_damaged_part_is_made_again(images: Tensor, cache: Path, part: str) -> None:
    int8_backend(task_of(), "cells", lambda: images, least_agreement=0.5)
    (path,) = cache.glob(f"*.int8.{part}")
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(UsageError, match="needs --calibrate"):
        int8_backend(task_of(), None, unasked, least_agreement=0.5)
    int8_backend(task_of(), "cells", lambda: images, least_agreement=0.5)
    assert kept_report(task_of()) is not None


def test_too_few_images_are_no_calibration(tmp_path: Path, solar_cells: Path) -> None:
    folder = tmp_path / "few"
    folder.mkdir()
    for number, path in enumerate(sorted((solar_cells / "defective").iterdir())[:3]):
        (folder / f"{number}.png").write_bytes(path.read_bytes())
    with pytest.raises(ReinceptionError, match=f"3 images can be read, int8 needs {LEAST}"):
        calibration_images(str(folder), HOW, workers=0)


def test_test_images_are_not_calibrated_on_where_the_data_say_which_they_are(tmp_path: Path, solar_cells: Path) -> None:
    for number, path in enumerate(sorted(solar_cells.rglob("*.png"))):
        to = tmp_path / ("test" if number >= 24 else "train") / path.parent.name / path.name
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_bytes(path.read_bytes())
    alone = calibration_images(str(tmp_path / "train"), HOW, workers=0)
    assert torch.equal(calibration_images(str(tmp_path), HOW, workers=0), alone)
    assert len(alone) == 24


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(UsageError, match="calibrate is for precision int8"):
        Compute(precision="bf16", calibrate="images")
    with pytest.raises(UsageError, match="int8 is computed by openvino, not by torch"):
        Compute(precision="int8", backend="torch")
    with pytest.raises(UsageError, match="above 0 and at most 1"):
        Compute(precision="int8", least_agreement=97)


_WITHOUT = """
import sys
sys.modules["nncf"] = None
from reinception.cli import main
sys.argv = ["reinception", *sys.argv[1:]]
sys.exit(main())
"""


def test_the_command_line_quantizes_once_and_says_what_is_missing(place: Path, solar_cells: Path) -> None:
    def run(*words: object, start: tuple[str, ...] = ("-m", "reinception")) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *start, "predict", place / "model.safetensors", place / "images", *words]
        return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, timeout=200)

    how = ("--precision", "int8", "--workers", 0)
    missing = run(*how, "--calibrate", solar_cells, start=("-c", _WITHOUT))
    assert missing.returncode == 2
    assert missing.stderr.splitlines() == ["reinception: int8 needs the package nncf: pip install 'reinception[int8]'"]
    first = run(*how, "--calibrate", solar_cells, "--least-agreement", 0.2)
    assert first.returncode == 0, first.stderr
    assert "int8: calibrated on 16 images of" in first.stderr and len(first.stdout.splitlines()) == 4
    second = run(*how, "--least-agreement", 0.2)
    assert (second.returncode, second.stdout) == (0, first.stdout)
    assert "(quantized before)" in second.stderr
