"""Features as rows of an array: checked, and put in an order that depends on their content alone."""

from __future__ import annotations

import hashlib
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from reinception.errors import ReinceptionError

if TYPE_CHECKING:
    import torch

    Rows = npt.NDArray[Any] | torch.Tensor
else:
    Rows = Any

Floats = npt.NDArray[np.float32] | npt.NDArray[np.float64]
Z_95 = 1.959963984540054
"""How many standard errors a 95 % interval reaches to either side."""

_BLOCK_ROWS = 2048


def as_rows(features: Rows, name: str = "features") -> Floats:
    """`features`, an array or a tensor on any device, as a float32 or float64 array (n, d); not copied where it is one.

    ReinceptionError where it has no two dimensions or is no array of real numbers.
    """
    if "torch" in sys.modules and isinstance(features, sys.modules["torch"].Tensor):
        tensor = features.detach().cpu()
        features = (tensor if tensor.dtype.itemsize >= 4 or not tensor.is_floating_point() else tensor.float()).numpy()
    rows = np.asarray(features)
    if rows.dtype.kind not in "fiub":
        raise ReinceptionError(f"{name}: must be numbers, got {rows.dtype}")
    if rows.ndim != 2 or not rows.shape[1]:
        raise ReinceptionError(f"{name}: must have the shape (images, features), got {tuple(rows.shape)}")
    return rows if rows.dtype in (np.float32, np.float64) else rows.astype(np.float64)


def checked_pair(real: Rows, generated: Rows, *, least: int = 1, why: str = "") -> tuple[Floats, Floats]:
    """Both as finite rows of one width, at least `least` in each. ReinceptionError names what does not fit."""
    pair = as_rows(real, "real"), as_rows(generated, "generated")
    if pair[0].shape[1] != pair[1].shape[1]:
        raise ReinceptionError(
            f"features of different widths: real has {pair[0].shape[1]}, generated {pair[1].shape[1]}; "
            "both sets must come from the same extractor"
        )
    for name, rows in zip(("real", "generated"), pair, strict=True):
        require_finite(rows, name)
        if len(rows) < least:
            raise ReinceptionError(f"{name}: {len(rows)} image{'s' * (len(rows) != 1)}; {why}")
    return pair


def require_finite(rows: Floats, name: str) -> None:
    """ReinceptionError that names the first row and column that is NaN or infinite."""
    for start in range(0, len(rows), _BLOCK_ROWS):
        bad = ~np.isfinite(rows[start : start + _BLOCK_ROWS])
        if bad.any():
            row, column = np.argwhere(bad)[0]
            value = rows[start + row, column]
            raise ReinceptionError(f"{name}: row {start + row}, column {column} is {value}: not finite")


def power_of_two_above(*sets: Floats) -> float:
    """The smallest power of two that no |value| exceeds; 1 where all are zero or there are none."""
    ends = [(float(rows.max(initial=0.0)), -float(rows.min(initial=0.0))) for rows in sets]
    largest = float(np.max(ends)) if ends else 0.0  # NaN stays NaN
    if not np.isfinite(largest):
        for rows in sets:
            require_finite(rows, "features")
    if not largest:
        return 1.0
    mantissa, exponent = np.frexp(largest)
    return float(2.0 ** (int(exponent) - (mantissa == 0.5)))


def content_order(rows: Floats) -> tuple[npt.NDArray[np.int64], int]:
    """An order of the rows that their content alone decides, as if drawn by lot, and how many distinct rows there are.

    Rows are sorted by a hash of their values, so sets with the same rows have the same order whatever theirs was.
    """
    parts = [rows[start : start + _BLOCK_ROWS] for start in range(0, len(rows), _BLOCK_ROWS)]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:  # hashing leaves the interpreter to others
        digests = [digest for part in pool.map(_digests, parts) for digest in part]
    order = np.array(sorted(range(len(rows)), key=digests.__getitem__), dtype=np.int64)
    return order, len(set(digests))


def _digests(block: Floats) -> list[bytes]:
    """A hash of each row's values, whatever type they are stored in: of half as many bytes where float32 holds them."""
    values = block + block.dtype.type(0)  # -0.0 is 0.0
    with np.errstate(over="ignore"):
        short = values.astype(np.float32, copy=False)
    exact = (short == values).all(1)
    return [
        hashlib.blake2b(row if is_exact else wide, digest_size=16).digest()
        for row, wide, is_exact in zip(short, values, exact.tolist(), strict=True)
    ]


def generator(seed: int, *words: int) -> np.random.Generator:
    """Random numbers that are a function of these integers alone, on every machine: numpy's Philox."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, *words))))
