"""A layout as a value: which tensor of ours is which of theirs, and how it lies there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

from reinception.spec import Arch

Shapes = Mapping[str, tuple[int, ...]]


class Form(Enum):
    """How a tensor lies in a file, beside torch's own order."""

    SAME = "same"
    HWIO = "convolution kernels as height, width, in, out"
    IO = "a linear layer's weight as in, out"
    HWIO_LINEAR = "a linear layer as a 1x1 convolution: 1, 1, in, out"


@dataclass(frozen=True)
class Key:
    """One tensor: our name, the name in the layout, and how it lies there."""

    ours: str
    theirs: str
    form: Form = Form.SAME


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One way to name the tensors.

    `keys(arch)` are the tensors of `arch` in this layout. `canonical(shapes)` maps the names `keys` uses to those a
    file has: prefixes, automatic numbers and the like are understood there. `has_scale` says whether the library keeps
    a gamma in its batch norm; a file that differs is still read.
    """

    name: str
    title: str
    keys: Callable[[Arch], tuple[Key, ...]]
    canonical: Callable[[Shapes], dict[str, str]]
    has_scale: bool = True


# -- leaves: what hangs under a convolution, its batch norm, a classifier

_TORCH_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
_TF_NORM = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}


def torch_leaves(path: str, conv: str, norm: str) -> list[Key]:
    return [
        Key(f"{path}.conv.weight", f"{conv}.weight"),
        *(Key(f"{path}.bn.{leaf}", f"{norm}.{leaf}") for leaf in _TORCH_NORM),
    ]


def tf_leaves(path: str, conv: str, norm: str) -> list[Key]:
    return [
        Key(f"{path}.conv.weight", conv, Form.HWIO),
        *(Key(f"{path}.bn.{ours}", f"{norm}/{theirs}") for ours, theirs in _TF_NORM.items()),
    ]


def classifiers(arch: Arch, names: Mapping[str, str]) -> list[Key]:
    """Linear layers with torch's own leaves: `classifier` and, where the arch has it, the auxiliary one."""
    ours = ["classifier", *(f"{head.name}.classifier" for head in arch.aux)]
    return [Key(f"{name}.{leaf}", f"{names[name]}.{leaf}") for name in ours for leaf in ("weight", "bias")]


def after_prefix(anchor: str) -> Callable[[Shapes], dict[str, str]]:
    """Names as they are, or behind the prefix a wrapper (`module.`, `model.`, a scope) has put before all of them."""

    def canonical(shapes: Shapes) -> dict[str, str]:
        prefixes = [name.removesuffix(anchor) for name in shapes if name.endswith(anchor)]
        prefix = min(prefixes, key=len, default="")
        return {name.removeprefix(prefix): name for name in shapes if name.startswith(prefix)}

    return canonical
