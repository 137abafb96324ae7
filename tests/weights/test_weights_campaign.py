"""Generated Keras and torch classifiers: what is converted answers as its source does, the rest says why not."""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import shutil
import warnings
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from foreign_weights import randomise
from reinception.data.images.crops import evaluation_pixels
from reinception.data.images.decode import decode
from reinception.data.loading.loader import normalise
from reinception.errors import ReinceptionError
from reinception.model.artifact import NO_CLASSIFIER
from reinception.preprocess import Preprocessing
from reinception.weights.convert import Conversion, convert

SIDE = 107  # pixels: Keras is slow, and the weights do not know the size
TOLERANCE = 1e-4
FEW, MANY, PIECES = 6, 150, 10
SEEDS = [range(FEW + MANY * piece // PIECES, FEW + MANY * (piece + 1) // PIECES) for piece in range(PIECES)]


@pytest.fixture(scope="module")
def photographs(solar_cells: Path) -> Tensor:
    """Real images, uint8 (3, 3, SIDE, SIDE)."""
    files = sorted(solar_cells.rglob("*.png"))[::12]
    square = Preprocessing(input_size=SIDE, resize="whole")
    pixels = [evaluation_pixels(decode(file), square) for file in files]
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)


def converted_or_why(file: Path) -> tuple[Conversion | None, str]:
    """The model of a file, or why its classifier could not be taken: one line."""
    try:
        found = convert(file)
    except ReinceptionError as error:
        assert "\n" not in str(error) and str(error).startswith(str(file))
        return None, str(error)
    if found.manifest.classes == NO_CLASSIFIER:
        (why,) = [line for line in found.report.lines() if line.startswith("no classifier taken: ")]
        return None, why
    return found, ""


def answers(found: Conversion, photographs: Tensor) -> Tensor:
    with torch.inference_mode():
        return found.network(normalise(photographs, found.manifest.preprocessing)).softmax(1).double()


def as_probabilities(outputs: Tensor, *, is_logit: bool) -> Tensor:
    """What a model answers, as one probability for each class; one output is the second of two."""
    outputs = outputs.double()
    if outputs.shape[1] > 1:
        return outputs.softmax(1) if is_logit else outputs
    second = outputs.sigmoid() if is_logit else outputs
    return torch.cat([1 - second, second], dim=1)


def agrees(found: Conversion | None, why: str, is_expected: bool, theirs: Tensor, photographs: Tensor) -> None:
    assert (found is not None) == is_expected, why
    if found is not None:
        mine = answers(found, photographs)
        assert mine.shape == theirs.shape
        assert (mine - theirs).abs().max().item() <= TOLERANCE


# -- Keras -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trunk() -> Any:
    """InceptionV3 of Keras without its top, with random weights."""
    model = keras.applications.InceptionV3(weights=None, include_top=False, input_shape=(SIDE, SIDE, 3))
    rng = np.random.default_rng(3)
    for variable in model.variables:
        shape, name = variable.shape, variable.name
        if name == "kernel":
            value = rng.normal(0, np.sqrt(2 / np.prod(shape[:3])), shape)
        else:
            value = rng.uniform(0.5, 1.5, shape) if name == "moving_variance" else rng.normal(0, 0.1, shape)
        variable.assign(value.astype("float32"))
    return model


@dataclasses.dataclass(frozen=True, kw_only=True)
class KerasHead:
    """A head as it was drawn: what it is made of, and whether it is one linear layer on averaged features."""

    layers: tuple[tuple[str, dict[str, Any]], ...]
    is_logit: bool
    is_exact: bool

    @staticmethod
    def drawn(draw: random.Random, *, has_config: bool) -> KerasHead:
        pools = {
            "average": [("GlobalAveragePooling2D", {})],
            "kept": [("GlobalAveragePooling2D", {"keepdims": True}), ("Flatten", {})],
            "window": [("AveragePooling2D", {"pool_size": (2, 2)}), ("Flatten", {})],
            "normalised": [("BatchNormalization", {}), ("GlobalAveragePooling2D", {})],
            "max": [("GlobalMaxPooling2D", {})],
            "flat": [("Flatten", {})],
        }
        between: list[tuple[str, dict[str, Any]]] = [
            ("Dropout", {"rate": 0.5}),
            ("BatchNormalization", {"epsilon": 0.01}),
            ("BatchNormalization", {"scale": False}),
            ("GaussianNoise", {"stddev": 0.1}),
            ("Dense", {"units": 12}),
            ("Dense", {"units": 8, "activation": "relu"}),
            ("LayerNormalization", {}),
        ]
        pool = draw.choices([*pools], weights=[5, 1, 1, 1, 1, 1])[0]
        middle = draw.sample(between, draw.choice([0, 0, 1, 1, 2]))
        num = draw.choice([1, 1, 2, 5])
        # weights alone do not say what an activation is: what they leave open is assumed, and said to be
        right = ["sigmoid", None] if num == 1 else ["softmax", None]
        activation = draw.choice(right if not has_config else [*right, right[0], "sigmoid", "relu", "softmax"])
        last: list[tuple[str, dict[str, Any]]] = [("Dense", {"units": num, "use_bias": draw.random() < 0.8})]
        if draw.random() < 0.3 and activation:
            last.append(("Activation", {"activation": activation}))
        else:
            last[0][1]["activation"] = activation
        kinds = {kind for kind, _ in pools[pool] + middle}
        is_exact = pool not in ("max", "flat") and "LayerNormalization" not in kinds and activation in right
        is_exact = is_exact and ("Dense", {"units": 8, "activation": "relu"}) not in middle
        if not has_config:
            is_exact = is_exact and pool == "average" and kinds <= {"GlobalAveragePooling2D", "Dropout"}
            is_exact = is_exact and bool(last[0][1]["use_bias"])
        return KerasHead(layers=(*pools[pool], *middle, *last), is_logit=activation is None, is_exact=is_exact)

    def on(self, tensor: Any, draw: random.Random) -> Any:
        rng = np.random.default_rng(draw.randrange(1000))
        for kind, options in self.layers:
            name = {"name": f"my_{kind}_{draw.randrange(10**6)}"} if draw.random() < 0.2 else {}
            layer = getattr(keras.layers, kind)(**options, **name)
            tensor = layer(tensor)
            for variable in layer.variables:
                if "seed" not in variable.path:
                    value = rng.normal(0, 0.05, variable.shape)
                    variable.assign(value + (0.8 if variable.name in ("gamma", "moving_variance") else 0))
        return tensor


def keras_case(trunk: Any, folder: Path, seed: int, photographs: Tensor) -> tuple[Path, bool, Tensor]:
    """A file of a generated classifier, whether it can be converted, and its own probabilities."""
    draw = random.Random(seed)
    suffix = draw.choice([".keras", ".keras", ".h5", ".h5", ".weights.h5"])
    has_config = suffix != ".weights.h5"
    head = KerasHead.drawn(draw, has_config=has_config)
    pixels = draw.choice(["outside", "outside", "signed", "zero to one"])
    images = keras.Input((SIDE, SIDE, 3))
    values = images
    if pixels != "outside":
        scale, offset = (1 / 127.5, -1) if pixels == "signed" else (1 / 255, 0)
        values = keras.layers.Rescaling(scale, offset=offset)(images)
    inner = trunk(values, training=False)
    is_nested = pixels != "outside" or draw.random() < 0.5
    model = (
        keras.Model(images, head.on(inner, draw))
        if is_nested
        else keras.Model(trunk.input, head.on(trunk.output, draw))
    )
    raw = photographs.permute(0, 2, 3, 1).float().numpy()
    theirs = model(raw if pixels != "outside" else raw / 127.5 - 1, training=False)
    probabilities = as_probabilities(
        torch.from_numpy(keras.ops.convert_to_numpy(theirs).copy()), is_logit=head.is_logit
    )
    file = folder / f"model{suffix}"
    (model.save if has_config else model.save_weights)(file)
    names = [layer.name for layer in model.layers] if not has_config else []
    is_exact = head.is_exact and (has_config or (pixels == "outside" and bool(names)))
    return file, is_exact, probabilities


def check_keras(trunk: Any, folder: Path, seed: int, photographs: Tensor) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras calls its own HDF5 legacy
        file, is_exact, theirs = keras_case(trunk, folder, seed, photographs)
        found, why = converted_or_why(file)
    agrees(found, why, is_exact, theirs, photographs)
    file.unlink()


@pytest.mark.parametrize("seed", range(FEW))
def test_a_keras_classifier_answers_as_keras_or_says_why_not(
    trunk: Any, tmp_path: Path, seed: int, photographs: Tensor
) -> None:
    check_keras(trunk, tmp_path, seed, photographs)


@pytest.mark.slow
@pytest.mark.parametrize("seeds", SEEDS, ids=str)
def test_150_keras_classifiers_answer_as_keras_or_say_why_not(
    trunk: Any, tmp_path: Path, seeds: range, photographs: Tensor
) -> None:
    for seed in seeds:
        check_keras(trunk, tmp_path, seed, photographs)


def as_keras_2(config: dict[str, Any], *, division: bool) -> None:
    """Rewrites a configuration as Keras 2 wrote it; with `division` operations divide and shift its pixels."""
    first = ""
    for layer in config["config"]["layers"]:
        names = [
            one["config"]["keras_history"][0]
            for call in layer["inbound_nodes"]
            for one in np.atleast_1d(call["args"][0])
        ]
        layer["inbound_nodes"] = [[[name, 0, 0, {}] for name in names]] if names else []
        layer["config"].pop("dtype", None)
        if layer["class_name"] == "InputLayer":
            layer["config"]["batch_input_shape"] = layer["config"].pop("batch_shape")
            first = layer["config"]["name"]
    config["config"]["output_layers"] = [config["config"]["output_layers"]]
    if division:
        layers = config["config"]["layers"]
        for layer in layers:
            if layer["inbound_nodes"] == [[[first, 0, 0, {}]]]:
                layer["inbound_nodes"] = [[["minus", 0, 0, {}]]]
        for name, function, before, number in (("over", "truediv", first, 127.5), ("minus", "subtract", "over", 1.0)):
            options = {"name": name, "function": f"math.{function}"}
            call = [before, 0, 0, {"y": number, "name": None}]
            layers.insert(
                1 + (name == "minus"), {"class_name": "TFOpLambda", "config": options, "inbound_nodes": [call]}
            )


@pytest.fixture(scope="module")
def keras_binary(trunk: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A usual classifier of two classes with one output, as legacy HDF5, and the model."""
    folder = tmp_path_factory.mktemp("binary")
    tensor = keras.layers.GlobalAveragePooling2D()(trunk.output)
    tensor = keras.layers.Dropout(0.5)(keras.layers.BatchNormalization()(tensor))
    model = keras.Model(trunk.input, keras.layers.Dense(1, activation="sigmoid")(tensor))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save(folder / "model.h5")
    return folder / "model.h5", model


def with_config(file: Path, out: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    shutil.copy(file, out)
    with h5py.File(out, "r+") as opened:
        config = json.loads(opened.attrs["model_config"])
        change(config)
        opened.attrs["model_config"] = json.dumps(config)
    return out


@pytest.mark.parametrize("division", [False, True])
def test_a_configuration_of_keras_2_is_read_with_the_operations_on_its_pixels(
    keras_binary: tuple[Path, Any], tmp_path: Path, photographs: Tensor, division: bool
) -> None:
    file, model = keras_binary
    found = convert(with_config(file, tmp_path / "old.h5", lambda config: as_keras_2(config, division=division)))
    raw = photographs.permute(0, 2, 3, 1).float().numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy's new rules are news to Keras
        theirs = keras.ops.convert_to_numpy(model(raw / 127.5 - 1, training=False)).copy()
    agrees(found, "", True, as_probabilities(torch.from_numpy(theirs), is_logit=False), photographs)
    assert found.manifest.preprocessing.input_size == SIDE
    assert any(line.startswith("head, by the file's configuration: ") for line in found.report.lines())


@pytest.mark.parametrize(
    ("kind", "change", "said"),
    [
        ("AveragePooling2D", {"class_name": "MaxPooling2D"}, "stands where Inception-v3 has a AveragePooling2D"),
        ("Activation", {"activation": "swish"}, "has activation swish, where Inception-v3 has relu"),
        ("BatchNormalization", {"epsilon": 0.01}, "has epsilon 0.01, where Inception-v3 has 0.001"),
        ("Conv2D", {"dilation_rate": [2, 2]}, "has dilation_rate (2, 2), where Inception-v3 has (1, 1)"),
    ],
)
def test_a_trunk_whose_configuration_is_changed_is_refused(
    keras_binary: tuple[Path, Any], tmp_path: Path, kind: str, change: dict[str, Any], said: str
) -> None:
    """Its tensors have the names and shapes of Inception-v3, and another meaning."""

    def changed(config: dict[str, Any]) -> None:
        layer = next(layer for layer in config["config"]["layers"] if layer["class_name"] == kind)
        (layer if "class_name" in change else layer["config"]).update(change)

    found, why = converted_or_why(with_config(keras_binary[0], tmp_path / "other.h5", changed))
    assert found is None and said in why


# -- torch -------------------------------------------------------------------------------------------------------------


class Wrapped(nn.Module):
    """A network with its head beside it, as scripts write them."""

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.backbone(images))


def _sequence(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict({f"part{index}": layer for index, layer in enumerate(layers)}))


TORCH_HEADS: dict[str, tuple[Callable[[int], nn.Module], bool]] = {
    "linear": (lambda num: nn.Linear(2048, num), True),
    "dropout": (lambda num: nn.Sequential(nn.Dropout(0.5), nn.Linear(2048, num)), True),
    "named": (lambda num: _sequence(nn.Dropout(0.3), nn.Linear(2048, num)), True),
    "without bias": (lambda num: nn.Linear(2048, num, bias=False), True),
    "two layers": (lambda num: nn.Sequential(nn.Linear(2048, 16), nn.ReLU(), nn.Linear(16, num)), False),
    "normalised": (lambda num: nn.Sequential(nn.BatchNorm1d(2048), nn.Linear(2048, num)), False),
}


def torch_case(model: Any, folder: Path, seed: int, pixels: Tensor) -> tuple[Path, bool, Tensor]:
    draw = random.Random(seed)
    num = draw.choice([1, 1, 2, 5])
    make, is_exact = TORCH_HEADS[draw.choice([*TORCH_HEADS])]
    torch.manual_seed(seed)
    head, has_aux = make(num), draw.random() < 0.5
    randomise(head, seed)
    place = draw.choice(["fc", "fc", "beside", "on top"])
    own, auxiliary = model.fc, model.AuxLogits
    model.fc = {"fc": head, "beside": nn.Identity(), "on top": own}[place]
    model.AuxLogits = auxiliary if has_aux else None
    try:
        whole: nn.Module = model if place == "fc" else Wrapped(model, head)
        if place == "on top":  # a layer on the 1,000 outputs: with or without activation, the tensors do not say
            whole, is_exact = Wrapped(model, nn.Linear(1000, num)), False
        whole.eval()
        with torch.inference_mode():
            theirs = as_probabilities(whole(pixels), is_logit=True)
        wrap = draw.choice(["none", "parallel", "compiled", "averaged"])
        if wrap == "parallel":
            whole = nn.DataParallel(whole)
        elif wrap == "averaged":
            whole = torch.optim.swa_utils.AveragedModel(whole)
        state = {f"_orig_mod.{name}" if wrap == "compiled" else name: t for name, t in whole.state_dict().items()}
    finally:
        model.fc, model.AuxLogits = own, auxiliary
    kind = draw.choice(["state", "checkpoint", "timm", "safetensors"])
    file = folder / f"model.{'safetensors' if kind == 'safetensors' else 'pth'}"
    options = argparse.Namespace(lr=np.float64(0.1), output=Path("runs"), epochs=np.int64(3), rank=None)
    if kind == "safetensors":
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, file)
    elif kind == "state":
        torch.save(state, file)
    elif kind == "checkpoint":  # torchvision's references
        torch.save({"model": state, "epoch": 3, "args": options, "optimizer": {"state": {}}}, file)
    else:  # timm's CheckpointSaver
        torch.save(
            {"epoch": 3, "arch": "inception_v3", "state_dict": state, "args": options, "metric": np.float32(9)}, file
        )
    return file, is_exact, theirs


def check_torch(model: torchvision.models.Inception3, folder: Path, seed: int, photographs: Tensor) -> None:
    file, is_exact, theirs = torch_case(model, folder, seed, normalise(photographs, Preprocessing()))
    found, why = converted_or_why(file)
    agrees(found, why, is_exact, theirs, photographs)
    file.unlink()


@pytest.mark.parametrize("seed", range(FEW))
def test_a_torch_classifier_answers_as_torch_or_says_why_not(
    torchvision_model: torchvision.models.Inception3, tmp_path: Path, seed: int, photographs: Tensor
) -> None:
    check_torch(torchvision_model, tmp_path, seed, photographs)


@pytest.mark.slow
@pytest.mark.parametrize("seeds", SEEDS, ids=str)
def test_150_torch_classifiers_answer_as_torch_or_say_why_not(
    torchvision_model: torchvision.models.Inception3, tmp_path: Path, seeds: range, photographs: Tensor
) -> None:
    for seed in seeds:
        check_torch(torchvision_model, tmp_path, seed, photographs)
