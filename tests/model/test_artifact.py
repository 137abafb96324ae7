"""Model files: what is saved is loaded again; damaged files and those of other libraries are refused."""

from __future__ import annotations

import dataclasses
import json
import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from reinception import family
from reinception.errors import ReinceptionError
from reinception.files import write_bytes
from reinception.inference.evaluate import evaluate_records
from reinception.inference.features import ImageFeatures
from reinception.inference.predict import predict
from reinception.inference.predictor import Predictor
from reinception.model import artifact
from reinception.model.artifact import NO_CLASSIFIER, Manifest, Model, load, save
from reinception.model.build import Network, WithAuxiliary, build
from reinception.preprocess import Preprocessing
from reinception.weights import weight_files

ARCH = family.network("inception_v3", width=0.1, num_classes=2)
MANIFEST = Manifest(
    arch=ARCH,
    classes=("functional", "defective"),
    preprocessing=Preprocessing(input_size=151, resize="whole"),
    training={"recipe": "from_scratch"},
    origin={"licence": "Apache-2.0"},
)


@pytest.fixture(scope="module")
def network() -> Network:
    return build(ARCH, seed=0).eval()


@pytest.fixture
def file(network: Network, tmp_path: Path) -> Path:
    save(network, tmp_path / "model.safetensors", MANIFEST)
    return tmp_path / "model.safetensors"


def test_what_is_saved_is_loaded(network: Network, file: Path) -> None:
    loaded, manifest = load(file)
    assert manifest == MANIFEST
    assert not loaded.training
    state = network.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in loaded.state_dict().items())
    assert all(parameter.requires_grad for parameter in loaded.parameters())


def test_what_becomes_of_the_file_changes_nothing_that_was_loaded(network: Network, file: Path) -> None:
    loaded = load(file).network
    size = file.stat().st_size
    with file.open("r+b") as same_file:  # in place, as cp does it
        same_file.write(bytes(size))
    wanted = network.state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in loaded.state_dict().items())
    with file.open("r+b") as same_file:
        same_file.truncate(0)
    assert all(torch.equal(value, wanted[name]) for name, value in loaded.state_dict().items())


def test_a_model_unpacks_as_network_and_manifest_and_knows_its_classes(file: Path) -> None:
    model = load(file)
    network, manifest = model
    assert (network, manifest) == (model.network, model.manifest)
    assert (model.classes, model.preprocessing) == (MANIFEST.classes, MANIFEST.preprocessing)


def test_a_model_is_saved_with_its_manifest_and_a_network_not_without(network: Network, tmp_path: Path) -> None:
    save(Model(network, MANIFEST), tmp_path / "a.safetensors")
    assert load(tmp_path / "a.safetensors").manifest == MANIFEST
    with pytest.raises(ReinceptionError, match="saved with a manifest"):
        save(network, tmp_path / "b.safetensors")


def test_a_run_folder_means_its_best_weights(file: Path) -> None:
    assert load(file.parent)[1] == MANIFEST


def test_saving_leaves_no_temporary_file_behind(file: Path) -> None:
    assert [path.name for path in file.parent.iterdir()] == ["model.safetensors"]


def test_the_auxiliary_classifier_can_be_left_out(file: Path) -> None:
    loaded, manifest = load(file, with_aux=False)
    assert loaded.arch.aux == manifest.arch.aux == ()
    assert not any(name.startswith("aux") for name in loaded.state_dict())
    assert loaded(torch.zeros(1, 3, 151, 151)).shape == (1, 2)


def test_a_file_from_before_a_branch_was_renamed_is_loaded(network: Network, file: Path, tmp_path: Path) -> None:
    # Such a file differs in nothing else: `double` in its manifest and in its tensors' names (decision 0002).
    document = json.dumps(MANIFEST.to_json()).replace('"doubled"', '"double"')
    tensors = {name.replace(".doubled.", ".double."): tensor for name, tensor in network.state_dict().items()}
    assert '"doubled"' not in document and len(set(tensors) - set(network.state_dict())) > 100
    old = tmp_path / "old.safetensors"
    save_file(tensors, old, {artifact.METADATA_KEY: document})
    loaded, manifest = load(old)
    assert manifest == MANIFEST
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in loaded.state_dict().items())


