"""`reinception report`: a run as one HTML page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    run: str
    """a run folder"""

    baseline: str | None = None
    """say whether the run is better than this one, or than a CSV file of predictions, on the same images"""

    out: Path | None = None
    """the HTML file to write, never over another (default: report.html in the run folder, rewritten)"""


def run(options: ReportOptions) -> None:
    """Write a run's report: one HTML file that opens offline.

    Example: reinception report runs/second --baseline runs/first
    """
    from reinception.report.page import write_report

    print(write_report(options.run, options.out, baseline=options.baseline))
