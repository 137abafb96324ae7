"""What the backward pass needs of an activation: the tensor itself, or what it is computed from once more."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Kept:
    """An activation that the backward pass can have again, for as many uses as were announced.

    The first `take` computes it, the last one forgets it, so it exists while the layers around it go backward and at
    no other time.
    """

    def __init__(self) -> None:
        self._uses = 0
        self._tensor: Tensor | None = None

    def announce(self) -> Kept:
        """One more `take` will come."""
        self._uses += 1
        return self

    @property
    def is_held(self) -> bool:
        """Whether it is in memory now."""
        return self._tensor is not None

    def take(self) -> Tensor:
        """The activation, (n, c, h, w)."""
        tensor = self._compute() if self._tensor is None else self._tensor
        self._uses -= 1
        self._tensor = tensor if self._uses > 0 else None
        if self._uses == 0:
            self._forget()
        return tensor

    def lend(self, tensor: Tensor) -> None:
        """The activation is known to be `tensor`, computed for something else, and need not be computed again."""
        if self._uses > 0:
            self._tensor = tensor

    def _compute(self) -> Tensor:
        raise NotImplementedError

    def _forget(self) -> None:
        """Lets go of what it would be computed from."""


class KeptTensor(Kept):
    """The tensor itself: an image, the output of a pool, of a convolution without batch normalisation."""

    def __init__(self, tensor: Tensor) -> None:
        super().__init__()
        self._own: Tensor | None = tensor.detach()  # without the graph, which would hold itself alive

    def _compute(self) -> Tensor:
        assert self._own is not None
        return self._own

    def _forget(self) -> None:
        self._own = None


class KeptNormalised(Kept):
    """Batch normalisation's input and its statistics; the output, after ReLU, is computed from them.

    On a processor the output that is computed again is the first one bit for bit.
    """

    def __init__(self, inputs: Tensor, norm: nn.BatchNorm2d, *, is_rectified: bool) -> None:
        super().__init__()
        self.inputs: Tensor | None = inputs
        """what is normalised, (n, c, h, w), until the backward pass is through with it"""
        self._norm, self._is_rectified = norm, is_rectified
        self._mean, self._inverse_deviation = torch.empty(0), torch.empty(0)

    def forward(self) -> Tensor:
        """The output, new memory; moves the running statistics as batch norm in training does."""
        norm, inputs = self._norm, self.inputs
        assert inputs is not None and norm.momentum is not None
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked.add_(1)
        outputs, self._mean, self._inverse_deviation = torch.native_batch_norm(
            inputs, norm.weight, norm.bias, norm.running_mean, norm.running_var, True, norm.momentum, norm.eps
        )
        return outputs.relu_() if self._is_rectified else outputs

    def _compute(self) -> Tensor:
        norm, inputs = self._norm, self.inputs
        assert inputs is not None
        # With the deviation in gamma each number is scaled by the same product as before: a variance that has this
        # inverse deviation to the last bit need not exist.
        scale = self._inverse_deviation if norm.weight is None else self._inverse_deviation * norm.weight.detach()
        bias = None if norm.bias is None else norm.bias.detach()
        ones = torch.ones_like(scale)
        outputs, _, _ = torch.native_batch_norm(inputs, scale, bias, self._mean, ones, False, 0.0, 0.0)
        return outputs.relu_() if self._is_rectified else outputs

    def backward(self, gradient: Tensor, needed: tuple[bool, bool, bool]) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients for the inputs, gamma and beta, from the `gradient` for the output; takes it once."""
        inputs, norm = self.inputs, self._norm
        if self._is_rectified:
            gradient = masked(gradient, self.take())
        else:
            self.take()
        return torch.ops.aten.native_batch_norm_backward(
            gradient, inputs, norm.weight, None, None, self._mean, self._inverse_deviation, True, norm.eps, needed
        )

    def _forget(self) -> None:
        self.inputs = None


class KeptConcatenation(Kept):
    """Activations beside each other along the channels."""

    def __init__(self, parts: Sequence[Kept]) -> None:
        super().__init__()
        self._parts = list(parts)

    def announce(self) -> Kept:
        """Its parts are taken once, where it is taken at all: the last of a network is averaged, and never is."""
        if self._uses == 0:
            for part in self._parts:
                part.announce()
        return super().announce()

    def _compute(self) -> Tensor:
        tensors = [part.take() for part in self._parts]
        whole = torch.cat(tensors, dim=1)
        for part, view in zip(self._parts, whole.split([tensor.shape[1] for tensor in tensors], dim=1), strict=True):
            part.lend(view)  # for its own layer, which goes backward next
        return whole

    def _forget(self) -> None:
        self._parts = []


def masked(gradient: Tensor, outputs: Tensor) -> Tensor:
    """A rectifier's gradient, from that for its `outputs`: where they are zero it is zero.

    In place where the gradient has memory of its own: of the passes of this package each makes a gradient for one layer
    alone. Not for a part of a concatenation's gradient: batch norm goes backward through a view with gaps some twenty
    times as slowly as through whole memory.
    """
    if gradient.is_contiguous() or gradient.is_contiguous(memory_format=torch.channels_last):
        return torch.ops.aten.threshold_backward.grad_input(gradient, outputs, 0, grad_input=gradient)
    return torch.ops.aten.threshold_backward(gradient, outputs, 0)
