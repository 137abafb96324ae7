"""The images that int8's ranges are measured and judged on: evenly spread ones of whatever data the user names."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from reinception.data.loading.evaluation_stream import evaluation_batches
from reinception.data.sources.open_source import open_source
from reinception.data.sources.records import Record
from reinception.errors import ReinceptionError
from reinception.inference.stream import expand
from reinception.preprocess import Preprocessing

MOST, LEAST = 600, 20
"""Images that are read of a longer list, and how many have to be readable."""

_LISTED = 100_000


def records_in(data: str, split: str | None = None) -> Sequence[Record]:
    """Labelled images of any source, of `split` alone where it has that; else whatever `predict` takes."""
    try:
        source = open_source(data)
        return source.split(split) if split in source.splits else source.records
    except ReinceptionError:
        return [item for item in islice(expand([data]), _LISTED) if isinstance(item, Record)]


def spread(records: Sequence[Record], most: int) -> list[Record]:
    """At most `most` of the records, evenly spread."""
    places = np.linspace(0, len(records) - 1, min(most, len(records))).astype(int)
    return [records[index] for index in np.unique(places).tolist()]


def calibration_images(data: str, preprocessing: Preprocessing, *, workers: int) -> Tensor:
    """The single crops (n, 3, s, s) uint8 of at most `MOST` images: training images only, where the data say which.

    Raises:
        ReinceptionError: fewer than `LEAST` can be read.
    """
    records = spread(records_in(data, "train"), MOST)
    batches = evaluation_batches(records, preprocessing, batch_size=16, workers=workers)
    found = [batch.images for batch in batches if len(batch)]
    num = sum(map(len, found))
    if num < LEAST:
        raise ReinceptionError(
            f"{data}: {num} images can be read, int8 needs {LEAST}, better 300: name a folder of images like those it "
            "will see"
        )
    return torch.cat(found)
