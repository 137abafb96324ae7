"""The sections on trust as values: calibration before and after temperature, thresholds, and sets with a promise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from reinception import metrics
from reinception.metrics import PredictionTable, calibration, wilson
from reinception.report import charts
from reinception.report.formatting import count, interval, joined, percent

_WANTED = (0.8, 0.9, 0.95, 0.98, 0.99, 0.995)
_MOST_WANTED = 3
_LEAST_ANSWERED = 20
_PROMISED = (0.9, 0.95)
_MOST_DIAGRAMS = 4


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How far its probabilities can be taken at their word. `rows`: name, NLL, Brier score, calibration error."""

    sentence: str
    rows: tuple[tuple[str, str, str, str], ...]
    legend: tuple[tuple[str, str], ...]
    chart: Markup


@dataclass(frozen=True, kw_only=True)
class ClassTrust:
    """How one answer keeps its word: images called so, the share claimed and kept, the calibration error before and
    after temperature. In `bar` the range is the interval of what is kept, the mark is what is claimed."""

    name: str
    n: int
    claimed: str
    right: str
    interval: str
    bar: Markup
    error: str
    error_after: str | None


@dataclass(frozen=True, kw_only=True)
class ClassCalibrations:
    """Calibration by answer: a table, and for few classes a reliability diagram (name, note, picture) of each."""

    sentence: str
    rows: tuple[ClassTrust, ...]
    charts: tuple[tuple[str, str, Markup], ...]
    has_after: bool


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """What is gained by not always answering.

    `rows`: wanted precision, threshold, share answered, share of those right and its interval. `sets`: promised
    coverage, coverage and its interval, mean number of classes in a set.
    """

    sentence: str
    chart: Markup
    rows: tuple[tuple[str, str, str, str, str], ...]
    sets: tuple[tuple[str, str, str, str], ...]


def calibrated(table: PredictionTable, validation: PredictionTable | None) -> Calibration:
    """`validation` is what the temperature is fitted on; without it there is no temperature."""
    sure, right = 100 * float(table.probabilities.max(axis=1).mean()), metrics.accuracy(table).percent
    low, high = metrics.accuracy(table).interval()
    if low <= sure <= high:
        verdict = "as sure as it should be, as far as so many images can tell"
    else:
        verdict = "too sure of itself" if sure > right else "less sure than it could be"
    sentence = f"On average it claims {percent(sure)} and is right for {percent(right)}: {verdict}."
    tables = [("as it is", table)]
    if validation is not None and len(validation):
        temperature = calibration.fit_temperature(validation)
        tables.append((f"temperature {temperature:.2f}", calibration.with_temperature(table, temperature)))
        before, after = (calibration.calibration_error(one) for _, one in tables)
        helped = "lowers" if after < before else "does not lower"
        sentence += (
            f" A temperature of {temperature:.2f}, fitted on {count(len(validation), 'validation image')}, {helped} "
            f"the calibration error here: {percent(100 * before)} before, {percent(100 * after)} after."
        )
    styles = ("line-a", "line-b")
    return Calibration(
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
        legend=tuple(zip(styles, (name for name, _ in tables), strict=False)),
        chart=charts.reliability_chart(
            [
                (style, _points(bins))
                for style, bins in zip(styles, (calibration.reliability(one) for _, one in tables), strict=False)
            ],
            title="reliability: how often right against how sure",
        ),
    )


def calibrated_classes(table: PredictionTable, validation: PredictionTable | None) -> ClassCalibrations:
    """The same by what the images were called; the temperature is the one for all classes, fitted on `validation`."""
    before = calibration.by_called(table)
    after: dict[str, str] = {}
    if validation is not None and len(validation):
        warmed = calibration.with_temperature(table, calibration.fit_temperature(validation))
        after = {one.name: percent(100 * one.error) for one in calibration.by_called(warmed)}
    too_sure = [one.name for one in before if one.confidence > wilson(one.right, one.n)[1]]
    too_shy = [one.name for one in before if one.confidence < wilson(one.right, one.n)[0]]
    claims = [
        f"{len(names)} {f'claims {what} than it keeps' if len(names) == 1 else f'claim {what} than they keep'} "
        f"({_first(names)})"
        for what, names in (("more", too_sure), ("less", too_shy))
        if names
    ]
    found = f"Of {count(len(before), 'answer')} {' and '.join(claims)}" if claims else "Every answer keeps its word"
    return ClassCalibrations(
        sentence=f"{found}, as far as 95 % intervals can tell; one in twenty would miss by chance. A calibration error "
        "of few images is above zero even where nothing is wrong.",
        rows=tuple(_class_trust(one, after.get(one.name)) for one in before),
        charts=tuple(
            (
                one.name,
                count(one.n, "image") + " called so",
                charts.reliability_chart([("line-a", _points(one.bins))], title=f"reliability of {one.name}"),
            )
            for one in (before if len(table.classes) <= _MOST_DIAGRAMS else ())
        ),
        has_after=bool(after),
    )


