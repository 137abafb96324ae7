"""Bootstrap and Student intervals, and the exact tests of McNemar and Fisher with Holm's correction; numpy only."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from reinception import metrics
from reinception.errors import ReinceptionError
from reinception.metrics import PredictionTable, Rate, calibration

NUM_RESAMPLES = 2000
_CELLS_AT_ONCE = 4_000_000

Interval = tuple[float, float]
Resampled = npt.NDArray[np.float64]


def bootstrap(
    table: PredictionTable, *, num: int = NUM_RESAMPLES, seed: int = 0, confidence: float = 0.95
) -> Mapping[str, Interval]:
    """Percentile intervals of `accuracy`, `balanced_accuracy`, `macro_f1`, `negative_log_likelihood`, `brier_score`.

    `num` resamples of as many images as there are, with replacement. The first three are functions of the confusion
    matrix, so its cells are resampled instead of the images: the same distribution from fewer numbers.
    ReinceptionError where the table is empty.
    """
    if not len(table):
        raise ReinceptionError("prediction table: there is no image to score")
    rng = np.random.default_rng(seed)
    resampled = _resample_confusion(metrics.confusion(table), num, rng)
    for name, values in (
        ("negative_log_likelihood", calibration.losses(table)),
        ("brier_score", calibration.squared_distances(table)),
    ):
        n = len(values)
        resampled[name] = np.array([values[rng.integers(0, n, n)].mean() for _ in range(num)])
    return {name: _percentiles(values, confidence) for name, values in resampled.items()}


def _resample_confusion(counts: metrics.Counts, num: int, rng: np.random.Generator) -> dict[str, Resampled]:
    """`num` resampled values of accuracy, balanced accuracy and macro F1 from a confusion matrix."""
    rows, columns = np.nonzero(counts)
    cells, n = counts[rows, columns], int(counts.sum())
    at_once = max(1, _CELLS_AT_ONCE // (len(cells) + 3 * len(counts)))
    parts = []
    for start in range(0, num, at_once):
        drawn = rng.multinomial(n, cells / n, size=min(at_once, num - start)).T  # (cells, resamples)
        shape = (len(counts), drawn.shape[1])
        support, predicted, right = np.zeros(shape), np.zeros(shape), np.zeros(shape)
        np.add.at(support, rows, drawn)
        np.add.at(predicted, columns, drawn)
        diagonal = rows == columns
        right[rows[diagonal]] = drawn[diagonal]
        there, seen = support > 0, support + predicted > 0
        recall = np.divide(right, support, out=np.zeros(shape), where=there)
        f1 = np.divide(2 * right, support + predicted, out=np.zeros(shape), where=seen)
        parts.append((right.sum(0) / n, recall.sum(0) / there.sum(0), f1.sum(0) / seen.sum(0)))
    accuracy, balanced, macro = (np.concatenate(values) for values in zip(*parts, strict=True))
    return {"accuracy": accuracy, "balanced_accuracy": balanced, "macro_f1": macro}


def _percentiles(values: Resampled, confidence: float) -> Interval:
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def student_interval(values: Sequence[float], *, confidence: float = 0.95) -> Interval:
    """Student's t interval of the mean of a few independent repetitions. ValueError for fewer than two `values`."""
    if len(values) < 2:
        raise ValueError(f"a t interval needs two values or more, got {len(values)}")
    mean = math.fsum(values) / len(values)
    variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    reach = _student_quantile(len(values) - 1, confidence) * math.sqrt(variance / len(values))
    return mean - reach, mean + reach


def _student_quantile(degrees: int, confidence: float) -> float:
    """The t with P(|T| < t) = confidence, by bisection of the angle atan(t / sqrt(degrees))."""
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _student_within(middle, degrees) < confidence else (low, middle)
    return math.tan(low) * math.sqrt(degrees)


def _student_within(angle: float, degrees: int) -> float:
    """P(|T| < sqrt(degrees) tan(angle)): Abramowitz and Stegun, 26.7.3 (odd degrees) and 26.7.4 (even)."""
    odd = degrees % 2
    term = total = math.cos(angle) if odd else 1.0
    for power in range(2 + odd, degrees - 1, 2):
        term *= math.cos(angle) ** 2 * (power - 1) / power
        total += term
    if not odd:
        return math.sin(angle) * total
    return 2 / math.pi * (angle + (math.sin(angle) * total if degrees > 1 else 0.0))


