"""The engine: one stream of image batches through a copy of a network, each image's row in order."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reinception import machine
from reinception.data.loading.evaluation_stream import EvaluationBatch, evaluation_batches
from reinception.data.loading.loader import normalise
from reinception.data.sources.records import Record
from reinception.errors import BadImage, ReinceptionError
from reinception.inference.compute import HERE, Compute, Progress
from reinception.model.build import Network
from reinception.preprocess import Crops, Preprocessing

_CPU_BLOCK, _CUDA_BLOCK = 16, 32

Row = npt.NDArray[np.float32]
"""What the network computed of one image: (k,) probabilities or (num_features,) features."""


class Engine:
    """A network as it is computed: a copy of its modules in evaluation mode, weights channels last on one device.

    The network given is never changed: its device, layout, mode and gradients stay; nor does the engine change when it
    is trained on. Float32 results depend on nothing but the image: not on batches, neighbours, or the layout that the
    network given has.

    Args:
        network: the network, in any mode, on any device.
        preprocessing: what becomes of an image's pixels.
        compute: device (None: the network's), precision, batches. UsageError for a device or precision that is not
            there.
    """

    def __init__(self, network: Network, preprocessing: Preprocessing, compute: Compute = HERE) -> None:
        own = next(network.parameters()).device
        self.device = own if compute.device is None else machine.choose_device(compute.device)
        self.dtype = machine.precision(compute.precision, self.device)
        self.preprocessing = preprocessing
        self.compute = compute
        self.network = _copy(network, self.device, self.dtype)

    @property
    def precision(self) -> str:
        """What it computes in: fp32 or bf16."""
        return "fp32" if self.dtype == torch.float32 else "bf16"

    @property
    def block_size(self) -> int:
        """How many images the network always computes together, so its numbers do not depend on how many there are.

        With fewer than 16 on one thread torch takes its own convolution for kernels of 1 x 1 and oneDNN's otherwise,
        and oneDNN has several; they add in other orders. What else is in the block changes no bit. On a processor 16
        were as cheap as 32 to within 3 % for Inception-v3 at 299 pixels, and waste less where there are few images.
        """
        return _CUDA_BLOCK if self.device.type == "cuda" else _CPU_BLOCK

    def batches(self, records: Iterable[Record], crops: Crops | None = None) -> Iterator[EvaluationBatch]:
        """The single crop of each record, or its distinct `crops` less their mirror images."""
        size, workers = self.compute.batch_size, self.compute.workers
        return evaluation_batches(records, self.preprocessing, crops, batch_size=size, workers=workers)

    def probabilities(
        self, batches: Iterable[EvaluationBatch], *, mirrored: bool = False, block: int | None = None
    ) -> Iterator[Row | BadImage]:
        """For each image in order the softmax (k,) float32 of its logits, or why there is none.

        `mirrored` adds the mirror image of each crop. `block` is how many are computed together, if not `block_size`.
        ReinceptionError where the network's output is not finite.
        """

        def softmax(images: Tensor) -> Tensor:
            return _logits(self.network, images).float().softmax(dim=1)

        size = block or self.block_size
        return _in_order(self._computed(batches, softmax, size=size // 2 or 1 if mirrored else size, mirrored=mirrored))

    def features(self, batches: Iterable[EvaluationBatch], *, block: int | None = None) -> Iterator[Row | BadImage]:
        """For each image in order its pooled features (num_features,) float32, or why there are none."""

        def pooled(images: Tensor) -> Tensor:
            return self.network.features(images).float()

        return _in_order(self._computed(batches, pooled, size=block or self.block_size, mirrored=False))

    def _computed(
        self, batches: Iterable[EvaluationBatch], function: Callable[[Tensor], Tensor], *, size: int, mirrored: bool
    ) -> Iterator[tuple[EvaluationBatch, npt.NDArray[np.float64]]]:
        """Each block with its rows (n, columns), weighted."""
        for block in _blocks(batches, size):
            if not len(block):
                yield block, np.empty((0, 0))
                continue
            num = len(block)
            images = torch.cat([block.images, block.images.flip(3)]) if mirrored else block.images
            with torch.inference_mode(), machine.autocast(self.dtype, self.device):
                values = function(normalise(images.to(self.device), self.preprocessing))
                if not bool(values[:num].isfinite().all()):
                    raise ReinceptionError("the network's output is not finite: its weights are damaged or diverged")
                rows = values.cpu().numpy().astype(np.float64)
            pairs = rows[:num] + rows[len(block.images) :][:num] if mirrored else rows[:num]
            yield block, pairs * block.weights[:, None]


@contextmanager
def evaluating(network: Network) -> Iterator[Network]:
    """Evaluation mode without gradients inside the block; the mode from before is restored."""
    was_training = network.training
    network.eval()
    try:
        with torch.inference_mode():
            yield network
    finally:
        network.train(was_training)


@dataclass(frozen=True, kw_only=True, eq=False)
class Scored:
    """One row of probabilities per record (n, k) float32, by record index why a row is empty (all zero), and the
    precision they were computed in, fp32 or bf16."""

    probabilities: npt.NDArray[np.float32]
    bad: Mapping[int, BadImage]
    precision: str


def score(
    network: Network,
    preprocessing: Preprocessing,
    records: Sequence[Record],
    *,
    crops: Crops | None = None,
    compute: Compute = HERE,
) -> Scored:
    """Softmax of the network's logits for each record once; with `crops` the average of their probabilities.

    An image that cannot be read is listed in `bad`, the rest go on. ReinceptionError where the network's output is not
    finite.
    """
    engine = Engine(network, preprocessing, compute)
    rows = engine.probabilities(engine.batches(records, crops), mirrored=crops is not None)
    values, bad = table(rows, len(records), network.arch.num_classes, compute.progress)
    return Scored(probabilities=values, bad=bad, precision=engine.precision)


def table(
    rows: Iterable[Row | BadImage], num: int, columns: int, progress: Progress | None = None
) -> tuple[npt.NDArray[np.float32], Mapping[int, BadImage]]:
    """The rows (num, columns) of a stream below each other, and by index why a row is empty (all zero)."""
    values = np.zeros((num, columns), dtype=np.float32)
    bad: dict[int, BadImage] = {}
    for index, row in enumerate(rows):
        if isinstance(row, BadImage):
            bad[index] = row
        else:
            values[index] = row
        if progress:
            progress(index + 1, num)
    return values, bad


def _copy(network: Network, device: torch.device, dtype: torch.dtype) -> Network:
    """The same modules on `device`, channels last, in evaluation mode, without gradients.

    Weights of convolutions and linear layers are of `dtype`, to which autocast would convert them for each batch.
    """
    known: dict[int, object] = {id(network.arch): network.arch}
    for module in network.modules():
        kind = dtype if isinstance(module, (nn.Conv2d, nn.Linear)) else None
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
            layout = torch.channels_last if tensor.dim() == 4 else torch.preserve_format
            own = tensor.detach().to(device=device, dtype=kind, memory_format=layout, copy=True)
            known[id(tensor)] = nn.Parameter(own, requires_grad=False) if isinstance(tensor, nn.Parameter) else own
    return copy.deepcopy(network, known).eval()


def _in_order(parts: Iterable[tuple[EvaluationBatch, npt.NDArray[np.float64]]]) -> Iterator[Row | BadImage]:
    """The sum of each image's weighted rows, as soon as a later image shows that it is whole."""
    sums: dict[int, npt.NDArray[np.float64]] = {}
    bad: dict[int, BadImage] = {}
    done, last = 0, -1

    def ready() -> Iterator[Row | BadImage]:
        nonlocal done
        while done in bad or (done in sums and done < last):
            yield bad.pop(done) if done in bad else sums.pop(done).astype(np.float32)
            done += 1

    for batch, rows in parts:
        bad.update(batch.bad)
        for index, row in zip(batch.indices.tolist(), rows, strict=True):
            sums[index] = sums[index] + row if index in sums else row
            last = index
        yield from ready()
    last += 1
    yield from ready()


def _blocks(batches: Iterable[EvaluationBatch], size: int) -> Iterator[EvaluationBatch]:
    """The same images in the same order, `size` at a time; the last block is filled up with its last image.

    What is unusable comes at once, in a block without images.
    """
    waiting: list[EvaluationBatch] = []
    for batch in batches:
        if batch.bad:
            yield replace(_cut(batch, 0, 0), bad=batch.bad)
        waiting = [*waiting, batch] if len(batch) else waiting
        if sum(map(len, waiting)) < size:
            continue
        joined = _joined(waiting)
        whole = len(joined) - len(joined) % size
        for start in range(0, whole, size):
            yield _cut(joined, start, start + size)
        waiting = [_cut(joined, whole, len(joined))]
    if sum(map(len, waiting)):
        rest = _joined(waiting)
        yield replace(rest, images=torch.cat([rest.images, rest.images[-1:].expand(size - len(rest), -1, -1, -1)]))


def _joined(batches: Sequence[EvaluationBatch]) -> EvaluationBatch:
    return EvaluationBatch(
        images=torch.cat([one.images for one in batches]),
        indices=np.concatenate([one.indices for one in batches]),
        weights=np.concatenate([one.weights for one in batches]),
    )


def _cut(batch: EvaluationBatch, start: int, end: int) -> EvaluationBatch:
    part = slice(start, end)
    return EvaluationBatch(images=batch.images[part], indices=batch.indices[part], weights=batch.weights[part])


def _logits(network: Network, images: Tensor) -> Tensor:
    """The network's logits, of which no row depends on its place in the block.

    MKL adds up a row of features in another order when it begins at another place within 64 bytes. Those of the
    published widths all begin at the first; for the others each row is filled up with zeros.
    """
    classifier = network.classifier
    missing = (0, -classifier.in_features % 16)
    return F.linear(F.pad(network.features(images), missing), F.pad(classifier.weight, missing), classifier.bias)
