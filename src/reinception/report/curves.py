"""Learning curves of a run, drawn from its metrics.jsonl: for the report, and alone as RUN/curves.svg."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from reinception.files import new_text_file
from reinception.report.charts import HEIGHT, WIDTH, Chart, Line, chart, short, smooth
from reinception.report.formatting import percent
from reinception.report.read_run import curve, read_log

CURVES_NAME = "curves.svg"
MARGIN = 16  # pixels around and between the charts; two of them are side by side
HEAD = 40  # pixels above each chart for its title and its legend

# The colours of report.css in light mode, for a file that stands alone.
STYLE = """
  .page { fill: #fcfbf9 } text { font: 12px system-ui, sans-serif; fill: #5d6068 }
  .title { font-weight: 600; fill: #1c1d20 }
  .mid { text-anchor: middle } .end { text-anchor: end }
  .grid { stroke: #e5e2dc } .axis { stroke: #70737b }
  .line-a, .line-b, .line-c, .line-faint { fill: none; stroke-width: 1.6 }
  .line-faint { stroke: #d8d4cc; stroke-width: 1 }
  .line-a { stroke: #2b5c8f } .line-b { stroke: #b3501f } .line-c { stroke: #4d7a4a } .dot { stroke: none }
  .dot.line-a, text.line-a { fill: #2b5c8f } .dot.line-b, text.line-b { fill: #b3501f }
  text.line-a, text.line-b, text.line-c { stroke: none } text.line-c { fill: #4d7a4a }
"""


def learning_curves(log: Sequence[Mapping[str, Any]]) -> tuple[Chart, ...]:
    """Loss, validation error, learning rate and gradient norm against epochs, each where `log` has values of it."""
    loss, norm = curve(log, "train", "loss"), curve(log, "train", "gradient_norm")
    error, rate = curve(log, "val", "top1_error"), curve(log, "train", "learning_rate")
    charts: list[Chart] = []
    if loss:
        lines = [
            Line(name="", points=loss, style="line-faint"),
            Line(name="training", points=smooth(loss), style="line-a"),
            Line(name="auxiliary head", points=smooth(curve(log, "train", "auxiliary_loss")), style="line-c"),
            Line(name="validation", points=curve(log, "val", "loss"), style="line-b", dots=True),
        ]
        note = "Training loss includes label smoothing; validation loss does not."
        charts.append(chart("Loss", lines, note=note, x_label="epoch", log=True))
    if error:
        best = min(error, key=lambda point: point[1])
        note = f"Lowest {percent(best[1])}, at epoch {short(best[0])}."
        lines = [Line(name="validation", points=error, style="line-b", dots=True)]
        charts.append(chart("Validation error, percent", lines, note=note, x_label="epoch", from_zero=True))
    if rate:
        note = f"Highest {short(max(y for _, y in rate))}."
        lines = [Line(name="learning rate", points=rate, style="line-a")]
        charts.append(chart("Learning rate", lines, note=note, x_label="epoch", from_zero=True))
    if norm:
        lines = [
            Line(name="", points=norm, style="line-faint"),
            Line(name="gradient norm", points=smooth(norm), style="line-a"),
        ]
        note = "A jump means an unstable step."
        charts.append(chart("Gradient norm, before clipping", lines, note=note, x_label="epoch", log=True))
    return tuple(charts)


def refresh(run: Path) -> None:
    """Redraw RUN/curves.svg from the folder's metrics.jsonl; the file is replaced whole or not at all.

    The log has at most a few hundred lines (log.LINES_PER_RUN, and one for each validation), so this takes some
    hundredths of a second. ReinceptionError where the file cannot be written.
    """
    charts = learning_curves(read_log(run / "metrics.jsonl"))
    if charts:
        with new_text_file(run / CURVES_NAME, replace=True) as file:
            file.write(drawing(charts) + "\n")


def drawing(charts: Sequence[Chart]) -> str:
    """One SVG file of all charts with their titles and legends, two to a row."""
    rows = (len(charts) + 1) // 2
    width, height = 2 * WIDTH + 3 * MARGIN, rows * (HEAD + HEIGHT + MARGIN) + MARGIN
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">',
        f"<style>{STYLE}</style>",
        f'<rect class="page" width="{width}" height="{height}"/>',
    ]
    for index, one in enumerate(charts):
        x, y = MARGIN + index % 2 * (WIDTH + MARGIN), MARGIN + index // 2 * (HEAD + HEIGHT + MARGIN)
        out.append(Markup('<text class="title" x="{}" y="{}">{}</text>').format(x, y + 12, one.title))
        for place, (style, name) in enumerate(one.legend):
            label = Markup('<text class="{}" x="{}" y="{}">{}</text>')
            out.append(label.format(style, x + 110 * place, y + 30, name))
        position = f'<svg x="{x}" y="{y + HEAD}" width="{WIDTH}" height="{HEIGHT}" '
        out.append(str(one.svg).replace("<svg ", position, 1))
    return "\n".join([*out, "</svg>"])
