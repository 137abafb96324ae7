"""Converted weights compute what their publisher's network computes, both ways round, and come back bit for bit."""

from __future__ import annotations

import copy
import dataclasses
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import timm
import torch
import torchvision
from torch import Tensor
from torch.nn import functional

from foreign_weights import (
    GOLDEN,
    assert_same_bits,
    assert_same_outputs,
    images,
    manifest_of,
    random_network,
    randomise,
    saved,
)
from reinception.errors import ReinceptionError
from reinception.model import artifact
from reinception.model.build import Network
from reinception.preprocess import Preprocessing
from reinception.spec import Conv, trace
from reinception.weights.convert import Choices, Conversion, convert, proven, write
from reinception.weights.library_files import counts_border, export
from reinception.weights.weight_files import read

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@contextmanager
def quiet() -> Iterator[None]:
    """Keras calls its own HDF5 legacy, and NumPy's new rules are news to it: not what is tested here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


# -- the peers, each built once ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def keras_model() -> Any:
    """With its top, at 107 pixels: Keras is slow, and the weights do not know the size."""
    model = keras.applications.InceptionV3(
        weights=None, input_shape=(107, 107, 3), classes=1000, classifier_activation=None
    )
    rng = np.random.default_rng(2)
    values = []
    for variable in model.variables:
        shape, name = variable.shape, variable.name
        if name == "kernel" and len(shape) == 4:
            values.append(rng.normal(0, np.sqrt(2 / np.prod(shape[:3])), shape))
        elif name == "moving_variance":
            values.append(rng.uniform(0.5, 1.5, shape))
        else:
            values.append(rng.normal(0, 0.05 if len(shape) == 2 else 0.1, shape))
    for variable, value in zip(model.variables, values, strict=True):
        variable.assign(value.astype("float32"))
    return model


@pytest.fixture(scope="module")
def keras_files(keras_model: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("keras")
    files = {name: folder / f"model{suffix}" for name, suffix in KERAS_SUFFIXES.items()}
    with quiet():
        keras_model.save_weights(files["keras-3"])
        keras_model.save(files["keras-legacy"])
        keras_model.save(files["keras-archive"])
    return files


KERAS_SUFFIXES = {"keras-3": ".weights.h5", "keras-legacy": ".h5", "keras-archive": ".keras"}


def keras_outputs(model: Any, pixels: Tensor) -> Tensor:
    with quiet():
        outputs = model(pixels.permute(0, 2, 3, 1).numpy(), training=False)
        return torch.from_numpy(keras.ops.convert_to_numpy(outputs).copy())


# -- torchvision and timm ----------------------------------------------------------------------------------------------


def test_torchvisions_weights_give_torchvisions_logits_and_auxiliary_logits(
    torchvision_model: torchvision.models.Inception3, from_torchvision: Conversion
) -> None:
    pixels, caught = images(), []
    hook = torchvision_model.Mixed_6e.register_forward_hook(lambda _m, _i, output: caught.append(output))
    with torch.inference_mode():
        theirs = torchvision_model(pixels)
        head = torchvision_model.AuxLogits
        assert head is not None
        auxiliary = head(caught[0])
        ours = from_torchvision.network.outputs(pixels)
    hook.remove()
    assert_same_outputs(ours.logits, theirs)
    assert ours.auxiliary is not None
    assert_same_outputs(ours.auxiliary, auxiliary)


def test_our_weights_give_our_logits_in_torchvision(
    tmp_path: Path, torchvision_model: torchvision.models.Inception3
) -> None:
    network = random_network(seed=3, border=True)
    export(network, manifest_of(network), "torchvision", tmp_path / "ours.pth")
    model = torchvision.models.Inception3(init_weights=False)
    model.load_state_dict(torch.load(tmp_path / "ours.pth", weights_only=True))
    pixels = images(seed=1, size=147)
    with torch.inference_mode():
        assert_same_outputs(network(pixels), model.eval()(pixels))


def test_timm_computes_the_same_in_both_directions(tmp_path: Path) -> None:
    model = timm.create_model("inception_v3").eval()
    randomise(model, 4)
    pixels = images(seed=2, size=147)
    found = convert(saved(model.state_dict(), tmp_path / "timm.pth"), Choices(source="timm:tf_in1k"))
    assert not found.network.arch.aux
    network = random_network(seed=5, border=True)
    report = export(network, manifest_of(network), "timm", tmp_path / "ours.safetensors")
    assert any("auxiliary head" in line for line in report.lines())
    with torch.inference_mode():
        assert_same_outputs(found.network(pixels), model(pixels))
        model.load_state_dict(read(tmp_path / "ours.safetensors").tensors)
        assert_same_outputs(network(pixels), model(pixels))


def test_a_round_trip_through_our_file_to_torchvision_changes_no_bit(
    tmp_path: Path, torchvision_file: Path, from_torchvision: Conversion
) -> None:
    write(from_torchvision, tmp_path / "ours.safetensors")
    network, manifest = artifact.load(tmp_path / "ours.safetensors")
    export(network, manifest, "torchvision", tmp_path / "back.pth")
    assert_same_bits(dict(read(torchvision_file).tensors), dict(read(tmp_path / "back.pth").tensors))


# -- Keras -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", KERAS_SUFFIXES)
def test_each_kind_of_keras_file_gives_keras_logits(
    keras_model: Any, keras_files: dict[str, Path], layout: str, tmp_path: Path
) -> None:
    found = convert(keras_files[layout])
    assert found.publisher is not None and found.publisher.name == "keras"
    assert not counts_border(found.network.arch)
    assert not any(name.endswith("bn.weight") for name in found.network.state_dict())
    pixels = images(size=107)
    with torch.inference_mode():
        assert_same_outputs(found.network(pixels), keras_outputs(keras_model, pixels))


@pytest.mark.parametrize("suffix", [".h5", ".weights.h5"])
def test_a_keras_file_comes_back_bit_for_bit(keras_files: dict[str, Path], tmp_path: Path, suffix: str) -> None:
    found = convert(keras_files["keras-3"])
    export(found.network, found.manifest, "keras", tmp_path / f"back{suffix}")
    assert_same_bits(found.network.state_dict(), convert(tmp_path / f"back{suffix}").network.state_dict())
    if suffix == ".weights.h5":
        assert_same_bits(dict(read(keras_files["keras-3"]).tensors), dict(read(tmp_path / "back.weights.h5").tensors))


@pytest.mark.parametrize(("suffix", "scale"), [(".h5", True), (".weights.h5", False)])
def test_our_weights_give_our_logits_in_keras(keras_model: Any, tmp_path: Path, suffix: str, scale: bool) -> None:
    """With gamma, which Keras's network has not: it goes into the convolutions."""
    network = random_network(seed=6, scale=scale, aux=False)
    report = export(network, manifest_of(network), "keras", tmp_path / f"ours{suffix}")
    assert ("94 gammas folded into their convolutions: exact but for one rounding each" in report.lines()) == scale
    with quiet():
        before = keras_model.get_weights()
    try:
        with quiet():
            keras_model.load_weights(tmp_path / f"ours{suffix}")
        pixels = images(seed=3, size=107)
        with torch.inference_mode():
            assert_same_outputs(network(pixels), keras_outputs(keras_model, pixels))
    finally:
        keras_model.set_weights(before)


