"""The engine: one stream of image batches through a copy of a network, each image's row in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch

from reinception import machine
from reinception.data.loading.evaluation_stream import EvaluationBatch, evaluation_batches
from reinception.data.loading.watchdog import Progress
from reinception.data.sources.records import Record
from reinception.errors import BadImage, ReinceptionError
from reinception.inference.backends.choice import backend_of
from reinception.inference.backends.int8 import int8_backend
from reinception.inference.backends.network_backend import NetworkBackend, NetworkPrecision, Output, Pending, Task
from reinception.inference.backends.torch_backend import TorchBackend
from reinception.inference.compute import HERE, Compute
from reinception.model.build import Network
from reinception.preprocess import Crops, Preprocessing

# Images that a reading process hands over at a time: few, so that the network starts soon and no process reads alone at
# the end, above all where an image takes a tenth of a second.
_READ_TOGETHER = 8

Row = npt.NDArray[np.float32]
"""What the network computed of one image: (k,) probabilities or (num_features,) features."""


class Engine:
    """A network as it is computed: a copy of it in evaluation mode, held by a backend.

    The network given is never changed: its device, layout, mode and gradients stay; nor does the engine change when it
    is trained on. Float32 results of torch depend on nothing but the image: not on batches, neighbours, or the layout
    that the network given has.

    Args:
        network: the network, in any mode, on any device.
        preprocessing: what becomes of an image's pixels.
        compute: device (None: the network's), precision (None: fp32), backend, batches. UsageError for a device,
            precision or backend that is not there.
        num_images: how many there will be at most, where that is known.
        streams: 1 where batches are computed one by one, as a server's are; None for as many at once as is fastest.
        is_given_values: whether the backend is given what the network reads, float32, instead of bytes.
    """

    def __init__(
        self,
        network: Network,
        preprocessing: Preprocessing,
        compute: Compute = HERE,
        *,
        num_images: int | None = None,
        streams: int | None = None,
        is_given_values: bool = False,
    ) -> None:
        own = next(network.parameters()).device
        self.device = own if compute.device is None else machine.choose_device(compute.device)
        asked = compute.precision or "fp32"
        self.dtype = machine.precision("auto" if asked == "int8" else asked, self.device)
        self.preprocessing = preprocessing
        self.compute = compute
        self.num_features = network.num_features
        precision: NetworkPrecision = "fp32" if self.dtype == torch.float32 else "bf16"
        task = self._task = Task(
            network=network,
            preprocessing=preprocessing,
            precision=precision,
            device=self.device,
            is_given_values=is_given_values,
        )
        if asked == "int8":
            self.backend = _int8(replace(task, precision="int8"), compute, streams)
        else:
            self.backend = backend_of(
                task,
                compute.backend,
                streams=streams,
                num_images=num_images,
                tell=compute.notice,
                ranks=compute.ranks,
            )

    @cached_property
    def network(self) -> Network:
        """torch's copy of the network, channels last on the device."""
        if isinstance(self.backend, TorchBackend):
            return self.backend.network
        return TorchBackend(self._task).network

    @property
    def precision(self) -> NetworkPrecision:
        """What it computes in: fp32, bf16 or int8."""
        return self.backend.precision

    @property
    def block_size(self) -> int:
        """How many images the network computes together."""
        return self.backend.block_size

    def batches(self, records: Iterable[Record], crops: Crops | None = None) -> Iterator[EvaluationBatch]:
        """The single crop of each record, or its distinct `crops` less their mirror images."""
        size, workers = min(self.compute.batch_size, _READ_TOGETHER), self.compute.readers
        return evaluation_batches(records, self.preprocessing, crops, batch_size=size, workers=workers)

    def probabilities(
        self, batches: Iterable[EvaluationBatch], *, mirrored: bool = False, block: int | None = None
    ) -> Iterator[Row | BadImage]:
        """For each image in order the softmax (k,) float32 of its logits, or why there is none.

        `mirrored` adds the mirror image of each crop. `block` is how many are computed together, if not `block_size`.
        ReinceptionError where the network's output is not finite.
        """
        size = block or self.block_size
        return _in_order(
            self._computed(batches, "probabilities", size=size // 2 or 1 if mirrored else size, mirrored=mirrored)
        )

    def features(self, batches: Iterable[EvaluationBatch], *, block: int | None = None) -> Iterator[Row | BadImage]:
        """For each image in order its pooled features (num_features,) float32, or why there are none."""
        return _in_order(self._computed(batches, "features", size=block or self.block_size, mirrored=False))

    def _computed(
        self, batches: Iterable[EvaluationBatch], output: Output, *, size: int, mirrored: bool
    ) -> Iterator[tuple[EvaluationBatch, npt.NDArray[np.float64]]]:
        """Each block with its rows (n, columns), weighted; as many are open as the backend computes at once."""
        waiting: deque[tuple[EvaluationBatch, Pending]] = deque()
        for block in _blocks(batches, size):
            if not len(block):
                yield block, np.empty((0, 0))
                continue
            images = torch.cat([block.images, block.images.flip(3)]) if mirrored else block.images
            waiting.append((block, self.backend.submit(images, output)))
            if len(waiting) > self.backend.in_flight:
                yield _weighted(*waiting.popleft(), mirrored=mirrored)
        while waiting:
            yield _weighted(*waiting.popleft(), mirrored=mirrored)


def _weighted(
    block: EvaluationBatch, pending: Pending, *, mirrored: bool
) -> tuple[EvaluationBatch, npt.NDArray[np.float64]]:
    num = len(block)
    values = pending.result()
    if not bool(np.isfinite(values[:num]).all()):
        raise ReinceptionError("the network's output is not finite: its weights are damaged or diverged")
    rows = values.astype(np.float64)
    pairs = rows[:num] + rows[len(block.images) :][:num] if mirrored else rows[:num]
    return block, pairs * block.weights[:, None]


def _int8(task: Task, compute: Compute, streams: int | None) -> NetworkBackend:
    """The quantized network; with ranks the first quantizes, and the others take what it has kept."""

    def images() -> torch.Tensor:
        from reinception.inference.calibration_images import calibration_images  # which needs the stream of an engine

        return calibration_images(str(compute.calibrate), task.preprocessing, workers=compute.readers)

    ranks, least = compute.ranks, compute.least_agreement
    if ranks is not None and not ranks.is_first:
        ranks.barrier()
        return int8_backend(task, None, images, least_agreement=least, streams=streams)
    backend = int8_backend(task, compute.calibrate, images, least_agreement=least, streams=streams, tell=compute.notice)
    if ranks is not None:
        ranks.barrier()
    return backend


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
    num_images: int | None = None,
) -> Scored:
    """Softmax of the network's logits for each record once; with `crops` the average of their probabilities.

    An image that cannot be read is listed in `bad`, the rest go on. With ranks `num_images` is how many records there
    are in all, where `records` are a shard. ReinceptionError where the network's output is not
    finite.
    """
    num = (len(records) if num_images is None else num_images) * (1 if crops is None else crops.num)
    engine = Engine(network, preprocessing, compute, num_images=num)
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
