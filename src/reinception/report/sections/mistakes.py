"""Mistakes section: the wrong images, lowest probability of their own class first, with class-activation overlays."""

from __future__ import annotations

import numpy as np

from reinception.metrics import PredictionTable
from reinception.report.activation_overlay import activation_overlays
from reinception.report.read_run import Run
from reinception.report.report_image import ReportImage, report_image

MOST_MISTAKES = 24


def mistakes(run: Run, table: PredictionTable) -> tuple[ReportImage, ...]:
    """At most `MOST_MISTAKES` wrong images."""
    rows = np.flatnonzero(~table.correct)
    own = table.probabilities[rows, table.targets[rows]]
    hardest = rows[np.argsort(own, kind="stable")][:MOST_MISTAKES].tolist()
    overlays = activation_overlays(run, table, hardest)
    return tuple(report_image(run, table, row, overlay=overlays.get(row)) for row in hardest)
