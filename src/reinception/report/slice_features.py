"""Features of the evaluated images by which they are divided into slices: manifest columns and image statistics."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
import numpy.typing as npt

from reinception.data.sources.labels import split_code
from reinception.data.sources.manifest import other_columns
from reinception.metrics import PredictionTable
from reinception.report.charts import short
from reinception.report.image_lookup import manifest_of
from reinception.report.read_run import Run

_FEW = 6
"""Up to so many distinct numbers are kept as they are; more are divided into thirds."""


@dataclass(frozen=True, kw_only=True)
class SliceFeature:
    """`values[i]` belongs to the image of `rows[i]` of the table; an image without the feature is not among them."""

    name: str
    rows: npt.NDArray[np.int64]
    values: tuple[str, ...]


def slice_features(run: Run, table: PredictionTable) -> tuple[SliceFeature, ...]:
    """Those in which the images differ: listed ones first, then those of their pixels."""
    distinct: dict[tuple[bytes, bytes], SliceFeature] = {}
    for one in (*_listed(run, table), *_measured(run)):
        if len(set(one.values)) > 1:
            # A folder for each group, say, is the same division under another name.
            first = {value: place for place, value in reversed(list(enumerate(one.values)))}
            distinct.setdefault((one.rows.tobytes(), np.array([first[value] for value in one.values]).tobytes()), one)
    return tuple(distinct.values())


def _listed(run: Run, table: PredictionTable) -> Iterator[SliceFeature]:
    records = [run.records.get(name) for name in table.names]
    yield _feature("group", [None if one is None else one.group for one in records])
    yield _feature("stratum", [None if one is None else one.stratum for one in records])
    yield _feature("certainty of the label", _grouped([None if one is None else one.certainty for one in records], ""))
    yield _feature(
        "folder", [_folder(name, table.classes[label]) for name, label in zip(table.names, table.targets, strict=True)]
    )
    manifest = manifest_of(run.config)
    if manifest is not None and run.records:  # else it is no longer what the run read
        for column, values in other_columns(manifest, frozenset(table.names)).items():
            yield _feature(column, _as_numbers([values.get(name) for name in table.names]))


def _measured(run: Run) -> Iterator[SliceFeature]:
    """Size, shape, brightness and contrast of the sampled images."""
    rows, measured = list(run.image_statistics), list(run.image_statistics.values())
    if not measured:
        return
    for name, values, unit in (
        ("shorter side", [float(min(one.width, one.height)) for one in measured], " pixels"),
        ("brightness", [one.brightness for one in measured], " of 255"),
        ("contrast", [one.contrast for one in measured], " of 255"),
    ):
        yield _feature(name, _grouped(values, unit), rows)
    yield _feature("shape", [one.shape for one in measured], rows)


def _feature(name: str, values: Sequence[str | None], rows: Sequence[int] | None = None) -> SliceFeature:
    places = range(len(values)) if rows is None else rows
    known = [(row, value) for row, value in zip(places, values, strict=True) if value is not None]
    return SliceFeature(
        name=name, rows=np.array([row for row, _ in known], dtype=np.int64), values=tuple(value for _, value in known)
    )


def _folder(name: str, label: str) -> str | None:
    """The folders of the image, without those that only name its split or its class."""
    parts = [part for part in PurePosixPath(name).parts[:-1] if part != label and split_code(part) is None]
    return "/".join(parts) or None


def _as_numbers(values: Sequence[str | None]) -> Sequence[str | None]:
    """Thirds, where all values are numbers and many are distinct; else the values as they are."""
    try:
        numbers = [None if value is None else float(value) for value in values]
    except ValueError:
        return values
    is_many = len(set(values)) > _FEW and all(value is None or math.isfinite(value) for value in numbers)
    return _grouped(numbers, "") if is_many else values


def _grouped(values: Sequence[float | None], unit: str) -> list[str | None]:
    """Each number, where few are distinct; else which third it is in, with the third's ends."""
    known = np.array([value for value in values if value is not None])
    if len(np.unique(known)) <= _FEW:
        return [None if value is None else f"{short(value)}{unit}" for value in values]
    low, high = np.quantile(known, (1 / 3, 2 / 3))
    words = (
        f"lowest third, up to {short(low)}{unit}",
        f"middle third, {short(low)} to {short(high)}{unit}",
        f"highest third, above {short(high)}{unit}",
    )
    return [None if value is None else words[int(value > low) + int(value > high)] for value in values]
