"""Baseline section: the run compared with another one on the same images, and what only the other got right."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from markupsafe import Markup

from reinception.errors import ReinceptionError
from reinception.metrics.significance import Comparison, compare
from reinception.report import charts
from reinception.report.comparison import read_split
from reinception.report.formatting import NARROW_SPACE, count, percent
from reinception.report.read_run import Run
from reinception.report.report_image import ReportImage, report_image

MOST_LOST = 8


@dataclass(frozen=True, kw_only=True)
class BaselineSection:
    """`verdict` says which is better, `evidence` gives the figures; `lost` are images that only the other got right."""

    name: str
    verdict: str
    evidence: str
    chart: Markup
    lost: tuple[ReportImage, ...]
    num_lost: int


def compare_with_baseline(run: Run, baseline: str | Path) -> BaselineSection:
    """ReinceptionError where the run has no predictions, or the baseline has none for the same images."""
    if run.table is None or run.split is None:
        raise ReinceptionError(f"{run.folder}: holds no predictions, so it cannot be compared with {baseline}")
    path, table = Path(baseline), run.table
    other = read_split(path, run.split)
    found = compare(table, other)
    name = path.resolve().name
    right_there = {name for name, right in zip(other.names, other.correct, strict=True) if right}
    confidence = table.probabilities.max(axis=1)
    lost = [row for row in np.flatnonzero(~table.correct).tolist() if table.names[row] in right_there]
    lost.sort(key=lambda row: -float(confidence[row]))
    return BaselineSection(
        name=name,
        verdict=_verdict(found, name),
        evidence=_evidence(found),
        chart=charts.difference_chart(
            value=found.difference,
            low=found.interval[0],
            high=found.interval[1],
            title=f"difference in accuracy, {_points(found.difference)}",
        ),
        lost=tuple(report_image(run, table, row) for row in lost[:MOST_LOST]),
        num_lost=len(lost),
    )


def _verdict(found: Comparison, name: str) -> str:
    """Better, worse, or no evidence, of A the run and B the baseline."""
    accuracies = f"{percent(found.a.percent)} here, {percent(found.b.percent)} there"
    if found.better is None:
        return f"No evidence that it is better or worse than “{name}” on the same images: {accuracies}."
    return f"{'Better' if found.better == 'A' else 'Worse'} than “{name}” on the same images: {accuracies}."


def _evidence(found: Comparison) -> str:
    low, high = found.interval
    return (
        f"{_points(found.difference)}, 95 % interval {low:+.1f} to {_points(high)} (paired bootstrap). "
        f"{count(found.only_a_right, 'image')} correct only in this run, {found.only_b_right:,} only in the other; "
        f"McNemar's exact p = {found.p_value:.2g}."
    )


def _points(value: float) -> str:
    return f"{value:+.1f}{NARROW_SPACE}points"
