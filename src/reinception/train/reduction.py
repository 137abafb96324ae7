"""How gradients of the replicas of a step become one mean: order-independent sum, DDP, or one process; batch norm."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn

from reinception.distributed import Ranks
from reinception.model.build import Network, Outputs
from reinception.train.config import Reduction
from reinception.train.forward import Forward

# Elements of a gradient up to 2**16 are added in fine units, larger ones in units 2**32 times as coarse, about as fine
# as their own float32; beyond 2**48 the sum would not fit, and the replica's gradient counts as infinite.
FINE_BITS = 16
COARSER_BITS = 32
LARGEST_FINE = 2.0**FINE_BITS
LARGEST_ELEMENT = 2.0 ** (FINE_BITS + COARSER_BITS)
TOTAL_BITS = 62


def make_reducer(
    kind: Reduction, network: Network, *, replicas: int, ranks: Ranks, forward: Forward | None = None
) -> Reducer:
    """The reduction of `kind` for the gradients of `replicas` on `ranks`; one replica alone needs no exact sum.

    `forward` computes the network's outputs for normalised images (n, 3, h, w); without it the network does.
    """
    forward = forward or network.outputs
    if kind == "exact" and replicas > 1:
        return FixedPointSum(network, replicas=replicas, ranks=ranks, forward=forward)
    if ranks.world_size > 1:
        return DataParallelMean(network, replicas=replicas, ranks=ranks, forward=forward)
    return LocalSum(network, replicas=replicas, forward=forward)


class LocalSum:
    """Gradients accumulated by autograd in one process: there the order of the replicas is always the same."""

    can_stop_early = True
    """Whether a step may be left before its last replica: other ranks do not wait for it."""

    def __init__(self, network: Network, *, replicas: int, forward: Forward) -> None:
        self._network, self._replicas = network, replicas
        self.forward = forward
        """the network's outputs for normalised images (n, 3, s, s)"""

    def begin(self) -> None:
        """Clears the gradients, before the first replica of a step."""
        self._network.zero_grad(set_to_none=True)

    @contextmanager
    def replica(self, *, is_last: bool) -> Iterator[None]:
        """Around the forward and backward pass of each replica."""
        yield

    def backward(self, loss: Tensor) -> Tensor:
        """Adds the gradient of a replica's scalar `loss`; returns a scalar that is finite where it can be used."""
        (loss / self._replicas).backward()
        return loss

    def finish(self) -> None:
        """Leaves the mean gradient of all replicas of all ranks in the parameters: autograd has done it."""


class DataParallelMean:
    """torch's DistributedDataParallel: gradient buckets are reduced while the last replica still goes backward."""

    can_stop_early = False

    def __init__(self, network: Network, *, replicas: int, ranks: Ranks, forward: Forward) -> None:
        module = ranks.data_parallel(_WithOutputs(network, forward))
        assert module is not None
        self._module = module
        self.forward: Forward = module
        self._scale = ranks.world_size / replicas  # it takes the mean over ranks, whose numbers of replicas may differ

    def begin(self) -> None:
        self._module.zero_grad(set_to_none=True)

    @contextmanager
    def replica(self, *, is_last: bool) -> Iterator[None]:
        until_last = nullcontext() if is_last else self._module.no_sync()  # gradients stay on this rank
        with warnings.catch_warnings(), until_last:
            warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")  # only slower
            yield

    def backward(self, loss: Tensor) -> Tensor:
        (loss * self._scale).backward()
        return loss

    def finish(self) -> None:
        """The last replica's backward pass has done it."""


class _WithOutputs(nn.Module):
    """A module with the network's parameters whose forward gives its outputs, as DistributedDataParallel wants it."""

    def __init__(self, network: Network, outputs: Forward) -> None:
        super().__init__()
        self.network, self._outputs = network, outputs

    def forward(self, images: Tensor) -> Outputs:
        return self._outputs(images)


