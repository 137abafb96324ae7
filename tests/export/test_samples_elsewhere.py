"""Exported files elsewhere: in Node, in empty environments, and made of a network that was really fine-tuned."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from command import Command
from reinception import family
from reinception.errors import ReinceptionError
from reinception.export.check_images import bundled
from reinception.export.deliver import Export, export
from reinception.export.node_gate import node_rows
from reinception.export.samples import node_package, node_sample
from reinception.inference.predictor import Predictor
from reinception.model.artifact import Manifest, save
from reinception.preprocess import Preprocessing
from reinception.rewrite.check import random_network

CLASSES = ("10", "2", "Ä", "a", "A")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    arch = family.network("inception_v3", width=0.1, num_classes=len(CLASSES), input_size=81, aux="none")
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save(random_network(arch), path, Manifest(arch=arch, classes=CLASSES, preprocessing=Preprocessing(input_size=81)))
    return path


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("image") / "one.png"
    Image.fromarray(bundled().pixels[0]).save(path)
    return path


def test_without_its_runtime_node_is_left_out_and_parity_says_so(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert export(file, tmp_path / "out", Export()).node is None


@pytest.fixture
def node_without_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which a module named onnxruntime-node answers with numbers of the test."""
    if shutil.which("node") is None:
        pytest.skip("there is no node here")
    module = tmp_path / "node_modules" / "onnxruntime-node"
    module.mkdir(parents=True)
    (module / "package.json").write_text('{"name": "onnxruntime-node", "version": "0.0.1", "main": "index.js"}')
    (module / "index.js").write_text(
        "exports.Tensor = class { constructor(kind, data, dims) { Object.assign(this, { kind, data, dims }); } };"
        "exports.InferenceSession = { create: async () => ({ run: async ({ images }) =>"
        " ({ probabilities: { data: Float32Array.of(images.data[0], images.dims[1], images.dims[2]) } }) }) };"
    )
    monkeypatch.setenv("NODE_PATH", str(tmp_path / "node_modules"))
    return tmp_path


def test_the_javascript_sample_hands_pixels_over_in_order_and_refuses_others(node_without_packages: Path) -> None:
    script = node_without_packages / "sample.cjs"
    script.write_text(node_sample("model.onnx", features=False))
    images = [np.full((2, 3, 3), 7, dtype=np.uint8), np.full((5, 4, 3), 9, dtype=np.uint8)]
    found = node_rows(script, images)
    assert found is not None and found[1] == "onnxruntime-node 0.0.1"
    assert found[0].tolist() == [[7, 2, 3], [9, 5, 4]]
    script.write_text("exports.run = async () => [1];")
    with pytest.raises(ReinceptionError, match="takes a wrong input without a word"):
        node_rows(script, images)
    script.write_text("exports.run = async () => { throw new Error('no such file'); };")
    with pytest.raises(ReinceptionError, match=r"cannot be run, nothing was written: .*no such file"):
        node_rows(script, images)


def test_an_answer_that_node_alone_gets_wrong_is_refused(node_without_packages: Path, file: Path) -> None:
    index = node_without_packages / "node_modules" / "onnxruntime-node" / "index.js"
    index.write_text(
        index.read_text().replace(
            "Float32Array.of(images.data[0], images.dims[1], images.dims[2])", "new Float32Array(5)"
        )
    )
    with pytest.raises(ReinceptionError, match="its output differs by"):
        export(file, node_without_packages / "out", Export())
    assert not (node_without_packages / "out").exists()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("npm") is None, reason="there is no npm here")
def test_the_javascript_sample_answers_alike(
    file: Path, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "package.json").write_text(node_package())
    words = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"npm install: {done.stderr[-200:]}")
    monkeypatch.setenv("NODE_PATH", str(tmp_path / "node_modules"))
    parity = export(file, tmp_path / "out", Export())
    assert parity.node == "onnxruntime-node 1.30.0" and parity.largest_difference <= 1e-5
    said = subprocess.run(["node", tmp_path / "out" / "sample.cjs", image], capture_output=True, text=True, check=True)
    assert f"one.png: {Predictor(file, precision='fp32')(image).label} " in said.stdout


@pytest.mark.slow
@pytest.mark.parametrize("to", ["onnx", "openvino", "triton"])
def test_a_sample_needs_only_what_it_names(to: str, file: Path, image: Path, tmp_path: Path) -> None:
    export(file, tmp_path / "out", Export(to=to))  # pyrefly: ignore[bad-argument-type]
    python = tmp_path / "empty" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "empty"], check=True)
    words = [python, "-m", "pip", "install", "--quiet", "-r", tmp_path / "out" / "requirements.txt"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"pip install: {done.stderr[-200:]}")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"PYTHONUTF8": "1"}
    said = subprocess.run(
        [python, tmp_path / "out" / "sample.py", image], capture_output=True, text=True, check=False, env=environment
    )
    assert f"one.png: {Predictor(file, precision='fp32')(image).label} " in said.stdout, said.stderr


@pytest.mark.slow
def test_a_fine_tuned_network_leaves_for_every_runtime(
    command: Command, small_run: Path, solar_cells: Path, tmp_path: Path
) -> None:
    tuned = tmp_path / "tuned"
    weights = ("--weights", small_run / "model.safetensors", "--freeze", "stem")
    done = command("train", solar_cells, "-o", tuned, *weights, "--epochs", 3, "--batch-size", 8, timeout=900)
    assert done.returncode == 0, done.stderr
    for to in ("onnx", "openvino", "torch", "triton"):
        how = Export(to=to, check=str(solar_cells))  # pyrefly: ignore[bad-argument-type]
        parity = export(tuned, tmp_path / to, how)
        assert parity.num_images == 32 and parity.largest_difference <= 1e-5, to
