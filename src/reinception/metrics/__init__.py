"""Scores, calibration and significance as functions of one table of predictions."""

from reinception.metrics.scores import (
    ClassScore,
    Rate,
    accuracy,
    balanced_accuracy,
    confusion,
    macro_f1,
    majority,
    per_class,
    target_rank,
    top_k_error,
    wilson,
)
from reinception.metrics.table import Counts, PredictionTable, Probabilities, csv_line

__all__ = [
    "ClassScore",
    "Counts",
    "PredictionTable",
    "Probabilities",
    "Rate",
    "accuracy",
    "balanced_accuracy",
    "confusion",
    "csv_line",
    "macro_f1",
    "majority",
    "per_class",
    "target_rank",
    "top_k_error",
    "wilson",
]
