"""`weights identify` and `weights convert` as real processes, and downloads where there is no network."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from command import Command
from foreign_weights import assert_same_bits, images, random_network
from reinception import cli
from reinception.errors import ReinceptionError
from reinception.model import artifact
from reinception.model.artifact import Manifest
from reinception.preprocess import Preprocessing
from reinception.weights.downloads import download
from reinception.weights.library_files import export
from reinception.weights.weight_files import read


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of three classes under torchvision's names."""
    network = random_network(seed=1, num_classes=3, border=True, aux=False)
    manifest = Manifest(arch=network.arch, classes=("a", "b", "c"), preprocessing=Preprocessing())
    file = tmp_path_factory.mktemp("weights") / "theirs.pth"
    export(network, manifest, "torchvision", file)
    return file


class Result(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


Run = Callable[..., Result]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """The command line within this process: the words are the same, and torch is loaded once."""

    def call(*words: object) -> Result:
        try:
            code = cli.main([str(word) for word in words])
        except SystemExit as stopped:
            code = int(str(stopped.code))
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return call


def test_identify_says_what_a_file_is_and_what_else_it_could_be(command: Command, weights: Path) -> None:
    result = command("weights", "identify", weights)
    assert (result.returncode, result.stderr) == (0, "")
    assert f"{weights}: PyTorch, torchvision's names" in result.stdout
    assert "could also be: timm:inception_v3.tv_in1k, timm:inception_v3.tf_in1k" in result.stdout
    assert "network: inception_v3, 3 outputs, no auxiliary head, batch norm with gamma" in result.stdout


def test_identify_as_json_names_layout_source_and_pixels(run: Run, weights: Path) -> None:
    result = run("weights", "identify", weights, "--source", "timm:gluon_in1k", "--json")
    answer = json.loads(result.stdout)
    assert (answer["layout"], answer["source"]) == ("torchvision", "timm:inception_v3.gluon_in1k")
    assert answer["preprocessing"]["mean"] == [0.485, 0.456, 0.406]
    assert (answer["num_classes"], answer["auxiliary"], answer["counts_border"]) == (3, False, True)


def test_a_resnet_is_refused_in_one_line(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "resnet.pth"
    import torchvision

    torch.save(torchvision.models.resnet18().state_dict(), file)
    for words in (("identify", file), ("convert", file, "-o", tmp_path / "model.safetensors")):
        result = run("weights", *words)
        assert (result.returncode, result.stdout) == (1, "")
        assert result.stderr.startswith(f"reinception: {file}: this is a ResNet, not an Inception-v3")
        assert result.stderr.count("\n") == 1


def test_there_and_back_with_proofs_on_the_way(run: Run, weights: Path, tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("cat\ndog\nbird\n")
    model, back = tmp_path / "model.safetensors", tmp_path / "back.pth"
    result = run("weights", "convert", weights, "-o", model, "--classes", names, "--licence", "CC0-1.0")
    assert (result.returncode, result.stderr) == (0, "")
    assert "parity with torchvision" in result.stdout
    assert result.stdout.endswith(f"written: {model}\n")
    network, manifest = artifact.load(model)
    assert (manifest.classes, manifest.origin["licence"]) == (("cat", "dog", "bird"), "CC0-1.0")
    assert network(images(size=107)).shape == (1, 3)
    result = run("weights", "convert", model, "-o", back, "--to", "torchvision", "--json", "-")
    (read_in, written) = json.loads(result.stdout)["reports"]
    assert read_in["title"] == "a reinception model file"
    assert written["proof"]["relative"] <= 1e-5
    assert_same_bits(dict(read(weights).tensors), dict(read(back).tensors))
    said = run("weights", "identify", model).stdout
    assert said.splitlines()[1:] == ["network: inception_v3, 3 outputs", "source: torchvision", "licence: CC0-1.0"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--to", "mxnet"), 2, "cannot write for 'mxnet'; known: torchvision, timm, keras"),
        (("--to", "keras"), 2, "keras.applications.InceptionV3 is written to .weights.h5 or .h5"),
        (("--source", "lucid"), 2, "lucid does not name tensors like this"),
        (("--classes", "nowhere.txt"), 1, "nowhere.txt: cannot read class names"),
        (("--border", "maybe"), 2, "unknown: maybe; choose one of source, counted, ignored"),
    ],
)
def test_what_cannot_be_is_said_and_nothing_is_written(
    run: Run, weights: Path, tmp_path: Path, words: tuple[str, ...], code: int, said: str
) -> None:
    result = run("weights", "convert", weights, "-o", tmp_path / "out.safetensors", *words)
    assert result.returncode == code
    assert said in result.stderr
    assert not list(tmp_path.iterdir())


def test_a_file_in_the_way_is_kept_and_said_before_any_work(run: Run, weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "model.safetensors"
    out.write_bytes(b"mine")
    result = run("weights", "convert", weights, "-o", out)
    assert (result.returncode, out.read_bytes()) == (1, b"mine")
    assert "exists already" in result.stderr


# -- downloads ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("torchvision:IMAGENET1K_V1", "https://download.pytorch.org/models/inception_v3_google-0cc3c7bd.pth"),
        (
            "timm:inception_v3.tf_in1k",
            "https://huggingface.co/timm/inception_v3.tf_in1k/resolve/main/model.safetensors",
        ),
    ],
)
def test_without_a_network_a_download_is_one_line_with_what_to_do(tmp_path: Path, name: str, address: str) -> None:
    nowhere = "http://127.0.0.1:9"
    environment = os.environ | {
        "https_proxy": nowhere,
        "HTTPS_PROXY": nowhere,
        "HF_HOME": str(tmp_path / "hf"),
        "TORCH_HOME": str(tmp_path / "torch"),
    }
    environment.pop("HF_HUB_OFFLINE", None)
    result = subprocess.run(
        [sys.executable, "-m", "reinception", "weights", "convert", name, "-o", str(tmp_path / "out.safetensors")],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=120,
    )
    assert (result.returncode, result.stdout) == (1, "")
    last = result.stderr.splitlines()[-1]
    assert last.startswith(f"reinception: {name}: could not be downloaded (")
    assert last.endswith(f"try again with a network, or fetch {address} elsewhere and give the file itself")
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "torchvision:V9",
            "torchvision publishes no Inception-v3 weights 'V9'; known: IMAGENET1K_V1",
        ),
        (
            "timm:resnet50.a1_in1k",
            "timm publishes no Inception-v3 weights 'resnet50.a1_in1k'; known: inception_v3.",
        ),
    ],
)
def test_unpublished_weights_are_said_with_those_there_are(run: Run, tmp_path: Path, name: str, said: str) -> None:
    result = run("weights", "convert", name, "-o", tmp_path / "out.safetensors")
    assert result.returncode == 2
    assert said in result.stderr


def test_a_cached_file_that_is_not_what_its_name_says_is_refused(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torchvision itself trusts its cache."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cached = tmp_path / "hub" / "checkpoints" / "inception_v3_google-0cc3c7bd.pth"
    cached.parent.mkdir(parents=True)
    shutil.copy(weights, cached)
    with pytest.raises(ReinceptionError, match="does not match the digest in its name") as caught:
        download("torchvision:IMAGENET1K_V1")
    assert str(caught.value).startswith(str(cached))


def test_a_cached_file_is_not_unpickled_beyond_its_tensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cached = tmp_path / "hub" / "checkpoints" / "inception_v3_google-0cc3c7bd.pth"
    cached.parent.mkdir(parents=True)
    torch.save(torch.nn.Linear(2, 2), cached)  # a whole module: more than tensors
    with pytest.raises(ReinceptionError, match=r"torchvision:IMAGENET1K_V1: could not be downloaded \(Weights only"):
        download("torchvision:IMAGENET1K_V1")
