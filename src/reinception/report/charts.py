"""Charts as inline SVG: no script, no style attribute, colours by class so that the dark mode reaches them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

WIDTH, HEIGHT = 360, 216
"""Of a chart, in its own units: small, since on a phone one unit is one pixel and the text must stay readable."""

_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 10, 10, 34
_MOST_POINTS = 240


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of a chart: points (x, y) in data units, by growing x."""

    name: str
    points: Sequence[tuple[float, float]]
    style: str
    """CSS class: `line-a`, `line-b` or `line-faint`."""
    dots: bool = False
    """Mark every point, with its values as a tooltip."""


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A line chart with its title, a note below it and its legend: (style, name) of each line."""

    title: str
    note: str
    legend: tuple[tuple[str, str], ...]
    svg: Markup


def chart(
    title: str, lines: Sequence[Line], *, x_label: str, note: str = "", from_zero: bool = False, log: bool = False
) -> Chart:
    """`line_chart` of the lines that have points; a legend only where there are several named ones."""
    lines = [line for line in lines if line.points]
    named = tuple((line.style, line.name) for line in lines if line.name)
    svg = line_chart(lines, title=title, x_label=x_label, from_zero=from_zero, log=log)
    return Chart(title=title, note=note, legend=named if len(named) > 1 else (), svg=svg)


def line_chart(
    lines: Sequence[Line], *, title: str, x_label: str, from_zero: bool = False, log: bool = False
) -> Markup:
    """A chart with axes, a grid and tooltips; values that are not finite are left out.

    `log` allows a logarithmic y axis, and it is used where the values span more than a factor of thirty.
    """
    positive = [y for line in lines for _, y in line.points if math.isfinite(y) and y > 0]
    log = log and bool(positive) and max(positive) > 30 * min(positive)
    shown = [
        (line, thin([(x, y) for x, y in line.points if math.isfinite(y) and (y > 0 or not log)])) for line in lines
    ]
    everything = [point for _, points in shown for point in points]
    if not everything:
        return Markup("")
    xs, ys = [x for x, _ in everything], [y for _, y in everything]
    x_low, x_high = _spread(min(*xs, 0), max(xs))
    if log:
        y_ticks = log_ticks(min(ys), max(ys))
        y_low, y_high = math.log10(min(*ys, *y_ticks)), math.log10(max(*ys, *y_ticks))
    else:
        y_ticks = ticks(*_spread(0 if from_zero else min(ys), max(ys)), 5, cover=True)
        y_low, y_high = y_ticks[0], y_ticks[-1]
    x_ticks = [x for x in ticks(x_low, x_high, 6) if x <= x_high]

    def px(x: float) -> float:
        return _LEFT + (x - x_low) / (x_high - x_low) * (WIDTH - _LEFT - _RIGHT)

    def py(y: float) -> float:
        height = math.log10(y) if log else y
        return HEIGHT - _BOTTOM - (height - y_low) / (y_high - y_low) * (HEIGHT - _TOP - _BOTTOM)

    out = [_open_svg(WIDTH, HEIGHT, title)]
    for y in y_ticks:
        out.append(_rule(_LEFT, py(y), WIDTH - _RIGHT, py(y), "grid"))
        out.append(_text(_LEFT - 7, py(y) + 4, short(y), "tick end"))
    for x in x_ticks:
        out.append(_rule(px(x), HEIGHT - _BOTTOM, px(x), HEIGHT - _BOTTOM + 4, "axis"))
        out.append(_text(px(x), HEIGHT - _BOTTOM + 17, short(x), "tick mid"))
    out.append(_rule(_LEFT, HEIGHT - _BOTTOM, WIDTH - _RIGHT, HEIGHT - _BOTTOM, "axis"))
    out.append(_text(WIDTH - _RIGHT, HEIGHT - 3, x_label, "tick end"))
    for line, points in shown:
        path = " ".join(f"{px(x):.1f},{py(y):.1f}" for x, y in points)
        out.append(Markup('<polyline class="{}" points="{}"/>').format(line.style, path))
        if line.dots:
            dot = f"{line.style} dot"
            out += [_circle(px(x), py(y), 2.6, dot, f"{x_label} {short(x)}: {short(y, 4)}") for x, y in points]
    return Markup("\n").join([*out, Markup("</svg>")])


def interval_chart(
    *, percent: float, low: float, high: float, baseline: float, baseline_name: str, title: str
) -> Markup:
    """The accuracy as a point with its interval on one scale, the baseline as a tick across it; all in percent."""
    width, height, left, right, axis_y = 360, 104, 16, 16, 62
    start = max(0.0, min(50.0, 10 * math.floor((min(low, baseline) - 4) / 10)))
    marks = [x for x in ticks(start, 100, 5) if start <= x <= 100]

    def px(x: float) -> float:
        return left + (x - start) / (100 - start) * (width - left - right)

    out = [_open_svg(width, height, title), _rule(left, axis_y, width - right, axis_y, "axis")]
    for x in marks:
        out.append(_rule(px(x), axis_y, px(x), axis_y + 5, "axis"))
        out.append(_text(px(x), axis_y + 19, f"{short(x)}", "tick mid"))
    anchor = "end" if px(baseline) > width / 2 else "start"
    shift = -6 if anchor == "end" else 6
    out += [
        _rule(px(baseline), 14, px(baseline), axis_y, "baseline"),
        _text(px(baseline) + shift, 22, f"{baseline_name} {baseline:.1f}", f"tick {anchor}"),
        _rule(px(low), 42, px(high), 42, "interval"),
        _circle(px(percent), 42, 6, "estimate"),
        _text(width - right, height - 3, "percent correct", "tick end"),
        Markup("</svg>"),
    ]
    return Markup("\n").join(out)


def difference_chart(*, value: float, low: float, high: float, title: str) -> Markup:
    """A difference in percentage points with its interval, on a scale with zero in the middle."""
    width, height, margin, axis_y = 360, 88, 24, 46
    reach = ticks(0, max(abs(low), abs(high), 1.0), 3, cover=True)[-1]

    def px(x: float) -> float:
        return width / 2 + x / reach * (width / 2 - margin)

    out = [_open_svg(width, height, title), _rule(margin, axis_y, width - margin, axis_y, "axis")]
    for mark in ticks(-reach, reach, 5):
        out.append(_rule(px(mark), axis_y, px(mark), axis_y + 5, "axis"))
        out.append(_text(px(mark), axis_y + 19, f"{mark:+g}" if mark else "0", "tick mid"))
    out += [
        _rule(px(0), 6, px(0), axis_y, "baseline"),
        _rule(px(low), 26, px(high), 26, "interval"),
        _circle(px(value), 26, 6, "estimate"),
        _text(margin, height - 3, "the other is better", "tick start"),
        _text(width - margin, height - 3, "this run is better, points", "tick end"),
        Markup("</svg>"),
    ]
    return Markup("\n").join(out)


def reliability_chart(
    series: Sequence[tuple[str, Sequence[tuple[float, float, float, float, int]]]], *, title: str
) -> Markup:
    """A reliability diagram: accuracy against confidence, 0 to 1, with the diagonal of perfect calibration.

    Each series is a style and its bins: confidence, accuracy, the ends of its interval, and number of images.
    """

    def px(x: float) -> float:
        return _LEFT + x * (WIDTH - _LEFT - _RIGHT)

    def py(y: float) -> float:
        return HEIGHT - _BOTTOM - y * (HEIGHT - _TOP - _BOTTOM)

    out = [_open_svg(WIDTH, HEIGHT, title)]
    for mark in (0.0, 0.25, 0.5, 0.75, 1.0):
        out.append(_rule(_LEFT, py(mark), WIDTH - _RIGHT, py(mark), "grid"))
        out.append(_text(_LEFT - 7, py(mark) + 4, f"{100 * mark:.0f}", "tick end"))
        out.append(_text(px(mark), HEIGHT - _BOTTOM + 17, f"{100 * mark:.0f}", "tick mid"))
    out.append(_rule(px(0), py(0), px(1), py(1), "baseline"))
    out.append(_text(WIDTH - _RIGHT, HEIGHT - 3, "confidence, percent; upwards, accuracy", "tick end"))
    for style, bins in series:
        for confidence, accuracy, low, high, n in bins:
            out.append(_rule(px(confidence), py(low), px(confidence), py(high), f"whisker {style}"))
            hint = f"confidence {100 * confidence:.0f} %, accuracy {100 * accuracy:.0f} % of {n:,}"
            out.append(_circle(px(confidence), py(accuracy), 3, f"{style} dot", hint))
    return Markup("\n").join([*out, Markup("</svg>")])


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One bar with the ends of its range; `style` is a CSS class."""

    name: str
    value: float
    low: float
    high: float
    style: str


