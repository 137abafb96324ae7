"""A layout as a value: which tensor of ours is which of the file's, and in which order of axes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

from torch import Tensor

from reinception.spec import Arch

Shapes = Mapping[str, tuple[int, ...]]


class Form(Enum):
    """The order of axes in a file; SAME is torch's own."""

    SAME = "same"
    HWIO = "convolution kernels as height, width, in, out"
    IO = "a linear layer's weight as in, out"
    HWIO_LINEAR = "a linear layer as a 1x1 convolution: 1, 1, in, out"


@dataclass(frozen=True)
class Key:
    """One tensor: our name, the name in the layout, and its order of axes there."""

    ours: str
    theirs: str
    form: Form = Form.SAME


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One way to name the tensors.

    `keys(arch)` are the tensors of `arch` in this layout. `canonical(shapes)` maps the names that `keys` uses to those
    of a file, which may have prefixes or automatic numbers. `has_scale` tells whether the library's batch norm has a
    gamma; a file that differs is still read.
    """

    name: str
    title: str
    keys: Callable[[Arch], tuple[Key, ...]]
    canonical: Callable[[Shapes], dict[str, str]]
    has_scale: bool = True


def to_torch_order(tensor: Tensor, form: Form) -> Tensor:
    """A tensor of a file, which keeps it in `form`, in torch's order of axes."""
    if form is Form.HWIO:
        return tensor.permute(3, 2, 0, 1)
    if form is Form.HWIO_LINEAR:
        return tensor[0, 0].permute(1, 0)
    return tensor.permute(1, 0) if form is Form.IO else tensor


def to_file_order(tensor: Tensor, form: Form) -> Tensor:
    """The inverse of `to_torch_order`."""
    if form is Form.HWIO:
        return tensor.permute(2, 3, 1, 0)
    if form is Form.HWIO_LINEAR:
        return tensor.permute(1, 0)[None, None]
    return tensor.permute(1, 0) if form is Form.IO else tensor


# -- the tensors of a convolution, its batch norm, a classifier

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
    """Names as they are, or after a prefix that a wrapper put before all of them (`module.`, `model.`, a scope)."""

    def canonical(shapes: Shapes) -> dict[str, str]:
        prefixes = [name.removesuffix(anchor) for name in shapes if name.endswith(anchor)]
        prefix = min(prefixes, key=len, default="")
        return {name.removeprefix(prefix): name for name in shapes if name.startswith(prefix)}

    return canonical
