"""Average pooling whose gradient is right on every device: one kernel of torch's is asked first whether it is."""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class AveragePool(nn.AvgPool2d):
    """nn.AvgPool2d, in the other memory layout where torch's gradient for a channels-last tensor is wrong."""

    def forward(self, input: Tensor) -> Tensor:  # torch's name for it
        """(n, c, h, w) -> (n, c, h', w')."""
        if not torch.jit.is_scripting():  # noqa: SIM102 - alone, so that TorchScript leaves out what is below it
            if self._needs_other_layout(input):
                return self._averages(input.contiguous()).contiguous(memory_format=torch.channels_last)
        return self._averages(input)

    def _averages(self, input: Tensor) -> Tensor:  # what nn.AvgPool2d does; TorchScript knows no super()
        return F.avg_pool2d(
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.ceil_mode,
            self.count_include_pad,
            self.divisor_override,
        )

    def _needs_other_layout(self, images: Tensor) -> bool:
        # Traced or compiled there are no values to ask with, and a compiler has a gradient of its own.
        if torch.jit.is_tracing() or torch.compiler.is_compiling() or not isinstance(images, Tensor):
            return False
        is_padded = self.padding not in (0, (0, 0))
        return is_padded and images.requires_grad and not images.is_contiguous() and gradient_is_wrong(images.device)


@cache
def gradient_is_wrong(device: torch.device) -> bool:
    """Whether torch's gradient of a padded average pool is wrong on `device` for a channels-last tensor.

    On CUDA it was, silently, until July 2026 (pytorch#188344). The gradient of the sum of all averages over 3 x 3
    pixels, border counted, is the number of windows that each pixel is in, over nine.
    """
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device.type, enabled=False):
        images = torch.zeros(1, 8, 4, 4, device=device).contiguous(memory_format=torch.channels_last).requires_grad_()
        F.avg_pool2d(images, 3, 1, 1).sum().backward()
        assert images.grad is not None
        windows = torch.tensor([2.0, 3.0, 3.0, 2.0], device=device)
        right = torch.outer(windows, windows) / 9
        return not torch.allclose(images.grad, right.expand_as(images), atol=1e-3)
