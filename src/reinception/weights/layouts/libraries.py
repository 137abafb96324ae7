"""How each library names the tensors of Inception-v3: one rule per layout, from the spec's paths to its names.

Every layout names the same 94 convolutions (and two in the auxiliary head) of the same network, so a layout is a
function from a place in the spec to a name. Names that break a library's own pattern are a table of exceptions beside
its rule. Sources: docs/decisions/0004-weights.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import chain

from reinception.spec import Arch, current_path
from reinception.weights.layouts.keras import KERAS_3, LEGACY, canonical_keras, keras_keys
from reinception.weights.layouts.keys import (
    Form,
    Key,
    Layout,
    Shapes,
    after_prefix,
    classifiers,
    tf_leaves,
    torch_leaves,
)
from reinception.weights.layouts.places import Place, places, topological


def torch_keys(arch: Arch, name_of: Callable[[Place], str], heads: Mapping[str, str]) -> tuple[Key, ...]:
    """The keys of a layout whose convolution `name` is the modules `name.conv` and `name.bn`."""
    keys = [torch_leaves(one.path, f"{name_of(one)}.conv", f"{name_of(one)}.bn") for one in places(arch)]
    return (*chain.from_iterable(keys), *classifiers(arch, heads))


# -- the names TF-slim gave, which torchvision, timm and the FID files took over ---------------------------------------

_STEM = ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Conv2d_3b_1x1", "Conv2d_4a_3x3")
_MODULES = {
    "grid35": ("Mixed_5b", "Mixed_5c", "Mixed_5d"),
    "reduce35": ("Mixed_6a",),
    "grid17": ("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"),
    "reduce17": ("Mixed_7a",),
    "grid8": ("Mixed_7b", "Mixed_7c"),
}
_TORCHVISION_BRANCHES = {
    "grid35": {"point": "branch1x1", "single": "branch5x5", "doubled": "branch3x3dbl", "pool": "branch_pool"},
    "reduce35": {"single": "branch3x3", "doubled": "branch3x3dbl"},
    "grid17": {"point": "branch1x1", "single": "branch7x7", "doubled": "branch7x7dbl", "pool": "branch_pool"},
    "reduce17": {"single": "branch3x3", "doubled": "branch7x7x3"},
    "grid8": {"point": "branch1x1", "single": "branch3x3", "doubled": "branch3x3dbl", "pool": "branch_pool"},
}
_SIDE_LETTERS = {"": "", "wide": "a", "tall": "b"}


def _block(place: Place) -> str:
    return _STEM[place.level] if place.stage == "stem" else _MODULES[place.stage][place.module]


def _torchvision_name(place: Place) -> str:
    if place.stage == "aux":
        return f"AuxLogits.conv{place.level}"
    if place.stage == "stem":
        return _block(place)
    branch = _TORCHVISION_BRANCHES[place.stage][place.branch]
    number = f"_{place.level + 1}{_SIDE_LETTERS[place.side]}" if place.num_levels > 1 else ""
    return f"{_block(place)}.{branch}{number}"


def _torchvision(arch: Arch) -> tuple[Key, ...]:
    return torch_keys(arch, _torchvision_name, {"classifier": "fc", "aux.classifier": "AuxLogits.fc"})


# pytorch-fid's module holds torchvision's blocks in four lists, cut at the maximum pools and at the 17x17 grid's end.
_FID_BLOCKS = {
    block: f"blocks.{number}.{position}"
    for number, blocks in enumerate(
        (_STEM[:3], _STEM[3:], (*_MODULES["grid35"], *_MODULES["reduce35"], *_MODULES["grid17"]))
    )
    for position, block in enumerate(blocks)
} | {block: f"blocks.3.{position}" for position, block in enumerate((*_MODULES["reduce17"], *_MODULES["grid8"]))}


def _pytorch_fid_blocks(arch: Arch) -> tuple[Key, ...]:
    keys = []
    for key in _torchvision(arch):
        block, _, rest = key.theirs.partition(".")
        if block in _FID_BLOCKS:
            keys.append(Key(key.ours, f"{_FID_BLOCKS[block]}.{rest}"))
    return tuple(keys)


# -- TF-slim -----------------------------------------------------------------------------------------------------------

# Names that break the authors' own pattern: two in Mixed_5c, the 3x3 of Mixed_6a called 1x1, and the two
# halves of Mixed_7b's first split with one letter (Mixed_7c has two).
_SLIM_EXCEPTIONS = {
    "grid35.1.single.0": "Conv2d_0b_1x1",
    "grid35.1.single.1": "Conv_1_0c_5x5",
    "reduce35.single.0": "Conv2d_1a_1x1",
    "reduce35.doubled.2": "Conv2d_1a_1x1",
    "grid8.0.single.1.tall.0": "Conv2d_0b_3x1",
}


def _slim_name(place: Place) -> str:
    height, width = place.kernel
    if place.stage == "aux":
        return f"InceptionV3/AuxLogits/Conv2d_{('1b', '2a')[place.level]}_{height}x{width}"
    if place.stage == "stem":
        return f"InceptionV3/{_block(place)}"
    step = "1a" if place.stride != (1, 1) else "0" + "abcdef"[place.position + (place.side == "tall")]
    leaf = _SLIM_EXCEPTIONS.get(place.path, f"Conv2d_{step}_{height}x{width}")
    return f"InceptionV3/{_block(place)}/Branch_{place.branch_index}/{leaf}"


def _slim(arch: Arch) -> tuple[Key, ...]:
    keys: list[Key] = []
    for place in places(arch):
        name = _slim_name(place)
        keys += tf_leaves(place.path, f"{name}/weights", f"{name}/BatchNorm")
    heads = {"classifier": "Logits/Conv2d_1c_1x1"} | {
        f"{head.name}.classifier": "AuxLogits/Conv2d_2b_1x1" for head in arch.aux
    }
    for ours, theirs in heads.items():
        keys.append(Key(f"{ours}.weight", f"InceptionV3/{theirs}/weights", Form.HWIO_LINEAR))
        keys.append(Key(f"{ours}.bias", f"InceptionV3/{theirs}/biases"))
    return tuple(keys)


AVERAGE_SUFFIX = "/ExponentialMovingAverage"


def _canonical_slim(shapes: Shapes) -> dict[str, str]:
    """A training checkpoint holds each variable beside its running average; the average is what was evaluated."""
    found = after_prefix("InceptionV3/Conv2d_1a_3x3/weights")(shapes)
    averages = {
        name.removesuffix(AVERAGE_SUFFIX): file for name, file in found.items() if name.endswith(AVERAGE_SUFFIX)
    }
    return {name: file for name, file in found.items() if not name.endswith(AVERAGE_SUFFIX)} | averages


# -- the graph of 2015-12-05, whose constants the FID files were read from ---------------------------------------------


def _numbered(stem: str, number: int) -> str:
    return stem if number == 0 else f"{stem}_{number}"


def _graph_name(place: Place) -> str:
    if place.stage == "stem":
        return _numbered("conv", place.level)
    offsets = {"grid35": 0, "reduce35": 3, "grid17": 4, "reduce17": 8, "grid8": 9}
    module = _numbered("mixed", offsets[place.stage] + place.module)
    if place.num_levels == 1 and place.position == 0:  # a lone convolution stands outside the towers
        return f"{module}/conv"
    tower = _numbered("tower", ("single", "doubled", "pool").index(place.branch))
    if place.stage == "reduce35":
        tower = "tower"
    if place.side:
        return f"{module}/{tower}/mixed/{_numbered('conv', int(place.side == 'tall'))}"
    return f"{module}/{tower}/{_numbered('conv', place.level)}"


def _graph(arch: Arch) -> tuple[Key, ...]:
    keys: list[Key] = []
    for place in places(arch):
        if place.stage != "aux":
            name = _graph_name(place)
            keys += tf_leaves(place.path, f"{name}/conv2d_params", f"{name}/batchnorm")
    return (*keys, Key("classifier.weight", "softmax/weights", Form.IO), Key("classifier.bias", "softmax/biases"))


# -- the reviewed library, as it names its network today ---------------------------------------------------------------

_LUCID_MODULES = {
    "grid35": "inception_a{}",
    "reduce35": "reduction_a",
    "grid17": "inception_c{}",
    "reduce17": "reduction_b",
    "grid8": "inception_e{}",
}


def _lucid_name(place: Place) -> str:
    if place.stage == "aux":
        return f"aux.conv{place.level}"
    if place.stage == "stem":
        return place.path
    if place.num_levels == 1:
        letter = "_conv" if place.branch == "pool" else ""
    else:
        letter = "_" + "abcdef"[place.level] + {"": "", "wide": "1", "tall": "2"}[place.side]
    return f"{_LUCID_MODULES[place.stage].format(place.module)}.branch{place.branch_index + 1}{letter}"


def _lucid(arch: Arch) -> tuple[Key, ...]:
    keys: list[Key] = []
    for place in places(arch):
        name = _lucid_name(place)
        # There an asymmetric convolution is bare and its batch norm stands beside it.
        bare = place.kernel[0] != place.kernel[1]
        keys += torch_leaves(place.path, name if bare else f"{name}.conv", f"{name}_bn" if bare else f"{name}.bn")
    return (*keys, *classifiers(arch, {"classifier": "classifier", "aux.classifier": "aux.fc"}))


def _ours(arch: Arch) -> tuple[Key, ...]:
    names = {"classifier": "classifier", "aux.classifier": "aux.classifier"}
    return torch_keys(arch, lambda place: place.path, names)


def _canonical_ours(shapes: Shapes) -> dict[str, str]:
    return {current_path(name): file for name, file in after_prefix("stem.0.conv.weight")(shapes).items()}


# -- all of them

LAYOUTS: Mapping[str, Layout] = {
    layout.name: layout
    for layout in (
        Layout(
            name="torchvision",
            title="torchvision's names (torchvision, timm, pytorch-fid, torch-fidelity)",
            keys=_torchvision,
            canonical=after_prefix("Conv2d_1a_3x3.conv.weight"),
        ),
        Layout(
            name="pytorch-fid-blocks",
            title="pytorch-fid's module, torchvision's blocks in four lists",
            keys=_pytorch_fid_blocks,
            canonical=after_prefix("blocks.0.0.conv.weight"),
        ),
        Layout(
            name="keras-3",
            title="Keras 3 (.weights.h5 or .keras)",
            keys=keras_keys(topological),
            canonical=canonical_keras(KERAS_3),
            has_scale=False,
        ),
        Layout(
            name="keras-legacy",
            title="Keras, legacy HDF5",
            keys=keras_keys(places),
            canonical=canonical_keras(LEGACY),
            has_scale=False,
        ),
        Layout(name="tf-slim", title="a TF-slim checkpoint", keys=_slim, canonical=_canonical_slim, has_scale=False),
        Layout(
            name="fid-graph",
            title="the constants of TensorFlow's graph of 2015-12-05",
            keys=_graph,
            canonical=after_prefix("conv/conv2d_params"),
        ),
        Layout(name="lucid", title="Lucid's names", keys=_lucid, canonical=after_prefix("stem.0.conv.weight")),
        Layout(name="reinception", title="our own names, without a manifest", keys=_ours, canonical=_canonical_ours),
    )
}
