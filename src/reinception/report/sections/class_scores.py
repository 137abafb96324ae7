"""Classes section: precision, recall, F1, average precision and AUROC of each class, with PR and ROC curves."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from reinception import metrics
from reinception.metrics import ClassScore, PredictionTable
from reinception.metrics.roc import OneVsRest, one_vs_rest, precision_recall_curve, roc_curve
from reinception.report.charts import Chart, Line, chart
from reinception.report.sections.confusion_matrix import MOST_CLASSES_IN_A_TABLE

_STYLES = ("line-a", "line-b", "line-c")


def class_rows(table: PredictionTable) -> list[tuple[ClassScore, OneVsRest]]:
    """The per-class table: in the order of the classes when they are few, lowest F1 first when they are many."""
    scores = list(zip(metrics.per_class(table), one_vs_rest(table), strict=True))
    if len(scores) > MOST_CLASSES_IN_A_TABLE:
        scores.sort(key=lambda pair: (pair[0].f1 is None, pair[0].f1))
    return scores


def pr_and_roc_charts(table: PredictionTable) -> tuple[Chart, ...]:
    """The precision-recall and the ROC curve of each class, where they are few enough to tell the lines apart."""
    present = [t for t in range(len(table.classes)) if 0 < int((table.targets == t).sum()) < len(table)]
    if not present or len(table.classes) > len(_STYLES):
        return ()

    def drawn(
        title: str,
        x_label: str,
        of: Callable[[npt.NDArray[np.bool_], npt.NDArray[np.float32]], npt.NDArray[np.float64]],
    ) -> Chart:
        lines = [
            Line(
                name=table.classes[t],
                points=[(float(x), float(y)) for x, y in 100 * of(table.targets == t, table.probabilities[:, t])],
                style=_STYLES[i],
            )
            for i, t in enumerate(present)
        ]
        return chart(title, lines, x_label=x_label, from_zero=True)

    return (
        drawn("Precision-recall curve, percent", "recall", precision_recall_curve),
        drawn("ROC curve: true positive rate, percent", "false positive rate", roc_curve),
    )
