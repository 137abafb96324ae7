"""Initialisation as published: normal weights cut at two standard deviations, zero biases, unit batch norm."""

from __future__ import annotations

import torch
from torch import nn

from reinception.model.layers import ConvNorm

CUT_IN_STDDEVS = 2.0
# What is left of the standard deviation after the cut: TensorFlow's truncated_normal(stddev=s) has 0.8796 s. The
# published numbers (0.1, 0.01, 0.001) are the s before the cut, and so are ours.
STDDEV_AFTER_CUT = 0.879596


def truncated_normal_(tensor: torch.Tensor, stddev: float, generator: torch.Generator | None = None) -> torch.Tensor:
    """Fills `tensor` with normal values of `stddev`, none further than two of them from zero.

    torch's `trunc_normal_` takes its bounds as absolute values; they are scaled here, which torchvision leaves out.
    """
    bound = CUT_IN_STDDEVS * stddev
    return nn.init.trunc_normal_(tensor, std=stddev, a=-bound, b=bound, generator=generator)


def initialise_conv(module: ConvNorm, generator: torch.Generator | None = None) -> None:
    truncated_normal_(module.conv.weight, module.spec.init_stddev, generator)
    if module.conv.bias is not None:
        nn.init.zeros_(module.conv.bias)
    if isinstance(module.bn, nn.BatchNorm2d):
        module.bn.reset_running_stats()
        nn.init.zeros_(module.bn.bias)
        if module.bn.weight is not None:
            nn.init.ones_(module.bn.weight)


def initialise_linear(module: nn.Linear, stddev: float, generator: torch.Generator | None = None) -> None:
    truncated_normal_(module.weight, stddev, generator)
    nn.init.zeros_(module.bias)
