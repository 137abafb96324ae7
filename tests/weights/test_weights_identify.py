"""From names and shapes alone: whose Inception-v3 a file is, which parts it has, and what is no Inception-v3 at all."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

import pytest
import timm
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st

from foreign_weights import GOLDEN, RELEASED
from reinception import family
from reinception.errors import ReinceptionError
from reinception.model.build import skeleton
from reinception.weights.identify import identify
from reinception.weights.layouts.keys import to_file_order
from reinception.weights.layouts.libraries import LAYOUTS
from reinception.weights.layouts.places import keras_layers, places
from reinception.weights.publishers import candidates

Shapes = dict[str, tuple[int, ...]]


def torch_shapes(model: object) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def torchvision_shapes() -> Shapes:
    with torch.device("meta"):
        return torch_shapes(torchvision.models.Inception3(init_weights=False))


def shapes_in(layout: str, *, aux: bool = False, num_classes: int = 1000, stored: bool = True) -> Shapes:
    """The names and shapes of the released network in `layout`, from its own rule."""
    arch = dataclasses.replace(RELEASED, num_classes=num_classes, aux=RELEASED.aux if aux else ())
    ours = {name: tuple(tensor.shape) for name, tensor in skeleton(arch).state_dict().items()}
    keys = LAYOUTS[layout].keys(arch)
    scale = LAYOUTS[layout].has_scale
    shapes = {
        key.theirs: tuple(to_file_order(torch.empty(ours[key.ours], device="meta"), key.form).shape)
        for key in keys
        if scale or not key.ours.endswith(".bn.weight")
    }
    return {as_stored(name): shape for name, shape in shapes.items()} if layout == "keras-3" and stored else shapes


def as_stored(name: str, *, more: int = 0, prefix: str = "") -> str:
    """Where Keras 3 puts a variable: by its layer's number, plus `more`, and by its own place in the layer."""
    layer, _, leaf = name.partition("/")
    kind, _, number = layer.rpartition("_") if layer != "predictions" else ("dense", "", "0")
    places = {"batch_normalization": ("beta", "moving_mean", "moving_variance")}.get(kind, ("kernel", "bias"))
    stored = f"{kind}_{int(number) + more}" if int(number) + more else kind
    return f"{prefix}layers/{stored}/vars/{places.index(leaf)}"


def slim_shapes() -> Shapes:
    """Names and shapes as TF-slim's own graph printed them, in the order it made them."""
    rows = [line.split() for line in (GOLDEN / "tf-slim.txt").read_text().splitlines()]
    return {name: tuple(map(int, shape.split(","))) for name, shape in rows}


def without(shapes: Mapping[str, tuple[int, ...]], piece: str) -> Shapes:
    return {name: shape for name, shape in shapes.items() if piece not in name}


# -- names against the libraries' own ----------------------------------------------------------------------------------


def test_torchvisions_names_and_shapes_are_exactly_torchvisions(torchvision_shapes: Shapes) -> None:
    assert shapes_in("torchvision", aux=True) == torchvision_shapes


def test_timms_names_are_torchvisions() -> None:
    with torch.device("meta"):
        theirs = torch_shapes(timm.create_model("inception_v3"))
    assert shapes_in("torchvision") == theirs


def test_slims_names_and_shapes_are_exactly_those_of_its_own_graph() -> None:
    assert shapes_in("tf-slim", aux=True, num_classes=1001) == slim_shapes()


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("grid35.0.single.1", "inception_a0.branch2_b.conv.weight"),
        ("grid35.2.pool.1", "inception_a2.branch4_conv.conv.weight"),
        ("reduce35.single.0", "reduction_a.branch1.conv.weight"),
        ("reduce35.doubled.2", "reduction_a.branch2_c.conv.weight"),
        ("grid17.1.single.2", "inception_c1.branch2_c.weight"),
        ("grid17.3.doubled.4", "inception_c3.branch3_e.weight"),
        ("reduce17.doubled.1", "reduction_b.branch2_b.weight"),
        ("reduce17.doubled.3", "reduction_b.branch2_d.conv.weight"),
        ("grid8.0.single.1.tall.0", "inception_e0.branch2_b2.weight"),
        ("grid8.1.doubled.2.wide.0", "inception_e1.branch3_c1.weight"),
    ],
)
def test_lucid_keeps_asymmetric_convolutions_bare(ours: str, theirs: str) -> None:
    keys = {key.ours: key.theirs for key in LAYOUTS["lucid"].keys(RELEASED)}
    assert keys[f"{ours}.conv.weight"] == theirs
    norm = theirs.removesuffix(".conv.weight") + ".bn" if theirs.endswith(".conv.weight") else theirs[:-7] + "_bn"
    assert keys[f"{ours}.bn.running_var"] == f"{norm}.running_var"


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("stem.4", "conv_3"),
        ("grid35.0.point.0", "mixed/conv"),
        ("grid35.2.doubled.2", "mixed_2/tower_1/conv_2"),
        ("reduce35.single.0", "mixed_3/conv"),
        ("reduce35.doubled.0", "mixed_3/tower/conv"),
        ("grid17.0.pool.1", "mixed_4/tower_2/conv"),
        ("reduce17.single.1", "mixed_8/tower/conv_1"),
        ("reduce17.doubled.3", "mixed_8/tower_1/conv_3"),
        ("grid8.1.single.1.wide.0", "mixed_10/tower/mixed/conv"),
        ("grid8.1.doubled.2.tall.0", "mixed_10/tower_1/mixed/conv_1"),
    ],
)
def test_the_graph_of_2015_numbers_its_towers(ours: str, theirs: str) -> None:
    keys = {key.ours: key.theirs for key in LAYOUTS["fid-graph"].keys(RELEASED)}
    assert keys[f"{ours}.conv.weight"] == f"{theirs}/conv2d_params"
    assert keys[f"{ours}.bn.weight"] == f"{theirs}/batchnorm/gamma"


