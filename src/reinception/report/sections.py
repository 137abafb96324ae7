"""The parts of the page as values: what each section shows, computed from a run and its prediction table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from markupsafe import Markup

from reinception import metrics
from reinception.metrics import ClassScore, PredictionTable
from reinception.report import svg
from reinception.report.run import Run
from reinception.report.thumbnails import thumbnail
from reinception.report.words import count, interval, percent

MOST_MISTAKES = 24
MOST_SAMPLES = 40
SAMPLES_PER_CLASS = 8
MOST_CLASSES_IN_A_TABLE = 16
"""A confusion matrix with more classes than this is drawn, not tabulated."""

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
class Picture:
    """One image of a gallery; `uri` is None where the file is no longer readable."""

    name: str
    file: str
    uri: str | None
    actual: str
    predicted: str
    p_actual: str
    p_predicted: str


@dataclass(frozen=True, kw_only=True)
class Data:
    """What the run learnt from and was judged on; `folded` closes a long table behind its sentence."""

    sentence: str
    splits: tuple[str, ...]
    rows: tuple[ClassCounts, ...]
    folded: bool
    totals: tuple[int, ...]
    samples: tuple[tuple[str, tuple[Picture, ...]], ...]


@dataclass(frozen=True, kw_only=True)
class Chart:
    """One learning curve with its legend: (style, name) of each line."""

    title: str
    note: str
    legend: tuple[tuple[str, str], ...]
    svg: Markup


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell of the confusion table; an empty one has neither count nor share."""

    count: str
    share: str
    style: str


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """Who is taken for whom: a table for few classes, a picture for many, and the most frequent pairs in words."""

    sentence: str
    classes: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    dense: bool
    picture: Markup | None
    pairs: tuple[tuple[str, str, int, str], ...]


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


def verdict(table: PredictionTable, split: str | None) -> Verdict:
    """Accuracy on the held-out split with its Wilson interval, against always answering the commonest class."""
    right = metrics.accuracy(table)
    low, high = right.interval()
    name, base = metrics.majority(table)
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
            note="mean recall of the classes",
        ),
        Fact(name="macro F1", value=f"{metrics.macro_f1(table):.3f}", note="mean over the classes"),
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
        chart=svg.interval_chart(
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
                bar=svg.bar(total / max(totals)),
            )
            for name, total in zip(names, totals, strict=True)
        ),
        folded=len(names) > MOST_CLASSES_IN_A_TABLE,
        totals=tuple(sum(counted[split].values()) for split in splits),
        samples=tuple(_samples(run, table)) if table is not None else (),
    )


def _samples(run: Run, table: PredictionTable) -> Iterator[tuple[str, tuple[Picture, ...]]]:
    """Recognised images, evenly spaced: a row for each of few classes, or one unnamed row with one of each of many."""
    each = SAMPLES_PER_CLASS if len(table.classes) <= 4 else 1
    rows: list[tuple[str, tuple[Picture, ...]]] = []
    for target, name in enumerate(table.classes[:MOST_SAMPLES]):
        right = np.flatnonzero((table.targets == target) & table.correct)
        chosen = right[np.linspace(0, len(right) - 1, min(each, len(right))).astype(int)]
        pictures = tuple(picture for row in chosen if (picture := _picture(run, table, int(row))).uri)
        if pictures:
            rows.append((name, pictures))
    if each == 1 and rows:
        yield "", tuple(picture for _, pictures in rows for picture in pictures)
    else:
        yield from rows


def curves(run: Run) -> tuple[Chart, ...]:
    """Loss, validation error, learning rate and gradient norm against epochs, each where the log has it."""
    loss = run.curve("train", "loss")
    auxiliary, held_out = run.curve("train", "auxiliary_loss"), run.curve("val", "loss")
    error = run.curve("val", "top1_error")
    charts = []
    if loss:
        lines = [
            svg.Line(name="", points=loss, style="line-faint"),
            svg.Line(name="training", points=svg.smooth(loss), style="line-a"),
            svg.Line(name="auxiliary head", points=svg.smooth(auxiliary), style="line-c"),
            svg.Line(name="validation", points=held_out, style="line-b", dots=True),
        ]
        charts.append(_chart("Loss", "Training loss holds label smoothing; validation loss does not.", lines, log=True))
    if error:
        best = min(error, key=lambda point: point[1])
        note = f"Lowest {percent(best[1])}, at epoch {svg.short(best[0])}."
        line = svg.Line(name="validation", points=error, style="line-b", dots=True)
        charts.append(_chart("Validation error, percent", note, [line], from_zero=True))
    if rate := run.curve("train", "rate"):
        line = svg.Line(name="learning rate", points=rate, style="line-a")
        charts.append(_chart("Learning rate", f"Highest {svg.short(max(y for _, y in rate))}.", [line], from_zero=True))
    if norm := run.curve("train", "gradient_norm"):
        lines = [
            svg.Line(name="", points=norm, style="line-faint"),
            svg.Line(name="gradient norm", points=svg.smooth(norm), style="line-a"),
        ]
        charts.append(_chart("Gradient norm", "Before clipping; a jump means an unstable step.", lines, log=True))
    return tuple(charts)


