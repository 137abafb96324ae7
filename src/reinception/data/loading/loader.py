"""Deterministic batches: a stream can start at any step and gives the same bits with any number of workers."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import cache, cached_property, partial
from itertools import count

import numpy as np
import torch
from numpy.typing import NDArray

from reinception.data.images.augment import Augmentation, augment
from reinception.data.images.jpeg import TrainingImage
from reinception.data.loading.cache import PixelCache
from reinception.data.loading.order import Balanced, Permuted
from reinception.data.loading.read import AS_DECLARED, errors_named, training_image, watched
from reinception.data.loading.watchdog import Watchdog
from reinception.data.loading.workers import START_METHOD, ordered_map
from reinception.data.sources.records import Record
from reinception.errors import ReinceptionError
from reinception.preprocess import Preprocessing

CACHE_BYTES = 1 << 30
# An image of one colour has no contrast to stretch; the least standard deviation is one level of 255.
LEAST_STD = 1.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """Images with their targets, as bytes.

    `images` is uint8 (n, 3, s, s), laid out channels last; `targets`, `indices` (into the records the batch was made
    of) and `epochs` are int64 (n,). `epoch` is that of the first image; `step` counts batches from 0. `soft` is float32
    (n, classes) where a label is not certain.
    """

    images: torch.Tensor
    targets: torch.Tensor
    indices: torch.Tensor
    epochs: torch.Tensor
    epoch: int
    step: int
    soft: torch.Tensor | None = None

    @property
    def labels(self) -> torch.Tensor:
        """What is to be learned: `soft` where there is one, else `targets`."""
        return self.targets if self.soft is None else self.soft


@dataclass(eq=False)
class TrainingStream:
    """An endless sequence of full batches of `batch_size` images over `records`.

    The images are one permutation per epoch, a function of (seed, epoch), laid end to end; batch k is positions
    [k * batch_size, (k + 1) * batch_size) of that sequence, so a batch may run over the end of an epoch and no image
    is dropped or repeated. Each is augmented with random numbers of (seed, epoch, index); large JPEGs are decoded no
    larger than their crop needs. Neither the number of `workers` (processes; 0: in this one) nor the cache (up to
    `cache_bytes` of decoded images; 0 for none) changes a bit. With `num_classes`, labels that are not certain become
    probabilities (`Batch.soft`); without it they are refused. With `views` each image is seen in that many distortions
    only, those of seed 0, one after the other, so that what a teacher said of them can be kept. `preprocessing` has the
    background of transparent images and the range of deep greys.

    With `is_balanced` every class is drawn equally often (`Balanced`), and an epoch is as many images as there are.
    """

    records: Sequence[Record]
    _: KW_ONLY
    input_size: int
    augmentation: Augmentation
    batch_size: int
    seed: int
    workers: int
    cache_bytes: int = CACHE_BYTES
    num_classes: int | None = None
    views: int | None = None
    preprocessing: Preprocessing = AS_DECLARED
    is_balanced: bool = False
    _cache: PixelCache | None = field(init=False, repr=False, default=None)

    def __post_init__(self) -> None:
        if not self.records:
            raise ReinceptionError("there are no images to train on: check the training split")
        if self.cache_bytes and (self.workers == 0 or START_METHOD == "fork"):
            self._cache = self._new_cache()

    def resized(self, input_size: int) -> TrainingStream:
        """The same images in the same order with the same random numbers, `input_size` pixels per side."""
        other = copy.copy(self)
        other.input_size = input_size
        if self._cache is not None and self.workers:  # whose lock a process that is ended may hold
            other._cache = other._new_cache()
        return other

    def _new_cache(self) -> PixelCache | None:
        """An empty cache; None where processes cannot share one, as /dev/shm is read-only: `decodes_each_time`."""
        try:
            return PixelCache(len(self.records), self.cache_bytes, is_shared=self.workers > 0)
        except OSError:
            return None

    @property
    def decodes_each_time(self) -> bool:
        """Whether a cache was asked for that its processes cannot share, so that no decoded image is kept."""
        return self.cache_bytes > 0 and self._cache is None

    @property
    def steps_per_epoch(self) -> float:
        """Batches per pass over the records; rarely a whole number."""
        return len(self.records) / self.batch_size

    def batches(self, start_step: int = 0) -> Iterator[Batch]:
        """Batches start_step, start_step + 1, ... without end. A file that cannot be read raises its `BadImage`."""
        return self.numbered(count(start_step))

    def numbered(self, steps: Iterable[int]) -> Iterator[Batch]:
        """The batches of those numbers, in that order: what one of several processes trains on."""
        for plan, images in ordered_map(self._load, self._plans(steps), self.workers):
            batch = _batch(plan, images, self.records)
            yield replace(batch, soft=self._soft(batch))

    def _soft(self, batch: Batch) -> torch.Tensor | None:
        certain = [self.records[index].certainty for index in batch.indices.tolist()]
        if min(certain) == 1:
            return None
        if self.num_classes is None:
            raise ReinceptionError("some labels are not certain, and the number of classes is not given: give it")
        certainties = torch.tensor(certain, dtype=torch.float32)[:, None]
        soft = ((1 - certainties) / (self.num_classes - 1)).repeat(1, self.num_classes)
        return soft.scatter_(1, batch.targets[:, None], certainties)

    def _plans(self, steps: Iterable[int]) -> Iterator[_Plan]:
        for step in steps:
            yield _Plan(step=step, epoch=step * self.batch_size // len(self.records), samples=self.samples(step))

    def samples(self, step: int) -> tuple[tuple[int, int], ...]:
        """(epoch, record index) of each image of a batch; `Balanced` counts how often an image came before instead."""
        positions = range(step * self.batch_size, (step + 1) * self.batch_size)
        return tuple(map(self._sequence.at, positions))

    @cached_property
    def _sequence(self) -> Permuted | Balanced:
        return Balanced(self.records, self.seed) if self.is_balanced else Permuted(len(self.records), self.seed)

    def _load(self, plan: _Plan, watchdog: Watchdog) -> tuple[_Plan, NDArray[np.uint8]]:
        images = np.empty((len(plan.samples), self.input_size, self.input_size, 3), dtype=np.uint8)
        for pixels, (epoch, index) in zip(images, plan.samples, strict=True):
            with errors_named(self.records[index]):  # a large JPEG is decoded once it is known how large
                pixels[:] = augment(
                    self._image(index, watchdog),
                    kind=self.augmentation,
                    input_size=self.input_size,
                    seed=self.seed if self.views is None else 0,
                    epoch=epoch if self.views is None else epoch % self.views,
                    index=index,
                )
        return plan, images

    def _image(self, index: int, watchdog: Watchdog) -> TrainingImage:
        read = partial(_training_image, self.records, index, self.preprocessing, watchdog)
        return self._cache.get(index, read) if self._cache else read()


@cache
def _channels(values: tuple[float, ...], device: torch.device) -> torch.Tensor:
    """A number for each channel, on the scale of bytes, (1, 3, 1, 1). Sent once: a GPU is waited for each time."""
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=torch.float32).mul_(255).view(1, 3, 1, 1).to(device)


def normalise(
    images: torch.Tensor,
    preprocessing: Preprocessing,
    *,
    dtype: torch.dtype = torch.float32,
    memory_format: torch.memory_format = torch.channels_last,
) -> torch.Tensor:
    """What the network reads of uint8 images (n, 3, s, s), on their device, in float32 up to the last conversion.

    (value / 255 - mean) / std with the fixed numbers of each channel, or (value - mean) / std with each image's own.
    """
    if preprocessing.scaling == "per_image":
        floats = images.to(dtype=torch.float32, memory_format=memory_format, copy=True)
        std, mean = torch.std_mean(floats, dim=(1, 2, 3), correction=0, keepdim=True)
        return floats.sub_(mean).div_(std.clamp_(min=LEAST_STD)).to(dtype=dtype, memory_format=memory_format)
    centre, scale = (_channels(values, images.device) for values in (preprocessing.mean, preprocessing.std))
    floats = images.to(dtype=torch.float32, memory_format=memory_format, copy=True).sub_(centre).div_(scale)
    return floats.to(dtype=dtype, memory_format=memory_format)


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """What goes into one batch: (how often it came before, record index) for each image."""

    step: int
    epoch: int
    samples: tuple[tuple[int, int], ...]


def _training_image(
    records: Sequence[Record], index: int, preprocessing: Preprocessing, watchdog: Watchdog
) -> TrainingImage:
    with watched(records[index], index, watchdog) as record:
        return training_image(record, watchdog.pause, preprocessing=preprocessing)


def _batch(plan: _Plan, images: NDArray[np.uint8], records: Sequence[Record]) -> Batch:
    indices = [index for _, index in plan.samples]
    return Batch(
        images=torch.from_numpy(images).permute(0, 3, 1, 2),
        targets=torch.tensor([records[index].target for index in indices], dtype=torch.int64),
        indices=torch.tensor(indices, dtype=torch.int64),
        epochs=torch.tensor([epoch for epoch, _ in plan.samples], dtype=torch.int64),
        epoch=plan.epoch,
        step=plan.step,
    )
