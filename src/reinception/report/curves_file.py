"""RUN/curves.svg: the learning curves of a run as they stand, one picture that any browser opens by itself."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from reinception.files import new_text_file
from reinception.report.charts import HEIGHT, WIDTH, Line, line_chart, smooth

CURVES_NAME = "curves.svg"
MARGIN = 16  # units around and between the charts; two of them are side by side
HEAD = 40  # above each chart: its title and its legend

# The report's colours, for a file that stands alone (report/report.css has them for pages).
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

Curve = list[tuple[float, float]]


def refresh(run: Path) -> None:
    """RandomStream the curves of the run folder anew from its metrics.jsonl, in place of those before, or not at all.

    The file has at most a few hundred lines (journal.LINES_PER_RUN, and one for each validation), so this takes some
    hundredths of a second. ReinceptionError where the picture cannot be written.
    """
    charts = _charts(_lines(run / "metrics.jsonl"))
    if charts:
        with new_text_file(run / CURVES_NAME, replace=True) as file:
            file.write(picture(charts) + "\n")


def picture(charts: Sequence[tuple[str, Sequence[Line], Markup]]) -> str:
    """One SVG of charts (title, lines, drawing), two to a row."""
    rows = (len(charts) + 1) // 2
    width, height = 2 * WIDTH + 3 * MARGIN, rows * (HEAD + HEIGHT + MARGIN) + MARGIN
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">',
        f"<style>{STYLE}</style>",
        f'<rect class="page" width="{width}" height="{height}"/>',
    ]
    for index, (title, lines, drawing) in enumerate(charts):
        x, y = MARGIN + index % 2 * (WIDTH + MARGIN), MARGIN + index // 2 * (HEAD + HEIGHT + MARGIN)
        out.append(str(Markup('<text class="title" x="{}" y="{}">{}</text>').format(x, y + 12, title)))
        words = [line for line in lines if line.name and line.points]
        for place, line in enumerate(words if len(words) > 1 else ()):
            label = Markup('<text class="{}" x="{}" y="{}">{}</text>')
            out.append(str(label.format(line.style, x + 110 * place, y + 30, line.name)))
        place_and_size = f'<svg x="{x}" y="{y + HEAD}" width="{WIDTH}" height="{HEIGHT}" '
        out.append(str(drawing).replace("<svg ", place_and_size, 1))
    return "\n".join([*out, "</svg>"])


def _charts(lines: Sequence[Mapping[str, Any]]) -> list[tuple[str, Sequence[Line], Markup]]:
    def curve(split: str, name: str) -> Curve:
        chosen = [line for line in lines if line["split"] == split and line.get(name) is not None]
        return [(line["epoch"], line[name]) for line in chosen]

    loss = curve("train", "loss")
    wanted: list[tuple[str, list[Line], dict[str, bool]]] = [
        (
            "Loss",
            [
                Line(name="", points=loss, style="line-faint"),
                Line(name="training", points=smooth(loss), style="line-a"),
                Line(name="validation", points=curve("val", "loss"), style="line-b", dots=True),
                Line(name="auxiliary head", points=smooth(curve("train", "auxiliary_loss")), style="line-c"),
            ],
            {"log": True},
        ),
        (
            "Validation error, percent",
            [Line(name="validation", points=curve("val", "top1_error"), style="line-b", dots=True)],
            {"from_zero": True},
        ),
        (
            "Learning rate",
            [Line(name="learning rate", points=curve("train", "rate"), style="line-a")],
            {"from_zero": True},
        ),
        (
            "Gradient norm, before clipping",
            [Line(name="gradient norm", points=curve("train", "gradient_norm"), style="line-a")],
            {"log": True},
        ),
    ]
    drawn = [(title, some, line_chart(some, title=title, x_label="epoch", **how)) for title, some, how in wanted]
    return [chart for chart in drawn if chart[2]]


def _lines(path: Path) -> list[dict[str, Any]]:
    """The metrics written so far; a file that is not there has none."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
