"""Batches whose position is a counter: a stream starts at any step and gives the same bits with any workers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count

import numpy as np
import torch
from numpy.typing import NDArray

from reinception.data.images.augment import Augmentation, augment
from reinception.data.images.crops import evaluation_pixels
from reinception.data.images.decode import Pixels
from reinception.data.images.jpeg import TrainingImage
from reinception.data.images.random_stream import RandomStream
from reinception.data.loading.cache import PixelCache
from reinception.data.loading.read import pixels_of, training_image, under_the_name_of
from reinception.data.loading.workers import START_METHOD, in_order, turn_to
from reinception.data.sources.records import Record
from reinception.errors import BadImage, ReinceptionError
from reinception.preprocess import Preprocessing

CACHE_BYTES = 1 << 30
# A picture of one colour has no contrast to stretch; the least counted is one level of 255.
LEAST_STD = 1.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """Pictures with their targets, as bytes.

    `images` is uint8 (n, 3, s, s), laid out channels last; `targets` and `indices` (into the records the batch was made
    of) are int64 (n,). `epoch` is that of the first picture; `step` counts batches from 0.
    """

    images: torch.Tensor
    targets: torch.Tensor
    indices: torch.Tensor
    epoch: int
    step: int
    soft: torch.Tensor | None = None

    @property
    def labels(self) -> torch.Tensor:
        """What is to be learned: `soft`, float32 (n, classes), where a label is not certain, else `targets`."""
        return self.targets if self.soft is None else self.soft


class TrainingStream:
    """An endless sequence of full batches over `records`.

    The pictures are one permutation per epoch, a function of (seed, epoch), laid end to end; batch k is positions
    [k * batch_size, (k + 1) * batch_size) of that sequence, so a batch may run over the end of an epoch and no picture
    is dropped or repeated. Each is distorted by `augment` with random numbers of (seed, epoch, index); large JPEGs are
    decoded no larger than their crop needs. Neither workers nor the cache (up to `cache_bytes` of decoded pictures; 0
    for none) change a bit. With `num_classes` labels that are not certain become probabilities (`Batch.soft`); without
    it they are refused.
    """

    def __init__(
        self,
        records: Sequence[Record],
        *,
        input_size: int,
        augmentation: Augmentation,
        batch_size: int,
        seed: int,
        workers: int,
        cache_bytes: int = CACHE_BYTES,
        num_classes: int | None = None,
    ) -> None:
        if not records:
            raise ReinceptionError("there are no pictures to train on: check the training split")
        self._records, self._num_classes = records, num_classes
        self._input_size, self._augmentation = input_size, augmentation
        self._batch_size, self._seed, self._workers = batch_size, seed, workers
        is_shared = workers == 0 or START_METHOD == "fork"
        self._cache = PixelCache(len(records), cache_bytes) if cache_bytes and is_shared else None

    @property
    def steps_per_epoch(self) -> float:
        """Batches per pass over the records; rarely a whole number."""
        return len(self._records) / self._batch_size

    def batches(self, start_step: int = 0) -> Iterator[Batch]:
        """Batches start_step, start_step + 1, ... without end. A file that can not be read raises its `BadImage`."""
        return self.numbered(count(start_step))

    def numbered(self, steps: Iterable[int]) -> Iterator[Batch]:
        """The batches of those numbers, in that order: one process's share of what several train on."""
        for plan, images in in_order(self._load, self._plans(steps), self._workers):
            batch = _batch(plan, images, self._records)
            yield replace(batch, soft=self._soft(batch))

    def _soft(self, batch: Batch) -> torch.Tensor | None:
        certain = [self._records[index].certainty for index in batch.indices.tolist()]
        if min(certain) == 1:
            return None
        if self._num_classes is None:
            raise ReinceptionError("some labels are not certain, and it is not known among how many classes: say so")
        certainties = torch.tensor(certain, dtype=torch.float32)[:, None]
        soft = ((1 - certainties) / (self._num_classes - 1)).repeat(1, self._num_classes)
        return soft.scatter_(1, batch.targets[:, None], certainties)

    def _plans(self, steps: Iterable[int]) -> Iterator[_Plan]:
        num, known, order = len(self._records), -1, np.empty(0, dtype=np.int64)
        for step in steps:
            samples: list[tuple[int, int]] = []
            for position in range(step * self._batch_size, (step + 1) * self._batch_size):
                epoch, place = divmod(position, num)
                if epoch != known:
                    known, order = epoch, RandomStream("order", self._seed, epoch).permutation(num)
                samples.append((epoch, int(order[place])))
            yield _Plan(step=step, samples=tuple(samples))

    def _load(self, plan: _Plan) -> tuple[_Plan, NDArray[np.uint8]]:
        images = np.empty((len(plan.samples), self._input_size, self._input_size, 3), dtype=np.uint8)
        for image, (epoch, index) in zip(images, plan.samples, strict=True):
            picture = self._picture(index)
            with under_the_name_of(self._records[index]):  # a large JPEG is decoded once it is known how large
                image[:] = augment(
                    picture,
                    kind=self._augmentation,
                    input_size=self._input_size,
                    seed=self._seed,
                    epoch=epoch,
                    index=index,
                )
        return plan, images

    def _picture(self, index: int) -> TrainingImage:
        read_it = partial(_training_image, self._records, index)
        return self._cache.get(index, read_it) if self._cache else read_it()


