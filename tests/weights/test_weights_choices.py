"""What travels with converted weights, what is left aside and said, and the normalisation folded into them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision

from foreign_weights import assert_same_bits, assert_same_outputs
from reinception.errors import ReinceptionError, UsageError
from reinception.model.artifact import NO_CLASSIFIER
from reinception.model.normalisation import fold_normalisation
from reinception.preprocess import Preprocessing
from reinception.weights.convert import Choices, Conversion, convert, fold, write
from reinception.weights.create import create
from reinception.weights.downloads import imagenet_classes
from reinception.weights.library_files import counts_border, export
from reinception.weights.weight_files import read

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


# -- what travels with the weights -------------------------------------------------------------------------------------


def test_transform_input_folded_into_the_preprocessing_is_the_same_pixels(
    torchvision_model: torchvision.models.Inception3, from_torchvision: Conversion
) -> None:
    """torchvision's preset normalises with ImageNet's statistics and its network undoes that; ours does neither."""
    preset = torchvision.models.Inception_V3_Weights.IMAGENET1K_V1.transforms()
    assert (tuple(preset.mean), tuple(preset.std)) == (IMAGENET_MEAN, IMAGENET_STD)
    pixels = torch.rand(2, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    torchvision_model.transform_input = True
    try:
        theirs = torchvision_model._transform_input(
            torchvision.transforms.functional.normalize(pixels, preset.mean, preset.std)
        )
    finally:
        torchvision_model.transform_input = False
    ours = from_torchvision.manifest.preprocessing
    assert (ours.mean, ours.std) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    mine = torchvision.transforms.functional.normalize(pixels, list(ours.mean), list(ours.std))
    assert torch.allclose(mine, theirs, atol=1e-6, rtol=0)
    assert (ours.input_size, ours.resized_side, ours.interpolation) == (
        preset.crop_size[0],
        preset.resize_size[0],
        "bilinear",
    )


@pytest.mark.parametrize("tag", ["tv_in1k", "tf_in1k", "tf_adv_in1k", "gluon_in1k"])
def test_each_timm_tag_is_preprocessed_as_timm_does(from_torchvision: Conversion, tag: str) -> None:
    theirs: Any = timm.get_pretrained_cfg(f"inception_v3.{tag}")
    found = convert(from_torchvision.file, Choices(source=f"timm:{tag}"))
    ours = found.manifest.preprocessing
    assert (ours.mean, ours.std) == (tuple(theirs.mean), tuple(theirs.std))
    assert (ours.input_size, ours.crop_fraction, ours.interpolation) == (
        theirs.input_size[1],
        theirs.crop_pct,
        theirs.interpolation,
    )
    assert theirs.crop_mode == "center" and ours.resize == "shorter_side"
    assert counts_border(found.network.arch)
    said = any("trained without counting the border" in note for note in found.report.notes)
    assert said == tag.startswith("tf")


def test_the_manifest_says_whose_weights_and_how_that_is_known(from_torchvision: Conversion) -> None:
    origin = from_torchvision.manifest.origin
    assert origin["source"] == "torchvision"
    assert origin["source_is"] == "assumed from names and shapes"
    assert origin["could_also_be"] == ["timm:inception_v3.tv_in1k"]
    assert origin["border"] == "counted" and counts_border(from_torchvision.network.arch)
    assert origin["licence"].startswith("unknown: the file does not say")
    assert len(origin["sha256"]) == 64
    assert from_torchvision.manifest.classes == imagenet_classes()[0]


def test_a_named_source_and_a_stated_licence_are_believed(from_torchvision: Conversion) -> None:
    named = convert(from_torchvision.file, Choices(source="timm:tv_in1k"))
    assert named.manifest.origin["licence"] == "Apache-2.0 (model card)"
    stated = convert(from_torchvision.file, Choices(licence="CC0-1.0", border="ignored", normalisation="imagenet"))
    assert stated.manifest.origin["licence"] == "CC0-1.0"
    assert not counts_border(stated.network.arch)
    assert stated.manifest.preprocessing.mean == IMAGENET_MEAN


def test_a_file_known_by_its_digest_needs_no_name(from_torchvision: Conversion) -> None:
    known = dataclasses.replace(from_torchvision.file, sha256="0cc3c7bd" + "0" * 56)
    found = convert(known)
    assert found.manifest.origin["source_is"] == "known by the file's digest"
    assert found.manifest.origin["licence"] == "BSD-3-Clause (torchvision)"


def test_imagenet_has_a_thousand_different_names() -> None:
    names, whence = imagenet_classes()
    assert (len(set(names)), whence) == (1000, "torchvision")
    assert (names[0], names[134], names[517]) == ("tench", "crane bird", "crane")


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        (Choices(source="keras"), "keras does not name tensors like this; those who do: torchvision, timm"),
        (Choices(source="mxnet"), "unknown source of weights 'mxnet'; known: torchvision"),
        (Choices(classes=("cat", "dog")), "2 class names for 1000 outputs"),
    ],
)
def test_a_choice_the_file_contradicts_is_refused(from_torchvision: Conversion, choices: Choices, said: str) -> None:
    with pytest.raises(UsageError, match="^.*" + said):
        convert(from_torchvision.file, choices)


@pytest.mark.parametrize(
    ("said", "mean", "std"),
    [
        ("zero_one", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
        ("inception", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        ("0.25:0.5", (0.25, 0.25, 0.25), (0.5, 0.5, 0.5)),
        ("0.1,0.2,0.3:1,2,3", (0.1, 0.2, 0.3), (1.0, 2.0, 3.0)),
    ],
)
def test_a_normalisation_is_named_or_given_by_number(
    from_torchvision: Conversion, said: str, mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    found = convert(from_torchvision.file, Choices(normalisation=said)).manifest.preprocessing
    assert (found.mean, found.std) == (mean, std)


@pytest.mark.parametrize("said", ["zero", "0.5", "0.5:0", "1,2:1", "nan:1", "0.5:0.5:0.5"])
def test_a_normalisation_that_is_none_is_refused_before_any_work(said: str) -> None:
    with pytest.raises(UsageError, match=r"choose source, inception, imagenet, zero_one, or mean and std by number"):
        Choices(normalisation=said)


def test_one_output_is_two_classes(from_torchvision: Conversion) -> None:
    one = {name: tensor[:1] for name, tensor in from_torchvision.file.tensors.items() if name.startswith("fc.")}
    file = dataclasses.replace(from_torchvision.file, tensors={**from_torchvision.file.tensors, **one})
    found = convert(file, Choices(classes=("good", "bad")))
    pixels = torch.rand(2, 3, 107, 107, generator=torch.Generator().manual_seed(5))
    with torch.inference_mode():
        z = from_torchvision.network(pixels)[:, 0]
        assert torch.allclose(found.network(pixels).softmax(1)[:, 1], z.sigmoid(), atol=1e-6)
    assert found.manifest.classes == ("good", "bad")
    assert any(line.startswith("one output: taken as two classes") for line in found.report.lines())


@pytest.mark.parametrize("name", ["fc_new", "fc.1", "last_linear", "head.fc"])
def test_a_classifier_is_found_by_its_shape_and_place(from_torchvision: Conversion, name: str) -> None:
    tensors = {
        key.replace("fc.", f"{name}.") if key.startswith("fc.") else key: tensor
        for key, tensor in from_torchvision.file.tensors.items()
    }
    found = convert(dataclasses.replace(from_torchvision.file, tensors=tensors))
    assert torch.equal(found.network.classifier.weight, from_torchvision.network.classifier.weight)
    assert f"the classifier is {name}.weight, the only linear layer on the features" in found.report.lines()


# -- what is left aside ------------------------------------------------------------------------------------------------


def test_without_the_auxiliary_head_its_tensors_are_dropped_by_name(from_torchvision: Conversion) -> None:
    found = convert(from_torchvision.file, Choices(with_auxiliary=False))
    assert not found.network.arch.aux
    (dropped,) = found.report.dropped
    assert dropped.what == "the auxiliary head"
    assert set(dropped.names) == {name for name in from_torchvision.file.tensors if name.startswith("AuxLogits.")}
    assert str(dropped).startswith("dropped 14 tensors, the auxiliary head: AuxLogits.conv0.conv.weight, ")


def test_missing_step_counters_start_at_zero_and_are_counted(from_torchvision: Conversion) -> None:
    tensors = {name: value for name, value in from_torchvision.file.tensors.items() if "num_batches" not in name}
    found = convert(dataclasses.replace(from_torchvision.file, tensors=tensors))
    assert "added 96 batch norm step counters at 0" in found.report.lines()
    assert found.network.get_buffer("stem.0.bn.num_batches_tracked").item() == 0


def test_a_file_without_classifier_makes_a_model_without_answers(from_torchvision: Conversion, tmp_path: Path) -> None:
    tensors = {name: value for name, value in from_torchvision.file.tensors.items() if not name.startswith("fc.")}
    found = convert(dataclasses.replace(from_torchvision.file, tensors=tensors))
    assert found.manifest.classes == NO_CLASSIFIER
    assert not found.network.classifier.weight.any()
    assert any("no classifier in the file" in line for line in found.report.lines())
    export(found.network, found.manifest, "torchvision", tmp_path / "out.pth")
    assert not [name for name in read(tmp_path / "out.pth").tensors if name.startswith("fc.")]


def test_half_precision_is_widened_and_said(from_torchvision: Conversion) -> None:
    tensors = {
        name: value.half() if value.is_floating_point() else value
        for name, value in from_torchvision.file.tensors.items()
    }
    found = convert(dataclasses.replace(from_torchvision.file, tensors=tensors))
    assert "stored as float16, kept here as float32" in found.report.lines()
    assert found.network.classifier.weight.dtype == torch.float32


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("fc.bias", float("nan"), "tensor fc.bias holds values that are not finite"),
        ("Mixed_5b.branch1x1.bn.running_var", -1.0, "running_var holds negative variances"),
    ],
)
def test_damaged_values_are_refused_by_name(from_torchvision: Conversion, name: str, value: float, said: str) -> None:
    tensors = dict(from_torchvision.file.tensors)
    tensors[name] = torch.full_like(tensors[name], value)
    with pytest.raises(ReinceptionError, match=said):
        convert(dataclasses.replace(from_torchvision.file, tensors=tensors))


def test_quantised_tensors_are_refused(from_torchvision: Conversion) -> None:
    tensors = dict(from_torchvision.file.tensors)
    tensors["fc.weight"] = tensors["fc.weight"].to(torch.int8)
    with pytest.raises(ReinceptionError, match=r"tensor fc.weight holds torch.int8, not floating-point numbers"):
        convert(dataclasses.replace(from_torchvision.file, tensors=tensors))


def test_our_own_model_file_is_taken_as_it_is(from_torchvision: Conversion, tmp_path: Path) -> None:
    write(from_torchvision, tmp_path / "model.safetensors")
    for name in (tmp_path / "model.safetensors", tmp_path):
        again = convert(name)
        assert again.manifest == from_torchvision.manifest
    assert_same_bits(again.network.state_dict(), from_torchvision.network.state_dict())


def test_nothing_is_written_over_a_file(from_torchvision: Conversion, tmp_path: Path) -> None:
    for name in ("model.safetensors", "weights.pth"):
        (tmp_path / name).write_bytes(b"mine")
    with pytest.raises(ReinceptionError, match="exists already"):
        write(from_torchvision, tmp_path / "model.safetensors")
    with pytest.raises(ReinceptionError, match="exists already"):
        export(from_torchvision.network, from_torchvision.manifest, "torchvision", tmp_path / "weights.pth")
    assert {file.read_bytes() for file in tmp_path.iterdir()} == {b"mine"}


def test_the_ending_of_a_file_must_fit_the_library(from_torchvision: Conversion, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"keras.applications.InceptionV3 is written to .weights.h5 or .h5"):
        export(from_torchvision.network, from_torchvision.manifest, "keras", tmp_path / "out.pth")


# -- the normalisation folded into the first convolution ---------------------------------------------------------------


def test_folding_the_normalisation_changes_no_output(from_torchvision: Conversion) -> None:
    gluon = convert(from_torchvision.file, Choices(source="timm:gluon_in1k"))
    folded = fold(gluon)
    assert (folded.manifest.preprocessing.mean, folded.manifest.preprocessing.std) == ((0, 0, 0), (1, 1, 1))
    raw = torch.rand(1, 3, 107, 107, generator=torch.Generator().manual_seed(4))
    normalised = torchvision.transforms.functional.normalize(raw, list(IMAGENET_MEAN), list(IMAGENET_STD))
    with torch.inference_mode():
        assert_same_outputs(folded.network(raw), gluon.network(normalised))
        assert not torch.allclose(gluon.network(raw), gluon.network(normalised), atol=1e-2)


def test_folding_leaves_the_network_it_was_given(from_torchvision: Conversion) -> None:
    before = {name: value.clone() for name, value in from_torchvision.network.state_dict().items()}
    folded, _ = fold_normalisation(from_torchvision.network, Preprocessing(mean=IMAGENET_MEAN, std=IMAGENET_STD))
    assert_same_bits(from_torchvision.network.state_dict(), before)
    changed = {name for name, value in folded.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"stem.0.conv.weight", "stem.0.bn.running_mean"}


def test_a_padded_first_convolution_refuses_the_folding() -> None:
    googlenet = create("googlenet", num_classes=2, width=0.25)
    with pytest.raises(ReinceptionError, match=r"googlenet begins with a padded layer \(stem.0\)"):
        fold_normalisation(googlenet, Preprocessing())