class FixedPointSum:
    """Gradients as multiples of one power of two, added as integers: the same bits in any order, on any ranks.

    The power depends on the number of replicas alone: `2**-bits` with room for `replicas` times LARGEST_FINE in 62
    bits, so 6 replicas are summed in units of 2**-43 (1.1e-13), finer than float32 adds numbers above 2e-6. A fixed
    scale needs one accumulator of 8 bytes per parameter however many replicas there are, and no second pass. The few
    elements that are too large for it, in batches of two or three images, have another, made when it is first needed.
    """

    can_stop_early = True

    def __init__(self, network: Network, *, replicas: int, ranks: Ranks, forward: Forward) -> None:
        self._network, self._replicas, self._ranks, self.forward = network, replicas, ranks, forward
        self.bits = TOTAL_BITS - FINE_BITS - math.ceil(math.log2(replicas))
        self._trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
        sizes = [parameter.numel() for parameter in self._trained]
        self._total = torch.zeros(sum(sizes), dtype=torch.int64, device=self._trained[0].device)
        self._parts = self._split(self._total)
        self._coarse: Tensor | None = None  # of this step

    def begin(self) -> None:
        self._total.zero_()
        self._coarse = None

    @contextmanager
    def replica(self, *, is_last: bool) -> Iterator[None]:
        self._network.zero_grad(set_to_none=True)
        yield

    def backward(self, loss: Tensor) -> Tensor:
        loss.backward()
        return self.add()

    @torch.no_grad()
    def add(self) -> Tensor:
        """Adds the parameters' gradients to the sum and returns the largest element; inf, and nothing is added, where
        an element is too large or not finite."""
        with_gradient = [
            (parameter.grad, index) for index, parameter in enumerate(self._trained) if parameter.grad is not None
        ]
        extremes = [torch.stack(torch.aminmax(gradient.detach())) for gradient, _ in with_gradient]
        largest = torch.stack(extremes).abs().max()  # NaN if any gradient is NaN
        if not bool(largest <= LARGEST_ELEMENT):
            return torch.full_like(largest, math.inf)
        if bool(largest > LARGEST_FINE):
            self._coarse = torch.zeros_like(self._total) if self._coarse is None else self._coarse
            for gradient, part in ((gradient, self._split(self._coarse)[index]) for gradient, index in with_gradient):
                too_large = torch.where(gradient.abs() > LARGEST_FINE, gradient, 0.0)
                part.add_(too_large.mul(2.0 ** (self.bits - COARSER_BITS)).round_().to(torch.int64))
                gradient.sub_(too_large)
        for gradient, index in with_gradient:
            self._parts[index].add_(gradient.mul(2.0**self.bits).round_().to(torch.int64))
        return largest

    @torch.no_grad()
    def finish(self) -> None:
        """The mean over all replicas becomes the parameters' gradient."""
        self._ranks.all_reduce(self._total)
        coarse = [None] * len(self._parts) if not self._add_coarse() else self._split(self._coarse)
        for parameter, part, large in zip(self._trained, self._parts, coarse, strict=True):
            total = part.to(torch.float64).mul_(2.0**-self.bits)
            if large is not None:
                total.add_(large.to(torch.float64), alpha=2.0 ** (COARSER_BITS - self.bits))
            parameter.grad = torch.empty_like(parameter).copy_(total.div_(self._replicas))

    def _add_coarse(self) -> bool:
        """Sums the coarse accumulators where any rank has one; whether there is one."""
        if not any(has for (has,) in self._ranks.all_gather_numbers(self._coarse is not None)):
            return False
        self._coarse = torch.zeros_like(self._total) if self._coarse is None else self._coarse
        self._ranks.all_reduce(self._coarse)
        return True

    def _split(self, total: Tensor | None) -> list[Tensor]:
        """Each parameter's part of an accumulator, in the parameter's own layout."""
        assert total is not None
        parts = total.split([parameter.numel() for parameter in self._trained])
        return [
            part.as_strided(parameter.shape, parameter.stride())
            for part, parameter in zip(parts, self._trained, strict=True)
        ]


Reducer = LocalSum | DataParallelMean | FixedPointSum


class BatchStatistics:
    """The running statistics of the batch norms in training mode, kept apart while a step's replicas are computed.

    Within `apart` each forward pass leaves its own batch's mean and variance in the buffers (`row`); afterwards the
    buffers are as they were. `update` then moves them by one replica after another, in order.
    """

    def __init__(self, network: Network) -> None:
        self._norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
        self._momenta = [module.momentum for module in self._norms]
        self._weights_of: tuple[tuple[int, float], ...] | None = None
        self._weights = torch.empty(0)

    def _training(self) -> list[nn.BatchNorm2d]:
        return [norm for norm in self._norms if norm.training]

    def _buffers(self) -> list[Tensor]:
        buffers: list[Tensor] = []
        for norm in self._training():
            assert norm.running_mean is not None and norm.running_var is not None
            buffers += [norm.running_mean, norm.running_var]
        return buffers

    def row(self) -> Tensor:
        """All buffers one after the other, (c,); empty where no batch norm is in training mode."""
        buffers = self._buffers()
        return torch.cat(buffers) if buffers else torch.empty(0)

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Inside the block the buffers hold single batches, after it what they held before."""
        before = self.row()
        counts = [norm.num_batches_tracked.clone() for norm in self._training() if norm.num_batches_tracked is not None]
        self._set_momentum(1.0)
        try:
            yield
        finally:
            self._set_momentum(None)
            self._restore(before)
            for norm, count in zip(self._training(), counts, strict=True):
                assert norm.num_batches_tracked is not None
                norm.num_batches_tracked.copy_(count)  # in place: the average follows this very tensor

    @torch.no_grad()
    def update(self, rows: Tensor) -> None:
        """Moves the running statistics by the batch statistics of each replica, (R, c), first to last."""
        running = self.row()
        norms = self._training()
        key = tuple((norm.num_features, norm.momentum or 0.0) for norm in norms)
        if key != self._weights_of:  # made once: to send it to a GPU is to wait for it
            weights = [torch.full((2 * num,), momentum) for num, momentum in key]
            self._weights_of, self._weights = key, torch.cat(weights).to(running) if weights else running
        weight = self._weights
        for row in rows:
            running.lerp_(row, weight)
        self._restore(running)
        for norm in self._training():
            assert norm.num_batches_tracked is not None
            norm.num_batches_tracked.add_(len(rows))

    @torch.no_grad()
    def _restore(self, row: Tensor) -> None:
        buffers = self._buffers()
        for buffer, part in zip(buffers, row.split([buffer.numel() for buffer in buffers]), strict=True):
            buffer.copy_(part)

    def _set_momentum(self, momentum: float | None) -> None:
        """`momentum` for every norm, or with None each its own again."""
        for norm, own in zip(self._norms, self._momenta, strict=True):
            norm.momentum = own if momentum is None else momentum
