"""Find the layout of a file and the parts of Inception-v3 in it from the names and shapes of its tensors."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from reinception.errors import ReinceptionError
from reinception.model.build import skeleton
from reinception.spec import Arch, feature_shape, with_scale
from reinception.weights.layouts.keys import Form, Key, Layout, Shapes, to_file_order
from reinception.weights.layouts.libraries import LAYOUTS

ENOUGH_TO_NAME = 0.5  # fraction of the trunk's tensors that identifies a layout, even where the file is not whole

_CLASSIFIER = ("classifier.weight", "classifier.bias")
# Tensors beside a network that none of its layers are: of losses and metrics, and the auxiliary head's.
_NO_LAYER = re.compile(r"(^|\.)(AuxLogits|aux)\.|^(\w*loss\w*|criterion|metrics?)\.")

# Other networks, each by a part of a tensor name that only it has.
_OTHERS = {
    "layer1.0.conv1.": "a ResNet",
    "layer1.0.conv2.": "a ResNet",
    "conv2_block1_1_conv": "a ResNet",
    "inception3a.": "GoogLeNet (Inception-v1)",
    "features.denseblock1.": "a DenseNet",
    "mixed_5b.branch1.": "Inception-ResNet-v2",
    "block35": "Inception-ResNet-v2",
    "features.3.conv.conv": "Inception-v4",
    "InceptionV4/": "Inception-v4",
    "InceptionResnetV2/": "Inception-ResNet-v2",
    "InceptionV1/": "GoogLeNet (Inception-v1)",
    "InceptionV2/": "Inception-v2",
    "resnet_v1_": "a ResNet",
    "resnet_v2_": "a ResNet",
    "cls_token": "a vision transformer",
    "block1_conv1": "a VGG",
    "features.28.weight": "a VGG",
    "block1.conv1.": "an Xception",
    "conv_stem.": "an EfficientNet or MobileNet",
}


@dataclass(frozen=True, kw_only=True)
class Identification:
    """What the names and shapes of a file tell.

    `arch` is the network whose tensors the file fills: with the auxiliary head and gamma if the file has them, and with
    as many outputs (one where it has no classifier, `has_classifier` False). `names` maps our tensor names to the
    file's. `absent` are tensors of ours that no such file needs (step counters, a classifier's bias). `unused` are
    tensors of the file that the network does not have, and `remarks` say why something was left out.
    """

    layout: Layout
    arch: Arch
    has_classifier: bool
    names: Mapping[str, Key]
    absent: tuple[str, ...]
    unused: tuple[str, ...]
    remarks: tuple[str, ...] = ()

    @property
    def has_auxiliary(self) -> bool:
        return bool(self.arch.aux)

    @property
    def has_scale(self) -> bool:
        """Whether batch norm's gamma is in the file."""
        return any(name.endswith(".bn.weight") for name in self.names)

    @property
    def num_classes(self) -> int | None:
        return self.arch.num_classes if self.has_classifier else None


def identify(shapes: Shapes, released: Arch) -> Identification:
    """The layout and the network of a file whose tensors have these names and shapes.

    `released` is the released Inception-v3 with its auxiliary head. ReinceptionError, one line, for a file that is
    none, one that lacks tensors, and one whose tensors have other shapes.
    """
    layout, names = _layout_of(shapes, released)
    keys = {key.ours: key for key in layout.keys(released)}
    remarks = _find_classifier(keys, names, shapes, feature_shape(released).channels)
    present = {ours: key for ours, key in keys.items() if key.theirs in names}
    _refuse_gaps(layout, keys, present)
    num_classes = _num_classes(present.get("classifier.weight"), present.get("classifier.bias"), names, shapes)
    head = released.aux[0].name
    has_aux = _has_whole_head(head, keys, present)
    if not has_aux and any(ours.startswith(f"{head}.") for ours in present):
        remarks.append("the auxiliary head is not whole")
    if has_aux:
        aux_classes = shapes[names[present[f"{head}.classifier.bias"].theirs]][0]
        if num_classes is None or aux_classes != num_classes:
            remarks.append(f"the auxiliary head has {aux_classes} outputs, the classifier {num_classes or 'none'}")
            has_aux = False
    arch = dataclasses.replace(released, num_classes=num_classes or 1, aux=released.aux if has_aux else ())
    if not any(ours.endswith(".bn.weight") for ours in present):
        arch = with_scale(arch, False)
    expected = skeleton(arch).state_dict()
    fresh = () if num_classes else _CLASSIFIER
    used = {
        ours: dataclasses.replace(present[ours], theirs=names[present[ours].theirs])
        for ours in expected
        if ours in present and ours not in fresh
    }
    _refuse_shapes(layout, used, expected, shapes)
    taken = {key.theirs for key in used.values()}
    return Identification(
        layout=layout,
        arch=arch,
        has_classifier=num_classes is not None,
        names=used,
        absent=tuple(name for name in expected if name not in used and name not in fresh),
        unused=tuple(name for name in shapes if name not in taken),
        remarks=tuple(remarks),
    )


