"""Batches of the many crops of each image, for evaluation; each image is decoded once and each crop made once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from reinception.data.images.crops import crop_pixels, distinct_crops
from reinception.data.loading.read import pixels_of, watched
from reinception.data.loading.watchdog import Watchdog
from reinception.data.loading.workers import ordered_map
from reinception.data.sources.records import Record
from reinception.errors import BadImage
from reinception.preprocess import Crops, Preprocessing


@dataclass(frozen=True, kw_only=True, eq=False)
class CropBatch:
    """Crops that are to be scored as they are and mirrored.

    `images` is uint8 (n, 3, s, s), laid out channels last; `indices` int64 (n,) says of which record each is. `weights`
    float64 (n,) is the weight in that record's average of the crop and again of its mirror image: those of one record
    sum to a half.
    """

    images: torch.Tensor
    indices: NDArray[np.int64]
    weights: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class _ImageCrops:
    """The crops (n, s, s, 3) of one record and their weights (n,), or why there are none."""

    index: int
    pixels: NDArray[np.uint8]
    weights: NDArray[np.float64]
    refused: BadImage | None


def crop_batches(
    records: Iterable[Record], preprocessing: Preprocessing, crops: Crops, *, batch_size: int, workers: int
) -> Iterator[tuple[CropBatch, list[tuple[int, BadImage]]]]:
    """Every distinct crop of every record once, in full batches across images; only the last may be smaller.

    With each batch come the records found unreadable since the one before, as in `evaluation_batches`.
    """
    size = preprocessing.input_size
    pixels = np.empty((0, size, size, 3), dtype=np.uint8)
    indices, weights = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float64)
    refused: list[tuple[int, BadImage]] = []
    for made in ordered_map(partial(_image_crops, preprocessing, crops), enumerate(records), workers):
        if made.refused is not None:
            refused.append((made.index, made.refused))
            continue
        pixels = np.concatenate([pixels, made.pixels])
        indices = np.concatenate([indices, np.full(len(made.weights), made.index)])
        weights = np.concatenate([weights, made.weights])
        while len(pixels) >= batch_size:
            yield _batch(pixels[:batch_size], indices[:batch_size], weights[:batch_size]), refused
            refused = []
            pixels, indices, weights = pixels[batch_size:], indices[batch_size:], weights[batch_size:]
    if len(pixels) or refused:
        yield _batch(pixels, indices, weights), refused


def _image_crops(
    preprocessing: Preprocessing, crops: Crops, numbered: tuple[int, Record], watchdog: Watchdog
) -> _ImageCrops:
    (index, record), size = numbered, preprocessing.input_size
    try:
        with watched(record, index, watchdog):
            image = pixels_of(record, watchdog.pause)
    except BadImage as error:
        nothing = np.empty((0, size, size, 3), dtype=np.uint8)
        return _ImageCrops(index=index, pixels=nothing, weights=np.empty(0), refused=error)
    chosen = distinct_crops(image.shape[1], image.shape[0], crops)
    weights = np.array(list(chosen.values()), dtype=np.float64) / crops.num
    pixels = crop_pixels(image, list(chosen), preprocessing)
    return _ImageCrops(index=index, pixels=pixels, weights=weights, refused=None)


def _batch(pixels: NDArray[np.uint8], indices: NDArray[np.int64], weights: NDArray[np.float64]) -> CropBatch:
    return CropBatch(images=torch.from_numpy(pixels).permute(0, 3, 1, 2), indices=indices, weights=weights)