def bar_chart(bars: Sequence[Bar], *, title: str, css: str) -> Markup:
    """Horizontal bars from zero, one below the other, as an SVG file of its own, with its `css`."""
    height, label, width, top = 22, 260, 640, 34
    most = max((one.high for one in bars), default=0.0) or 1.0

    def px(value: float) -> float:
        return label + value / most * (width - label - 60)

    total = top + height * len(bars) + 8
    out = [_open_svg(width, total, title).replace("<svg ", Markup('<svg xmlns="http://www.w3.org/2000/svg" '), 1)]
    out.append(Markup("<style>{}</style>").format(Markup(css)))
    out.append(_text(4, 18, title, "title"))
    for number, one in enumerate(bars):
        y = top + height * number
        place = (one.style, f"{px(0):.1f}", f"{y:.1f}", f"{px(one.value) - px(0):.1f}", f"{height - 6}")
        out.append(Markup('<rect class="{}" x="{}" y="{}" width="{}" height="{}"/>').format(*place))
        out.append(_rule(px(one.low), y + 8, px(one.high), y + 8, "interval"))
        out.append(_text(label - 6, y + 12, one.name, "end"))
        out.append(_text(px(one.high) + 6, y + 12, short(one.value), "value"))
    return Markup("\n").join([*out, Markup("</svg>")])