def _layout_of(shapes: Shapes, released: Arch) -> tuple[Layout, dict[str, str]]:
    """The layout that names most of the trunk, and the file's name for each name in it."""
    best, best_names, best_fraction = None, dict[str, str](), 0.0
    for layout in LAYOUTS.values():
        names = layout.canonical(shapes)
        needed = [key.theirs for key in layout.keys(released) if _is_needed(key.ours)]
        fraction = sum(name in names for name in needed) / len(needed)
        if fraction > best_fraction:
            best, best_names, best_fraction = layout, names, fraction
    if best is None or best_fraction < ENOUGH_TO_NAME:
        raise ReinceptionError(_what_else(shapes))
    return best, best_names


def _find_classifier(keys: Mapping[str, Key], names: dict[str, str], shapes: Shapes, channels: int) -> list[str]:
    """Puts the classifier into `names`, found by its shape and place: the one linear layer beside the trunk.

    With other layers there too nobody can say from names and shapes what the head computes: then it is left out, and
    that is said. Keras's heads are read from its own configuration (`keras_config`).
    """
    weight, bias = (keys.get(ours) for ours in _CLASSIFIER)
    if weight is None or bias is None:
        return []
    if weight.form is not Form.SAME:
        linear = [name for name, shape in shapes.items() if len(shape) == 2 and "optimizer" not in name]
        return [_no_classifier(linear)] if linear and weight.theirs not in names else []
    own = names.pop(weight.theirs, ""), names.pop(bias.theirs, "")
    trunk = {names[key.theirs] for key in keys.values() if key.theirs in names}
    beside = [
        name
        for name, shape in shapes.items()
        if name not in trunk and shape != () and not _NO_LAYER.search(name) and "num_batches" not in name
    ]
    linear = [name for name in beside if len(shapes[name]) == 2 and shapes[name][1] == channels]
    found = linear[0] if linear else ""
    found_bias = found.removesuffix("weight") + "bias"
    if len(linear) != 1 or set(beside) - {found, found_bias}:
        return [_no_classifier(beside)] if beside else []
    names[weight.theirs] = found
    if found_bias in shapes:
        names[bias.theirs] = found_bias
    return [] if found == own[0] else [f"the classifier is {found}, the only linear layer on the features"]


def _no_classifier(beside: list[str]) -> str:
    more = ", ..." if len(beside) > 3 else ""
    return f"no classifier taken: the head is not one linear layer on the features ({', '.join(beside[:3])}{more})"


def _is_needed(ours: str) -> bool:
    """Whether every file must have this tensor: the trunk's, less gamma and step counters."""
    return not ours.startswith(("aux.", "classifier.")) and not _is_optional(ours)


def _is_optional(ours: str) -> bool:
    return ours.endswith((".bn.weight", ".num_batches_tracked"))


def _refuse_gaps(layout: Layout, keys: Mapping[str, Key], present: Mapping[str, Key]) -> None:
    needed = [key for key in keys.values() if _is_needed(key.ours)]
    missing = [key for key in needed if key.ours not in present]
    if missing:
        raise ReinceptionError(
            f"looks like {layout.title}, but {len(missing)} of its {len(needed)} tensors are missing, first "
            f"{missing[0].theirs} ({missing[0].ours}); is the file whole?"
        )
    gammas = [ours for ours in keys if ours.endswith(".bn.weight") and not ours.startswith("aux.")]
    missing_gammas = [ours for ours in gammas if ours not in present]
    if missing_gammas and len(missing_gammas) < len(gammas):
        raise ReinceptionError(
            f"looks like {layout.title}, but {len(missing_gammas)} of its {len(gammas)} batch norms lack the gamma "
            f"that the others have, first {keys[missing_gammas[0]].theirs}; is the file whole?"
        )


def _num_classes(weight: Key | None, bias: Key | None, names: Mapping[str, str], shapes: Shapes) -> int | None:
    """How many outputs the classifier has; None where there is none. One of torch may have no bias."""
    if weight is None or (bias is None and weight.form is not Form.SAME):
        return None
    shape = shapes[names[(bias or weight).theirs]]
    return shape[0] if len(shape) == (1 if bias else 2) and shape[0] > 0 else None


def _has_whole_head(head: str, keys: Mapping[str, Key], present: Mapping[str, Key]) -> bool:
    needed = [ours for ours in keys if ours.startswith(f"{head}.") and not _is_optional(ours)]
    return bool(needed) and all(ours in present for ours in needed)


def _refuse_shapes(layout: Layout, used: Mapping[str, Key], expected: Mapping[str, Tensor], shapes: Shapes) -> None:
    for ours, key in used.items():
        wanted, found = tuple(to_file_order(expected[ours], key.form).shape), tuple(shapes[key.theirs])
        if found != wanted and not (ours.endswith(".num_batches_tracked") and found in ((), (1,))):
            raise ReinceptionError(
                f"looks like {layout.title}, but tensor {key.theirs} has shape {_times(found)} where Inception-v3 has "
                f"{_times(wanted)} ({ours}); a network of another width or another kind?"
            )


def _what_else(shapes: Shapes) -> str:
    for piece, what in _OTHERS.items():
        for name in shapes:
            if piece in name:
                return f"this is {what}, not an Inception-v3 (it has {name}); only Inception-v3 weights can be read"
    if not shapes:
        return "holds no tensors; only Inception-v3 weights can be read"
    return (
        f"no Inception-v3 in any layout known here: {len(shapes)} tensors, first {next(iter(shapes))}; known are "
        f"{', '.join(LAYOUTS)}"
    )


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"
