"""The run against another one on the same images: better, worse, or no evidence, and what the other got right."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from markupsafe import Markup

from reinception.errors import ReinceptionError
from reinception.metrics import PredictionTable
from reinception.metrics.significance import Comparison, compare
from reinception.report import charts
from reinception.report.comparison import read_split
from reinception.report.formatting import NARROW_SPACE, count, percent
from reinception.report.read_run import Run
from reinception.report.report_image import ReportImage, report_image

MOST_LOST = 8


@dataclass(frozen=True, kw_only=True)
class Against:
    """`verdict` is the answer, `evidence` what it rests on; `lost` are images that only the other got right."""

    name: str
    verdict: str
    evidence: str
    chart: Markup
    lost: tuple[ReportImage, ...]
    num_lost: int


def against(run: Run, baseline: str | Path) -> Against:
    """ReinceptionError where the run was not judged, or the baseline not on the same images."""
    if run.table is None or run.split is None:
        raise ReinceptionError(f"{run.folder}: holds no predictions, so there is nothing to set against {baseline}")
    path, table = Path(baseline), run.table
    other = read_split(path, run.split)
    found = compare(table, other)
    name = path.resolve().name
    right_there = {name for name, right in zip(other.names, other.correct, strict=True) if right}
    lost = [row for row in np.flatnonzero(~table.correct).tolist() if table.names[row] in right_there]
    return Against(
        name=name,
        verdict=in_words(found, name),
        evidence=_evidence(found),
        chart=charts.difference_chart(
            value=found.difference,
            low=found.interval[0],
            high=found.interval[1],
            title=f"difference in accuracy, {_points(found.difference)}",
        ),
        lost=_surest(run, table, lost),
        num_lost=len(lost),
    )


def in_words(found: Comparison, name: str) -> str:
    """Better, worse, or that it cannot be told, of A the run and B the baseline."""
    accuracies = f"{percent(found.a.percent)} here, {percent(found.b.percent)} there"
    if found.better is None:
        return f"No evidence that it is better or worse than “{name}” on the same images: {accuracies}."
    return f"{'Better' if found.better == 'A' else 'Worse'} than “{name}” on the same images: {accuracies}."


def _evidence(found: Comparison) -> str:
    low, high = found.interval
    return (
        f"{_points(found.difference)}, 95 % interval {low:+.1f} to {_points(high)} (paired bootstrap). Only this run "
        f"is right about {count(found.only_a_right, 'image')}, only the other about {found.only_b_right:,}; McNemar's "
        f"exact p = {found.p_value:.2g}."
    )


def _points(value: float) -> str:
    return f"{value:+.1f}{NARROW_SPACE}points"


def _surest(run: Run, table: PredictionTable, rows: list[int]) -> tuple[ReportImage, ...]:
    """The pictures it is surest about while it is wrong."""
    sure = table.probabilities.max(axis=1)
    return tuple(report_image(run, table, row) for row in sorted(rows, key=lambda row: -float(sure[row]))[:MOST_LOST])
