"""The chart of a comparison: one bar for each contestant, its range, and the limit."""

from __future__ import annotations

from reinception.bench.own import NAME
from reinception.bench.speed_comparison import Found
from reinception.report.charts import Bar, bar_chart

_STYLE = (
    "text{font:11px system-ui,sans-serif;fill:#333}.end{text-anchor:end}.title{font-weight:600}"
    ".ours{fill:#c2410c}.other{fill:#94a3b8}.limit{fill:#e2e8f0}.interval{stroke:#333}.axis{stroke:#999}"
    "@media(prefers-color-scheme:dark){text{fill:#ddd}.interval{stroke:#eee}}"
)


def speed_chart(found: Found) -> str:
    """A whole SVG file: throughput at the largest batch, by number format, the fastest first."""
    size = max((one.batch_size for one in found.runs), default=1)
    bars: list[Bar] = []
    for precision, limit in found.limits.items():
        runs = [one for one in found.runs if one.batch_size == size and one.contestant.precision == precision]
        for one in sorted(runs, key=lambda one: -one.median):
            name = f"{one.contestant.what} ({one.contestant.setting}), {precision}"
            style = "ours" if one.contestant.what == NAME else "other"
            bars.append(Bar(name=name, value=one.median, low=min(one.rates), high=max(one.rates), style=style))
        bars.append(Bar(name=f"convolutions alone, {precision}", value=limit, low=limit, high=limit, style="limit"))
    title = f"{found.subject.model}, {found.subject.input_size} pixels, batch {size}: images per second"
    return bar_chart(bars, title=title, css=_STYLE) + "\n"