def _class_trust(one: calibration.ClassCalibration, after: str | None) -> ClassTrust:
    low, high = wilson(one.right, one.n)
    return ClassTrust(
        name=one.name,
        n=one.n,
        claimed=percent(100 * one.confidence),
        right=percent(100 * one.right / one.n),
        interval=interval(100 * low, 100 * high),
        bar=charts.range_bar(low, one.confidence, high),
        error=percent(100 * one.error),
        error_after=after,
    )


def _first(names: list[str]) -> str:
    more = [f"{len(names) - 3} more"] if len(names) > 3 else []
    return joined([*(f"“{name}”" for name in names[:3]), *more])


def _points(bins: Sequence[calibration.Bin]) -> list[tuple[float, float, float, float, int]]:
    return [(one.confidence, one.accuracy, *wilson(one.right, one.n), one.n) for one in bins]


def thresholds(table: PredictionTable, validation: PredictionTable | None) -> Thresholds:
    """Thresholds and sets are chosen on `validation` and shown on `table`; without the former just the curve is."""
    points = calibration.risk_coverage(table)
    # A share of a handful of images jumps up and down and says nothing.
    told = [point for point in points if point.answered >= _LEAST_ANSWERED or point is points[-1]]
    curve = [(100 * point.coverage, 100 * (1 - point.right / point.answered)) for point in told]
    half = next(point for point in points if point.coverage >= 0.5)
    error, rest = metrics.top_k_error(table).percent, 100 * (1 - half.right / half.answered)
    sentence = f"Of all images {percent(error)} are wrong; of the surer half {percent(rest)}."
    rows: list[tuple[str, str, str, str, str]] = []
    sets: list[tuple[str, str, str, str]] = []
    if validation is not None and len(validation):
        sentence += (
            f" The thresholds were chosen on {count(len(validation), 'validation image')}; what they keep of their "
            "promise is shown on these images, which had no say."
        )
        already = metrics.accuracy(validation).percent / 100
        for wanted in [share for share in _WANTED if share > already][:_MOST_WANTED]:
            chosen = calibration.threshold_for(validation, wanted)
            if chosen is None:
                rows.append((percent(100 * wanted), "none found", "–", "–", ""))
                continue
            here = calibration.answered_at(table, chosen.threshold)
            kept = here.precision
            rows.append(
                (
                    percent(100 * wanted),
                    f"{chosen.threshold:.3f}",
                    percent(100 * here.coverage),
                    "–" if kept is None else percent(kept.percent),
                    "" if kept is None else interval(*kept.interval()),
                )
            )
        sets = [_promise(table, validation, promised) for promised in _PROMISED]
    return Thresholds(
        sentence=sentence,
        chart=charts.line_chart(
            [charts.Line(name="", points=curve, style="line-a")],
            title="error of the answered images against how many are answered",
            x_label="percent answered, the surest first",
            from_zero=True,
        ),
        rows=tuple(rows),
        sets=tuple(sets),
    )


def _promise(table: PredictionTable, validation: PredictionTable, promised: float) -> tuple[str, str, str, str]:
    sets = calibration.conformal_sets(table, calibration.conformal_threshold(validation, promised))
    held = int(np.take_along_axis(sets, table.targets[:, None], axis=1).sum())
    low, high = wilson(held, len(table))
    return (
        percent(100 * promised, 0),
        percent(100 * held / len(table)),
        interval(100 * low, 100 * high),
        f"{sets.sum(axis=1).mean():.2f}",
    )
