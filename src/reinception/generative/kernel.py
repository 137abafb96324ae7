"""The kernel inception distance: an unbiased squared maximum mean discrepancy, with its standard error."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from reinception.errors import ReinceptionError
from reinception.generative.moments import Matrix
from reinception.generative.rows import Z_95, Floats, Rows, checked_pair, content_order, generator

_BLOCK_ROWS = 1024
# Both sets together up to this many pairs, the statistic over all of them takes no longer than the subsets.
_MOST_PAIRS = 5_000 * 5_000


@dataclass(frozen=True, kw_only=True)
class KernelResult:
    """A kernel distance. It is unbiased, so it is negative about as often as positive where the sets are alike.

    `value` is the mean over `num_subsets` random subsets of `subset_size` images, `spread` the standard deviation
    between them (None where all are the same), `standard_error` that of `value` over other images of the same kind,
    `interval` the 95 % interval. `full` is the statistic over all pairs, which needs no subsets and no `seed`; None
    where it was not asked for.

    Example:
        >>> import numpy as np
        >>> import reinception as ri
        >>> draw = np.random.default_rng(0).normal
        >>> result = ri.generative.kid(real=draw(size=(60, 2)), generated=draw(3, size=(60, 2)))
        >>> result.subset_size, result.interval[0] > 0
        (60, True)
    """

    value: float
    standard_error: float
    interval: tuple[float, float]
    spread: float | None
    subset_size: int
    num_subsets: int
    seed: int
    full: float | None
    num_real: int
    num_generated: int
    notes: tuple[str, ...] = ()

    @property
    def contains_zero(self) -> bool:
        """Whether the interval contains 0: no difference between the sets is shown."""
        return self.interval[0] <= 0 <= self.interval[1]


def kid(
    *,
    real: Rows,
    generated: Rows,
    num_subsets: int = 100,
    subset_size: int | None = None,
    seed: int = 0,
    full: bool | None = None,
) -> KernelResult:
    """The unbiased kernel distance of features (n, d) and (m, d) with the kernel (x.y / d + 1)^3.

    subset_size: None for 1,000, or all where there are fewer. full: whether to take all pairs too; None where there are
    at most 25 million. The subsets depend on the rows' content and on `seed`, not on their order; memory does not grow
    with their number. ReinceptionError for one image, a `subset_size` above the number of images, different widths, and
    values that are not finite. Source: Binkowski et al. 2018 (arXiv 1801.01401).

    Example:
        >>> import reinception as ri
        >>> ri.generative.kid(real=[[0.0], [1.0]], generated=[[0.0], [2.0]]).value
        -13.0
    """
    pair = checked_pair(real, generated, least=2, why="the unbiased estimate needs at least two")
    least = min(map(len, pair))
    size = min(1000, least) if subset_size is None else subset_size
    if not 2 <= size <= least:
        raise ReinceptionError(f"kid: a subset of {size} images cannot be drawn from {least}; give 2 to {least}")
    if num_subsets < 1:
        raise ReinceptionError(f"kid: num_subsets must be at least 1, got {num_subsets}")
    orders = [content_order(rows)[0] for rows in pair]
    all_alike = size == max(map(len, pair))
    is_full = len(pair[0]) * len(pair[1]) <= _MOST_PAIRS if full is None else full
    whole = None
    if is_full or all_alike:
        whole = _discrepancy(*(rows[order] for rows, order in zip(pair, orders, strict=True)))
    found = []
    for index in range(0 if all_alike else num_subsets):
        drawn = [generator(seed, index, side).choice(len(rows), size, replace=False) for side, rows in enumerate(pair)]
        parts = (rows[order[own]] for rows, order, own in zip(pair, orders, drawn, strict=True))
        found.append(_discrepancy(*parts))
    values = np.array([one[0] for one in found or [whole] if one])
    spread = float(values.std(ddof=1)) if len(values) > 1 else None
    variances = [whole[1:]] if whole else [one[1:] for one in found]
    by_set = zip(zip(*variances, strict=True), pair, strict=True)
    variance = sum(4 * float(np.mean(own)) / len(rows) for own, rows in by_set)
    error = float(np.sqrt(variance + (spread or 0.0) ** 2 / len(values)))
    value = float(values.mean())
    alike = f"every subset of {size} is the whole set: there is no spread between subsets"
    return KernelResult(
        value=value,
        standard_error=error,
        interval=(value - Z_95 * error, value + Z_95 * error),
        spread=spread,
        subset_size=size,
        num_subsets=len(values),
        seed=seed,
        full=whole[0] if whole and is_full else None,
        num_real=len(pair[0]),
        num_generated=len(pair[1]),
        notes=(alike,) if all_alike else (),
    )


def _discrepancy(x: Floats, y: Floats) -> tuple[float, float, float]:
    """The unbiased statistic of x (n, d) and y (m, d), and the variances of what a row of x and of y adds to it.

    The variance of the statistic is 4 (first / n + second / m): that of a U-statistic by its projection on single rows.
    """
    n, m = len(x), len(y)
    xy, yx = np.zeros(n), np.zeros(m)
    for rows in _parts(n):
        for columns in _parts(m):
            block = _kernel(x[rows], y[columns])
            xy[rows] += block.sum(1)
            yx[columns] += block.sum(0)
    xx, yy = _with_the_others(x), _with_the_others(y)
    value = xx.sum() / (n * (n - 1)) + yy.sum() / (m * (m - 1)) - 2.0 * xy.sum() / (n * m)
    of_x, of_y = xx / (n - 1) - xy / m, yy / (m - 1) - yx / n
    return float(value), float(of_x.var(ddof=1)), float(of_y.var(ddof=1))


def _with_the_others(x: Floats) -> Matrix:
    """The sum of each row's kernel with every other row (n,); each pair of blocks is computed once."""
    sums = np.zeros(len(x))
    for rows in _parts(len(x)):
        own = _kernel(x[rows], x[rows])
        np.fill_diagonal(own, 0.0)
        sums[rows] += own.sum(1)
        for columns in _parts(len(x), rows.stop):
            block = _kernel(x[rows], x[columns])
            sums[rows] += block.sum(1)
            sums[columns] += block.sum(0)
    return sums


def _kernel(x: Floats, y: Floats) -> Matrix:
    return (x.astype(np.float64) @ y.astype(np.float64).T / x.shape[1] + 1.0) ** 3


def _parts(num: int, start: int = 0) -> Iterator[slice]:
    return (slice(first, min(first + _BLOCK_ROWS, num)) for first in range(start, num, _BLOCK_ROWS))