def evaluation_batches(
    records: Sequence[Record], preprocessing: Preprocessing, *, batch_size: int, workers: int
) -> Iterator[tuple[Batch, list[tuple[int, BadImage]]]]:
    """Every record once, in order, as (batch of those that can be read, [(record index, why not)] of the others).

    The last batch may be smaller; a batch of which nothing can be read has n = 0.
    """
    plans = (
        _Plan(step=step, samples=tuple((0, index) for index in range(start, min(start + batch_size, len(records)))))
        for step, start in enumerate(range(0, len(records), batch_size))
    )
    for plan, images, refused in in_order(partial(_load_evaluation, records, preprocessing), plans, workers):
        yield _batch(plan, images, records), refused


def normalise(
    images: torch.Tensor,
    preprocessing: Preprocessing,
    *,
    dtype: torch.dtype = torch.float32,
    memory_format: torch.memory_format = torch.channels_last,
) -> torch.Tensor:
    """What the network reads of uint8 images (n, 3, s, s), on their device, in float32 up to the last conversion.

    (value / 255 - mean) / std with the colours' fixed numbers, or (value - mean) / std with each picture's own.
    """
    if preprocessing.scaling == "per_image":
        floats = images.to(dtype=torch.float32, memory_format=memory_format, copy=True)
        std, mean = torch.std_mean(floats, dim=(1, 2, 3), correction=0, keepdim=True)
        return floats.sub_(mean).div_(std.clamp_(min=LEAST_STD)).to(dtype=dtype, memory_format=memory_format)
    centre, scale = (
        torch.tensor(values, dtype=torch.float32, device=images.device).mul_(255).view(1, 3, 1, 1)
        for values in (preprocessing.mean, preprocessing.std)
    )
    floats = images.to(dtype=torch.float32, memory_format=memory_format, copy=True).sub_(centre).div_(scale)
    return floats.to(dtype=dtype, memory_format=memory_format)


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """What goes into one batch: (epoch, record index) per picture."""

    step: int
    samples: tuple[tuple[int, int], ...]


def _load_evaluation(
    records: Sequence[Record], preprocessing: Preprocessing, plan: _Plan
) -> tuple[_Plan, NDArray[np.uint8], list[tuple[int, BadImage]]]:
    """The plan without the refused, its pixels, and the refused."""
    size = preprocessing.input_size
    images = np.empty((len(plan.samples), size, size, 3), dtype=np.uint8)
    samples: list[tuple[int, int]] = []
    refused: list[tuple[int, BadImage]] = []
    for epoch, index in plan.samples:
        try:
            images[len(samples)] = evaluation_pixels(_pixels(records, index), preprocessing)
            samples.append((epoch, index))
        except BadImage as error:
            refused.append((index, error))
    return _Plan(step=plan.step, samples=tuple(samples)), images[: len(samples)], refused


def _pixels(records: Sequence[Record], index: int) -> Pixels:
    with under_the_name_of(records[index]):
        turn_to(index)
    return pixels_of(records[index])


def _training_image(records: Sequence[Record], index: int) -> TrainingImage:
    with under_the_name_of(records[index]):
        turn_to(index)
    return training_image(records[index])


def _batch(plan: _Plan, images: NDArray[np.uint8], records: Sequence[Record]) -> Batch:
    indices = [index for _, index in plan.samples]
    return Batch(
        images=torch.from_numpy(images).permute(0, 3, 1, 2),
        targets=torch.tensor([records[index].target for index in indices], dtype=torch.int64),
        indices=torch.tensor(indices, dtype=torch.int64),
        epoch=plan.samples[0][0] if plan.samples else 0,
        step=plan.step,
    )
