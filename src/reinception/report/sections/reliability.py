"""Calibration section: confidence against accuracy before and after temperature, overall and by predicted class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from reinception import metrics
from reinception.metrics import PredictionTable, calibration, wilson
from reinception.report import charts
from reinception.report.formatting import count, first_three, percent

_MOST_DIAGRAMS = 4
_STYLES = ("line-a", "line-b")


@dataclass(frozen=True, kw_only=True)
class CalibrationSection:
    """The reliability diagram, and `rows` of name, negative log-likelihood, Brier score and calibration error."""

    sentence: str
    rows: tuple[tuple[str, str, str, str], ...]
    legend: tuple[tuple[str, str], ...]
    chart: Markup


@dataclass(frozen=True, kw_only=True)
class PredictedClassSection:
    """Calibration by predicted class, and for few classes a reliability diagram (name, note, SVG) of each.

    `error_after` is the calibration error after temperature by class, empty where there is no temperature.
    """

    sentence: str
    rows: tuple[calibration.ClassCalibration, ...]
    charts: tuple[tuple[str, str, Markup], ...]
    error_after: Mapping[str, float]


def overall_calibration(table: PredictionTable, validation: PredictionTable | None) -> CalibrationSection:
    """`validation` is what the temperature is fitted on; without it there is no temperature."""
    confidence, accuracy = 100 * float(table.probabilities.max(axis=1).mean()), metrics.accuracy(table)
    low, high = accuracy.interval()
    if low <= confidence <= high:
        verdict = "within the interval of the accuracy"
    else:
        verdict = "overconfident" if confidence > accuracy.percent else "underconfident"
    sentence = f"Mean confidence is {percent(confidence)}, accuracy {percent(accuracy.percent)}: {verdict}."
    tables = [("uncalibrated", table)]
    if validation is not None and len(validation):
        temperature = calibration.fit_temperature(validation)
        tables.append((f"temperature {temperature:.2f}", calibration.with_temperature(table, temperature)))
        before, after = (calibration.calibration_error(one) for _, one in tables)
        helped = "lowers" if after < before else "does not lower"
        sentence += (
            f" A temperature of {temperature:.2f}, fitted on {count(len(validation), 'validation image')}, {helped} "
            f"the calibration error here: {percent(100 * before)} before, {percent(100 * after)} after."
        )
    return CalibrationSection(
        sentence=sentence,
        rows=tuple(
            (
                name,
                f"{calibration.negative_log_likelihood(one):.3f}",
                f"{calibration.brier_score(one):.3f}",
                percent(100 * calibration.calibration_error(one)),
            )
            for name, one in tables
        ),
        legend=tuple((style, name) for style, (name, _) in zip(_STYLES, tables, strict=False)),
        chart=charts.reliability_chart(
            [(style, _points(calibration.reliability(one))) for style, (_, one) in zip(_STYLES, tables, strict=False)],
            title="reliability diagram: accuracy against confidence",
        ),
    )


def calibration_by_predicted_class(table: PredictionTable, validation: PredictionTable | None) -> PredictedClassSection:
    """The same by predicted class; the temperature is the one for all classes, fitted on `validation`."""
    before = calibration.by_predicted_class(table)
    after: dict[str, float] = {}
    if validation is not None and len(validation):
        scaled = calibration.with_temperature(table, calibration.fit_temperature(validation))
        after = {one.name: one.error for one in calibration.by_predicted_class(scaled)}
    over = [one.name for one in before if 100 * one.confidence > one.accuracy.interval()[1]]
    under = [one.name for one in before if 100 * one.confidence < one.accuracy.interval()[0]]
    found = [
        f"{len(names)} {'is' if len(names) == 1 else 'are'} {what} ({first_three(names)})"
        for what, names in (("overconfident", over), ("underconfident", under))
        if names
    ]
    classes = f"Of {count(len(before), 'predicted class', 'predicted classes')} {' and '.join(found)}"
    return PredictedClassSection(
        sentence=f"{classes if found else 'No predicted class is over- or underconfident'}, by 95 % intervals; one in "
        "twenty would miss by chance. The calibration error of few images is above zero even for a calibrated model.",
        rows=before,
        charts=tuple(
            (
                one.name,
                count(one.n, "image"),
                charts.reliability_chart([("line-a", _points(one.bins))], title=f"reliability of {one.name}"),
            )
            for one in (before if len(table.classes) <= _MOST_DIAGRAMS else ())
        ),
        error_after=after,
    )


def _points(bins: Sequence[calibration.Bin]) -> list[tuple[float, float, float, float, int]]:
    return [(one.confidence, one.accuracy, *wilson(one.right, one.n), one.n) for one in bins]
