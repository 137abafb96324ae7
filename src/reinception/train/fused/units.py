"""Differentiable units of a fused step: convolutions side by side with norm and ReLU, and pools.

Each is made of torch's own operators and keeps what kept_tensors.py says, so it can be differentiated once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from reinception.model.layers import ConvNorm
from reinception.train.fused.kept_tensors import Kept, KeptNormalised, KeptTensor, masked

aten = torch.ops.aten
CHANNELS_LAST = torch.channels_last


@dataclass(eq=False)
class ConvHead:
    """A convolution with what follows it; with `pool` an average pool stands between it and its normalisation.

    `output` is what the backward pass needs of its output, known after the forward pass.
    """

    layer: ConvNorm
    pool: nn.AvgPool2d | None = None
    output: Kept = field(init=False)

    @property
    def parameters(self) -> list[Tensor | None]:
        """Weight and bias of the convolution, gamma and beta, None for what it has not."""
        norm = self.norm
        conv = self.layer.conv
        return [conv.weight, conv.bias, *((None, None) if norm is None else (norm.weight, norm.bias))]

    @property
    def norm(self) -> nn.BatchNorm2d | None:
        return self.layer.bn if isinstance(self.layer.bn, nn.BatchNorm2d) else None

    def forward(self, images: Tensor) -> Tensor:
        """The output for `images` (n, c, h, w) in the type to compute in."""
        conv, is_rectified = self.layer.conv, isinstance(self.layer.act, nn.ReLU)
        weight = conv.weight.to(images.dtype)
        bias = None if conv.bias is None else conv.bias.to(images.dtype)
        outputs = torch.conv2d(images, weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups)
        if self.pool is not None:
            outputs = self.pool(outputs)
        if self.norm is not None:
            kept = KeptNormalised(outputs, self.norm, is_rectified=is_rectified)
            outputs = kept.forward()
        else:
            outputs = outputs.relu_() if is_rectified else outputs
            kept = KeptTensor(outputs)
        self.output = kept.announce()
        return outputs

    def backward_to_conv(self, gradient: Tensor, shape: Sequence[int]) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """From the gradient for the output those for the convolution's output of `shape`, for gamma and for beta."""
        gamma = beta = None
        if isinstance(self.output, KeptNormalised):
            needed = tuple(one is not None and one.requires_grad for one in self.parameters[2:])
            gradient, gamma, beta = self.output.backward(gradient, (True, needed[0], needed[1]))
        elif isinstance(self.layer.act, nn.ReLU):
            gradient = masked(gradient, self.output.take())
        else:
            self.output.take()
        if self.pool is not None:
            gradient = average_pool_backward(gradient, self.pool, shape)
        return gradient, gamma, beta


class SideBySide(torch.autograd.Function):
    """The outputs of heads that read one tensor; their gradients for it are added up where they are computed."""

    @staticmethod
    def forward(
        ctx: Any, images: Tensor, source: Kept, heads: Sequence[ConvHead], *_: Tensor | None
    ) -> tuple[Tensor, ...]:
        ctx.source, ctx.heads = source.announce(), heads
        ctx.dtype, ctx.device_type = images.dtype, images.device.type
        ctx.compute = computing_dtype(images)
        with torch.autocast(ctx.device_type, enabled=False):
            images = images.to(ctx.compute)
            return tuple(head.forward(images) for head in heads)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> Any:  # pyrefly: ignore[bad-override]
        heads, ctx.heads = ctx.heads, ()
        source, ctx.source = ctx.source, None
        found: list[Tensor | None] = []
        total: Tensor | None = None
        with torch.autocast(ctx.device_type, enabled=False):
            images = source.take().to(ctx.compute)
            for head, above in zip(heads, grad_outputs, strict=True):
                conv = head.layer.conv
                size = _output_size(conv, images)
                gradient, gamma, beta = head.backward_to_conv(above, size)
                total, weight, bias = _conv_backward(
                    conv, gradient, images, total, needs_images=ctx.needs_input_grad[0]
                )
                found += [weight, bias, gamma, beta]
        return (None if total is None else total.to(ctx.dtype), None, None, *found)


class Pooled(torch.autograd.Function):
    """A pool that keeps nothing: the indices of the maxima are found once more from its input."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, source: Kept, pool: nn.MaxPool2d | nn.AvgPool2d) -> Tensor:
        ctx.source, ctx.pool, ctx.shape = source.announce(), pool, images.shape
        return pool(images)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> Any:  # pyrefly: ignore[bad-override]
        (gradient,) = grad_outputs
        source, ctx.source = ctx.source, None
        images, pool = source.take(), ctx.pool
        if isinstance(pool, nn.AvgPool2d):
            return average_pool_backward(gradient, pool, ctx.shape), None, None
        window = (*_window(pool), [1, 1], pool.ceil_mode)
        _, indices = aten.max_pool2d_with_indices(images, *window)
        gradient = gradient.contiguous(memory_format=_format(images))
        return aten.max_pool2d_with_indices_backward(gradient, images, *window, indices), None, None


def computing_dtype(images: Tensor) -> torch.dtype:
    """What a convolution of `images` computes in: autocast's type inside autocast, else its own."""
    kind = images.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else images.dtype


