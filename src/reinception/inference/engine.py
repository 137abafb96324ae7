"""The fastest correct way to run a network on this machine: device, precision, layout, images to probabilities."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from reinception.data.loading.crop_stream import crop_batches
from reinception.data.loading.loader import evaluation_batches, normalise
from reinception.data.sources.records import Record
from reinception.errors import BadImage, ReinceptionError
from reinception.machine import autocast, keep_freed_memory
from reinception.metrics import Probabilities
from reinception.model.build import Network
from reinception.preprocess import Crops, Preprocessing

_CPU_BLOCK, _CUDA_BLOCK = 16, 32

Progress = Callable[[int, int], None]
"""Called with (images done, images in all)."""


def block_size(device: torch.device) -> int:
    """How many pictures the network always computes together, so that its numbers do not depend on how many there are.

    With fewer than 16 on one thread torch takes its own convolution for kernels of 1 x 1 and oneDNN's otherwise, and
    oneDNN has several; they add in other orders. What else is in the block changes no bit. On a processor 16 were as
    cheap as 32 to within 3 % for Inception-v3 at 299 pixels, and waste less where there are few pictures.
    """
    return _CUDA_BLOCK if device.type == "cuda" else _CPU_BLOCK


def prepare(network: Network, device: torch.device) -> Network:
    """The same network on `device` with weights laid out channels last, as the convolutions want them.

    On a processor, freed memory stays with the process from now on (`keep_freed_memory`).
    """
    if device.type == "cpu":
        keep_freed_memory()
    return network.to(device).to(memory_format=torch.channels_last)


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
    """One row of probabilities per record (n, k) float32, and by record index why a row is empty (all zero)."""

    probabilities: Probabilities
    refused: Mapping[int, BadImage]


def score(
    network: Network,
    preprocessing: Preprocessing,
    records: Sequence[Record],
    *,
    crops: Crops | None = None,
    batch_size: int = 32,
    workers: int = 0,
    dtype: torch.dtype = torch.float32,
    block: int | None = None,
    progress: Progress | None = None,
) -> Scored:
    """Softmax of the network's logits for each record once, on the device the network is on.

    Without `crops` the single crop of `preprocessing`; with them the average of their probabilities, whichever pictures
    share a block. `batch_size` pictures are made ready at a time; the network computes `block` of them (block_size
    where it is None), so neither batches nor neighbours change a bit. An image that cannot be read is listed in
    `refused`, the rest go on. ReinceptionError where the network itself gives something that is no number.
    """

    def probabilities(images: torch.Tensor) -> torch.Tensor:
        return _logits(network, images).float().softmax(dim=1)

    device = next(network.parameters()).device
    refused: dict[int, BadImage] = {}
    if crops is None:
        parts = _single(records, preprocessing, batch_size=batch_size, workers=workers, refused=refused)
    else:
        parts = _many(records, preprocessing, crops, batch_size=batch_size, workers=workers, refused=refused)
    sums = np.zeros((len(records), network.arch.num_classes), dtype=np.float32 if crops is None else np.float64)
    size = block or block_size(device)
    with evaluating(network), autocast(dtype, device):
        for pictures in _blocks(parts, size if crops is None else max(1, size // 2)):
            if crops is None:
                sums[pictures.indices] = _rows(probabilities, pictures.images, preprocessing, device, pictures.num)
            else:  # half of a block are crops, the other half their mirror images
                both = torch.cat([pictures.images, pictures.images.flip(3)])
                rows = _rows(probabilities, both, preprocessing, device, len(both)).astype(np.float64)
                pairs = rows[: pictures.num] + rows[len(pictures.images) :][: pictures.num]
                np.add.at(sums, pictures.indices, pairs * pictures.shares[:, None])
            if progress and pictures.indices[-1] + 1 < len(records):
                progress(int(pictures.indices[-1]) + 1, len(records))
    if progress:
        progress(len(records), len(records))
    return Scored(probabilities=sums.astype(np.float32), refused=refused)


def features(
    network: Network,
    preprocessing: Preprocessing,
    records: Sequence[Record],
    *,
    batch_size: int = 32,
    workers: int = 0,
    dtype: torch.dtype = torch.float32,
    progress: Progress | None = None,
) -> tuple[npt.NDArray[np.float32], Mapping[int, BadImage]]:
    """The pooled features (n, num_features) of each record's single crop, and which rows stayed zero, and why."""

    def pooled(images: torch.Tensor) -> torch.Tensor:
        return network.features(images).float()

    device = next(network.parameters()).device
    rows = np.zeros((len(records), network.num_features), dtype=np.float32)
    refused: dict[int, BadImage] = {}
    parts = _single(records, preprocessing, batch_size=batch_size, workers=workers, refused=refused)
    with evaluating(network), autocast(dtype, device):
        for pictures in _blocks(parts, block_size(device)):
            rows[pictures.indices] = _rows(pooled, pictures.images, preprocessing, device, pictures.num)
            if progress and pictures.indices[-1] + 1 < len(records):
                progress(int(pictures.indices[-1]) + 1, len(records))
    if progress:
        progress(len(records), len(records))
    return rows, refused


