"""The benchmark from disk to results: its images, its clock and memory, and its loop around OpenVINO."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pipeline import HERE, Round, make_images, table, timed


def test_images_are_jpegs_of_the_size_and_no_two_are_the_same(tmp_path: Path) -> None:
    files = sorted(make_images(tmp_path / "images", 64, 48, 4).iterdir())
    assert len({file.read_bytes() for file in files}) == len(files) == 4
    for file in files:
        with Image.open(file) as image:
            assert (image.format, image.size, image.mode) == ("JPEG", (64, 48), "RGB")


def test_a_process_is_timed_with_all_that_it_starts(tmp_path: Path) -> None:
    child = "import time; kept = bytearray(60 << 20); time.sleep(0.7)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}], check=True)"
    seconds, peak = timed(([sys.executable, "-c", parent], {}), is_watched=True)
    assert seconds > 0.7 and peak > 60
    assert timed(([sys.executable, "-c", "pass"], {}))[1] == 0  # looking at memory would cost time
    with pytest.raises(SystemExit, match="exit code 3: no"):
        timed(([sys.executable, "-c", "import sys; print('no', file=sys.stderr); sys.exit(3)"], {}))


def test_the_table_compares_medians_with_ours() -> None:
    rounds = [
        Round(images="x", name=name, seconds=seconds, peak_mib=100.0)
        for name, many in (("reinception features", (9, 10, 11)), ("a loop", (20, 50, 25)))
        for seconds in many
    ]
    lines = table(rounds, "x").splitlines()
    assert lines[2].split() == ["a", "loop", "25.0", "20.0", "to", "50.0", "2.50", "100"]


def test_the_loop_around_openvino_gives_the_features_of_a_graph(tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    pooled = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    with warnings.catch_warnings():  # OpenVINO traces, which torch deprecates
        warnings.simplefilter("ignore")
        graph = openvino.convert_model(pooled, example_input=torch.zeros(1, 3, 299, 299), input=[-1, 3, 299, 299])
    openvino.save_model(graph, tmp_path / "graph.xml", compress_to_fp16=False)
    images = make_images(tmp_path / "images", 299, 299, 9)
    words = [sys.executable, HERE / "openvino_loop.py", tmp_path / "graph.xml", images, "fp32", tmp_path / "f.npz"]
    subprocess.run(words, check=True)
    with np.load(tmp_path / "f.npz") as found, Image.open(images / "00008.jpg") as image:
        wanted = np.asarray(image, dtype=np.float32).mean(axis=(0, 1)) / 127.5 - 1
        assert found["features"].shape == (9, 3)
        assert found["features"][8] == pytest.approx(wanted, abs=1e-4)
