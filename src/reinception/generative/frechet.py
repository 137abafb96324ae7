"""The Fréchet distance of two Gaussians, and how far it would vary on other images and shrink with more of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from reinception.errors import ReinceptionError
from reinception.generative.feature_set import NUM_FOLDS, FeatureSet, Gaussian, gaussian
from reinception.generative.moments import Matrix, Moments
from reinception.generative.rows import Z_95, Rows, checked_pair

# Fewer rows than this leave nothing to estimate a spread from.
LEAST_FOR_INTERVAL = 20
_LEAST = "a covariance needs at least two"


@dataclass(frozen=True, kw_only=True)
class FrechetResult:
    """A Fréchet distance with its uncertainty.

    `value` is the plain distance that every tool prints. It is too large on average, by about a constant over the
    number of images: `infinite` is the estimate for infinitely many images, and `interval` the 95 % interval of that,
    the distance of the two distributions. All three are None where `notes` say why; `infinite` may come out a little
    below 0. `num_distinct` counts the different rows (real, generated), `seed` is that of the parts left out to
    extrapolate.

    Example:
        >>> import numpy as np
        >>> import reinception as ri
        >>> draw = np.random.default_rng(0).normal
        >>> result = ri.generative.fid(real=draw(size=(60, 2)), generated=draw(1, size=(60, 2)))
        >>> result.num_real, result.interval[0] < result.infinite < result.interval[1]
        (60, True)
    """

    value: float
    infinite: float | None = None
    standard_error: float | None = None
    interval: tuple[float, float] | None = None
    num_real: int | None = None
    num_generated: int | None = None
    num_distinct: tuple[int, int] | None = None
    seed: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def bias(self) -> float | None:
        """By how much `value` is too large for lack of images; None where that is not known."""
        return None if self.infinite is None else self.value - self.infinite


def frechet_distance(mu1: Rows, sigma1: Rows, mu2: Rows, sigma2: Rows) -> float:
    """The squared Fréchet distance of two Gaussians: |mu1 - mu2|^2 + tr(sigma1 + sigma2 - 2 (sigma1 sigma2)^(1/2)).

    mu (d,), sigma (d, d): symmetric, positive semi-definite to rounding. Never negative, never complex, finite for any
    rank, and nothing is added to the diagonal. ReinceptionError for shapes that do not fit and values that are not
    finite. Source: Dowson and Landau (1982), equation 6; Heusel et al. 2017 (arXiv 1706.08500), equation 6.

    tr (S1 S2)^(1/2) is the sum of the singular values of R1^T R2 with S = R R^T: the same number as the sum of the
    roots of eigvalsh(S1^(1/2) S2 S1^(1/2)), without squaring what is then rooted, which costs half the digits where a
    covariance has no full rank.

    Example:
        >>> import reinception as ri
        >>> distance = ri.generative.frechet_distance([0, 0], [[2, 1], [1, 2]], [0, 0], [[1, 0], [0, 3]])
        >>> round(distance, 12)  # 8 - 2 sqrt(14)
        0.516685226452
    """
    return distance(gaussian(mu1, sigma1, "1"), gaussian(mu2, sigma2, "2"))


def distance(a: Gaussian, b: Gaussian) -> float:
    """The squared Fréchet distance; ReinceptionError where the widths differ."""
    if len(a.mean) != len(b.mean):
        widths = f"{len(a.mean)} and {len(b.mean)}"
        raise ReinceptionError(f"features of different widths: {widths}; both sets must come from the same extractor")
    shift = a.mean - b.mean
    cross = np.linalg.svd(a.root.T @ b.root, compute_uv=False).sum() if a.root.size and b.root.size else 0.0
    return max(0.0, float(shift @ shift + (a.trace + b.trace - 2.0 * cross)))


def fid(*, real: Rows, generated: Rows, interval: bool = True, seed: int = 0) -> FrechetResult:
    """The Fréchet distance between features (n, d) of real and of generated images, with its uncertainty.

    With features of the FID network this is the Fréchet inception distance. The order of the images changes no bit
    (see `FeatureSet`). With `interval`, the extrapolation to infinitely many images, from four parts that `seed` draws,
    and its interval: about four times the work. ReinceptionError for fewer than two images, different widths, and
    values that are not finite.

    Example:
        >>> import numpy as np
        >>> import reinception as ri
        >>> draw = np.random.default_rng(0).normal
        >>> ri.generative.fid(real=draw(size=(60, 2)), generated=draw(5, size=(60, 2))).value > 40
        True
    """
    pair = checked_pair(real, generated, least=2, why=_LEAST)
    sets = [FeatureSet.of(rows) for rows in pair]
    result = _result(sets)
    return _with_interval(result, sets, seed) if interval else result


def fid_of(
    real: Moments | Gaussian, generated: Moments | Gaussian, *, num: tuple[int | None, int | None] = (None, None)
) -> FrechetResult:
    """The plain distance of statistics, of which no interval can be had: their images are not known any more."""
    sides = [side if isinstance(side, Gaussian) else gaussian(side.mean, side.covariance) for side in (real, generated)]
    counts = [side.num_rows if isinstance(side, Moments) else n for side, n in zip((real, generated), num, strict=True)]
    notes = ["no interval: statistics do not say how the single images vary; give images or features"]
    notes += [_few(name, n, len(sides[0].mean)) for name, n in zip(_NAMES, counts, strict=True) if n is not None]
    return FrechetResult(
        value=distance(*sides),
        num_real=counts[0],
        num_generated=counts[1],
        notes=tuple(note for note in notes if note),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Difference:
    """Two generators against the same real images: `value` is distance A less distance B, both extrapolated.

    Example:
        >>> import numpy as np
        >>> import reinception as ri
        >>> draw = np.random.default_rng(0).normal
        >>> real, far = draw(size=(60, 2)), draw(3, size=(60, 2))
        >>> ri.generative.compare_fid(real=real, a=draw(size=(60, 2)), b=far).value < 0
        True
    """

    a: FrechetResult
    b: FrechetResult
    value: float
    standard_error: float
    interval: tuple[float, float]

    @property
    def better(self) -> str | None:
        """ "A", "B", or None where the 95 % interval of the difference contains 0."""
        low, high = self.interval
        return None if low <= 0 <= high else ("B" if low > 0 else "A")


def compare_fid(*, real: Rows, a: Rows, b: Rows, seed: int = 0) -> Difference:
    """Is the generator of features `a` (n, d) nearer to the real ones than that of `b`? The difference, with interval.

    What the choice of real images does to both distances alike cancels. ReinceptionError as in `fid`, and where
    there can be no interval.

    Example:
        >>> import numpy as np
        >>> import reinception as ri
        >>> draw = np.random.default_rng(0).normal
        >>> real, near, far = draw(size=(60, 2)), draw(size=(60, 2)), draw(3, size=(60, 2))
        >>> ri.generative.compare_fid(real=real, a=near, b=far).better
        'A'
    """
    rows = [*checked_pair(real, a, least=2, why=_LEAST), checked_pair(real, b, least=2, why=_LEAST)[1]]
    true, *others = map(FeatureSet.of, rows)
    if why := next(filter(None, (_refusal([true, other]) for other in others)), ""):
        raise ReinceptionError(f"compare: {why}")
    results = [_with_interval(_result([true, other]), [true, other], seed) for other in others]
    of_real, own = zip(*(_influences(true, other) for other in others), strict=True)
    error = float(np.sqrt(sum(_variance_of_mean(part) for part in (of_real[0] - of_real[1], *own))))
    value = (results[0].infinite or 0.0) - (results[1].infinite or 0.0)
    interval = (value - Z_95 * error, value + Z_95 * error)
    return Difference(a=results[0], b=results[1], value=value, standard_error=error, interval=interval)


# -- from rows to Gaussians --------------------------------------------------------------------------------------------

_NAMES = ("real", "generated")


def _result(sets: Sequence[FeatureSet]) -> FrechetResult:
    counts = [one.num_distinct for one in sets]
    notes = []
    for name, one in zip(_NAMES, sets, strict=True):
        n, d = one.rows.shape
        distinct = n if one.num_distinct is None else one.num_distinct
        if distinct < n:
            notes.append(f"{name}: {n - distinct:,} of {n:,} images are copies of others: copies add no information")
        notes.append(_few(name, distinct, d))
    return FrechetResult(
        value=distance(sets[0].whole, sets[1].whole),
        num_real=len(sets[0].rows),
        num_generated=len(sets[1].rows),
        num_distinct=None if counts[0] is None or counts[1] is None else (counts[0], counts[1]),
        notes=tuple(note for note in notes if note),
    )


def _few(name: str, distinct: int, d: int) -> str:
    if distinct > 3 * d:
        return ""
    how = "far too large" if distinct <= d else "much too large, and its extrapolation is rough"
    return f"{name}: too few images ({distinct:,} different ones for {d:,} features): the value is {how}"


def _refusal(sets: Sequence[FeatureSet]) -> str:
    """Why there can be no interval; empty where there can be."""
    for name, one in zip(_NAMES, sets, strict=True):
        least = max(LEAST_FOR_INTERVAL, one.rows.shape[1] + 1)
        if (distinct := one.num_distinct or 0) < least:
            plural = "s" * (distinct != 1)
            return f"no interval: {name} has {distinct:,} different image{plural}, and at least {least:,} are needed"
    return ""


def _with_interval(result: FrechetResult, sets: Sequence[FeatureSet], seed: int) -> FrechetResult:
    if why := _refusal(sets):
        return replace(result, notes=(*result.notes, why))
    infinite = _extrapolated(sets, result.value, seed)
    error = float(np.sqrt(sum(_variance_of_mean(part) for part in _influences(*sets))))
    interval = (max(0.0, infinite - Z_95 * error), max(0.0, infinite) + Z_95 * error)  # a distance is not below 0
    return replace(result, infinite=infinite, standard_error=error, interval=interval, seed=seed)


def _extrapolated(sets: Sequence[FeatureSet], value: float, seed: int) -> float:
    """The distance for infinitely many images, linear in 1/n through n and 3/4 n; below 0 where luck has it.

    The idea is Chong and Forsyth's (arXiv 1911.07023). The four parts left out hold every image once, so what makes
    this sample a lucky one is the same for both points and cancels in their difference; subsets drawn independently
    would add their own noise. Closer points follow the curve of the bias better, and have less noise, than n/2.
    """
    folds = [
        distance(gaussian(*a), gaussian(*b))
        for a, b in zip(*(one.without_each_fold(seed) for one in sets), strict=True)
    ]
    return value - (NUM_FOLDS - 1) * (sum(folds) / NUM_FOLDS - value)


def _variance_of_mean(influences: Matrix) -> float:
    return float(influences.var(ddof=1)) / len(influences)


def _influences(a: FeatureSet, b: FeatureSet) -> tuple[Matrix, Matrix]:
    """What each row of `a` (n,) and of `b` (m,) adds to the distance: the infinitesimal jackknife, in content order.

    For a row x of b, with z = x - mean_b: z'(I - T)z - tr((I - T) S_b) + 2 (mean_b - mean_a)'z, where
    T = S_a^(1/2) (S_a^(1/2) S_b S_a^(1/2))^(-1/2) S_a^(1/2), pseudo-inverse, maps one Gaussian to the other.
    """
    one, other = a.whole, b.whole
    cross = one.root.T @ other.root
    squares, vectors = np.linalg.eigh(cross @ cross.T)
    kept = squares > len(squares) * np.finfo(np.float64).eps * squares.max(initial=0.0)
    s, u = np.sqrt(squares[kept]), vectors[:, kept]
    to_a = (one.root @ u) / np.sqrt(s)  # to_a @ to_a.T maps b to a
    to_b = (other.root @ (cross.T @ u / s)) / np.sqrt(s)
    shift = other.mean - one.mean
    return _rows_influence(a, to_b, -shift), _rows_influence(b, to_a, shift)


def _rows_influence(one: FeatureSet, transport: Matrix, shift: Matrix) -> Matrix:
    parts = [np.square(z).sum(1) - np.square(z @ transport).sum(1) + 2.0 * (z @ shift) for z in one.centred()]
    found = np.concatenate(parts)
    return found - found.mean()
