"""Mean and covariance of features as exact integer sums: the same bits in any order, on any number of processes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from reinception.errors import ReinceptionError
from reinception.generative.rows import Rows, as_rows, power_of_two_above

Matrix = npt.NDArray[np.float64]
_Integers = npt.NDArray[np.int64]

INCEPTION_LIMIT = 128.0
"""Pooled features of the FID network stay below 10 on natural images; 128 leaves room, and a finer grid than float32's
for everything above 2**-11."""

GRID_BITS, _LIMB_BITS = 42, 21
_BLOCK_ROWS, _COVARIANCE_ROWS, _PANEL = 2048, 256, 512
# A float64 holds every integer up to 2**53: within it, sums of products are exact in any order.
_EXACT = 1 << 53
# Each row adds at most 2**44 to a sum, so this many keep it within int64; then it is carried into a second one.
_CARRY_ROWS, _CARRY_BITS = 1 << 18, 32


def add_product(total: Matrix, rows: Matrix) -> None:
    """Adds rows.T @ rows, rows (n, d), to `total` (d, d): above the diagonal and a little below, for `mirrored`.

    Panels of a general product take half of it, and half the time; BLAS' own symmetric one is hardly faster than all.
    """
    for start in range(0, rows.shape[1], _PANEL):
        panel = slice(start, start + _PANEL)
        total[panel, start:] += rows[:, panel].T @ rows[:, start:]


def mirrored(total: Matrix) -> Matrix:
    """`total` with what is above the diagonal below it too, in place."""
    for start in range(0, len(total), _PANEL):
        below = total[start + _PANEL :, start : start + _PANEL]
        below[:] = total[start : start + _PANEL, start + _PANEL :].T
    return total


def _square(part: Matrix) -> _Integers:
    product = np.zeros((part.shape[1], part.shape[1]))
    add_product(product, part)
    return mirrored(product).astype(np.int64)


class Moments:
    """The number of rows seen, their sum, and the sum of their outer products, all exact.

    Every value is rounded to a multiple of limit / 2**42 and the sums are kept as integers, so that addition is
    associative: `update` in any order, in parts of any size, on any number of processes whose sums `merge` puts
    together (they pickle), gives the same bits of `mean` and `covariance`, which are functions of the exact sums.

    num_features: width d of a row. limit: a power of two that no |value| exceeds; larger values are refused. A
    Moments of d = 2,048 takes 100 MB.

    Example:
        >>> import numpy as np
        >>> import reinception as ri
        >>> moments = ri.generative.Moments(2)
        >>> for batch in np.split(np.arange(12.0).reshape(6, 2), 3):
        ...     moments.update(batch)
        >>> moments.mean.shape, moments.covariance.shape
        ((2,), (2, 2))
    """

    def __init__(self, num_features: int, *, limit: float = INCEPTION_LIMIT) -> None:
        if num_features < 1:
            raise ReinceptionError(f"moments: a row needs at least one feature, got {num_features}")
        if not np.isfinite(limit) or limit <= 0 or np.frexp(limit)[0] != 0.5:
            raise ReinceptionError(f"moments: limit must be a power of two, got {limit!r}")
        self.num_features, self.limit = num_features, float(limit)
        self.reset()

    def reset(self) -> None:
        """Forgets every row."""
        d = self.num_features
        self.num_rows = 0
        self._since_carry = 0
        self._sums: list[int] = [0] * d
        # Values are h * 2**21 + l; the three sums are of h h', of h l' + l h', and of l l'.
        self._products: tuple[_Integers, _Integers, _Integers] = tuple(np.zeros((d, d), np.int64) for _ in range(3))  # type: ignore[assignment]
        self._carried: tuple[_Integers, ...] = ()

    def update(self, features: Rows) -> None:
        """Adds the rows of `features` (n, d). ReinceptionError for another width, NaN, and values above `limit`."""
        rows = as_rows(features)
        if rows.shape[1] != self.num_features:
            raise ReinceptionError(
                f"features of different widths: {rows.shape[1]} beside {self.num_features}; "
                "both sets must come from the same extractor"
            )
        for start in range(0, len(rows), _BLOCK_ROWS):
            self._add(self._limbs(rows[start : start + _BLOCK_ROWS], start))

    def _limbs(self, block: npt.NDArray[Any], start: int) -> tuple[Matrix, Matrix]:
        """The block on the grid, as high and low parts: signed integers of at most 21 and 20 bits."""
        values = block.astype(np.float64)
        largest = np.abs(values).max(initial=0.0)
        if not largest <= self.limit:  # also where it is NaN
            row, column = np.argwhere(~(np.abs(values) <= self.limit))[0]
            value = values[row, column]
            what = f"larger than the limit {self.limit:g}; give a higher limit" if np.isfinite(value) else "not finite"
            raise ReinceptionError(f"features: row {start + row}, column {column} is {value:g}: {what}")
        values *= 2.0**GRID_BITS / self.limit
        np.rint(values, out=values)
        high = np.rint(values * 2.0**-_LIMB_BITS)
        values -= high * 2.0**_LIMB_BITS
        return high, values

    def _add(self, limbs: tuple[Matrix, Matrix]) -> None:
        high, low = limbs
        both = high + low
        largest = max(float(np.abs(part).max(initial=0.0)) for part in (high, low, both))
        at_once = len(high) if not largest else min(len(high), int(_EXACT // int(largest) ** 2))
        for start in range(0, len(high), max(at_once, 1)):
            parts = [part[start : start + at_once] for part in (high, both, low)]
            if self._since_carry + len(parts[0]) > _CARRY_ROWS:
                self._carry()
            # (h + l)(h' + l') - h h' - l l' = h l' + l h': three symmetric products instead of four.
            squares = [_square(part) for part in parts]
            squares[1] -= squares[0]
            squares[1] -= squares[2]
            for total, square in zip(self._products, squares, strict=True):
                np.add(total, square, out=total)
            sums = (parts[0].sum(0).astype(np.int64), parts[2].sum(0).astype(np.int64))
            self._sums = [
                total + (int(h) << _LIMB_BITS) + int(low_sum)
                for total, h, low_sum in zip(self._sums, *(s.tolist() for s in sums), strict=True)
            ]
            self._since_carry += len(parts[0])
            self.num_rows += len(parts[0])

    def _carry(self) -> None:
        if not self._carried:
            self._carried = tuple(np.zeros_like(total) for total in self._products)
        for total, carried in zip(self._products, self._carried, strict=True):
            np.add(carried, total >> _CARRY_BITS, out=carried)
            np.bitwise_and(total, (1 << _CARRY_BITS) - 1, out=total)
        self._since_carry = 1  # what is left is smaller than one row's

    def merge(self, other: Moments) -> None:
        """Adds what `other` has seen. ReinceptionError where its width or limit differs."""
        if (other.num_features, other.limit) != (self.num_features, self.limit):
            raise ReinceptionError(
                f"moments of {other.num_features} features with limit {other.limit:g} cannot be added to "
                f"{self.num_features} with limit {self.limit:g}"
            )
        if self._since_carry + other._since_carry > _CARRY_ROWS or other._carried:
            self._carry()
        for total, more in zip(self._products, other._products, strict=True):
            np.add(total, more, out=total)
        for carried, more in zip(self._carried, other._carried, strict=bool(other._carried)):
            np.add(carried, more, out=carried)
        self._sums = [own + its for own, its in zip(self._sums, other._sums, strict=True)]
        self._since_carry += other._since_carry
        self.num_rows += other.num_rows

    @property
    def mean(self) -> Matrix:
        """(d,) float64, correctly rounded. ReinceptionError before the first row."""
        if not self.num_rows:
            raise ReinceptionError("no images: a mean needs at least one")
        unit = self.limit / 2.0**GRID_BITS
        return np.array([total / self.num_rows for total in self._sums]) * unit

    @property
    def covariance(self) -> Matrix:
        """(d, d) float64, symmetric, divided by n - 1, to a few units of the last place of the exact one.

        ReinceptionError for fewer than two rows.
        """
        n, d = self.num_rows, self.num_features
        if n < 2:
            raise ReinceptionError(f"{n} image{'s' * (n != 1)}: a covariance needs at least two")
        # sum = n c + r with an integer c near the mean: what is left after taking c off every row is small.
        centres, rests = zip(*(_nearest(total, n) for total in self._sums), strict=True)
        rest = np.array(rests, dtype=np.float64)
        found = np.empty((d, d))
        for start in range(0, d, _COVARIANCE_ROWS):
            part = slice(start, start + _COVARIANCE_ROWS)
            about = self._about(part, centres, rests) if n <= _CARRY_ROWS else self._about_large(part, centres, rests)
            found[part] = (about - rest[part, None] * rest / n) / (n - 1)
        return found * (self.limit / 2.0**GRID_BITS) ** 2

    def _about(self, part: slice, centres: Sequence[int], rests: Sequence[int]) -> Matrix:
        """Some rows of the sum of products about `centres`: exact in int64 by limbs, then rounded."""
        n = self.num_rows
        c, r = np.array(centres, dtype=np.int64), np.array(rests, dtype=np.int64)
        high = (c + (1 << _LIMB_BITS - 1)) >> _LIMB_BITS
        low = c - (high << _LIMB_BITS)
        tops, middles, lows = (total[part] for total in self._products)
        own = [one[part, None] for one in (high, low, r)]
        top = tops - n * own[0] * high
        middle = middles - n * (own[0] * low + own[1] * high) - own[0] * r - own[2] * high
        bottom = lows - n * own[1] * low - own[1] * r - own[2] * low
        middle += bottom >> _LIMB_BITS
        top += middle >> _LIMB_BITS
        mask = (1 << _LIMB_BITS) - 1
        small = ((middle & mask) << _LIMB_BITS) + (bottom & mask)
        upper = (top + (1 << 31)) >> 32
        lower = top - (upper << 32)  # with its sign, so that no large numbers cancel
        return (upper * 2.0**32) * 2.0**GRID_BITS + (lower * 2.0**GRID_BITS + small)

    def _about_large(self, part: slice, centres: Sequence[int], rests: Sequence[int]) -> Matrix:
        """The same in Python's integers, for more rows than int64 is sure to hold."""
        c, r = np.array(centres, dtype=object), np.array(rests, dtype=object)
        rows = range(*part.indices(self.num_features))
        exact = [self._exact(row, slice(None)) - c[row] * (c * self.num_rows) - c[row] * r - r[row] * c for row in rows]
        return np.array(exact, dtype=np.float64)

    def _exact(self, row: int, columns: slice) -> npt.NDArray[Any]:
        """One row of the sum of products in units of the grid squared, as Python's integers."""
        high, middle, low = (total[row, columns].astype(object) for total in self._products)
        if self._carried:
            carried = [total[row, columns].astype(object) << _CARRY_BITS for total in self._carried]
            high, middle, low = high + carried[0], middle + carried[1], low + carried[2]
        return (high << 2 * _LIMB_BITS) + (middle << _LIMB_BITS) + low

    @property
    def fingerprint(self) -> str:
        """sha256 (hex) of the sums: equal exactly where mean, covariance and number of rows are."""
        digest = hashlib.sha256(f"{self.num_rows} {self.limit!r}".encode())
        for row in range(self.num_features):
            digest.update(f" {self._sums[row]} ".encode())
            digest.update(str(self._exact(row, slice(row, None)).tolist()).encode())
        return digest.hexdigest()


def _nearest(total: int, n: int) -> tuple[int, int]:
    """(c, r) with total = n c + r and |r| at most n / 2."""
    centre, rest = divmod(2 * total + n, 2 * n)
    return centre, (rest - n) // 2


def moments_of(features: Rows, *, limit: float | None = None) -> Moments:
    """The Moments of (n, d) features; `limit` None is the power of two above the largest |value|.

    Example:
        >>> import numpy as np
        >>> import reinception as ri
        >>> ri.generative.moments_of(np.array([[0.0, 1.0], [2.0, 3.0]])).mean
        array([1., 2.])
    """
    rows = as_rows(features)
    moments = Moments(rows.shape[1], limit=power_of_two_above(rows) if limit is None else limit)
    moments.update(rows)
    return moments
