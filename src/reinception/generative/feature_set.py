"""One set of features in an order that its content alone decides, and the Gaussian that is fitted to it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reinception.errors import ReinceptionError
from reinception.generative.moments import Matrix, add_product, mirrored
from reinception.generative.rows import Floats, Rows, content_order, generator

_BLOCK_ROWS = 2048
# Pivots of Cholesky's root farther apart than this are left to the eigenvalues, which tell rounding from rank.
_FULL_RANK = 1e-5
NUM_FOLDS = 4


@dataclass(frozen=True, kw_only=True, eq=False)
class Gaussian:
    """A mean (d,) and a covariance as root @ root.T, `root` (d, r), of which r may be smaller than d."""

    mean: Matrix
    root: Matrix

    @property
    def trace(self) -> float:
        """The trace of the covariance."""
        return float(np.square(self.root).sum())


def gaussian(mu: Rows, sigma: Rows, name: str = "") -> Gaussian:
    """The Gaussian of a mean (d,) and a covariance (d, d). ReinceptionError for other shapes and values not finite.

    The root is Cholesky's where the covariance clearly has full rank, else that of its eigenvalues, of which those
    below rounding (d eps of the largest) count as 0.
    """
    mean, matrix = np.asarray(mu, dtype=np.float64), np.asarray(sigma, dtype=np.float64)
    if mean.ndim != 1 or not mean.size or matrix.shape != (len(mean), len(mean)):
        where = f"statistics {name}".strip()
        raise ReinceptionError(f"{where}: mu must be (d,) and sigma (d, d), got {mean.shape} and {matrix.shape}")
    if not (np.isfinite(mean).all() and np.isfinite(matrix).all()):
        where = f"statistics {name}".strip()
        raise ReinceptionError(f"{where}: a value is not finite; compute them again from the images")
    matrix = (matrix + matrix.T) / 2
    with contextlib.suppress(np.linalg.LinAlgError):
        root: Matrix = np.linalg.cholesky(matrix).astype(np.float64, copy=False)
        pivots = np.diagonal(root)
        if pivots.min() > _FULL_RANK * pivots.max():
            return Gaussian(mean=mean, root=root)
    values, vectors = np.linalg.eigh(matrix)
    kept = values > len(mean) * np.finfo(np.float64).eps * max(float(values[-1]), 0.0)
    return Gaussian(mean=mean, root=vectors[:, kept] * np.sqrt(values[kept]))


@dataclass(frozen=True, kw_only=True, eq=False)
class FeatureSet:
    """The rows of one set, their order by content, the number of different ones, and their Gaussian.

    The sums go through the rows in that order, in blocks of a fixed size: the order in which rows were given changes
    no bit, and one product in float64 is enough, where `Moments`, which keeps no rows, needs three.
    """

    rows: Floats
    order: npt.NDArray[np.int64]
    num_distinct: int
    whole: Gaussian

    @staticmethod
    def of(rows: Floats) -> FeatureSet:
        """The set of `rows` (n, d), at least two."""
        order, num_distinct = content_order(rows)
        whole = _few_rows(rows, order) if len(rows) <= rows.shape[1] else _many_rows(rows, order)
        return FeatureSet(rows=rows, order=order, num_distinct=num_distinct, whole=whole)

    def centred(self) -> Iterator[Matrix]:
        """The rows less the mean, in the order of their content, in blocks, float64."""
        yield from _blocks(self.rows, self.order, self.whole.mean)

    def without_each_fold(self, seed: int) -> list[tuple[Matrix, Matrix]]:
        """Mean and covariance without each of four parts, which are drawn by lot and hold every row once."""
        n = len(self.rows)
        drawn = self.order[generator(seed, n).permutation(n)]
        chosen = [drawn[fold::NUM_FOLDS] for fold in range(NUM_FOLDS)]
        folds = [_sums_about(self.rows, one, self.whole.mean) for one in chosen]
        every_sum, every_product = sum(sums for sums, _ in folds), sum(products for _, products in folds)
        found = []
        for one, (sums, products) in zip(chosen, folds, strict=True):
            left, rest = n - len(one), every_sum - sums
            covariance = (every_product - products - np.outer(rest, rest / left)) / (left - 1)
            found.append((self.whole.mean + rest / left, covariance))
        return found


def _few_rows(rows: Floats, order: npt.NDArray[np.int64]) -> Gaussian:
    """No more rows than features: the rows themselves are a root of the covariance, which is never computed."""
    ordered = rows[order].astype(np.float64)
    mean = ordered.mean(0)
    return Gaussian(mean=mean, root=(ordered - mean).T / np.sqrt(len(rows) - 1))


def _many_rows(rows: Floats, order: npt.NDArray[np.int64]) -> Gaussian:
    near = rows[order[:_BLOCK_ROWS]].astype(np.float64).mean(0)  # near the mean, so that little is cancelled below
    sums, products = _sums_about(rows, order, near)
    covariance = (products - np.outer(sums, sums / len(rows))) / (len(rows) - 1)
    return gaussian(near + sums / len(rows), covariance)


def _blocks(rows: Floats, chosen: npt.NDArray[np.int64], centre: Matrix) -> Iterator[Matrix]:
    for start in range(0, len(chosen), _BLOCK_ROWS):
        yield rows[chosen[start : start + _BLOCK_ROWS]].astype(np.float64) - centre


def _sums_about(rows: Floats, chosen: npt.NDArray[np.int64], centre: Matrix) -> tuple[Matrix, Matrix]:
    """The sum (d,) of the chosen rows less `centre`, and that of their outer products (d, d)."""
    d = rows.shape[1]
    sums, products = np.zeros(d), np.zeros((d, d))
    for block in _blocks(rows, chosen, centre):
        sums += block.sum(0)
        add_product(products, block)
    return sums, mirrored(products)
