"""Pooled features (embeddings) of many images, one row each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from reinception.data.sources.records import Record
from reinception.errors import BadImage
from reinception.inference.backends.choice import FEW_IMAGES
from reinception.inference.compute import HERE, Compute
from reinception.inference.engine import Engine, Row
from reinception.inference.evaluate import as_model
from reinception.inference.stream import Item, expand, peeked, rows_in_order
from reinception.model.artifact import Model


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageFeatures:
    """One image: its pooled features (num_features,) float32, or the reason why there are none."""

    path: str
    values: Row | None
    error: str | None

    @classmethod
    def of(cls, path: str, row: Row | BadImage) -> ImageFeatures:
        """What a row of the engine, or its lack, stands for."""
        if isinstance(row, BadImage):
            return cls(path=path, values=None, error=row.reason)
        return cls(path=path, values=row, error=None)


@dataclass(frozen=True, kw_only=True, eq=False)
class Features:
    """`values` (n, num_features) float32, one row for each of `paths` (n); `errors` says why others have none."""

    paths: tuple[str, ...]
    values: npt.NDArray[np.float32]
    errors: Mapping[str, str]


def features(
    model: Model | str | Path, paths: str | Path | Sequence[str | Path], *, compute: Compute = HERE
) -> Features:
    """The globally averaged features of images, before the classifier: 2,048 for Inception-v3 at full width.

    Args:
        model: a `Model` or the path of one. Its network is not changed.
        paths: one or several files, folders, globs or manifests, as for `predict`.
        compute: device, precision, batches.

    Returns:
        The `Features`, in the order given, without the images that cannot be read; `errors` names those.

    Raises:
        ReinceptionError: a damaged model or manifest, no such device or precision.

    Example:
        >>> import reinception as ri
        >>> ri.features("model.safetensors", "images").values.shape
        (4, 203)
    """
    model = as_model(model)
    found = list(features_stream(model, paths, compute=compute))
    good = [one for one in found if one.values is not None]
    values = np.zeros((len(good), model.network.num_features), dtype=np.float32)
    for row, one in zip(values, good, strict=True):
        row[:] = one.values
    errors = {one.path: one.error for one in found if one.error is not None}
    return Features(paths=tuple(one.path for one in good), values=values, errors=errors)


def features_stream(
    model: Model | str | Path, paths: str | Path | Sequence[str | Path], *, compute: Compute = HERE
) -> Iterator[ImageFeatures]:
    """`features`, one image at a time: a million images need no more memory than a thousand.

    With ranks, which all call this with the same arguments, each computes its shard, and all get every row.
    """
    model = as_model(model)
    num, items = peeked(expand([paths] if isinstance(paths, str | Path) else paths), FEW_IMAGES)
    engine = Engine(model.network, model.preprocessing, compute.with_default("auto"), num_images=num)
    yield from pooled_features(engine, items)


def pooled_features(engine: Engine, items: Iterator[Item]) -> Iterator[ImageFeatures]:
    """The features of each item, in order."""

    def function(records: Iterable[Record]) -> Iterator[Row | BadImage]:
        return engine.features(engine.batches(records))

    for name, row in rows_in_order(items, function, engine.num_features, engine.compute):
        yield ImageFeatures.of(name, row)
