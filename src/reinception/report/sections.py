"""The parts of the page as values: what each section shows, computed from a run and its prediction table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from reinception import metrics
from reinception.metrics import ClassScore, PredictionTable
from reinception.metrics.calibration import calibration_error
from reinception.metrics.roc import Ranking, precision_recall, rankings, roc
from reinception.metrics.significance import bootstrap
from reinception.report import charts
from reinception.report.activation_overlay import evidence
from reinception.report.confusion import MOST_CLASSES_IN_A_TABLE
from reinception.report.formatting import count, interval, percent
from reinception.report.read_run import Run
from reinception.report.report_image import ReportImage, report_image

MOST_MISTAKES = 24
MOST_SAMPLES = 40
SAMPLES_PER_CLASS = 8
SPLITS = ("train", "val", "test")


@dataclass(frozen=True, kw_only=True)
class Fact:
    """A figure with its name and one line that says what it is."""

    name: str
    value: str
    note: str


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The answer first: how often it is right, how sure that is, and against what."""

    headline: str
    interval: str
    sentence: str
    chart: Markup
    facts: tuple[Fact, ...]


@dataclass(frozen=True, kw_only=True)
class ClassCounts:
    """Images of one class: in each split, in all, and as a share of all."""

    name: str
    counts: tuple[int, ...]
    total: int
    bar: Markup


@dataclass(frozen=True, kw_only=True)
class Data:
    """What the run learnt from and was judged on; `folded` closes a long table behind its sentence."""

    sentence: str
    splits: tuple[str, ...]
    rows: tuple[ClassCounts, ...]
    folded: bool
    totals: tuple[int, ...]
    samples: tuple[tuple[str, tuple[ReportImage, ...]], ...]


@dataclass(frozen=True, kw_only=True)
class Chart:
    """One learning curve with its legend: (style, name) of each line."""

    title: str
    note: str
    legend: tuple[tuple[str, str], ...]
    svg: Markup


@dataclass(frozen=True, kw_only=True)
class ClassRow:
    """One class of the per-class table, ready to print."""

    name: str
    support: int
    precision: str
    recall: str
    recall_interval: str
    recall_bar: Markup | None
    f1: str
    average_precision: str
    auroc: str


def verdict(table: PredictionTable, split: str | None) -> Verdict:
    """Accuracy on the held-out split with its Wilson interval, against always answering the commonest class."""
    right = metrics.accuracy(table)
    low, high = right.interval()
    name, base = metrics.majority(table)
    drawn = bootstrap(table)
    if low > base.percent:
        against = "better than"
    elif high < base.percent:
        against = "worse than"
    else:
        against = "not told apart, with this many images, from"
    facts = [
        Fact(name="wrong", value=f"{len(table) - right.count:,}", note=f"of {count(len(table), 'image')}"),
        Fact(
            name="balanced accuracy",
            value=percent(100 * metrics.balanced_accuracy(table)),
            note=interval(*(100 * end for end in drawn["balanced_accuracy"])),
        ),
        Fact(
            name="macro F1",
            value=f"{metrics.macro_f1(table):.3f}",
            note=f"{drawn['macro_f1'][0]:.3f} to {drawn['macro_f1'][1]:.3f}",
        ),
        Fact(
            name="calibration error",
            value=percent(100 * calibration_error(table)),
            note="mean gap between claimed and right",
        ),
    ]
    if len(table.classes) > 5:
        error = metrics.top_k_error(table, 5)
        facts.insert(1, Fact(name="top-5 error", value=percent(error.percent), note=interval(*error.interval())))
    sentence = f"This is {against} always answering “{name}”, which is right for {percent(base.percent)}."
    if split == "val":
        sentence += " The same images chose the weights that were kept, so expect somewhat less on others."
    return Verdict(
        headline=percent(right.percent),
        interval=interval(low, high),
        sentence=sentence,
        chart=charts.interval_chart(
            percent=right.percent,
            low=low,
            high=high,
            baseline=base.percent,
            baseline_name=f"always {name}" if len(name) <= 18 else "majority class",
            title=f"{percent(right.percent)} correct, 95 % interval {interval(low, high)}",
        ),
        facts=tuple(facts),
    )


def data(run: Run, table: PredictionTable | None) -> Data | None:
    """Images per class and split, and some of each class that the network gets right."""
    counted: Mapping[str, Mapping[str, int]] = run.config.get("splits", {})
    splits = tuple(name for name in SPLITS if counted.get(name))
    if not splits and table is None:
        return None
    names = run.config.get("classes", ()) if splits else ()
    totals = [sum(counted[split].get(name, 0) for split in splits) for name in names]
    sentence = ""
    if splits:
        sizes = (
            f"from {min(totals):,} to {count(max(totals), 'image')} each" if len(set(totals)) > 1 else "equally many"
        )
        sentence = f"{count(sum(totals), 'image')} in {count(len(names), 'class', 'classes')}, {sizes}."
    return Data(
        sentence=sentence,
        splits=splits,
        rows=tuple(
            ClassCounts(
                name=name,
                counts=tuple(counted[split].get(name, 0) for split in splits),
                total=total,
                bar=charts.bar(total / max(totals)),
            )
            for name, total in zip(names, totals, strict=True)
        ),
        folded=len(names) > MOST_CLASSES_IN_A_TABLE,
        totals=tuple(sum(counted[split].values()) for split in splits),
        samples=tuple(_samples(run, table)) if table is not None else (),
    )