def test_every_rule_names_94_convolutions_and_no_two_alike() -> None:
    for layout in LAYOUTS.values():
        keys = layout.keys(RELEASED)
        assert len({key.theirs for key in keys}) == len(keys)
        trunk = [key for key in keys if key.ours.endswith(".conv.weight") and not key.ours.startswith("aux.")]
        assert len(trunk) == 94


def test_keras_stores_long_branches_first() -> None:
    """The first layers of the first module, in the order of a weight file that Keras wrote."""
    layers = [f"{'conv' if kind == 'conv2d' else 'norm'}{number}" for kind, number in keras_layers(RELEASED)]
    module = [name for name in layers if 5 <= int(name[4:]) <= 11]
    said = "conv8 norm8 conv6 conv9 norm6 norm9 conv5 conv7 conv10 conv11 norm5 norm7 norm10 norm11"
    assert " ".join(module) == said


def test_places_are_the_same_in_fids_network() -> None:
    fid = family.NETWORKS["inception_v3_fid"].arch
    assert [place.path for place in places(fid)] == [place.path for place in places(RELEASED)][:94]


# -- identification ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_file_in_each_layout_is_known(layout: str) -> None:
    found = identify(shapes_in(layout))
    assert found.layout.name == layout
    assert found.has_scale == LAYOUTS[layout].has_scale
    assert found.num_classes == (None if layout == "pytorch-fid-blocks" else 1000)
    assert not found.unused


def test_our_own_names_from_before_a_branch_was_renamed_are_known() -> None:
    today = shapes_in("reinception")
    former = {name.replace(".doubled.", ".double."): shape for name, shape in today.items()}
    found = identify(former)
    assert found.layout.name == "reinception" and not found.unused
    assert set(found.layout.canonical(former).values()) == set(former) != set(today)


def test_torchvision_has_the_auxiliary_head_and_timm_has_not(torchvision_shapes: Shapes) -> None:
    with_head, without_head = identify(torchvision_shapes), identify(without(torchvision_shapes, "AuxLogits"))
    assert with_head.has_auxiliary and not without_head.has_auxiliary
    names = [entry.name for entry in candidates("torchvision", num_classes=1000, has_auxiliary=False)]
    assert names == ["torchvision", *(f"timm:inception_v3.{tag}_in1k" for tag in ("tv", "tf", "tf_adv", "gluon"))]
    names = [entry.name for entry in candidates("torchvision", num_classes=1000, has_auxiliary=True)]
    assert names == ["torchvision", "timm:inception_v3.tv_in1k"]


def test_1008_outputs_under_torchvisions_names_are_fids() -> None:
    assert identify(shapes_in("torchvision", num_classes=1008)).num_classes == 1008
    names = [entry.name for entry in candidates("torchvision", num_classes=1008, has_auxiliary=False)]
    assert names == ["pytorch-fid", "torch-fidelity"]


def test_slims_own_checkpoint_has_1001_classes_a_head_and_no_gamma() -> None:
    found = identify(slim_shapes() | {"global_step": ()})
    assert (found.layout.name, found.num_classes, found.has_auxiliary, found.has_scale) == (
        "tf-slim",
        1001,
        True,
        False,
    )
    assert found.unused == ("global_step",)


def test_a_training_checkpoint_of_slim_gives_its_running_averages() -> None:
    shapes = slim_shapes()
    averaged = {f"{name}/ExponentialMovingAverage": shape for name, shape in shapes.items()}
    found = identify(shapes | averaged | {f"{name}/RMSProp": shape for name, shape in shapes.items()})
    assert all(key.theirs.endswith("/ExponentialMovingAverage") for key in found.names.values())
    assert len(found.unused) == 2 * len(shapes)


def test_step_counters_may_be_missing(torchvision_shapes: Shapes) -> None:
    found = identify(without(torchvision_shapes, "num_batches_tracked"))
    assert len(found.absent) == 96
    assert all(name.endswith(".num_batches_tracked") for name in found.absent)