@pytest.mark.parametrize("keep", [0, 4, 100, 5_000, -1])
def test_a_truncated_file_is_refused_by_name(file: Path, keep: int) -> None:
    content = file.read_bytes()
    file.write_bytes(content[:keep])
    with pytest.raises(ReinceptionError, match=r"model\.safetensors: not a whole \.safetensors file"):
        load(file)


def test_a_file_that_is_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"<!doctype html>" * 100)
    with pytest.raises(ReinceptionError, match="not a whole"):
        load(tmp_path / "a.safetensors")
    with pytest.raises(ReinceptionError, match="no such model file"):
        load(tmp_path / "none.safetensors")
    with pytest.raises(ReinceptionError, match=r"no model\.safetensors in this folder"):
        load(tmp_path)


def test_a_safetensors_file_of_another_library_is_refused_for_its_lack_of_a_manifest(tmp_path: Path) -> None:
    save_file({"fc.weight": torch.zeros(2)}, tmp_path / "timm.safetensors")
    with pytest.raises(ReinceptionError, match=r"timm\.safetensors: has no reinception manifest"):
        load(tmp_path / "timm.safetensors")


def rewrite(file: Path, change) -> None:
    """The file with its manifest changed by hand, as an attacker or a later version might."""
    content = file.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    manifest = json.loads(header["__metadata__"]["reinception"])
    header["__metadata__"]["reinception"] = json.dumps(change(manifest))
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m | {"format": 99}, "manifest format 99"),
        (lambda m: m | {"classes": ["one"]}, "1 class names for 2 outputs"),
        (lambda m: m | {"classes": "ab"}, "classes: expected a list, found 'ab'"),
        (lambda m: m | {"surprise": 1}, "unknown field 'surprise'"),
        (lambda m: m | {"training": [1]}, "training: expected a JSON object"),
        (lambda m: {k: v for k, v in m.items() if k != "arch"}, "lacks arch"),
        (lambda m: m | {"arch": m["arch"] | {"dropout": 2}}, "dropout"),
        (lambda m: m | {"arch": m["arch"] | {"num_classes": 3}, "classes": ["a", "b", "c"]}, "has shape"),
        (lambda m: m | {"arch": m["arch"] | {"aux": []}}, "do not belong to the architecture"),
        (lambda m: [], "not a JSON object"),
        (lambda m: m | {"preprocessing": {}}, "preprocessing"),
        (lambda m: m | {"arch": m["arch"] | {"stages": [{"name": "forward", "layers": []}], "aux": []}}, "forward"),
    ],
)
def test_a_changed_manifest_is_refused_saying_why(file: Path, change, message: str) -> None:
    rewrite(file, change)
    with pytest.raises(ReinceptionError, match=message) as caught:
        load(file)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(file))


def test_an_architecture_of_absurd_size_is_refused_before_memory_is_taken(file: Path) -> None:
    def change(manifest: dict) -> dict:
        manifest["arch"]["stages"][0]["layers"][0]["channels"] = 2**40
        return manifest

    rewrite(file, change)
    with pytest.raises(ReinceptionError, match=r"has shape|does not fit|too large"):
        load(file)


def test_an_interrupted_write_keeps_the_old_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = file.read_bytes()

    def fail(source: object, target: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="No space"):
        write_bytes(file, b"half", replace=True)
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


