"""How well a class's probability ranks the images that are of it before those that are not; numpy only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reinception.metrics import PredictionTable


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """One class against the rest. None where there is nothing to rank: no image of the class, or no other."""

    name: str
    average_precision: float | None
    auroc: float | None


def rankings(table: PredictionTable) -> tuple[Ranking, ...]:
    """Average precision and area under the ROC curve of each class, in the order of `classes`."""
    return tuple(
        _ranking(name, table.targets == target, table.probabilities[:, target])
        for target, name in enumerate(table.classes)
    )


def precision_recall(truth: npt.NDArray[np.bool_], score: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """(m, 2) recall and precision when everything at least as probable as each distinct value is called so.

    From the most to the least probable. `truth` must hold at least one True.
    """
    found, called = _cumulative(truth, score)
    return np.stack([found / found[-1], found / called], axis=1)


def roc(truth: npt.NDArray[np.bool_], score: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """(m + 1, 2) false and true positive rate, from (0, 0) to (1, 1). `truth` must hold both values."""
    found, called = _cumulative(truth, score)
    false = called - found
    return np.concatenate([np.zeros((1, 2)), np.stack([false / false[-1], found / found[-1]], axis=1)])


def _ranking(name: str, truth: npt.NDArray[np.bool_], score: npt.NDArray[np.float32]) -> Ranking:
    positives = int(truth.sum())
    if not positives:
        return Ranking(name=name, average_precision=None, auroc=None)
    recall, precision = precision_recall(truth, score).T
    average = float((np.diff(recall, prepend=0) * precision).sum())
    if positives == len(truth):
        return Ranking(name=name, average_precision=average, auroc=None)
    false, true = roc(truth, score).T
    area = float((np.diff(false) * (true[1:] + true[:-1]) / 2).sum())
    return Ranking(name=name, average_precision=average, auroc=area)


def _cumulative(
    truth: npt.NDArray[np.bool_], score: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """At each distinct score, from the highest: how many are true so far, and how many there are so far."""
    order = np.argsort(-score, kind="stable")
    last_of_its_value = np.append(np.diff(score[order]) != 0, True)
    found = np.cumsum(truth[order], dtype=np.float64)[last_of_its_value]
    return found, np.arange(1.0, len(score) + 1)[last_of_its_value]
