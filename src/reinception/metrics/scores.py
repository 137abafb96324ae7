"""Scores computed from one table of predictions: exact counts, intervals, per-class figures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from reinception.errors import ReinceptionError
from reinception.metrics.table import Counts, PredictionTable


@dataclass(frozen=True, kw_only=True)
class Rate:
    """`count` of `n`, exactly; percent and interval are derived."""

    count: int
    n: int

    @property
    def percent(self) -> float:
        return 100 * self.count / self.n

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Wilson's interval in percent."""
        low, high = wilson(self.count, self.n, confidence=confidence)
        return 100 * low, 100 * high


@dataclass(frozen=True, kw_only=True)
class ClassScore:
    """One class against the rest. A quotient whose denominator is zero is None."""

    name: str
    support: int
    predicted: int
    correct: int

    @property
    def precision(self) -> float | None:
        """Of the images predicted as this class, the fraction that are right; None where there is none."""
        return self.correct / self.predicted if self.predicted else None

    @property
    def right(self) -> Rate | None:
        """`recall` with its counts."""
        return Rate(count=self.correct, n=self.support) if self.support else None

    @property
    def recall(self) -> float | None:
        """Of the images of this class, the fraction that are right; None where there is none."""
        return self.correct / self.support if self.support else None

    @property
    def f1(self) -> float | None:
        """2 correct / (support + predicted); None where the class is neither present nor predicted."""
        total = self.support + self.predicted
        return 2 * self.correct / total if total else None


def wilson(successes: int, n: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval for `successes` of `n`, as fractions (Wilson 1927, uncorrected)."""
    if not (0 <= successes <= n and n > 0 and 0 < confidence < 1):
        raise ValueError(f"wilson: {successes} of {n} at confidence {confidence}")
    z2 = NormalDist().inv_cdf((1 + confidence) / 2) ** 2
    fraction = successes / n
    centre = (fraction + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * (fraction * (1 - fraction) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    # At the two ends the formula is exactly 0 or 1; rounding is not.
    return (0.0 if successes == 0 else centre - half), (1.0 if successes == n else centre + half)


def target_rank(table: PredictionTable) -> Counts:
    """(n,) how many classes come before the target: the more probable, and of equal ones the earlier in `classes`."""
    p = table.probabilities
    own = np.take_along_axis(p, table.targets[:, None], axis=1)
    earlier = np.arange(len(table.classes))[None, :] < table.targets[:, None]
    return ((p > own) | ((p == own) & earlier)).sum(axis=1).astype(np.int64)


def top_k_error(table: PredictionTable, k: int = 1) -> Rate:
    """Images whose target is not among the `k` most probable classes; 0 by definition with `k` classes or fewer."""
    _refuse_empty(table)
    return Rate(count=int((target_rank(table) >= k).sum()), n=len(table))


def accuracy(table: PredictionTable) -> Rate:
    """Images whose most probable class is the target."""
    _refuse_empty(table)
    return Rate(count=int(table.correct.sum()), n=len(table))


def majority(table: PredictionTable) -> tuple[str, Rate]:
    """The most frequent class of this table, and the accuracy of always predicting it."""
    _refuse_empty(table)
    support = np.bincount(table.targets, minlength=len(table.classes))
    return table.classes[int(support.argmax())], Rate(count=int(support.max()), n=len(table))


def confusion(table: PredictionTable) -> Counts:
    """(k, k) image counts; row is the target, column the prediction."""
    k = len(table.classes)
    return np.bincount(table.targets * k + table.predicted, minlength=k * k).reshape(k, k).astype(np.int64)


def per_class(table: PredictionTable) -> tuple[ClassScore, ...]:
    """Support, precision, recall and F1 of each class, in the order of `classes`."""
    counts = confusion(table)
    columns = zip(table.classes, counts.sum(axis=1), counts.sum(axis=0), counts.diagonal(), strict=True)
    return tuple(
        ClassScore(name=name, support=int(support), predicted=int(predicted), correct=int(correct))
        for name, support, predicted, correct in columns
    )


def macro_f1(table: PredictionTable) -> float:
    """Mean F1 over the classes that are present or predicted (scikit-learn's convention)."""
    _refuse_empty(table)
    return _mean([score.f1 for score in per_class(table)])


def balanced_accuracy(table: PredictionTable) -> float:
    """Mean recall over the classes that are present."""
    _refuse_empty(table)
    return _mean([score.recall for score in per_class(table)])


def _mean(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / len(known)


def _refuse_empty(table: PredictionTable) -> None:
    if not len(table):
        raise ReinceptionError("prediction table: there is no image to score")