def bar(fraction: float) -> Markup:
    """A horizontal bar filled to `fraction` (0 to 1) for a table cell."""
    return Markup(
        '<svg class="bar" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="bar-rest" width="100" height="8"/><rect class="bar" width="{}" height="8"/></svg>'
    ).format(f"{100 * fraction:.1f}")


def range_bar(low: float, high: float, value: float) -> Markup:
    """A value with an interval, all in percent, for a table cell."""
    return Markup(
        '<svg class="bar" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="bar-rest" y="3" width="100" height="2"/>'
        '<rect class="bar-range" x="{}" y="2" width="{}" height="4"/>'
        '<rect class="bar-point" x="{}" width="1.6" height="8"/></svg>'
    ).format(f"{low:.1f}", f"{max(high - low, 0.5):.1f}", f"{min(max(value - 0.8, 0), 98.4):.1f}")


def heat_map(cells: Sequence[tuple[int, int, int, int]], *, size: int, title: str, names: Sequence[str]) -> Markup:
    """A square matrix of `size` classes drawn from (row, column, count, level 0..9); cells not listed are empty.

    Only filled cells are drawn, so a thousand classes cost at most as many marks as there are images.
    """
    unit = WIDTH / size
    out = [_open_svg(WIDTH, WIDTH, title)]
    out.append(Markup('<rect class="heat-frame" width="{0}" height="{0}"/>').format(WIDTH))
    for row, column, count, level in cells:
        kind = "right" if row == column else "wrong"
        place = (f"{column * unit:.2f}", f"{row * unit:.2f}", f"{unit:.2f}", f"{unit:.2f}")
        mark = Markup('<rect class="{}" fill-opacity="{}" x="{}" y="{}" width="{}" height="{}">{}</rect>')
        hint = Markup("<title>{} predicted as {}: {}</title>").format(names[row], names[column], count)
        out.append(mark.format(kind, f"{(level + 1) / 10:.1f}", *place, hint))
    return Markup("\n").join([*out, Markup("</svg>")])


def _open_svg(width: int, height: int, title: str) -> Markup:
    """The opening tag of an image that scales with its column, with `title` for screen readers."""
    return Markup('<svg viewBox="0 0 {} {}" role="img" class="chart" aria-label="{}">').format(width, height, title)


def _text(x: float, y: float, label: str, style: str) -> Markup:
    return Markup('<text class="{}" x="{}" y="{}">{}</text>').format(style, f"{x:.1f}", f"{y:.1f}", label)


def _circle(x: float, y: float, radius: float, style: str, hint: str = "") -> Markup:
    tooltip = Markup("<title>{}</title>").format(hint) if hint else ""
    place = (style, f"{x:.1f}", f"{y:.1f}", f"{radius:g}", tooltip)
    return Markup('<circle class="{}" cx="{}" cy="{}" r="{}">{}</circle>').format(*place)


def _rule(x1: float, y1: float, x2: float, y2: float, style: str) -> Markup:
    ends = (f"{value:.1f}" for value in (x1, y1, x2, y2))
    return Markup('<line class="{}" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(style, *ends)


def ticks(low: float, high: float, at_most: int, *, cover: bool = False) -> list[float]:
    """Round values (1, 2 or 5 times a power of ten apart) within [low, high], or just around it when `cover`."""
    rough = (high - low) / max(at_most - 1, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * (1 - 1e-9))
    first = math.floor(low / step + 1e-9) if cover else math.ceil(low / step - 1e-9)
    last = math.ceil(high / step - 1e-9) if cover else math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Round values for a logarithmic axis: powers of ten, with 2 and 5 between them where there are few."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    factors = (1, 2, 5) if last - first <= 2 else (1,)
    candidates = [m * 10.0**e for e in range(first, last + 1) for m in factors]
    inside = [x for x in candidates if low * 0.999 <= x <= high * 1.001]
    return inside if len(inside) > 1 else [10.0**first, 10.0 ** max(last, first + 1)]


def thin(points: Sequence[tuple[float, float]], most: int = _MOST_POINTS) -> list[tuple[float, float]]:
    """At most `most` points: longer lines are averaged over equal stretches, their last point is kept."""
    if len(points) <= most:
        return list(points)
    edges = [len(points) * i // (most - 1) for i in range(most)]
    means = [_mean_point(points[a:b]) for a, b in pairwise(edges)]
    return [*means, points[-1]]


def smooth(points: Sequence[tuple[float, float]], fraction: float = 0.05) -> list[tuple[float, float]]:
    """A centred running mean over about `fraction` of the line, to show the trend under the noise."""
    half = int(len(points) * fraction / 2)
    return [(points[i][0], _mean_point(points[max(0, i - half) : i + half + 1])[1]) for i in range(len(points))]


def _mean_point(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return sum(x for x, _ in points) / len(points), sum(y for _, y in points) / len(points)


def _spread(low: float, high: float) -> tuple[float, float]:
    return (low, high) if high > low else (low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2)


def short(value: float, digits: int = 3) -> str:
    """A number as short as `digits` significant digits allow: 0.045, 12, 1e-05."""
    return f"{value:.{digits}g}" if abs(value) < 10**digits else f"{value:,.0f}"