# -- is A better than B? -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two models on the same images; `difference` is A's accuracy less B's in percentage points, with `interval`."""

    n: int
    both_right: int
    only_a_right: int
    only_b_right: int
    p_value: float
    interval: Interval

    @property
    def a(self) -> Rate:
        return Rate(count=self.both_right + self.only_a_right, n=self.n)

    @property
    def b(self) -> Rate:
        return Rate(count=self.both_right + self.only_b_right, n=self.n)

    @property
    def difference(self) -> float:
        return 100 * (self.only_a_right - self.only_b_right) / self.n

    @property
    def better(self) -> str | None:
        """ "A", "B", or None where there is no evidence: McNemar's p is 0.05 or more."""
        if self.p_value >= 0.05:
            return None
        return "A" if self.only_a_right > self.only_b_right else "B"


def compare(a: PredictionTable, b: PredictionTable, *, num: int = 10 * NUM_RESAMPLES, seed: int = 0) -> Comparison:
    """Paired comparison on the same images, matched by name: McNemar's exact test and a bootstrap of the difference.

    ReinceptionError where the tables are of different images or have different labels for them.
    """
    labels_a, labels_b = _labels(a), _labels(b)
    if labels_a.keys() != labels_b.keys():
        shared = len(labels_a.keys() & labels_b.keys())
        raise ReinceptionError(
            f"compare: the two were evaluated on different images ({len(labels_a)} and {len(labels_b)}, {shared} in "
            "common); evaluate both on the same images with --predictions and compare those files"
        )
    if not labels_a:
        raise ReinceptionError("compare: there is no image to compare on")
    if different := [name for name, (label, _) in labels_a.items() if labels_b[name][0] != label]:
        raise ReinceptionError(
            f"compare: {different[0]!r} is {labels_a[different[0]][0]!r} for one and {labels_b[different[0]][0]!r} for "
            f"the other ({len(different)} such images); compare models of the same labels"
        )
    right = [(labels_a[name][1], labels_b[name][1]) for name in labels_a]
    only_a, only_b = right.count((True, False)), right.count((False, True))
    n = len(right)
    drawn = np.random.default_rng(seed).multinomial(n, np.array([only_a, only_b, n - only_a - only_b]) / n, size=num)
    return Comparison(
        n=n,
        both_right=right.count((True, True)),
        only_a_right=only_a,
        only_b_right=only_b,
        p_value=mcnemar(only_a, only_b),
        interval=_percentiles(100 * (drawn[:, 0] - drawn[:, 1]) / n, 0.95),
    )


def mcnemar(only_a: int, only_b: int) -> float:
    """Exact two-sided p of McNemar's test: twice the lower tail of a binomial with probability one half."""
    n, fewer = only_a + only_b, min(only_a, only_b)
    choices = accumulate(range(fewer), lambda choose, i: choose * (n - i) // (i + 1), initial=1)  # n over 0 to fewer
    return min(1.0, 2 * sum(choices) / 2**n)


def fisher(right: int, n: int, other_right: int, other_n: int) -> float:
    """Exact two-sided p of Fisher's test that two fractions, `right` of `n` and `other_right` of `other_n`, are equal.

    The probability, given the margins, of a table that is at most as probable as this one.
    """
    hits = right + other_right
    low, high = max(0, hits - other_n), min(n, hits)
    i = np.arange(low, high, dtype=np.float64)
    # Logarithms of the hypergeometric probabilities, up to a constant: each from the ratio to the one before.
    logs = np.cumsum([0.0, *np.log((n - i) * (hits - i) / ((i + 1) * (other_n - hits + i + 1)))])
    weights = np.exp(logs - logs.max())
    # Equally probable tables must count as such whatever rounding does to them.
    return float(min(1.0, weights[logs <= logs[right - low] + 1e-7].sum() / weights.sum()))


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """The p values corrected for their number by Holm's step-down method (1979), in the order given.

    Rejecting those below 0.05 keeps the family-wise error rate at 5 %, however the tests depend on one another.
    """
    m, largest = len(p_values), 0.0
    corrected = [0.0] * m
    for place, index in enumerate(sorted(range(m), key=lambda index: p_values[index])):
        largest = max(largest, min(1.0, (m - place) * p_values[index]))
        corrected[index] = largest
    return tuple(corrected)


def _labels(table: PredictionTable) -> dict[str, tuple[str, bool]]:
    rows = zip(table.names, table.targets, table.correct, strict=True)
    return {name: (table.classes[target], bool(right)) for name, target, right in rows}
