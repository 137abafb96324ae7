"""Fold the input's normalisation into the first convolution, so that a network takes pixels scaled to [0, 1]."""

from __future__ import annotations

import copy
import dataclasses

import torch
from torch import nn

from reinception.errors import ReinceptionError
from reinception.model.build import Network
from reinception.model.layers import ConvNorm
from reinception.preprocess import Preprocessing
from reinception.spec import Conv, trace


def fold_normalisation(network: Network, preprocessing: Preprocessing) -> tuple[Network, Preprocessing]:
    """A copy of `network` that does on raw values what `network` does on normalised ones, and its preprocessing.

    With w the first convolution's weights, w (v - mean) / std = (w / std) v - sum(w mean / std): the weights are
    divided by std, and the constant goes into batch norm's running mean, or into the bias where there is no batch norm.
    That is exact because the first convolution has no padding: a padded zero would mean `mean` before and black after,
    and ReinceptionError refuses such a network. Computed in float64, stored in the network's own type.
    """
    if preprocessing.scaling != "fixed":
        raise ReinceptionError("each image is normalised by its own mean and deviation, which fixed weights cannot do")
    first = next(trace(network.arch, with_aux=False))
    layer = first.layer
    if not isinstance(layer, Conv) or layer.padding != (0, 0):
        raise ReinceptionError(
            f"{network.arch.name} begins with a padded layer ({first.path}): the input's normalisation cannot be "
            "folded into it exactly"
        )
    folded = copy.deepcopy(network)
    module = folded.get_submodule(first.path)
    assert isinstance(module, ConvNorm)
    std = torch.tensor(preprocessing.std, dtype=torch.float64)
    mean = torch.tensor(preprocessing.mean, dtype=torch.float64)
    with torch.no_grad():
        weight = module.conv.weight.double().cpu() / std[:, None, None]
        constant = (weight * mean[:, None, None]).sum((1, 2, 3))
        module.conv.weight.copy_(weight)
        if isinstance(module.bn, nn.BatchNorm2d):
            assert module.bn.running_mean is not None
            module.bn.running_mean.copy_(module.bn.running_mean.double().cpu() + constant)
        elif module.conv.bias is not None:
            module.conv.bias.copy_(module.conv.bias.double().cpu() - constant)
        else:
            raise ReinceptionError(f"{first.path} has neither batch norm nor bias to take the normalisation's constant")
    return folded, dataclasses.replace(preprocessing, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
