"""A network for torch.compile: pools whose gradient the compiler gets wrong, or computes slowly, stay torch's own.

Inductor's gradient of a maximum is a scatter that took a third of a compiled step, and its gradient of an average is
wrong for a window that hangs over the border in ceil mode (pytorch#198119).
"""

from typing import Any

import torch
from torch import Tensor, nn

from reinception.model.layers import Branches

aten = torch.ops.aten
DILATION = [1, 1]


def through_compiler(module: nn.Module, images: Tensor) -> Tensor:
    """The output of `module` for `images` (n, c, h, w), such pools being operators of their own."""
    if isinstance(module, nn.Sequential):
        for child in module:
            images = through_compiler(child, images)
        return images
    if isinstance(module, Branches):
        return torch.cat([through_compiler(branch, images) for branch in module.children()], dim=1)
    if isinstance(module, nn.MaxPool2d):
        return max_pool(images, *_window(module), module.ceil_mode)[0]
    if isinstance(module, nn.AvgPool2d) and module.ceil_mode:
        return average_pool(images, *_window(module), module.count_include_pad)
    return module(images)


def _window(pool: nn.MaxPool2d | nn.AvgPool2d) -> tuple[list[int], list[int], list[int]]:
    sizes = (pool.kernel_size, pool.stride, pool.padding)
    kernel, stride, padding = ([one, one] if isinstance(one, int) else list(one) for one in sizes)
    return kernel, stride, padding


@torch.library.custom_op("reinception::max_pool", mutates_args=())
def max_pool(
    images: Tensor, kernel: list[int], stride: list[int], padding: list[int], ceil_mode: bool
) -> tuple[Tensor, Tensor]:
    """Maxima of windows and their indices, (n, c, h', w') each."""
    return aten.max_pool2d_with_indices(images, kernel, stride, padding, DILATION, ceil_mode)


@torch.library.custom_op("reinception::max_pool_backward", mutates_args=())
def _max_pool_backward(  # noqa: PLR0917 - the order of torch's own operator
    gradient: Tensor, images: Tensor, kernel: list[int], stride: list[int], padding: list[int], ceil_mode: bool,
    indices: Tensor,
) -> Tensor:  # fmt: skip
    return aten.max_pool2d_with_indices_backward(
        gradient, images, kernel, stride, padding, DILATION, ceil_mode, indices
    )


@torch.library.custom_op("reinception::average_pool", mutates_args=())
def average_pool(
    images: Tensor, kernel: list[int], stride: list[int], padding: list[int], count_include_pad: bool
) -> Tensor:
    """Averages of windows that may hang over the border, (n, c, h', w')."""
    return aten.avg_pool2d(images, kernel, stride, padding, True, count_include_pad)


@torch.library.custom_op("reinception::average_pool_backward", mutates_args=())
def _average_pool_backward(  # noqa: PLR0917 - the order of torch's own operator
    gradient: Tensor, images: Tensor, kernel: list[int], stride: list[int], padding: list[int], count_include_pad: bool
) -> Tensor:
    if any(padding) and images.is_cuda:  # where the other layout may be wrong (pytorch#188344)
        gradient, images = gradient.contiguous(), images.contiguous()
    return aten.avg_pool2d_backward(gradient, images, kernel, stride, padding, True, count_include_pad, None)


@max_pool.register_fake
def _(images: Tensor, kernel: list[int], stride: list[int], padding: list[int], ceil_mode: bool) -> Any:
    return aten.max_pool2d_with_indices(images, kernel, stride, padding, DILATION, ceil_mode)


@average_pool.register_fake
def _(images: Tensor, kernel: list[int], stride: list[int], padding: list[int], count_include_pad: bool) -> Tensor:
    return aten.avg_pool2d(images, kernel, stride, padding, True, count_include_pad)


@_max_pool_backward.register_fake
def _(gradient: Tensor, images: Tensor, *window: Any) -> Tensor:
    return torch.empty_like(images)


@_average_pool_backward.register_fake
def _(gradient: Tensor, images: Tensor, *window: Any) -> Tensor:
    return torch.empty_like(images, memory_format=torch.contiguous_format if images.is_cuda else torch.preserve_format)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    images, *ctx.window = inputs
    ctx.save_for_backward(images, *(output[1:] if isinstance(output, tuple) else ()))


def _max_gradient(ctx: Any, gradient: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
    images, indices = ctx.saved_tensors
    return _max_pool_backward(gradient, images, *ctx.window, indices), None, None, None, None


def _average_gradient(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    (images,) = ctx.saved_tensors
    return _average_pool_backward(gradient, images, *ctx.window), None, None, None, None


max_pool.register_autograd(_max_gradient, setup_context=_keep)
average_pool.register_autograd(_average_gradient, setup_context=_keep)
