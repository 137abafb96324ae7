"""One offline HTML page per run: what it learnt, how sure that is, what it gets wrong, and how to do it again."""

from __future__ import annotations

from reinception.report.page import write_report

__all__ = ["write_report"]
