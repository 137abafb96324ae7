"""How the replicas of a step become one: statistics of their own, gradients summed exactly or as fast as may be."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from reinception.data.images.random_stream import RandomStream
from reinception.data.loading.loader import Batch, normalise
from reinception.distributed import Ranks, no_sync
from reinception.machine import autocast
from reinception.model.build import Network
from reinception.preprocess import Preprocessing
from reinception.recipe import Recipe
from reinception.train.config import Reduction
from reinception.train.loss import training_loss
from reinception.train.mixing import mix
from reinception.train.run.signals import Stop

# Elements of a gradient up to 2**16 are added on a fine grid, larger ones on one that is 2**32 times as coarse, about
# as fine as their own float32; beyond 2**48 the sum would not fit, and the replica's gradient counts as infinite.
FINE_BITS = 16
COARSER_BITS = 32
LARGEST_FINE = 2.0**FINE_BITS
LARGEST_ELEMENT = 2.0 ** (FINE_BITS + COARSER_BITS)
TOTAL_BITS = 62


@dataclass(frozen=True, kw_only=True)
class Combined:
    """One step's replicas together: mean losses, and each replica's batch statistics (R, c) in order.

    `unhealthy` are the replicas whose loss, statistics or gradient was not finite.
    """

    main: float
    auxiliary: float | None
    unhealthy: tuple[int, ...]
    statistics: Tensor


class Replicas:
    """The replicas of `network`, of which `ranks` each compute a share."""

    def __init__(
        self,
        network: Network,
        recipe: Recipe,
        *,
        ranks: Ranks,
        reduction: Reduction,
        preprocessing: Preprocessing,
        seed: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.num = recipe.replicas
        self.shard = ranks.shard(recipe.replicas)
        self._ranks = ranks
        self._preprocessing = preprocessing
        self._seed = seed
        self._device = device
        self._mixing, self._num_classes = recipe.mixing, network.arch.num_classes
        self._losses = _StepLoss(network, recipe, dtype=dtype, device=device)
        self.statistics = BatchStatistics(network)
        self._sum: _Plain | ExactSum | _Overlapped
        if reduction == "exact" and self.num > 1:
            self._sum = ExactSum(self._losses, replicas=self.num, ranks=ranks)
        elif ranks.world_size > 1:
            self._sum = _Overlapped(self._losses, replicas=self.num, ranks=ranks)
        else:
            self._sum = _Plain(self._losses, replicas=self.num)

    def combine(self, batches: Iterable[Batch], *, step: int, stop: Stop) -> Combined:
        """Leaves the mean gradient of all replicas in the parameters and everything else as it was.

        `batches` are this rank's, one for each replica of its share. Interrupted where any rank was asked to stop.
        """
        rows: list[Tensor] = []
        self._sum.begin()
        with self.statistics.apart():
            for replica, batch in zip(self.shard, batches, strict=False):
                # Dropout is a function of what it is for, not of how many replicas this process has seen.
                torch.manual_seed(RandomStream("dropout", self._seed, step, replica).integer(2**32))
                images = normalise(batch.images.to(self._device), self._preprocessing)
                labels = batch.labels.to(self._device)
                if self._mixing is not None:
                    draws = RandomStream("mix", self._seed, step, replica)
                    images, labels = mix(images, labels, self._mixing, num_classes=self._num_classes, draws=draws)
                losses = self._sum.replica(images, labels, last=replica == self.shard[-1])
                numbers = [number.detach().float().reshape(1) for number in losses]
                rows.append(torch.cat([*numbers, self.statistics.row().to(self._device)]))
                if stop.number and self._sum.can_be_left:
                    break
                if replica == self.shard[-1]:
                    break  # before another batch is asked for
        stopped = [int(number) for (number,) in self._ranks.all_gather_numbers(stop.number)]
        if any(stopped):
            stop.number = stop.number or max(stopped)
            stop.check()
        table = self._ranks.all_gather_rows(torch.stack(rows))
        unhealthy = tuple(int(row) for row in (~table.isfinite().all(dim=1)).nonzero().flatten())
        if not unhealthy:
            self._sum.finish()
        means = table[:, :2].double().mean(dim=0).tolist()
        return Combined(
            main=means[0],
            auxiliary=means[1] if self._losses.has_auxiliary else None,
            unhealthy=unhealthy,
            statistics=table[:, 3:],
        )


class _StepLoss(nn.Module):
    """(images, targets) -> (total, main, auxiliary), scalars: a module, because that is what torch can parallelise."""

    def __init__(self, network: Network, recipe: Recipe, *, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__()
        self.network = network
        self._recipe, self._dtype, self._device = recipe, dtype, device
        self.has_auxiliary = bool(network.arch.aux)

    def forward(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with autocast(self._dtype, self._device):
            outputs = self.network.outputs(images)
        losses = training_loss(outputs, targets, self._recipe)
        auxiliary = torch.zeros_like(losses.main) if losses.auxiliary is None else losses.auxiliary
        return losses.total, losses.main, auxiliary


Parts = tuple[Tensor, Tensor, Tensor]
"""Main loss, auxiliary loss, and a number that is finite where the gradient is usable."""


class _Plain:
    """Gradients added up by autograd: one process, or one replica, where there is only one order."""

    can_be_left = True

    def __init__(self, losses: _StepLoss, *, replicas: int) -> None:
        self._losses, self._replicas = losses, replicas

    def begin(self) -> None:
        self._losses.zero_grad(set_to_none=True)

    def replica(self, images: Tensor, targets: Tensor, *, last: bool) -> Parts:
        total, main, auxiliary = self._losses(images, targets)
        (total / self._replicas).backward()
        return main, auxiliary, total

    def finish(self) -> None:
        """Nothing is left to do."""


class _Overlapped:
    """torch's DistributedDataParallel: buckets are reduced while the last replica still goes backward."""

    can_be_left = False  # the others wait for this rank's buckets

    def __init__(self, losses: _StepLoss, *, replicas: int, ranks: Ranks) -> None:
        module = ranks.data_parallel(losses)
        assert module is not None
        self._module = module
        self._scale = ranks.world_size / replicas  # it takes the mean over ranks, whose shares may differ

    def begin(self) -> None:
        self._module.zero_grad(set_to_none=True)

    def replica(self, images: Tensor, targets: Tensor, *, last: bool) -> Parts:
        with warnings.catch_warnings(), no_sync(self._module, last=last):
            warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")  # only slower
            total, main, auxiliary = self._module(images, targets)
            (total * self._scale).backward()
        return main, auxiliary, total

    def finish(self) -> None:
        """The last replica's backward has done it."""


