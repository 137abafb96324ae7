"""Charts and formatted numbers: ticks, lines inside their chart, thinning, percents, counts and durations."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reinception.report import charts, formatting

finite = st.floats(-1e6, 1e6, allow_nan=False).map(lambda x: round(x, 6))


@given(low=finite, span=st.floats(1e-4, 1e6), at_most=st.integers(2, 9))
def test_ticks_are_round_and_few_and_cover_when_asked(low: float, span: float, at_most: int) -> None:
    high = low + span
    inside, around = charts.ticks(low, high, at_most), charts.ticks(low, high, at_most, cover=True)
    slack = span * 1e-6
    assert all(low - slack <= x <= high + slack for x in inside)
    assert len(inside) <= at_most
    assert around[0] <= low + slack
    assert around[-1] >= high - slack
    step = around[1] - around[0]
    assert round(step / 10 ** math.floor(math.log10(step) + 1e-6), 3) in {1, 2, 5, 10}


@given(low=st.floats(1e-6, 1e3), factor=st.floats(1.001, 1e6))
def test_logarithmic_ticks_are_at_least_two(low: float, factor: float) -> None:
    marks = charts.log_ticks(low, low * factor)
    assert len(marks) >= 2
    assert marks == sorted(marks)


@given(points=st.lists(st.tuples(st.integers(0, 9999), finite), min_size=1, max_size=700).map(sorted))
def test_every_line_can_be_drawn_inside_its_chart(points: list[tuple[float, float]]) -> None:
    drawn = charts.line_chart(
        [charts.Line(name="x", points=points, style="line-a")], title="t", x_label="epoch", log=True
    )
    (line,) = re.findall(r'<polyline[^>]*points="([^"]*)"', drawn)
    pairs = [tuple(map(float, pair.split(","))) for pair in line.split()]
    assert len(pairs) <= 240
    assert all(0 <= x <= charts.WIDTH and 0 <= y <= charts.HEIGHT for x, y in pairs)


def test_values_that_are_not_finite_are_left_out_of_a_line() -> None:
    points = [(0.0, 1.0), (1.0, math.nan), (2.0, math.inf), (3.0, 2.0)]
    drawn = charts.line_chart(
        [charts.Line(name="x", points=points, style="line-a", dots=True)], title="t", x_label="epoch"
    )
    assert drawn.count("<circle") == 2
    assert not charts.line_chart(
        [charts.Line(name="x", points=[(0, math.nan)], style="line-a")], title="t", x_label="e"
    )


def test_thinning_keeps_the_mean_and_the_last_point() -> None:
    points = [(float(i), float(i % 7)) for i in range(5000)]
    thinned = charts.thin(points)
    assert len(thinned) == 240
    assert thinned[-1] == points[-1]
    assert np.mean([y for _, y in thinned]) == pytest.approx(3, abs=0.05)


def test_numbers_are_written_as_people_write_them() -> None:
    assert formatting.percent(81.42) == "81.4\u202f%"
    assert formatting.interval(79.46, 85.31) == "79.5 to 85.3\u202f%"
    assert [formatting.count(1, "image"), formatting.count(2624, "image"), formatting.count(2, "class", "classes")] == [
        "1 image",
        "2,624 images",
        "2 classes",
    ]
    assert [formatting.duration(s) for s in (0.4, 59.4, 300, 7505, 180_000)] == [
        "0 s", "59 s", "5 min 00 s", "2 h 05 min", "2 days 2 h"
    ]  # fmt: skip
    assert [formatting.first_three(list(names)) for names in ("a", "ab", "abcde")] == [
        "“a”", "“a” and “b”", "“a”, “b”, “c” and 2 more"
    ]  # fmt: skip
    assert [charts.short(x) for x in (0.045, 12, 1e-5, 25000)] == ["0.045", "12", "1e-05", "25,000"]
