"""The many crops of many pictures as one stream of batches: each picture decoded once, each crop made once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from reinception.data.images.crops import crop_pixels, distinct_crops
from reinception.data.loading.read import pixels_of
from reinception.data.loading.workers import in_order, turn_to
from reinception.data.sources.records import Record
from reinception.errors import BadImage
from reinception.preprocess import Crops, Preprocessing


@dataclass(frozen=True, kw_only=True, eq=False)
class CropBatch:
    """Crops that are to be scored as they are and mirrored.

    `images` is uint8 (n, 3, s, s), laid out channels last; `indices` int64 (n,) says of which record each is, `shares`
    float64 (n,) which part of that record's average each of the two has: those of one record sum to a half.
    """

    images: torch.Tensor
    indices: NDArray[np.int64]
    shares: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Cut:
    """What one record became: its crops and their shares, or why there are none."""

    index: int
    pixels: NDArray[np.uint8]
    shares: NDArray[np.float64]
    refused: BadImage | None


def crop_batches(
    records: Iterable[Record], preprocessing: Preprocessing, crops: Crops, *, batch_size: int, workers: int
) -> Iterator[tuple[CropBatch, list[tuple[int, BadImage]]]]:
    """Every distinct crop of every record once, in full batches across pictures; only the last may be smaller.

    With each batch come the records found unreadable since the one before, as in `evaluation_batches`.
    """
    size = preprocessing.input_size
    pixels = np.empty((0, size, size, 3), dtype=np.uint8)
    indices, shares = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float64)
    refused: list[tuple[int, BadImage]] = []
    for cut in in_order(partial(_cut, preprocessing, crops), enumerate(records), workers):
        if cut.refused is not None:
            refused.append((cut.index, cut.refused))
            continue
        pixels = np.concatenate([pixels, cut.pixels])
        indices = np.concatenate([indices, np.full(len(cut.shares), cut.index)])
        shares = np.concatenate([shares, cut.shares])
        while len(pixels) >= batch_size:
            yield _batch(pixels[:batch_size], indices[:batch_size], shares[:batch_size]), refused
            refused = []
            pixels, indices, shares = pixels[batch_size:], indices[batch_size:], shares[batch_size:]
    if len(pixels) or refused:
        yield _batch(pixels, indices, shares), refused


def _cut(preprocessing: Preprocessing, crops: Crops, numbered: tuple[int, Record]) -> _Cut:
    (index, record), size = numbered, preprocessing.input_size
    try:
        turn_to(index)
        image = pixels_of(record)
    except BadImage as error:
        nothing = np.empty((0, size, size, 3), dtype=np.uint8)
        return _Cut(index=index, pixels=nothing, shares=np.empty(0), refused=error.named(record.name))
    chosen = distinct_crops(image.shape[1], image.shape[0], crops)
    shares = np.array(list(chosen.values()), dtype=np.float64) / crops.num
    return _Cut(index=index, pixels=crop_pixels(image, list(chosen), preprocessing), shares=shares, refused=None)


def _batch(pixels: NDArray[np.uint8], indices: NDArray[np.int64], shares: NDArray[np.float64]) -> CropBatch:
    return CropBatch(images=torch.from_numpy(pixels).permute(0, 3, 1, 2), indices=indices, shares=shares)
