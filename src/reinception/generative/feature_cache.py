"""Features kept between runs, by content: what they were computed of, how, and with what."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reinception.errors import ReinceptionError
from reinception.generative.statistics_file import read_arrays, save_arrays

IMAGES = 512
"""Images in one file: the work that a killed process loses at most."""

_FORMAT = 1


@dataclass(frozen=True, kw_only=True, eq=False)
class Chunk:
    """Features (n, d) of n distinct images, which of them span exactly 0 to 255, and by row why one has none: (kind,
    reason). `cached_on` is the day they were computed, None where that was just now."""

    features: npt.NDArray[np.float32]
    full_range: npt.NDArray[np.bool_]
    bad: Mapping[int, tuple[str, str]] = field(default_factory=dict)
    cached_on: str | None = None


def key_of(digests: Sequence[bytes], how: Mapping[str, Any]) -> str:
    """sha256 (hex) of the images' digests in order, and of how their features are computed."""
    import torch

    told = json.dumps({**how, "format": _FORMAT, "torch": torch.__version__}, sort_keys=True)
    return hashlib.sha256(told.encode() + b"\0" + b"".join(digests)).hexdigest()


def read(folder: Path, key: str, num: int, width: int) -> Chunk | None:
    """The chunk kept under `key`, or None where there is none or it is damaged: then it is computed again."""
    path = _path(folder, key)
    if not path.is_file():
        return None
    with contextlib.suppress(ReinceptionError, KeyError, ValueError):
        arrays = read_arrays(path)
        told = json.loads(str(arrays["told"][()]))
        features, full_range = arrays["features"], arrays["full_range"]
        is_whole = features.shape == (num, width) and features.dtype == np.float32 and full_range.shape == (num,)
        if is_whole and hashlib.sha256(features.tobytes()).hexdigest() == told["sha256"]:
            bad = {int(row): (kind, reason) for row, kind, reason in told["bad"]}
            return Chunk(features=features, full_range=full_range, bad=bad, cached_on=told["date"])
    return None


def write(folder: Path, key: str, chunk: Chunk) -> None:
    """Keeps `chunk`; where the folder cannot be written nothing is kept, which costs only time."""
    told = {
        "bad": [[row, *why] for row, why in chunk.bad.items()],
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "sha256": hashlib.sha256(chunk.features.tobytes()).hexdigest(),
    }
    arrays = {"features": chunk.features, "full_range": chunk.full_range, "told": np.array(json.dumps(told))}
    with contextlib.suppress(OSError, ReinceptionError):
        path = _path(folder, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        save_arrays(path, arrays, replace=True)


def _path(folder: Path, key: str) -> Path:
    return folder / key[:2] / f"{key}.npz"
