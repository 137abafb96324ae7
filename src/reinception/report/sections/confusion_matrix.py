"""Confusion matrix section: a table whose cells link to their images, or a heat map where classes are many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from reinception import metrics
from reinception.metrics import PredictionTable
from reinception.report import charts
from reinception.report.formatting import count, percent
from reinception.report.read_run import Run
from reinception.report.report_image import ReportImage, report_image

MOST_CLASSES_IN_A_TABLE = 16
"""A confusion matrix with more classes than this is drawn, not tabulated."""

MOST_PAIRS = 8
MOST_LINKED = 160
"""Images behind all cells together: a limit on what a page carries for links that may never be followed."""

LEAST_IN_A_CELL, MOST_IN_A_CELL = 2, 12
SIDE = 128
"""Longest side, in pixels, of the images behind a cell."""


@dataclass(frozen=True, kw_only=True)
class ConfusionCell:
    """One cell of the table: images, percent of the row, CSS classes, and the anchor of its images if it has any."""

    count: str
    percent: str
    style: str
    anchor: str | None = None


@dataclass(frozen=True, kw_only=True)
class ConfusedPair:
    """How often images of one class are predicted as another."""

    actual: str
    predicted: str
    number: int
    percent: str
    anchor: str | None


@dataclass(frozen=True, kw_only=True)
class CellImages:
    """The images behind one cell; `anchor` is its name within the page."""

    anchor: str
    sentence: str
    mistaken: bool
    images: tuple[ReportImage, ...]


@dataclass(frozen=True, kw_only=True)
class ConfusionSection:
    """`rows` for few classes, `heat_map` for many; the most frequent confusions, and the images behind the cells."""

    sentence: str
    classes: tuple[str, ...]
    rows: tuple[tuple[str, tuple[ConfusionCell, ...]], ...]
    dense: bool
    heat_map: Markup | None
    pairs: tuple[ConfusedPair, ...]
    linked: tuple[CellImages, ...]


def confusion_section(run: Run, table: PredictionTable) -> ConfusionSection:
    """Rows are the actual classes, columns the predicted ones; shades are fractions of the row."""
    counts = metrics.confusion(table)
    fractions = counts / np.maximum(counts.sum(axis=1), 1)[:, None]
    off = counts - np.diag(counts.diagonal())
    k = len(table.classes)
    frequent = [divmod(int(i), k) for i in np.argsort(-off, axis=None, kind="stable")[:MOST_PAIRS] if off.flat[i]]
    tabulated = k <= MOST_CLASSES_IN_A_TABLE
    filled = [(int(r), int(c)) for r, c in np.argwhere(counts)]
    linked = _linked(run, table, filled if tabulated else frequent)
    anchors = {cell: one.anchor for cell, one in linked.items()}

    def level(row: int, column: int) -> int:
        return min(9, int(10 * fractions[row, column]))

    def cell(row: int, column: int) -> ConfusionCell:
        if not counts[row, column]:
            return ConfusionCell(count="·", percent="", style="none")
        return ConfusionCell(
            count=f"{counts[row, column]:,}",
            percent=percent(100 * fractions[row, column]),
            style=f"{'right' if row == column else 'wrong'} level-{level(row, column)}",
            anchor=anchors.get((row, column)),
        )

    pairs = tuple(
        ConfusedPair(
            actual=table.classes[row],
            predicted=table.classes[column],
            number=int(counts[row, column]),
            percent=percent(100 * fractions[row, column]),
            anchor=anchors.get((row, column)),
        )
        for row, column in frequent
    )
    rows = tuple(
        (table.classes[row], tuple(cell(row, column) for column in range(k))) for row in (range(k) if tabulated else ())
    )
    drawn = None
    if not tabulated:
        marks = [(row, column, int(counts[row, column]), level(row, column)) for row, column in filled]
        drawn = charts.heat_map(marks, size=k, title=f"confusion matrix of {k} classes", names=table.classes)
    return ConfusionSection(
        sentence=_sentence(pairs),
        classes=table.classes,
        rows=rows,
        dense=k > 4,
        heat_map=drawn,
        pairs=pairs if k > 2 else (),
        linked=tuple(linked.values()),
    )


def _sentence(pairs: Sequence[ConfusedPair]) -> str:
    if not pairs:
        return "Every image is classified correctly."
    first = pairs[0]
    return (
        f"Most often “{first.actual}” is predicted as “{first.predicted}”: {count(first.number, 'image')}, "
        f"{first.percent} of that class."
    )


def _linked(run: Run, table: PredictionTable, cells: Sequence[tuple[int, int]]) -> dict[tuple[int, int], CellImages]:
    """The images of each cell that can be read: mistakes by falling confidence, correct ones by growing confidence."""
    each = min(max(MOST_LINKED // max(len(cells), 1), LEAST_IN_A_CELL), MOST_IN_A_CELL)
    confidence = table.probabilities.max(axis=1)
    found = {}
    for row, column in cells:
        mistaken = row != column
        inside = np.flatnonzero((table.targets == row) & (table.predicted == column))
        order = inside[np.argsort(-confidence[inside] if mistaken else confidence[inside], kind="stable")]
        shown = (report_image(run, table, int(i), side=SIDE) for i in order[:each])
        if images := tuple(one for one in shown if one.uri is not None):
            some = f", {len(images)} of them" if len(images) < len(inside) else ""
            found[row, column] = CellImages(
                anchor=f"cell-{row}-{column}",
                sentence=f"“{table.classes[row]}” predicted as “{table.classes[column]}”: "
                f"{count(len(inside), 'image')}{some}, {'most' if mistaken else 'least'} confident first",
                mistaken=mistaken,
                images=images,
            )
    return found
