"""Confidence thresholds section: error against coverage, thresholds for a precision, conformal prediction sets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from reinception import metrics
from reinception.metrics import PredictionTable, Rate, calibration
from reinception.report import charts
from reinception.report.formatting import count, interval, percent

_PRECISIONS = (0.8, 0.9, 0.95, 0.98, 0.99, 0.995)
_MOST_PRECISIONS = 3
_LEAST_ANSWERED = 20
"""The error of fewer images than this jumps up and down, and is not drawn."""

_COVERAGES = (0.9, 0.95)


@dataclass(frozen=True, kw_only=True)
class ThresholdSection:
    """What is gained by not answering where the confidence is low.

    `rows`: wanted precision, threshold, coverage, precision reached and its interval. `sets`: guaranteed coverage,
    measured coverage and its interval, mean number of classes in a set.
    """

    sentence: str
    chart: Markup
    rows: tuple[tuple[str, str, str, str, str], ...]
    sets: tuple[tuple[str, str, str, str], ...]


def thresholds(table: PredictionTable, validation: PredictionTable | None) -> ThresholdSection:
    """Thresholds and sets are chosen on `validation` and measured on `table`; without it there is only the curve."""
    points = calibration.risk_coverage(table)
    drawn = [point for point in points if point.answered >= _LEAST_ANSWERED or point is points[-1]]
    curve = [(100 * point.coverage, 100 * (1 - point.right / point.answered)) for point in drawn]
    half = next(point for point in points if point.coverage >= 0.5)
    error, half_error = metrics.top_k_error(table).percent, 100 * (1 - half.right / half.answered)
    sentence = f"Of all images {percent(error)} are wrong; of the more confident half {percent(half_error)}."
    rows: list[tuple[str, str, str, str, str]] = []
    sets: list[tuple[str, str, str, str]] = []
    if validation is not None and len(validation):
        sentence += (
            f" The thresholds were chosen on {count(len(validation), 'validation image')}; the precision they reach is "
            "measured on these images, which had no part in the choice."
        )
        already = metrics.accuracy(validation).percent / 100
        wanted = [precision for precision in _PRECISIONS if precision > already][:_MOST_PRECISIONS]
        rows = [_threshold(table, validation, precision) for precision in wanted]
        sets = [_prediction_sets(table, validation, coverage) for coverage in _COVERAGES]
    return ThresholdSection(
        sentence=sentence,
        chart=charts.line_chart(
            [charts.Line(name="", points=curve, style="line-a")],
            title="error of the answered images against coverage",
            x_label="coverage: percent answered, most confident first",
            from_zero=True,
        ),
        rows=tuple(rows),
        sets=tuple(sets),
    )


def _threshold(table: PredictionTable, validation: PredictionTable, wanted: float) -> tuple[str, str, str, str, str]:
    chosen = calibration.threshold_for(validation, wanted)
    if chosen is None:
        return percent(100 * wanted), "none found", "–", "–", ""
    here = calibration.answered_at(table, chosen.threshold)
    reached = here.precision
    return (
        percent(100 * wanted),
        f"{chosen.threshold:.3f}",
        percent(100 * here.coverage),
        "–" if reached is None else percent(reached.percent),
        "" if reached is None else interval(*reached.interval()),
    )


def _prediction_sets(table: PredictionTable, validation: PredictionTable, coverage: float) -> tuple[str, str, str, str]:
    sets = calibration.conformal_sets(table, calibration.conformal_threshold(validation, coverage))
    covered = Rate(count=int(np.take_along_axis(sets, table.targets[:, None], axis=1).sum()), n=len(table))
    size = f"{sets.sum(axis=1).mean():.2f}"
    return percent(100 * coverage, 0), percent(covered.percent), interval(*covered.interval()), size
