"""Torch modules for the layers of a spec; channel counts come from the spec alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from reinception.model.pooling import AveragePool
from reinception.spec import (
    AdaptivePool,
    BatchNorm,
    Chain,
    ChannelRange,
    Concat,
    Conv,
    Layer,
    LocalResponseNorm,
    Pool,
    SpecError,
)


class ConvNorm(nn.Module):
    """Convolution, then batch normalisation and ReLU where the spec has them. (n, c, h, w) -> (n, channels, h', w')."""

    def __init__(self, spec: Conv, in_channels: int) -> None:
        super().__init__()
        self.spec = spec
        window = (spec.kernel, spec.stride, spec.padding)
        self.conv = nn.Conv2d(in_channels, spec.channels, *window, groups=spec.groups, bias=spec.bias)
        self.bn = nn.Identity() if spec.batch_norm is None else _batch_norm(spec.batch_norm, spec.channels)
        self.act = nn.ReLU(inplace=True) if spec.activation == "relu" else nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(images)))


def _batch_norm(spec: BatchNorm, channels: int) -> nn.BatchNorm2d:
    """torch's own; without gamma (TF-slim's `scale=False`) it has a beta and no `weight`."""
    module = nn.BatchNorm2d(channels, eps=spec.epsilon)
    if not spec.scale:
        module.register_parameter("weight", None)
    return module


class Branches(nn.Module):
    """Branches side by side on one input, concatenated along the channels in the order of the spec."""

    def __init__(self, branches: dict[str, nn.Sequential]) -> None:
        super().__init__()
        for name, branch in branches.items():
            check_name(name)
            self.add_module(name, branch)

    def forward(self, images: Tensor) -> Tensor:
        outputs: list[Tensor] = []  # a loop, not a comprehension, which TorchScript would not read
        for branch in self.children():
            outputs.append(branch(images))
        return torch.cat(outputs, dim=1)


class ChannelSlice(nn.Module):
    """Some of the channels, after an activation where the spec has one. (n, c, h, w) -> (n, stop - start, h, w)."""

    def __init__(self, spec: ChannelRange) -> None:
        super().__init__()
        self.spec = spec

    def forward(self, images: Tensor) -> Tensor:
        part = images[:, self.spec.start : self.spec.stop]
        if self.spec.activation == "relu":
            return part.relu()
        # Convolutions of a view into a channels-last tensor gave wrong values on Apple GPUs (pytorch#180984).
        return part.contiguous(memory_format=torch.channels_last) if images.device.type == "mps" else part


def check_name(name: str) -> None:
    """SpecError for a name that would hide one of a torch module's own methods."""
    if hasattr(nn.Module, name):
        raise SpecError(f"{name!r} cannot name a stage or branch: torch modules use it themselves")


def module_of(layer: Layer, in_channels: int) -> tuple[nn.Module, int]:
    """The module for `layer` on `in_channels` channels, and the channels it puts out."""
    if isinstance(layer, Chain):
        modules = []
        for child in layer.layers:
            module, in_channels = module_of(child, in_channels)
            modules.append(module)
        return nn.Sequential(*modules), in_channels
    if isinstance(layer, Concat):
        branches: dict[str, nn.Sequential] = {}
        out_channels = 0
        for name, branch in layer.branches:
            module, channels = module_of(branch, in_channels)
            assert isinstance(module, nn.Sequential)
            branches[name] = module
            out_channels += channels
        return Branches(branches), out_channels
    if isinstance(layer, Conv):
        return ConvNorm(layer, in_channels), layer.channels
    if isinstance(layer, ChannelRange):
        return ChannelSlice(layer), layer.stop - layer.start
    return _parameter_free(layer), in_channels


def _parameter_free(layer: Pool | AdaptivePool | LocalResponseNorm) -> nn.Module:
    if isinstance(layer, AdaptivePool):
        return nn.AdaptiveAvgPool2d(layer.output)
    if isinstance(layer, LocalResponseNorm):
        return nn.LocalResponseNorm(layer.size, layer.alpha, layer.beta, layer.k)
    if layer.kind == "max":
        return nn.MaxPool2d(layer.kernel, layer.stride, layer.padding, ceil_mode=layer.ceil_mode)
    return AveragePool(layer.kernel, layer.stride, layer.padding, layer.ceil_mode, layer.count_include_pad)
