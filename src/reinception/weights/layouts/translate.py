"""Translate tensors from another library's layout into ours and back, value for value."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from reinception.errors import ReinceptionError
from reinception.spec import Arch, feature_shape
from reinception.weights.layouts.keys import Layout, to_file_order, to_torch_order
from reinception.weights.layouts.match import Identification


def to_ours(found: Identification, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of `found.arch`, float32, from the tensors of a file.

    Step counters and a classifier that the file lacks are zero. Raises ReinceptionError for values that are not finite.
    """
    state: dict[str, Tensor] = {}
    for ours, key in found.names.items():
        tensor = tensors[key.theirs]
        if ours.endswith(".num_batches_tracked"):
            state[ours] = tensor.reshape(()).to(torch.int64)
            continue
        if not tensor.is_floating_point():
            raise ReinceptionError(f"tensor {key.theirs} holds {tensor.dtype}, not floating-point numbers")
        value = to_torch_order(tensor, key.form).to(torch.float32).contiguous()
        if not torch.isfinite(value).all():
            raise ReinceptionError(f"tensor {key.theirs} holds values that are not finite; the file is damaged")
        if ours.endswith(".running_var") and (value < 0).any():
            raise ReinceptionError(f"tensor {key.theirs} holds negative variances; the file is damaged")
        state[ours] = value
    for ours in found.absent:
        is_bias = ours == "classifier.bias"
        state[ours] = torch.zeros(found.arch.num_classes) if is_bias else torch.zeros((), dtype=torch.int64)
    if not found.has_classifier:
        channels = feature_shape(found.arch).channels
        state["classifier.weight"] = torch.zeros(found.arch.num_classes, channels)
        state["classifier.bias"] = torch.zeros(found.arch.num_classes)
    return state


def to_theirs(layout: Layout, arch: Arch, state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """`state` in the names and order of `layout`, and our names that have no place there.

    Where the layout has gamma and the network none, gamma is 1.
    """
    tensors: dict[str, Tensor] = {}
    placed = set()
    for key in layout.keys(arch):
        if key.ours in state:
            tensors[key.theirs] = to_file_order(state[key.ours].detach().cpu(), key.form).contiguous()
            placed.add(key.ours)
        elif key.ours.endswith(".bn.weight") and layout.has_scale:
            beta = state.get(key.ours.removesuffix("weight") + "bias")  # none: the whole head was left out
            if beta is not None:
                tensors[key.theirs] = torch.ones_like(beta).cpu()
    return tensors, tuple(name for name in state if name not in placed)


def fold_scale(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same function without gamma: gamma (w x - mean) / d = ((gamma w) x - gamma mean) / d.

    Exact in real numbers; in float32 each product is rounded once, and nothing changes where gamma is 1.
    """
    folded = dict(state)
    for name in state:
        if not name.endswith(".bn.weight"):
            continue
        path = name.removesuffix(".bn.weight")
        gamma = folded.pop(name)
        folded[f"{path}.conv.weight"] = state[f"{path}.conv.weight"] * gamma[:, None, None, None]
        folded[f"{path}.bn.running_mean"] = state[f"{path}.bn.running_mean"] * gamma
    return folded
