"""One fused pass through a network: which modules become units, and what is kept of their outputs."""

from __future__ import annotations

import weakref

import torch
from torch import Tensor, nn

from reinception.model.build import Network, Outputs
from reinception.model.layers import Branches, ConvNorm
from reinception.train.fused.kept_tensors import Kept, KeptConcatenation, KeptTensor
from reinception.train.fused.units import ConvHead, Pooled, SideBySide, computing_dtype


def fused_outputs(network: Network, images: Tensor) -> Outputs:
    """`network.outputs` for normalised images (n, 3, h, w), with a backward pass that keeps one activation a layer.

    The same values (in float32 to the last bit on a processor, in 16 bits up to rounding), and the running statistics
    move in the same way. It can be differentiated once. A layer whose batch norm is not in training mode is computed by
    its own module.

    Source: what is kept follows Rota Bulò et al. 2018 (arXiv 1712.02616), section 3.2, the variant with checkpointing;
    the average pool behind its 1x1 convolution is `rewrite.rules.move_pool_behind_pointwise`.

    Example:
        >>> import torch, reinception as ri
        >>> network = ri.create("inception_v3", num_classes=2, width=0.1, input_size=75, aux="adaptive").train()
        >>> fused_outputs(network, torch.zeros(2, 3, 75, 75)).logits.shape
        torch.Size([2, 2])
    """
    return network.outputs(images, through=_Pass().run)


class _Pass:
    """One forward pass: `run` computes modules, and remembers what is kept of each activation."""

    def __init__(self) -> None:
        self._kept: dict[int, tuple[weakref.ref[Tensor], Kept]] = {}

    def run(self, module: nn.Module, images: Tensor) -> Tensor:
        """The output of `module` for `images` (n, c, h, w)."""
        if not torch.is_grad_enabled():
            return module(images)
        if isinstance(module, nn.Sequential):
            return self._chain(list(module), images)
        if isinstance(module, Branches):
            return self._branches(module, images)
        if isinstance(module, ConvNorm) and _is_unit(module):
            return self._side_by_side([ConvHead(module)], images)[0]
        if isinstance(module, nn.MaxPool2d | nn.AvgPool2d) and images.requires_grad:
            return self._remember(Pooled.apply(images, self._source(images), module))
        return module(images)

    def _chain(self, modules: list[nn.Module], images: Tensor) -> Tensor:
        while modules:
            head, modules = first_unit(modules, images)
            if head is None:
                module, *modules = modules
                images = self.run(module, images)
            else:
                (images,) = self._side_by_side([head], images)
        return images

    def _branches(self, module: Branches, images: Tensor) -> Tensor:
        chains = [list(chain) for chain in module.children() if isinstance(chain, nn.Sequential)]
        split = [first_unit(chain, images) for chain in chains]
        firsts = iter(self._side_by_side([head for head, _ in split if head is not None], images))
        outputs = [self._chain(rest, images if head is None else next(firsts)) for head, rest in split]
        whole = torch.cat(outputs, dim=1)
        return self._remember(whole, KeptConcatenation([self._source(one) for one in outputs]))

    def _side_by_side(self, heads: list[ConvHead], images: Tensor) -> list[Tensor]:
        if not heads:
            return []
        parameters = [one for head in heads for one in head.parameters]
        outputs = SideBySide.apply(images, self._source(images), heads, *parameters)
        return [self._remember(one, head.output) for one, head in zip(outputs, heads, strict=True)]

    def _remember(self, images: Tensor, kept: Kept | None = None) -> Tensor:
        self._kept[id(images)] = (weakref.ref(images), kept or KeptTensor(images))
        return images

    def _source(self, images: Tensor) -> Kept:
        """What is kept of `images`; the tensor itself where it came from elsewhere."""
        reference, kept = self._kept.get(id(images), (None, None))
        if reference is None or kept is None or reference() is not images:
            kept = KeptTensor(images)
            self._kept[id(images)] = (weakref.ref(images), kept)
        return kept


def first_unit(modules: list[nn.Module], images: Tensor) -> tuple[ConvHead | None, list[nn.Module]]:
    """The unit that a chain begins with, an average pool being moved behind the 1x1 convolution after it, and the rest.

    Both are linear on different axes, so only rounding differs: the pool moves where the numbers are 16 bits long, and
    in float32 the values stay those of the plain step to the last bit. It moves where it keeps the size, and where no
    bias is added before it that a border of zeros would shrink.
    """
    is_short = computing_dtype(images).itemsize == 2
    match modules:
        case [ConvNorm() as layer, *rest] if _is_unit(layer):
            return ConvHead(layer), rest
        case [nn.AvgPool2d(stride=1 | (1, 1)) as pool, ConvNorm() as layer, *rest] if _is_unit(layer) and is_short:
            conv = layer.conv
            is_pointwise = conv.kernel_size == conv.stride == (1, 1) and conv.padding == (0, 0)
            keeps_bias = conv.bias is None or not pool.count_include_pad
            if is_pointwise and keeps_bias and conv.out_channels < conv.in_channels:
                return ConvHead(layer, pool), rest
    return None, modules


def _is_unit(layer: ConvNorm) -> bool:
    """Whether a layer is computed as a unit: with the batch's statistics, or without any."""
    norm = layer.bn
    return norm.training and norm.momentum is not None if isinstance(norm, nn.BatchNorm2d) else True