@given(prefix=st.sampled_from(["module.", "model.", "_orig_mod.", "net.backbone.", "state."]), shuffle=st.randoms())
@settings(max_examples=8)
def test_a_wrappers_prefix_and_any_order_change_nothing(prefix: str, shuffle: object) -> None:
    layout = "torchvision"
    names = list(shapes_in(layout).items())
    shuffle.shuffle(names)  # type: ignore[attr-defined]
    found = identify({f"{prefix}{name}": shape for name, shape in names} | {"loss.weight": (3,)})
    assert found.layout.name == layout
    assert found.unused == ("loss.weight",)
    assert found.names["stem.0.conv.weight"].theirs == f"{prefix}Conv2d_1a_3x3.conv.weight"


def test_keras_numbers_may_start_anywhere_and_a_model_may_wrap_this_one() -> None:
    """A second network of one session begins at conv2d_94; Keras 2 began at 1."""
    legacy = shapes_in("keras-legacy")
    wrapped = {
        f"model_weights/inception_v3/{re.sub(r'_([0-9]+)/', lambda n: f'_{int(n[1]) + 94}/', name)}:0": shape
        for name, shape in legacy.items()
    }
    assert identify(wrapped).num_classes == 1000
    assert not identify(wrapped).unused
    stored = {
        as_stored(name, more=94, prefix="layers/functional/"): shape
        for name, shape in shapes_in("keras-3", stored=False).items()
    }
    assert identify(stored).num_classes == 1000
    assert not identify(stored).unused


def test_a_head_of_several_dense_layers_is_not_taken_for_the_classifier() -> None:
    shapes = without(shapes_in("keras-legacy"), "predictions")
    found = identify(
        shapes | {"dense/kernel": (2048, 64), "dense/bias": (64,), "dense_1/kernel": (64, 2), "dense_1/bias": (2,)}
    )
    assert not found.has_classifier
    assert len(found.unused) == 4


def test_an_auxiliary_head_with_other_classes_is_set_aside(torchvision_shapes: Shapes) -> None:
    """Who replaces fc for a task of his own often leaves AuxLogits.fc as it was."""
    found = identify(torchvision_shapes | {"fc.weight": (7, 2048), "fc.bias": (7,)})
    assert (found.num_classes, found.has_auxiliary) == (7, False)
    assert found.remarks == ("the auxiliary head has 1000 outputs, the classifier 7",)


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("resnet18", "this is a ResNet, not an Inception-v3 (it has layer1.0.conv1.weight)"),
        ("googlenet", "this is GoogLeNet (Inception-v1), not an Inception-v3"),
        ("densenet121", "this is a DenseNet, not an Inception-v3"),
        ("vgg16", "this is a VGG, not an Inception-v3"),
        ("squeezenet1_0", "no Inception-v3 in any layout known here: 52 tensors, first features.0.weight"),
    ],
)
def test_another_network_is_refused_in_one_line_that_names_it(model: str, said: str) -> None:
    fields = {"init_weights": False} if model == "googlenet" else {}
    with torch.device("meta"):
        shapes = torch_shapes(torchvision.models.get_model(model, **fields))
    with pytest.raises(ReinceptionError) as caught:
        identify(shapes)
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


@given(st.data())
@settings(max_examples=8)
def test_a_missing_tensor_of_the_trunk_is_named(data: st.DataObject) -> None:
    shapes = shapes_in("torchvision")
    needed = [name for name in shapes if not name.startswith("fc.") and ".num_batches" not in name]
    gone = data.draw(st.sampled_from([name for name in needed if not name.endswith("bn.weight")]))
    del shapes[gone]
    with pytest.raises(ReinceptionError, match="is the file whole") as caught:
        identify(shapes)
    assert f"first {gone} (" in str(caught.value)


def test_a_gamma_missing_here_and_there_is_named(torchvision_shapes: Shapes) -> None:
    with pytest.raises(ReinceptionError, match=r"1 of its 94 batch norms lack the gamma.*Mixed_6a.branch3x3.bn.weight"):
        identify(without(torchvision_shapes, "Mixed_6a.branch3x3.bn.weight"))


def test_a_wrong_shape_is_named_with_both_shapes(torchvision_shapes: Shapes) -> None:
    name = "Mixed_7c.branch3x3_2a.conv.weight"
    with pytest.raises(
        ReinceptionError,
        match=r"Mixed_7c.branch3x3_2a.conv.weight has shape 384x384x3x1 where Inception-v3 has 384x384x1x3",
    ):
        identify(torchvision_shapes | {name: (384, 384, 3, 1)})


def test_a_narrower_network_is_refused() -> None:
    shapes = {name: tuple(max(1, side // 2) for side in shape) for name, shape in slim_shapes().items()}
    with pytest.raises(ReinceptionError, match="a network of another width or another kind"):
        identify(shapes)


def test_no_tensors_at_all_are_no_inception() -> None:
    with pytest.raises(ReinceptionError, match="holds no tensors"):
        identify({})