class ExactSum:
    """Gradients as multiples of one power of two, added as integers: the same bits in any order, on any ranks.

    The power depends on the number of replicas alone: `2**-bits` with room for `replicas` times LARGEST_FINE in 62
    bits, so 6 replicas are summed in steps of 2**-43 (1.1e-13), finer than float32 adds numbers above 2e-6. A fixed
    scale needs one accumulator of 8 bytes per parameter however many replicas there are, and no second pass. The few
    elements that are too large for it, in batches of two or three images, have another, made when it is first needed.
    """

    can_be_left = True

    def __init__(self, losses: _StepLoss, *, replicas: int, ranks: Ranks) -> None:
        self._losses, self._replicas, self._ranks = losses, replicas, ranks
        self.bits = TOTAL_BITS - FINE_BITS - math.ceil(math.log2(replicas))
        self._learning = [parameter for parameter in losses.parameters() if parameter.requires_grad]
        sizes = [parameter.numel() for parameter in self._learning]
        self._total = torch.zeros(sum(sizes), dtype=torch.int64, device=self._learning[0].device)
        self._parts = self._split(self._total)
        self._coarse: Tensor | None = None  # of this step

    def begin(self) -> None:
        self._total.zero_()
        self._coarse = None

    def replica(self, images: Tensor, targets: Tensor, *, last: bool) -> Parts:
        self._losses.zero_grad(set_to_none=True)
        total, main, auxiliary = self._losses(images, targets)
        total.backward()
        return main, auxiliary, self._add()

    @torch.no_grad()
    def _add(self) -> Tensor:
        """Adds the gradients of the parameters; infinite where one is too large or no number, and nothing is added."""
        learned = [
            (parameter.grad, index) for index, parameter in enumerate(self._learning) if parameter.grad is not None
        ]
        extremes = [torch.stack(torch.aminmax(gradient.detach())) for gradient, _ in learned]
        largest = torch.stack(extremes).abs().max()  # no number where there is one that is none
        if not bool(largest <= LARGEST_ELEMENT):
            return torch.full_like(largest, math.inf)
        if bool(largest > LARGEST_FINE):
            self._coarse = torch.zeros_like(self._total) if self._coarse is None else self._coarse
            for gradient, part in ((gradient, self._split(self._coarse)[index]) for gradient, index in learned):
                too_large = torch.where(gradient.abs() > LARGEST_FINE, gradient, 0.0)
                part.add_(too_large.mul(2.0 ** (self.bits - COARSER_BITS)).round_().to(torch.int64))
                gradient.sub_(too_large)
        for gradient, index in learned:
            self._parts[index].add_(gradient.mul(2.0**self.bits).round_().to(torch.int64))
        return largest

    @torch.no_grad()
    def finish(self) -> None:
        """The mean over all replicas becomes the parameters' gradient."""
        self._ranks.all_reduce(self._total)
        coarse = [None] * len(self._parts) if not self._add_coarse() else self._split(self._coarse)
        for parameter, part, large in zip(self._learning, self._parts, coarse, strict=True):
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
        parts = total.split([parameter.numel() for parameter in self._learning])
        return [
            part.as_strided(parameter.shape, parameter.stride())
            for part, parameter in zip(parts, self._learning, strict=True)
        ]