def _samples(run: Run, table: PredictionTable) -> Iterator[tuple[str, tuple[ReportImage, ...]]]:
    """Recognised images, evenly spaced: a row for each of few classes, or one unnamed row with one of each of many."""
    each = SAMPLES_PER_CLASS if len(table.classes) <= 4 else 1
    rows: list[tuple[str, tuple[ReportImage, ...]]] = []
    for target, name in enumerate(table.classes[:MOST_SAMPLES]):
        right = np.flatnonzero((table.targets == target) & table.correct)
        chosen = right[np.linspace(0, len(right) - 1, min(each, len(right))).astype(int)]
        pictures = tuple(shown for row in chosen if (shown := report_image(run, table, int(row))).uri)
        if pictures:
            rows.append((name, pictures))
    if each == 1 and rows:
        yield "", tuple(one for _, pictures in rows for one in pictures)
    else:
        yield from rows


def curves(run: Run) -> tuple[Chart, ...]:
    """Loss, validation error, learning rate and gradient norm against epochs, each where the log has it."""
    loss = run.curve("train", "loss")
    auxiliary, held_out = run.curve("train", "auxiliary_loss"), run.curve("val", "loss")
    error = run.curve("val", "top1_error")
    drawn = []
    if loss:
        lines = [
            charts.Line(name="", points=loss, style="line-faint"),
            charts.Line(name="training", points=charts.smooth(loss), style="line-a"),
            charts.Line(name="auxiliary head", points=charts.smooth(auxiliary), style="line-c"),
            charts.Line(name="validation", points=held_out, style="line-b", dots=True),
        ]
        drawn.append(_chart("Loss", "Training loss holds label smoothing; validation loss does not.", lines, log=True))
    if error:
        best = min(error, key=lambda point: point[1])
        note = f"Lowest {percent(best[1])}, at epoch {charts.short(best[0])}."
        line = charts.Line(name="validation", points=error, style="line-b", dots=True)
        drawn.append(_chart("Validation error, percent", note, [line], from_zero=True))
    if rate := run.curve("train", "rate"):
        line = charts.Line(name="learning rate", points=rate, style="line-a")
        drawn.append(
            _chart("Learning rate", f"Highest {charts.short(max(y for _, y in rate))}.", [line], from_zero=True)
        )
    if norm := run.curve("train", "gradient_norm"):
        lines = [
            charts.Line(name="", points=norm, style="line-faint"),
            charts.Line(name="gradient norm", points=charts.smooth(norm), style="line-a"),
        ]
        drawn.append(_chart("Gradient norm", "Before clipping; a jump means an unstable step.", lines, log=True))
    return tuple(drawn)


def _chart(title: str, note: str, lines: Sequence[charts.Line], *, from_zero: bool = False, log: bool = False) -> Chart:
    lines = [line for line in lines if line.points]
    named = tuple((line.style, line.name) for line in lines if line.name)
    return Chart(
        title=title,
        note=note,
        legend=named if len(named) > 1 else (),
        svg=charts.line_chart(lines, title=title, x_label="epoch", from_zero=from_zero, log=log),
    )


def classes(table: PredictionTable) -> tuple[ClassRow, ...]:
    """The per-class table: in the order of the classes when they are few, weakest first when they are many."""
    scores = list(zip(metrics.per_class(table), rankings(table), strict=True))
    if len(scores) > MOST_CLASSES_IN_A_TABLE:
        scores.sort(key=lambda pair: (pair[0].f1 is None, pair[0].f1))
    return tuple(_class_row(score, ranking) for score, ranking in scores)


def _class_row(score: ClassScore, ranking: Ranking) -> ClassRow:
    bar, words = None, ""
    if score.recall is not None:
        low, high = metrics.wilson(score.correct, score.support)
        bar, words = charts.range_bar(low, score.recall, high), interval(100 * low, 100 * high)
    return ClassRow(
        name=score.name,
        support=score.support,
        precision=_percent_or_dash(score.precision),
        recall=_percent_or_dash(score.recall),
        recall_interval=words,
        recall_bar=bar,
        f1=_number_or_dash(score.f1),
        average_precision=_number_or_dash(ranking.average_precision),
        auroc=_number_or_dash(ranking.auroc),
    )


def _percent_or_dash(share: float | None) -> str:
    return "–" if share is None else percent(100 * share)


def _number_or_dash(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def ranking_charts(table: PredictionTable) -> tuple[Chart, ...]:
    """Precision against recall, and the ROC curve, of each class where they are few enough to tell the lines apart."""
    styles = ("line-a", "line-b", "line-c")
    present = [t for t in range(len(table.classes)) if 0 < int((table.targets == t).sum()) < len(table)]
    if not present or len(table.classes) > len(styles):
        return ()

    def chart(title: str, x_label: str, of: Callable[[int], npt.NDArray[np.float64]]) -> Chart:
        lines = [
            charts.Line(name=table.classes[t], points=[(float(x), float(y)) for x, y in 100 * of(t)], style=styles[i])
            for i, t in enumerate(present)
        ]
        legend = tuple((line.style, line.name) for line in lines)
        drawn = charts.line_chart(lines, title=title, x_label=x_label, from_zero=True)
        return Chart(title=title, note="", legend=legend, svg=drawn)

    def truth(t: int) -> npt.NDArray[np.bool_]:
        return table.targets == t

    return (
        chart("Precision", "recall, percent", lambda t: precision_recall(truth(t), table.probabilities[:, t])),
        chart("Found", "others called so, percent", lambda t: roc(truth(t), table.probabilities[:, t])),
    )


def mistakes(run: Run, table: PredictionTable) -> tuple[ReportImage, ...]:
    """The wrong images, the one whose own class got the least probability first."""
    rows = np.flatnonzero(~table.correct)
    own = table.probabilities[rows, table.targets[rows]]
    hardest = rows[np.argsort(own, kind="stable")][:MOST_MISTAKES]
    drawn = evidence(run, table, [int(row) for row in hardest])
    return tuple(report_image(run, table, int(row), overlay=drawn.get(int(row))) for row in hardest)
