"""ROC and precision-recall curves of each class against the rest, and the areas under them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reinception.metrics import PredictionTable


@dataclass(frozen=True, kw_only=True)
class OneVsRest:
    """One class against the rest; None where the area is not defined: no image of the class, or none of another."""

    name: str
    average_precision: float | None
    auroc: float | None


def one_vs_rest(table: PredictionTable) -> tuple[OneVsRest, ...]:
    """Average precision and area under the ROC curve of each class, in the order of `classes`."""
    return tuple(
        _areas(name, table.targets == target, table.probabilities[:, target])
        for target, name in enumerate(table.classes)
    )


def precision_recall_curve(truth: npt.NDArray[np.bool_], score: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """(m, 2) recall and precision at each distinct score as the threshold, from the highest.

    `truth` (n) says which images are of the class, `score` (n) is its probability. `truth` must hold at least one True.
    """
    true_positives, positives = _cumulative(truth, score)
    return np.stack([true_positives / true_positives[-1], true_positives / positives], axis=1)


def roc_curve(truth: npt.NDArray[np.bool_], score: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """(m + 1, 2) false and true positive rate, from (0, 0) to (1, 1). `truth` must hold both values."""
    true_positives, positives = _cumulative(truth, score)
    false_positives = positives - true_positives
    rates = np.stack([false_positives / false_positives[-1], true_positives / true_positives[-1]], axis=1)
    return np.concatenate([np.zeros((1, 2)), rates])


def _areas(name: str, truth: npt.NDArray[np.bool_], score: npt.NDArray[np.float32]) -> OneVsRest:
    positives = int(truth.sum())
    if not positives:
        return OneVsRest(name=name, average_precision=None, auroc=None)
    recall, precision = precision_recall_curve(truth, score).T
    average = float((np.diff(recall, prepend=0) * precision).sum())
    if positives == len(truth):
        return OneVsRest(name=name, average_precision=average, auroc=None)
    false, true = roc_curve(truth, score).T
    area = float((np.diff(false) * (true[1:] + true[:-1]) / 2).sum())
    return OneVsRest(name=name, average_precision=average, auroc=area)


def _cumulative(
    truth: npt.NDArray[np.bool_], score: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """At each distinct score as the threshold, from the highest: true positives, and all predicted positives."""
    order = np.argsort(-score, kind="stable")
    last_of_its_value = np.append(np.diff(score[order]) != 0, True)
    true_positives = np.cumsum(truth[order], dtype=np.float64)[last_of_its_value]
    return true_positives, np.arange(1.0, len(score) + 1)[last_of_its_value]