def _chart(title: str, note: str, lines: Sequence[svg.Line], *, from_zero: bool = False, log: bool = False) -> Chart:
    lines = [line for line in lines if line.points]
    named = tuple((line.style, line.name) for line in lines if line.name)
    return Chart(
        title=title,
        note=note,
        legend=named if len(named) > 1 else (),
        svg=svg.line_chart(lines, title=title, x_label="epoch", from_zero=from_zero, log=log),
    )


def confusion(table: PredictionTable) -> Confusion:
    """Rows are what the images are, columns what they were called; shades are shares of the row."""
    counts = metrics.confusion(table)
    support = counts.sum(axis=1)
    share = counts / np.maximum(support, 1)[:, None]
    off = counts - np.diag(counts.diagonal())
    order = [int(i) for i in np.argsort(-off, axis=None, kind="stable")[:8] if off.flat[i]]
    k = len(table.classes)
    pairs = tuple(
        (table.classes[i // k], table.classes[i % k], int(off.flat[i]), percent(100 * share.flat[i])) for i in order
    )
    if pairs:
        actual, predicted, number, part = pairs[0]
        sentence = f"Most often “{actual}” is called “{predicted}”: {count(number, 'image')}, {part} of that class."
    else:
        sentence = "Nothing is confused: every image is called what it is."

    def level(row: int, column: int) -> int:
        return min(9, int(10 * share[row, column]))

    def cell(row: int, column: int) -> Cell:
        if not counts[row, column]:
            return Cell(count="·", share="", style="none")
        return Cell(
            count=f"{counts[row, column]:,}",
            share=percent(100 * share[row, column]),
            style=f"{'right' if row == column else 'wrong'} share-{level(row, column)}",
        )

    tabulated = k <= MOST_CLASSES_IN_A_TABLE
    rows = tuple(
        (table.classes[row], tuple(cell(row, column) for column in range(k))) for row in (range(k) if tabulated else ())
    )
    picture = None
    if not tabulated:
        filled = [(int(r), int(c), int(counts[r, c]), level(r, c)) for r, c in np.argwhere(counts)]
        picture = svg.heat_map(filled, size=k, title=f"confusion of {k} classes", names=table.classes)
    return Confusion(
        sentence=sentence,
        classes=table.classes,
        rows=rows,
        dense=k > 4,
        picture=picture,
        pairs=pairs if k > 2 else (),
    )


def classes(table: PredictionTable) -> tuple[ClassRow, ...]:
    """The per-class table: in the order of the classes when they are few, weakest first when they are many."""
    scores = metrics.per_class(table)
    if len(scores) > MOST_CLASSES_IN_A_TABLE:
        scores = tuple(sorted(scores, key=lambda score: (score.f1 is None, score.f1)))
    return tuple(_class_row(score) for score in scores)


def _class_row(score: ClassScore) -> ClassRow:
    bar, words = None, ""
    if score.recall is not None:
        low, high = metrics.wilson(score.correct, score.support)
        bar, words = svg.range_bar(low, score.recall, high), interval(100 * low, 100 * high)
    return ClassRow(
        name=score.name,
        support=score.support,
        precision=_percent_or_dash(score.precision),
        recall=_percent_or_dash(score.recall),
        recall_interval=words,
        recall_bar=bar,
        f1="–" if score.f1 is None else f"{score.f1:.3f}",
    )


def _percent_or_dash(share: float | None) -> str:
    return "–" if share is None else percent(100 * share)


def mistakes(run: Run, table: PredictionTable) -> tuple[Picture, ...]:
    """The wrong images, the one whose own class got the least probability first."""
    rows = np.flatnonzero(~table.correct)
    own = table.probabilities[rows, table.targets[rows]]
    hardest = rows[np.argsort(own, kind="stable")][:MOST_MISTAKES]
    return tuple(_picture(run, table, int(row)) for row in hardest)


def _picture(run: Run, table: PredictionTable, row: int) -> Picture:
    target, predicted = int(table.targets[row]), int(table.predicted[row])
    name = table.names[row]
    root = run.config.get("root")
    return Picture(
        name=name,
        file=PurePosixPath(name).name,
        uri=thumbnail(Path(root, name)) if root else None,
        actual=table.classes[target],
        predicted=table.classes[predicted],
        p_actual=percent(100 * float(table.probabilities[row, target])),
        p_predicted=percent(100 * float(table.probabilities[row, predicted])),
    )
