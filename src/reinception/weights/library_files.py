"""Export: write one of our models as a file that torchvision, timm, Keras and others load as their own."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from reinception import family
from reinception.errors import ReinceptionError, UsageError
from reinception.files import new_file, refuse_existing
from reinception.model.artifact import NO_CLASSIFIER, Manifest
from reinception.model.build import Network
from reinception.spec import Arch, count_border, with_scale
from reinception.weights import hdf5, parity
from reinception.weights.conversion_report import ConversionReport, Dropped, Proof
from reinception.weights.convert import network_of
from reinception.weights.identify import RELEASED, identify
from reinception.weights.layouts.libraries import LAYOUTS
from reinception.weights.layouts.places import keras_layers
from reinception.weights.layouts.translate import fold_scale, to_theirs
from reinception.weights.publishers import PUBLISHERS
from reinception.weights.weight_files import read


@dataclass(frozen=True, kw_only=True)
class Target:
    """A library to write for. Its network and its border rule are those of `publisher`; `keeps_auxiliary` tells whether
    the network it builds by default has the auxiliary classifier."""

    name: str
    title: str
    publisher: str
    layout: str = "torchvision"
    suffixes: tuple[str, ...] = (".pth", ".pt", ".safetensors")
    keeps_auxiliary: bool = False
    remark: str = ""

    @property
    def counts_border(self) -> bool:
        return PUBLISHERS[self.publisher].counts_border

    @property
    def arch(self) -> Arch:
        return family.NETWORKS[PUBLISHERS[self.publisher].network].arch


TARGETS: Mapping[str, Target] = {
    target.name: target
    for target in (
        Target(
            name="torchvision",
            title="torchvision.models.Inception3",
            publisher="torchvision",
            keeps_auxiliary=True,
            remark="build Inception3 with transform_input=False for these pixels, and aux_logits as the file has it",
        ),
        Target(name="timm", title="timm's inception_v3", publisher="timm:inception_v3.tv_in1k"),
        Target(
            name="keras",
            title="keras.applications.InceptionV3",
            publisher="keras",
            layout="keras-legacy",
            suffixes=(".weights.h5", ".h5"),
            remark="load it with InceptionV3(weights=None, classifier_activation=None, ...).load_weights",
        ),
        Target(
            name="tf-slim",
            title="TF-slim's inception_v3",
            publisher="tf-slim",
            layout="tf-slim",
            suffixes=(".npz",),
            keeps_auxiliary=True,
            remark="assign the arrays to the variables of these names",
        ),
        Target(name="pytorch-fid", title="pytorch-fid's and torch-fidelity's network", publisher="pytorch-fid"),
        Target(
            name="lucid",
            title="Lucid's inception_v3_cls",
            publisher="lucid",
            layout="lucid",
            suffixes=(".safetensors",),
        ),
    )
}


def target(name: str, out: Path) -> tuple[Target, str]:
    """The library called `name` and the ending `out` has; Raises UsageError that lists the choices."""
    if name not in TARGETS:
        raise UsageError(f"cannot write for {name!r}; known: {', '.join(TARGETS)}")
    goal = TARGETS[name]
    suffix = next((known for known in goal.suffixes if out.name.endswith(known)), None)
    if suffix is None:
        raise UsageError(f"{out}: {goal.title} is written to {' or '.join(goal.suffixes)}")
    return goal, suffix


def export(network: Network, manifest: Manifest, library: str, path: str | Path) -> ConversionReport:
    """Write `network` as `library` stores it, in the format of the ending of `path`; returns what was changed.

    Where the library's network has no gamma it is folded into the convolution before it (`fold_scale`); where ours has
    none it is written as 1. Raises ReinceptionError for an existing file and for a network that the library lacks.
    """
    out = Path(path)
    goal, suffix = target(library, out)
    refuse_existing(out)
    refuse_other_networks(network.arch, goal)
    layout = LAYOUTS["keras-3" if suffix == ".weights.h5" else goal.layout]
    notes: list[str] = []
    dropped: list[Dropped] = []
    state = {name: tensor.detach().cpu() for name, tensor in network.state_dict().items()}
    if manifest.classes == NO_CLASSIFIER:
        notes.append("no classifier: the model's was never trained")
        state = {name: tensor for name, tensor in state.items() if not name.startswith("classifier.")}
    if not goal.keeps_auxiliary:
        head = tuple(name for name in state if name.startswith("aux."))
        state = {name: tensor for name, tensor in state.items() if name not in head}
        dropped += [Dropped(what="the auxiliary head, which it does not build", names=head)] if head else []
    if not layout.has_scale:
        moved = sum(bool((tensor != 1).any()) for name, tensor in state.items() if name.endswith(".bn.weight"))
        state = fold_scale(state)
        if moved:
            notes.append(f"{moved} gammas folded into their convolutions: exact but for one rounding each")
    tensors, unplaced = to_theirs(layout, network.arch, state)
    if layout.has_scale and not any(name.endswith(".bn.weight") for name in state):
        notes.append("gamma written as 1: the model has none")
    if unplaced:
        dropped.append(Dropped(what="no place in this layout", names=unplaced))
    if counts_border(network.arch) != goal.counts_border:
        counts = "counts" if goal.counts_border else "does not count"
        notes.append(f"{goal.title} {counts} the border in average pools, unlike this model: outputs will differ")
    _write(out, suffix, tensors, network.arch)
    pixels = manifest.preprocessing
    if pixels.scaling == "fixed":
        notes.append(f"it expects (v - mean) / std on [0, 1], mean {list(pixels.mean)}, std {list(pixels.std)}")
    else:
        notes.append("it expects each image less its own mean, divided by its own standard deviation")
    return ConversionReport(
        title=f"written for {goal.title} ({layout.name})",
        source=str(manifest.origin.get("source", "a model of ours")),
        certainty="the model's manifest",
        dropped=tuple(dropped),
        notes=tuple(note for note in (*notes, goal.remark) if note),
    )


def prove_export(network: Network, library: str, path: str | Path) -> Proof:
    """Compare `library`'s own network with the file just written to `network`, under the library's border rule.

    Raises ReinceptionError, and removes the file, when their outputs differ.
    """
    (goal, _), file = target(library, Path(path)), read(path)
    native = network_of(count_border(network.arch, goal.counts_border), network.state_dict())
    try:
        return parity.prove(goal.name, file, identify(file.shapes), native)
    except ReinceptionError:
        Path(path).unlink()
        raise


def refuse_other_networks(arch: Arch, goal: Target) -> None:
    """Raise ReinceptionError unless `arch` has the layers of the library's network, whatever its border rule, gamma or
    classes."""
    wanted = goal.arch
    if _bare(arch) != _bare(wanted):
        raise ReinceptionError(
            f"{goal.title} is {wanted.name} at full width; this model is {arch.name}, whose layers differ, and "
            "cannot be written for it"
        )
    if arch.aux and _bare_head(arch) != _bare_head(RELEASED):
        raise ReinceptionError(f"the auxiliary head of this model is not {goal.title}'s; write it without: --aux drop")


def counts_border(arch: Arch) -> bool:
    """Whether the padded average pools of `arch` count the border."""
    return arch.stages != count_border(arch, False).stages


def _bare(arch: Arch) -> object:
    return with_scale(count_border(dataclasses.replace(arch, aux=()), False), True).stages


def _bare_head(arch: Arch) -> object:
    return with_scale(arch, True).aux[0].body


def _write(out: Path, suffix: str, tensors: dict[str, Tensor], arch: Arch) -> None:
    with new_file(out) as part:
        if suffix in (".pth", ".pt"):
            with part.open("wb") as file:
                torch.save(tensors, file)
        elif suffix == ".safetensors":
            save_file(tensors, part, {"format": "pt"})
        elif suffix == ".npz":
            arrays: dict[str, Any] = {name: tensor.numpy() for name, tensor in tensors.items()}
            with part.open("wb") as file:
                np.savez(file, **arrays)
        elif suffix == ".weights.h5":
            hdf5.write_keras_3(part, tensors)
        else:
            hdf5.write_legacy(part, tensors, keras_layers(arch))
