"""What is known of each judged image besides its label: what its manifest says, and what its pixels are like."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from reinception.data.sources.manifest import COLUMNS
from reinception.data.sources.records import SPLIT_WORDS
from reinception.metrics import PredictionTable
from reinception.report.charts import short
from reinception.report.image_lookup import manifest_of
from reinception.report.read_run import Run

_FEW = 6
"""Numbers of so many distinct values are kept as they are; more become thirds."""


@dataclass(frozen=True, kw_only=True)
class Trait:
    """`values[i]` is what the image of `rows[i]` of the table has; an image without the trait is not among them."""

    name: str
    rows: npt.NDArray[np.int64]
    values: tuple[str, ...]


def traits(run: Run, table: PredictionTable) -> tuple[Trait, ...]:
    """Those in which the images differ: written down beside them first, then seen in a sample of their pixels."""
    parted: dict[tuple[bytes, bytes], Trait] = {}
    for one in (*_written(run, table), *_seen(run)):
        if len(set(one.values)) > 1:
            # A folder for each group, say, is the same division under another name.
            first = {value: place for place, value in reversed(list(enumerate(one.values)))}
            parted.setdefault((one.rows.tobytes(), np.array([first[value] for value in one.values]).tobytes()), one)
    return tuple(parted.values())


def _written(run: Run, table: PredictionTable) -> Iterator[Trait]:
    records = [run.originals.get(name) for name in table.names]
    yield _trait("group", [None if one is None else one.group for one in records])
    yield _trait("stratum", [None if one is None else one.stratum for one in records])
    yield _trait("certainty of the label", _grouped([None if one is None else one.certainty for one in records], ""))
    yield _trait(
        "folder", [_folder(name, table.classes[label]) for name, label in zip(table.names, table.targets, strict=True)]
    )
    manifest = manifest_of(run.config)
    if manifest is not None and run.originals:  # else it is no longer what the run read
        for column, values in _other_columns(manifest, frozenset(table.names)).items():
            yield _trait(column, _as_numbers([values.get(name) for name in table.names]))


def _seen(run: Run) -> Iterator[Trait]:
    """Size, shape, brightness and contrast of as many images as were looked at."""
    rows, seen = list(run.looks), list(run.looks.values())
    if not seen:
        return
    for name, values, unit in (
        ("shorter side", [float(min(one.width, one.height)) for one in seen], " pixels"),
        ("brightness", [one.brightness for one in seen], " of 255"),
        ("contrast", [one.contrast for one in seen], " of 255"),
    ):
        yield _trait(name, _grouped(values, unit), rows)
    yield _trait("shape", [one.shape for one in seen], rows)


def _trait(name: str, values: Sequence[str | None], rows: Sequence[int] | None = None) -> Trait:
    places = range(len(values)) if rows is None else rows
    known = [(row, value) for row, value in zip(places, values, strict=True) if value is not None]
    return Trait(
        name=name, rows=np.array([row for row, _ in known], dtype=np.int64), values=tuple(value for _, value in known)
    )


def _folder(name: str, label: str) -> str | None:
    """Where the image lies, less what only says its split or its class."""
    parts = [part for part in PurePosixPath(name).parts[:-1] if part != label and part.lower() not in SPLIT_WORDS]
    return "/".join(parts) or None


def _other_columns(manifest: Path, names: frozenset[str]) -> Mapping[str, Mapping[str, str]]:
    """What a manifest that has been read before says of `names` in columns that nobody else asks for."""
    columns: dict[str, dict[str, str]] = {}
    with manifest.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        rows = csv.DictReader(file) if manifest.suffix.lower() == ".csv" else map(json.loads, filter(str.strip, file))
        for row in rows:
            told = {str(key).strip(): value for key, value in row.items()}
            if (name := str(told.get("path"))) in names:
                for key in told.keys() - set(COLUMNS):
                    if told[key] not in ("", None):
                        columns.setdefault(key, {})[name] = str(told[key])
    return dict(sorted(columns.items()))


def _as_numbers(values: Sequence[str | None]) -> Sequence[str | None]:
    """Thirds, where everything that is there is a number and there are many; else what was given."""
    try:
        numbers = [None if value is None else float(value) for value in values]
    except ValueError:
        return values
    is_many = len(set(values)) > _FEW and all(value is None or math.isfinite(value) for value in numbers)
    return _grouped(numbers, "") if is_many else values


def _grouped(values: Sequence[float | None], unit: str) -> list[str | None]:
    """Each number, where they are few; else in which third of them it is, with the third's ends."""
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