class BatchStatistics:
    """The running statistics of the batch norms that learn, kept apart while the replicas of a step are computed.

    Within `apart` each forward pass leaves its own batch's mean and variance in the buffers (`row`); afterwards the
    buffers are as they were. `update` then moves them by one replica after another, in order.
    """

    def __init__(self, network: Network) -> None:
        self._norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
        self._momenta = [module.momentum for module in self._norms]

    def _learning(self) -> list[nn.BatchNorm2d]:
        return [norm for norm in self._norms if norm.training]

    def _buffers(self) -> list[Tensor]:
        buffers: list[Tensor] = []
        for norm in self._learning():
            assert norm.running_mean is not None and norm.running_var is not None
            buffers += [norm.running_mean, norm.running_var]
        return buffers

    def row(self) -> Tensor:
        """All buffers one after the other, (c,); empty where nothing learns."""
        buffers = self._buffers()
        return torch.cat(buffers) if buffers else torch.empty(0)

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Inside the block the buffers hold single batches, after it what they held before."""
        before = self.row()
        counts = [norm.num_batches_tracked.clone() for norm in self._learning() if norm.num_batches_tracked is not None]
        self._set_momentum(1.0)
        try:
            yield
        finally:
            self._set_momentum(None)
            self._put_back(before)
            for norm, count in zip(self._learning(), counts, strict=True):
                assert norm.num_batches_tracked is not None
                norm.num_batches_tracked.copy_(count)  # in place: the average follows this very tensor

    @torch.no_grad()
    def update(self, rows: Tensor) -> None:
        """Moves the running statistics by the batch statistics of each replica, (R, c), first to last."""
        running = self.row()
        weights = [torch.full((2 * norm.num_features,), norm.momentum or 0.0) for norm in self._learning()]
        weight = torch.cat(weights).to(running) if weights else running
        for row in rows:
            running.lerp_(row, weight)
        self._put_back(running)
        for norm in self._learning():
            assert norm.num_batches_tracked is not None
            norm.num_batches_tracked.add_(len(rows))

    @torch.no_grad()
    def _put_back(self, row: Tensor) -> None:
        buffers = self._buffers()
        for buffer, part in zip(buffers, row.split([buffer.numel() for buffer in buffers]), strict=True):
            buffer.copy_(part)

    def _set_momentum(self, momentum: float | None) -> None:
        """`momentum` for every norm, or with None each its own again."""
        for norm, own in zip(self._norms, self._momenta, strict=True):
            norm.momentum = own if momentum is None else momentum
