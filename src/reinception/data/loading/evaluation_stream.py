"""The images of an evaluation as one stream of batches: a single crop of each, or many."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray

from reinception.data.images.crops import crop_pixels, distinct_crops
from reinception.data.images.decode import Pixels
from reinception.data.loading.read import evaluation_square, pixels_of, watched
from reinception.data.loading.watchdog import Watchdog
from reinception.data.loading.workers import ordered_map
from reinception.data.sources.records import Record
from reinception.errors import BadImage
from reinception.preprocess import Crops, Preprocessing

Bad = tuple[tuple[int, BadImage], ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class EvaluationBatch:
    """Crops of images, as bytes.

    `images` is uint8 (n or more, 3, s, s), laid out channels last; `indices` int64 (n,), ascending, says of which
    record each of the first n is. `weights` float64 (n,) is its weight in that record's average: 1 for a single crop.
    Many crops are scored as they are and mirrored, with the same weight: those of one record sum to a half. `bad` has
    (record index, why not) of the records that cannot be read.
    """

    images: torch.Tensor
    indices: NDArray[np.int64]
    weights: NDArray[np.float64]
    bad: Bad = ()

    def __len__(self) -> int:
        return len(self.indices)


def evaluation_batches(
    records: Iterable[Record],
    preprocessing: Preprocessing,
    crops: Crops | None = None,
    *,
    batch_size: int,
    workers: int,
) -> Iterator[EvaluationBatch]:
    """The single crop of every record in order, or every distinct one of its `crops`; each image is decoded once.

    `records` may be an iterator: it is read only a few batches ahead. A batch holds `batch_size` records, or all crops
    of one; less those that cannot be read.
    """
    tasks = _batches(iter(records), batch_size if crops is None else 1)
    for pixels, indices, weights, bad in ordered_map(partial(_load, preprocessing, crops), tasks, workers):
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
        yield EvaluationBatch(images=images, indices=indices, weights=weights, bad=bad)


def _batches(records: Iterator[Record], size: int) -> Iterator[tuple[int, tuple[Record, ...]]]:
    """(index of the first, records) of each batch."""
    start = 0
    while batch := tuple(islice(records, size)):
        yield start, batch
        start += len(batch)


def _load(
    preprocessing: Preprocessing, crops: Crops | None, task: tuple[int, tuple[Record, ...]], watchdog: Watchdog
) -> tuple[Pixels, NDArray[np.int64], NDArray[np.float64], Bad]:
    start, records = task
    pixels = [np.empty((0, preprocessing.input_size, preprocessing.input_size, 3), dtype=np.uint8)]
    indices: list[int] = []
    weights: list[float] = []
    bad: list[tuple[int, BadImage]] = []
    for index, record in enumerate(records, start):
        try:
            with watched(record, index, watchdog):
                if crops is None:
                    image = evaluation_square(record, preprocessing, watchdog.pause)
                else:
                    image = pixels_of(record, watchdog.pause, preprocessing=preprocessing)
        except BadImage as error:
            bad.append((index, error))
            continue
        if crops is None:
            pixels.append(image[None])
            weights.append(1.0)
        else:
            counts = distinct_crops(image.shape[1], image.shape[0], crops)
            pixels.append(crop_pixels(image, list(counts), preprocessing))
            weights += [count / crops.num for count in counts.values()]
        indices += [index] * len(pixels[-1])
    return np.concatenate(pixels), np.array(indices, dtype=np.int64), np.array(weights), tuple(bad)