def average_pool_backward(gradient: Tensor, pool: nn.AvgPool2d, shape: Sequence[int]) -> Tensor:
    """The gradient for the pool's input of `shape` (n, c, h, w).

    On a processor torch's operator. Elsewhere a pool that keeps the size is its own transpose, so that it is computed
    as a pool of the gradient: on CUDA torch's operator is wrong for a padded pool of a channels-last tensor before
    July 2026 (pytorch#188344); other padded pools take the other layout there.
    """
    kernel, stride, padding = _window(pool)
    is_padded = gradient.device.type != "cpu" and any(padding)
    if is_padded and stride == [1, 1] and all(2 * p + 1 == k for k, p in zip(kernel, padding, strict=True)):
        return same_size_average_backward(gradient, pool)
    kept = torch.contiguous_format if is_padded else _format(gradient)
    like = gradient.new_empty(list(shape)).contiguous(memory_format=kept)  # only its shape is read
    back = aten.avg_pool2d_backward(
        gradient.contiguous(memory_format=kept), like, kernel, stride, padding, pool.ceil_mode,
        pool.count_include_pad, pool.divisor_override,
    )  # fmt: skip
    return back.contiguous(memory_format=_format(gradient))


def same_size_average_backward(gradient: Tensor, pool: nn.AvgPool2d) -> Tensor:
    """The gradient for the input of a pool with stride 1 that keeps the size, by a forward pool with a border of zeros.

    Each output spreads its gradient, divided as it divides, over the window around it.
    """
    kernel, stride, padding = _window(pool)
    if not pool.count_include_pad and pool.divisor_override is None:
        exact = torch.promote_types(gradient.dtype, torch.float32)
        ones = gradient.new_ones((1, 1, *gradient.shape[2:]), dtype=exact)
        inside = torch.nn.functional.avg_pool2d(ones, kernel, stride, padding)  # the part of each window that exists
        gradient = gradient / inside.to(gradient.dtype)
    return torch.nn.functional.avg_pool2d(
        gradient, kernel, stride, padding, count_include_pad=True, divisor_override=pool.divisor_override
    )


def _conv_backward(
    conv: nn.Conv2d, gradient: Tensor, images: Tensor, total: Tensor | None, *, needs_images: bool
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """`total` with this convolution's gradient for `images` added, and the gradients for weight and bias."""
    weight = conv.weight.to(images.dtype)
    is_added = needs_images and total is not None and _is_product(conv, gradient, total)
    mask = [needs_images and not is_added, conv.weight.requires_grad, conv.bias is not None and conv.bias.requires_grad]
    bias_sizes = None if conv.bias is None else [conv.out_channels]
    own, weight_gradient, bias_gradient = aten.convolution_backward(
        gradient, images, weight, bias_sizes, conv.stride, conv.padding, conv.dilation, False, [0, 0], conv.groups, mask
    )
    if is_added:
        assert total is not None
        _rows(total).addmm_(_rows(gradient), weight.flatten(1))
    elif needs_images:
        total = own if total is None else total.add_(own)
    grads = [None if one is None else one.to(conv.weight.dtype) for one in (weight_gradient, bias_gradient)]
    return total, grads[0], grads[1]


def _is_product(conv: nn.Conv2d, gradient: Tensor, total: Tensor) -> bool:
    """Whether the gradient for the images is one matrix product that can be added to `total` as it is computed."""
    is_pointwise = conv.kernel_size == conv.stride == (1, 1) and conv.padding == (0, 0) and conv.groups == 1
    return is_pointwise and all(one.is_contiguous(memory_format=CHANNELS_LAST) for one in (gradient, total))


def _rows(images: Tensor) -> Tensor:
    """(n, c, h, w) in channels-last memory as the matrix (n h w, c) that it is."""
    return images.permute(0, 2, 3, 1).reshape(-1, images.shape[1])


def _output_size(conv: nn.Conv2d, images: Tensor) -> list[int]:
    sides = [
        (side + 2 * int(pad) - kernel) // stride + 1
        for side, pad, kernel, stride in zip(images.shape[2:], conv.padding, conv.kernel_size, conv.stride, strict=True)
    ]
    return [images.shape[0], conv.out_channels, *sides]


def _window(pool: nn.MaxPool2d | nn.AvgPool2d) -> tuple[list[int], list[int], list[int]]:
    """Kernel, stride and padding as pairs."""
    pairs = [[one, one] if isinstance(one, int) else list(one) for one in (pool.kernel_size, pool.stride, pool.padding)]
    return pairs[0], pairs[1], pairs[2]


def _format(images: Tensor) -> torch.memory_format:
    is_last = images.is_contiguous(memory_format=CHANNELS_LAST) and not images.is_contiguous()
    return CHANNELS_LAST if is_last else torch.contiguous_format
