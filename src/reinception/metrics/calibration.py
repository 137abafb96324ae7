"""Calibration of probabilities: reliability, temperature scaling, confidence thresholds, conformal sets."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reinception.errors import ReinceptionError
from reinception.metrics import PredictionTable, Rate

NUM_BINS = 15

_SMALLEST = float(np.finfo(np.float32).tiny)
"""Stands for a probability of zero in a logarithm: the smallest normal float32."""


def negative_log_likelihood(table: PredictionTable) -> float:
    """Mean of -log p(target), in nats."""
    return float(losses(table).mean())


def losses(table: PredictionTable) -> npt.NDArray[np.float64]:
    """(n,) -log p(target); a probability of zero counts as 1.2e-38."""
    return -np.log(np.maximum(_own(table).astype(np.float64), _SMALLEST))


def brier_score(table: PredictionTable) -> float:
    """Mean over images of the sum over classes of (probability - truth) squared: 0 is best, 2 is worst."""
    return float(squared_distances(table).mean())


def squared_distances(table: PredictionTable) -> npt.NDArray[np.float64]:
    """(n,) the Brier score of each image."""
    wide = table.probabilities.astype(np.float64)
    return (wide**2).sum(axis=1) - 2 * _own(table) + 1


@dataclass(frozen=True, kw_only=True)
class Bin:
    """Images whose confidence is above `low` and at most `high`: mean confidence, and how many are right."""

    low: float
    high: float
    n: int
    confidence: float
    right: int

    @property
    def accuracy(self) -> float:
        return self.right / self.n


def reliability(table: PredictionTable, *, num_bins: int = NUM_BINS) -> tuple[Bin, ...]:
    """The bins of equal width that hold an image, by growing confidence (the highest probability of an image)."""
    confidence = _confidence(table)
    edges = np.linspace(0, 1, num_bins + 1)
    place = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, num_bins - 1)
    return tuple(
        Bin(
            low=float(edges[i]),
            high=float(edges[i + 1]),
            n=int(inside.sum()),
            confidence=float(confidence[inside].mean()),
            right=int(table.correct[inside].sum()),
        )
        for i in range(num_bins)
        if (inside := place == i).any()
    )


def calibration_error(table: PredictionTable, *, num_bins: int = NUM_BINS) -> float:
    """Expected calibration error of the top class: mean distance of confidence from accuracy over the bins, 0 to 1."""
    return sum(one.n * abs(one.confidence - one.accuracy) for one in reliability(table, num_bins=num_bins)) / len(table)


@dataclass(frozen=True, kw_only=True)
class ClassCalibration:
    """The images predicted as `name`: number, mean confidence, number that are right, calibration error, and bins."""

    name: str
    n: int
    confidence: float
    right: int
    error: float
    bins: tuple[Bin, ...]

    @property
    def accuracy(self) -> Rate:
        return Rate(count=self.right, n=self.n)


def by_predicted_class(table: PredictionTable) -> tuple[ClassCalibration, ...]:
    """Calibration of each predicted class, in the order of `classes`; a class never predicted is left out.

    By the predicted and not the actual class, since the predicted one is known when a prediction is used.
    """
    predicted = table.predicted
    found: list[ClassCalibration] = []
    for index, name in enumerate(table.classes):
        rows = np.flatnonzero(predicted == index)
        if len(rows):
            part = dataclasses.replace(
                table,
                names=tuple(table.names[row] for row in rows),
                targets=table.targets[rows],
                probabilities=table.probabilities[rows],
            )
            found.append(
                ClassCalibration(
                    name=name,
                    n=len(rows),
                    confidence=float(_confidence(part).mean()),
                    right=int(part.correct.sum()),
                    error=calibration_error(part),
                    bins=reliability(part),
                )
            )
    return tuple(found)


# -- temperature -------------------------------------------------------------------------------------------------------


def fit_temperature(validation: PredictionTable) -> float:
    """The T for which p^(1/T), normalised, has the least negative log-likelihood on `validation` (Guo et al. 2017).

    Between 0.01 and 100; above 1 for an overconfident model. Fit it on other images than those it is evaluated on.
    ReinceptionError where there is no image.
    """
    if not len(validation):
        raise ReinceptionError("temperature: there is no validation image to fit it on")
    logs = _logs(validation)
    own = np.take_along_axis(logs, validation.targets[:, None], axis=1)[:, 0]
    # The loss is convex in 1/T, so its slope crosses zero once: Newton's steps, kept inside a shrinking bracket.
    low, high, inverse = 0.01, 100.0, 1.0
    for _ in range(60):
        probabilities = _softmax(logs * inverse)
        mean = (probabilities * logs).sum(axis=1)
        slope = float((mean - own).mean())
        low, high = (low, inverse) if slope > 0 else (inverse, high)
        curve = float(((probabilities * logs**2).sum(axis=1) - mean**2).mean())
        step = inverse - slope / curve if curve > 0 else low
        if abs(step - inverse) <= 1e-9 * inverse:
            break
        inverse = step if low < step < high else math.sqrt(low * high)
    return 1 / inverse


def with_temperature(table: PredictionTable, temperature: float) -> PredictionTable:
    """The same table with p^(1/temperature), normalised: the ranking of the classes does not change."""
    if not temperature > 0:
        raise ReinceptionError(f"temperature must be above 0, got {temperature}")
    return dataclasses.replace(table, probabilities=_softmax(_logs(table) / temperature).astype(np.float32))


# -- selective prediction ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class SelectivePrediction:
    """Answering only images with a confidence of at least `threshold`: how many of `n` are answered, and right."""

    threshold: float
    answered: int
    right: int
    n: int

    @property
    def coverage(self) -> float:
        """The fraction that is answered."""
        return self.answered / self.n

    @property
    def precision(self) -> Rate | None:
        """The fraction of the answered that is right; None where nothing is answered."""
        return Rate(count=self.right, n=self.answered) if self.answered else None


def risk_coverage(table: PredictionTable) -> tuple[SelectivePrediction, ...]:
    """The risk-coverage curve: one point for each distinct confidence, from the highest."""
    confidence = _confidence(table)
    order = np.argsort(-confidence, kind="stable")
    last_of_its_value = np.flatnonzero(np.append(np.diff(confidence[order]) != 0, True))
    right = np.cumsum(table.correct[order])
    return tuple(
        SelectivePrediction(
            threshold=float(confidence[order[i]]), answered=int(i) + 1, right=int(right[i]), n=len(table)
        )
        for i in last_of_its_value
    )


def threshold_for(table: PredictionTable, precision: float) -> SelectivePrediction | None:
    """The threshold with the largest coverage of `table` that reaches `precision`; None where none does.

    It is chosen on these images; measure the precision that it reaches on others (`answered_at`).
    """
    good = [point for point in risk_coverage(table) if point.right >= precision * point.answered]
    return good[-1] if good else None


def answered_at(table: PredictionTable, threshold: float) -> SelectivePrediction:
    """A given threshold applied to `table`."""
    chosen = _confidence(table) >= threshold
    return SelectivePrediction(
        threshold=threshold, answered=int(chosen.sum()), right=int(table.correct[chosen].sum()), n=len(table)
    )


def conformal_threshold(calibration: PredictionTable, coverage: float) -> float:
    """The smallest probability of a class in an image's prediction set, for sets that contain the target at `coverage`.

    Split conformal prediction with 1 - p(target) as the score: whatever the model, the set of a new image drawn like
    those of `calibration` contains its class with at least that probability. 0 (every class) where the images are too
    few for that guarantee. ReinceptionError for a coverage that is not between 0 and 1.
    """
    if not 0 < coverage < 1:
        raise ReinceptionError(f"conformal: coverage must be between 0 and 1, got {coverage}")
    rank = math.ceil((len(calibration) + 1) * coverage)
    return float(np.sort(_own(calibration))[::-1][rank - 1]) if rank <= len(calibration) else 0.0


def conformal_sets(table: PredictionTable, threshold: float) -> npt.NDArray[np.bool_]:
    """(n, k) whether the class is in the image's prediction set; a set may be empty."""
    return table.probabilities >= np.float32(threshold)


def _own(table: PredictionTable) -> npt.NDArray[np.float32]:
    if not len(table):
        raise ReinceptionError("prediction table: there is no image to score")
    return np.take_along_axis(table.probabilities, table.targets[:, None], axis=1)[:, 0]


def _confidence(table: PredictionTable) -> npt.NDArray[np.float32]:
    if not len(table):
        raise ReinceptionError("prediction table: there is no image to score")
    return table.probabilities.max(axis=1)


def _logs(table: PredictionTable) -> npt.NDArray[np.float64]:
    return np.log(np.maximum(table.probabilities.astype(np.float64), _SMALLEST))


def _softmax(logs: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    powers = np.exp(logs - logs.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)
