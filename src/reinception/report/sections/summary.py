"""Summary section: accuracy with its interval, against always predicting the most frequent class."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from reinception import metrics
from reinception.metrics import PredictionTable
from reinception.metrics.calibration import calibration_error
from reinception.metrics.significance import bootstrap
from reinception.report import charts
from reinception.report.formatting import count, interval, percent


@dataclass(frozen=True, kw_only=True)
class Fact:
    """A figure with its name and one line that says what it is."""

    name: str
    value: str
    note: str


@dataclass(frozen=True, kw_only=True)
class SummarySection:
    """Accuracy, its interval, how it compares with the majority class, and further figures."""

    headline: str
    interval: str
    sentence: str
    chart: Markup
    facts: tuple[Fact, ...]


def summary(table: PredictionTable, split: str | None) -> SummarySection:
    """Accuracy on the held-out split with its Wilson interval, against always predicting the most frequent class."""
    accuracy = metrics.accuracy(table)
    low, high = accuracy.interval()
    name, base = metrics.majority(table)
    if low > base.percent:
        relation = "better than"
    elif high < base.percent:
        relation = "worse than"
    else:
        relation = "not significantly different, with this many images, from"
    sentence = f"This is {relation} always answering “{name}”, which is right for {percent(base.percent)}."
    if split == "val":
        sentence += " The same images chose the weights that were kept, so expect somewhat less on others."
    return SummarySection(
        headline=percent(accuracy.percent),
        interval=interval(low, high),
        sentence=sentence,
        chart=charts.interval_chart(
            percent=accuracy.percent,
            low=low,
            high=high,
            baseline=base.percent,
            baseline_name=f"always {name}" if len(name) <= 18 else "majority class",
            title=f"{percent(accuracy.percent)} correct, 95 % interval {interval(low, high)}",
        ),
        facts=_facts(table),
    )


def _facts(table: PredictionTable) -> tuple[Fact, ...]:
    accuracy, resampled = metrics.accuracy(table), bootstrap(table)
    facts = [
        Fact(name="wrong", value=f"{len(table) - accuracy.count:,}", note=f"of {count(len(table), 'image')}"),
        Fact(
            name="balanced accuracy",
            value=percent(100 * metrics.balanced_accuracy(table)),
            note=interval(*(100 * end for end in resampled["balanced_accuracy"])),
        ),
        Fact(
            name="macro F1",
            value=f"{metrics.macro_f1(table):.3f}",
            note=f"{resampled['macro_f1'][0]:.3f} to {resampled['macro_f1'][1]:.3f}",
        ),
        Fact(
            name="calibration error",
            value=percent(100 * calibration_error(table)),
            note="mean gap between confidence and accuracy",
        ),
    ]
    if len(table.classes) > 5:
        error = metrics.top_k_error(table, 5)
        facts.insert(1, Fact(name="top-5 error", value=percent(error.percent), note=interval(*error.interval())))
    return tuple(facts)
