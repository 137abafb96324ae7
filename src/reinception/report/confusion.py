"""Who is taken for whom, as values: a table whose cells open their images, or for many classes a picture."""

from __future__ import annotations

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
SMALL_THUMBNAIL_SIDE = 128
MOST_OPENED = 160
"""Pictures behind all cells together: what a page may carry that nobody may ever open."""

LEAST_IN_A_CELL, MOST_IN_A_CELL = 2, 12


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell of the table; an empty one has neither count nor share, and opens nothing."""

    count: str
    share: str
    style: str
    opens: str | None = None


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A kind of mistake in words."""

    actual: str
    predicted: str
    number: int
    share: str
    opens: str | None


@dataclass(frozen=True, kw_only=True)
class Opened:
    """The images behind one cell; `anchor` is its name within the page."""

    anchor: str
    sentence: str
    mistaken: bool
    pictures: tuple[ReportImage, ...]


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """A table for few classes, a picture for many, the most frequent pairs in words, and the images behind them."""

    sentence: str
    classes: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    dense: bool
    picture: Markup | None
    pairs: tuple[Pair, ...]
    opened: tuple[Opened, ...]


def confusion(run: Run, table: PredictionTable) -> Confusion:
    """Rows are what the images are, columns what they were called; shades are shares of the row."""
    counts = metrics.confusion(table)
    share = counts / np.maximum(counts.sum(axis=1), 1)[:, None]
    off = counts - np.diag(counts.diagonal())
    k = len(table.classes)
    frequent = [divmod(int(i), k) for i in np.argsort(-off, axis=None, kind="stable")[:MOST_PAIRS] if off.flat[i]]
    tabulated = k <= MOST_CLASSES_IN_A_TABLE
    opened = _opened(run, table, [(int(r), int(c)) for r, c in np.argwhere(counts)] if tabulated else frequent)
    pairs = tuple(
        Pair(
            actual=table.classes[row],
            predicted=table.classes[column],
            number=int(counts[row, column]),
            share=percent(100 * share[row, column]),
            opens=_anchor(row, column) if (row, column) in opened else None,
        )
        for row, column in frequent
    )
    if pairs:
        first = pairs[0]
        sentence = (
            f"Most often “{first.actual}” is called “{first.predicted}”: {count(first.number, 'image')}, "
            f"{first.share} of that class."
        )
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
            opens=_anchor(row, column) if (row, column) in opened else None,
        )

    rows = tuple(
        (table.classes[row], tuple(cell(row, column) for column in range(k))) for row in (range(k) if tabulated else ())
    )
    drawn = None
    if not tabulated:
        filled = [(int(r), int(c), int(counts[r, c]), level(r, c)) for r, c in np.argwhere(counts)]
        drawn = charts.heat_map(filled, size=k, title=f"confusion of {k} classes", names=table.classes)
    return Confusion(
        sentence=sentence,
        classes=table.classes,
        rows=rows,
        dense=k > 4,
        picture=drawn,
        pairs=pairs if k > 2 else (),
        opened=tuple(opened.values()),
    )


def _opened(run: Run, table: PredictionTable, cells: list[tuple[int, int]]) -> dict[tuple[int, int], Opened]:
    """The images of each cell that can be read: of mistakes the surest first, of hits the least sure."""
    if not cells:
        return {}
    each = min(max(MOST_OPENED // len(cells), LEAST_IN_A_CELL), MOST_IN_A_CELL)
    sure = table.probabilities.max(axis=1)
    found = {}
    for row, column in cells:
        inside = np.flatnonzero((table.targets == row) & (table.predicted == column))
        order = inside[np.argsort(sure[inside] if row == column else -sure[inside], kind="stable")]
        pictures = tuple(
            shown
            for i in order[:each]
            if (shown := report_image(run, table, int(i), side=SMALL_THUMBNAIL_SIDE)).uri is not None
        )
        if pictures:
            some = f", {len(pictures)} of them" if len(pictures) < len(inside) else ""
            which = "the least sure first" if row == column else "the surest first"
            found[row, column] = Opened(
                anchor=_anchor(row, column),
                sentence=f"“{table.classes[row]}” called “{table.classes[column]}”: "
                f"{count(len(inside), 'image')}{some}, {which}",
                mistaken=row != column,
                pictures=pictures,
            )
    return found


def _anchor(row: int, column: int) -> str:
    return f"cell-{row}-{column}"