@dataclass(frozen=True, kw_only=True, eq=False)
class _Pictures:
    """`images` uint8 (n or more, 3, s, s); of which record each of the first n is (n,), and its part in its average."""

    images: torch.Tensor
    indices: npt.NDArray[np.int64]
    shares: npt.NDArray[np.float64]

    @property
    def num(self) -> int:
        return len(self.indices)


def _single(
    records: Sequence[Record],
    preprocessing: Preprocessing,
    *,
    batch_size: int,
    workers: int,
    refused: dict[int, BadImage],
) -> Iterator[_Pictures]:
    for batch, bad in evaluation_batches(records, preprocessing, batch_size=batch_size, workers=workers):
        refused.update(bad)
        yield _Pictures(images=batch.images, indices=batch.indices.numpy(), shares=np.ones(len(batch.indices)))


def _many(
    records: Sequence[Record],
    preprocessing: Preprocessing,
    crops: Crops,
    *,
    batch_size: int,
    workers: int,
    refused: dict[int, BadImage],
) -> Iterator[_Pictures]:
    for cut, bad in crop_batches(records, preprocessing, crops, batch_size=batch_size, workers=workers):
        refused.update(bad)
        yield _Pictures(images=cut.images, indices=cut.indices, shares=cut.weights)


def _blocks(parts: Iterable[_Pictures], size: int) -> Iterator[_Pictures]:
    """The same pictures in the same order, `size` at a time; the last block is filled up with its last picture."""
    waiting: list[_Pictures] = []
    for part in parts:
        waiting.append(part)
        if sum(one.num for one in waiting) < size:
            continue
        joined = _joined(waiting)
        whole = joined.num - joined.num % size
        for start in range(0, whole, size):
            yield _cut(joined, start, start + size)
        waiting = [_cut(joined, whole, joined.num)]
    rest = _joined(waiting) if waiting else None
    if rest is not None and rest.num:
        images = torch.cat([rest.images, rest.images[-1:].expand(size - rest.num, -1, -1, -1)])
        yield _Pictures(images=images, indices=rest.indices, shares=rest.shares)


def _joined(parts: Sequence[_Pictures]) -> _Pictures:
    return _Pictures(
        images=torch.cat([one.images for one in parts]),
        indices=np.concatenate([one.indices for one in parts]),
        shares=np.concatenate([one.shares for one in parts]),
    )


def _cut(pictures: _Pictures, start: int, end: int) -> _Pictures:
    part = slice(start, end)
    return _Pictures(images=pictures.images[part], indices=pictures.indices[part], shares=pictures.shares[part])


def _logits(network: Network, images: torch.Tensor) -> torch.Tensor:
    """The network's logits, of which no row depends on its place in the block.

    MKL adds up a row of features in another order when it begins at another place within 64 bytes. Those of the
    published widths all begin at the first; for the others each row is filled up with zeros.
    """
    classifier = network.classifier
    missing = (0, -classifier.in_features % 16)
    return F.linear(F.pad(network.features(images), missing), F.pad(classifier.weight, missing), classifier.bias)


def _rows(
    compute: Callable[[torch.Tensor], torch.Tensor],
    images: torch.Tensor,
    preprocessing: Preprocessing,
    device: torch.device,
    num: int,
) -> npt.NDArray[np.float32]:
    """What `compute` makes of the normalised images, of the first `num`: float32 (num, columns)."""
    pixels = normalise(images.to(device), preprocessing, dtype=torch.float32, memory_format=torch.channels_last)
    values = compute(pixels)[:num]
    if not bool(values.isfinite().all()):
        raise ReinceptionError("the network's output is not a number: its weights are damaged or diverged")
    return values.cpu().numpy()