# -- what is saved is what was meant, and stays so ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrap",
    [
        torch.compile,
        torch.nn.DataParallel,
        torch.optim.swa_utils.AveragedModel,
        WithAuxiliary,
        lambda network: torch.nn.DataParallel(torch.optim.swa_utils.AveragedModel(WithAuxiliary(network))),
    ],
    ids=["compiled", "parallel", "averaged", "with auxiliary", "several"],
)
def test_a_wrapped_network_is_saved_as_the_network_it_wraps(
    network: Network, tmp_path: Path, wrap: Callable[[Network], torch.nn.Module]
) -> None:
    save(wrap(network), tmp_path / "model.safetensors", MANIFEST)
    loaded, _ = load(tmp_path / "model.safetensors")
    state = network.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in loaded.state_dict().items())


def test_what_could_not_be_loaded_again_is_not_saved(tmp_path: Path) -> None:
    changed = build(ARCH, seed=0)
    changed.classifier = torch.nn.Linear(changed.num_features, 5)
    with pytest.raises(ReinceptionError, match=r"cannot be saved: tensor classifier.weight has shape \(5, 203\)"):
        save(changed, tmp_path / "model.safetensors", MANIFEST)
    with pytest.raises(ReinceptionError, match="a Linear is no network of reinception, nor a wrapper of one"):
        save(torch.nn.Linear(2, 2), tmp_path / "model.safetensors", MANIFEST)
    assert not list(tmp_path.iterdir())


def test_a_loaded_model_is_its_own_whatever_becomes_of_the_file(network: Network, file: Path) -> None:
    loaded, _ = load(file)
    size = file.stat().st_size
    with file.open("r+b") as stream:  # as `cp other model.safetensors` does: the same file, other bytes
        stream.write(b"\xff" * size)
    state = network.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in loaded.state_dict().items())


@pytest.mark.parametrize("begin", [b"PK\x03\x04", b"\x80\x02}", b"\x89HDF\r\n\x1a\n"])
def test_a_file_of_another_library_names_the_command_that_converts_it(tmp_path: Path, begin: bytes) -> None:
    other = tmp_path / "other.pth"
    other.write_bytes(begin + bytes(100))
    with pytest.raises(ReinceptionError) as caught:
        load(other)
    assert "`reinception weights convert FILE -o model.safetensors`" in str(caught.value)
    assert str(caught.value).count(str(other)) == 1


def test_a_model_without_classifier_does_not_predict(network: Network, tmp_path: Path) -> None:
    network = build(dataclasses.replace(ARCH, num_classes=1), seed=0)
    manifest = dataclasses.replace(MANIFEST, arch=network.arch, classes=NO_CLASSIFIER)
    save(network, tmp_path / "model.safetensors", manifest)
    Image.new("RGB", (8, 8)).save(tmp_path / "image.png")
    model = load(tmp_path / "model.safetensors")
    for answer in (
        lambda: predict(model, tmp_path / "image.png"),
        lambda: Predictor(model)(tmp_path / "image.png"),
        lambda: evaluate_records([model], [], []),
    ):
        with pytest.raises(ReinceptionError, match=r"has no classifier.*take its features, or train one"):
            answer()
    features = Predictor(model).features(tmp_path / "image.png")
    assert isinstance(features, ImageFeatures) and features.values is not None


@pytest.mark.parametrize("low_bytes", [b"\x80", b"\x50\x4b"])
def test_a_header_whose_length_looks_like_another_format_is_read(
    network: Network, file: Path, tmp_path: Path, low_bytes: bytes
) -> None:
    manifest, path, wanted = load(file).manifest, tmp_path / "unlucky.safetensors", int.from_bytes(low_bytes, "little")
    step = 256 ** len(low_bytes)
    save(network, path, dataclasses.replace(manifest, training={"note": ""}))
    (length,) = struct.unpack("<Q", path.read_bytes()[:8])
    padding = (wanted - length) % step
    noted = dataclasses.replace(manifest, training={"note": "x" * padding})
    save(network, path, noted)
    assert path.read_bytes().startswith(low_bytes)
    assert load(path).manifest == noted
    assert weight_files.read(path).is_ours