# -- TF-slim, Lucid and FID --------------------------------------------------------------------------------------------


def slim_arrays(network: Network) -> dict[str, np.ndarray]:
    """`network` as TF-slim's graph holds it: the graph's own names, in the order the graph made them, which is the
    spec's (trunk, auxiliary head, classifiers) - so the rule that names them has no part in this."""
    state = network.state_dict()
    paths = [step.path for step in trace(network.arch) if isinstance(step.layer, Conv)]
    paths.sort(key=lambda path: path.startswith("aux."))
    values: list[Tensor] = []
    for path in paths:
        values.append(state[f"{path}.conv.weight"].permute(2, 3, 1, 0))
        values += [state[f"{path}.bn.{leaf}"] for leaf in ("bias", "running_mean", "running_var")]
    for path in ("aux.classifier", "classifier"):
        values += [state[f"{path}.weight"].T[None, None], state[f"{path}.bias"]]
    names = [line.split()[0] for line in (GOLDEN / "tf-slim.txt").read_text().splitlines()]
    return {name: value.numpy() for name, value in zip(names, values, strict=True)}


@pytest.fixture(scope="module")
def slim_network() -> Network:
    return random_network(seed=7, num_classes=1001, scale=False)


@pytest.fixture(scope="module")
def slim_file(slim_network: Network, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("slim") / "inception_v3.npz"
    arrays: dict[str, Any] = slim_arrays(slim_network)
    np.savez(file, global_step=np.int64(5), **arrays)
    return file


def test_a_slim_checkpoint_drops_its_background_class_and_says_so(slim_network: Network, slim_file: Path) -> None:
    found = convert(slim_file)
    expected = {
        name: tensor[1:] if "classifier." in name else torch.zeros_like(tensor) if "num_batches" in name else tensor
        for name, tensor in slim_network.state_dict().items()
    }
    assert_same_bits(found.network.state_dict(), expected)
    assert found.manifest.origin["class_offset"] == 1
    assert found.manifest.classes[0].startswith("tench")
    said = "\n".join(found.report.lines())
    assert "class 0 (background) dropped" in said
    assert "dropped 1 tensors, tensors Inception-v3 does not have: global_step" in said
    assert "parity not run: there is no other implementation of tf-slim" in "\n".join(proven(found).report.lines())


def test_the_background_class_can_be_kept(slim_network: Network, slim_file: Path) -> None:
    found = convert(slim_file, Choices(background="keep"))
    assert found.manifest.classes[:2] == ("background", found.manifest.classes[1])
    assert len(found.manifest.classes) == 1001
    assert torch.equal(found.network.classifier.weight, slim_network.classifier.weight)


def test_slims_layout_comes_back_bit_for_bit(slim_file: Path, tmp_path: Path) -> None:
    found = convert(slim_file, Choices(background="keep"))
    export(found.network, found.manifest, "tf-slim", tmp_path / "back.npz")
    theirs = {name: tensor for name, tensor in read(slim_file).tensors.items() if name != "global_step"}
    assert_same_bits(theirs, dict(read(tmp_path / "back.npz").tensors))


def test_gamma_is_1_in_torchvision_where_there_was_none(slim_file: Path, tmp_path: Path) -> None:
    found = convert(slim_file)
    report = export(found.network, found.manifest, "torchvision", tmp_path / "out.pth")
    assert "gamma written as 1: the model has none" in report.lines()
    assert any("counts the border in average pools, unlike this model" in line for line in report.lines())
    back = convert(tmp_path / "out.pth", Choices(border="ignored"))
    pixels = images(size=107)
    with torch.inference_mode():
        assert torch.equal(back.network(pixels), found.network(pixels))


def test_lucids_layout_comes_back_bit_for_bit(tmp_path: Path) -> None:
    network = random_network(seed=8, border=True, aux=False)
    export(network, manifest_of(network), "lucid", tmp_path / "lucid.safetensors")
    found = convert(tmp_path / "lucid.safetensors")
    assert found.publisher is not None and found.publisher.name == "lucid"
    assert found.network.arch == network.arch
    assert_same_bits(found.network.state_dict(), network.state_dict())


class TensorFlowPools:
    """torch's functions, with the average pools of TensorFlow's graph of 2015 and its last module's maximum pool."""

    def __init__(self) -> None:
        self.in_last_module = False

    def __getattr__(self, name: str) -> Any:
        return getattr(functional, name)

    def avg_pool2d(self, pixels: Tensor, kernel_size: int, stride: int, padding: int = 0) -> Tensor:
        if self.in_last_module:
            return functional.max_pool2d(pixels, kernel_size, stride, padding)
        return functional.avg_pool2d(pixels, kernel_size, stride, padding, count_include_pad=False)


@pytest.fixture
def fid_pools(monkeypatch: pytest.MonkeyPatch) -> Iterator[TensorFlowPools]:
    pools = TensorFlowPools()
    monkeypatch.setattr(torchvision.models.inception, "F", pools)
    yield pools


def test_the_fid_files_1008_outputs_are_the_network_of_2015(tmp_path: Path, fid_pools: TensorFlowPools) -> None:
    model = torchvision.models.Inception3(num_classes=1008, aux_logits=False, init_weights=False).eval()
    randomise(model, 9)
    model.Mixed_7c.register_forward_pre_hook(lambda _m, _i: setattr(fid_pools, "in_last_module", True))
    state = {name: value for name, value in model.state_dict().items() if "num_batches" not in name}
    found = convert(saved(state, tmp_path / "pt_inception.pth"))
    assert found.network.arch.name == "inception_v3_fid"
    assert found.manifest.preprocessing == Preprocessing(resize="whole")
    assert len(found.manifest.classes) == 1008
    pixels = images(size=107)
    with torch.inference_mode():
        assert_same_outputs(found.network(pixels), model(pixels))
    export(found.network, found.manifest, "pytorch-fid", tmp_path / "back.pth")
    back = {name: tensor for name, tensor in read(tmp_path / "back.pth").tensors.items() if "num_batches" not in name}
    assert_same_bits(state, back)


def test_fids_network_is_not_torchvisions(tmp_path: Path) -> None:
    network = random_network(seed=1, fid=True, num_classes=1008)
    with pytest.raises(ReinceptionError, match="this model is inception_v3_fid, whose layers differ"):
        export(network, manifest_of(network), "torchvision", tmp_path / "out.pth")
    assert not list(tmp_path.iterdir())


# -- proofs ------------------------------------------------------------------------------------------------------------


def test_a_conversion_carries_the_proof_it_was_made_with(from_torchvision: Conversion, tmp_path: Path) -> None:
    small = dataclasses.replace(from_torchvision, network=at_size(from_torchvision.network, 107))
    proof = proven(small)
    assert proof.report.proof is not None and proof.report.proof.peer == f"torchvision {torchvision.__version__}"
    assert proof.manifest.origin["parity"]["relative"] <= 1e-5
    write(proof, tmp_path / "model.safetensors")
    assert artifact.read_manifest(tmp_path / "model.safetensors").origin["parity"]["num_images"] == 2


def test_each_publishers_network_is_run_beside_ours(
    from_torchvision: Conversion, keras_files: dict[str, Path], tmp_path: Path
) -> None:
    with_timm = convert(from_torchvision.file, Choices(source="timm:tv_in1k", border="ignored"))
    proof = proven(with_timm).report.proof
    assert proof is not None and proof.peer == f"timm {timm.__version__} (with its border rule)"
    assert proof.what == ("features", "logits")
    proof = proven(convert(keras_files["keras-3"])).report.proof
    assert proof is not None and proof.what == ("features", "logits")
    assert str(proof).startswith(f"parity with Keras {keras.__version__} on 2 random images")
    proof = proven(convert(keras_files["keras-archive"])).report.proof
    assert str(proof) == "parity not run: Keras reads a whole .keras archive only together with the model in it"


def test_pytorch_fids_network_is_run_beside_ours(tmp_path: Path) -> None:
    pytest.importorskip("pytorch_fid")
    network = at_size(random_network(seed=3, fid=True, num_classes=1008), 107)
    export(network, manifest_of(network), "pytorch-fid", tmp_path / "fid.pth")
    found = convert(tmp_path / "fid.pth")
    proof = proven(dataclasses.replace(found, network=network)).report.proof
    assert proof is not None and proof.peer is not None and proof.peer.startswith("pytorch-fid")


def test_a_wrong_conversion_is_noticed_and_refused(from_torchvision: Conversion) -> None:
    wrong = at_size(from_torchvision.network, 107)
    with torch.no_grad():
        wrong.get_parameter("grid8.1.single.1.tall.0.conv.weight").mul_(1.001)
    with pytest.raises(ReinceptionError, match=r"parity with torchvision .* so nothing was written"):
        proven(dataclasses.replace(from_torchvision, network=wrong))


def at_size(network: Network, size: int) -> Network:
    """A copy that says it is for images of `size` pixels, so that a proof is quick."""
    small = copy.deepcopy(network)
    small.arch = dataclasses.replace(small.arch, input_size=size)
    return small
