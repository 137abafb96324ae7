"""The front: who is recommended, on which evidence, and what is written of it."""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pytest

from reinception.errors import ReinceptionError
from reinception.metrics import PredictionTable
from reinception.shrink.front import FrontRow, drawing, markdown, recommended, to_json


def table(num: int, right: int, *, of: str) -> PredictionTable:
    """`num` images of which the first `right` are classified right."""
    chosen = np.where(np.arange(num) < right, 0, 1)
    probabilities = np.eye(2, dtype=np.float32)[chosen]
    names = tuple(f"{of}/{i}.png" for i in range(num))
    return PredictionTable(names=names, targets=np.zeros(num, int), probabilities=probabilities, classes=("a", "b"))


def row(model: str, what: str, *, validation: int, test: int, speed: float) -> FrontRow:
    return FrontRow(
        model=model,
        what=what,
        validation=table(1000, validation, of="val"),
        test=table(1000, test, of="test"),
        images_per_second=speed,
        multiply_adds=int(1e9 / speed),
    )


TEACHER = row("large", "teacher", validation=900, test=900, speed=10)


def test_the_fastest_student_within_the_tolerance_is_recommended() -> None:
    near = row("near", "student", validation=898, test=890, speed=100)
    slower = row("slower", "student", validation=900, test=900, speed=50)
    far = row("far", "student", validation=850, test=899, speed=900)
    assert recommended([TEACHER, slower, near, far], tolerance=1.0) is near


def test_test_images_have_no_part_in_the_choice() -> None:
    bad_on_test = row("one", "student", validation=900, test=100, speed=100)
    good_on_test = row("two", "student", validation=800, test=1000, speed=100)
    assert recommended([TEACHER, bad_on_test, good_on_test], tolerance=1.0) is bad_on_test


def test_points_lost_are_absolute_and_need_their_whole_interval() -> None:
    exactly = row("exactly", "student", validation=891, test=900, speed=100)  # 0.9 points lost, the interval goes on
    assert recommended([TEACHER, exactly], tolerance=0.9) is None
    assert recommended([TEACHER, exactly], tolerance=1.6) is exactly


def test_none_is_an_answer_and_a_control_is_never_recommended() -> None:
    control = row("control", "from labels alone", validation=1000, test=1000, speed=1000)
    assert recommended([TEACHER, control], tolerance=5.0) is None


def test_a_front_without_a_teacher_is_refused() -> None:
    with pytest.raises(ReinceptionError, match="teacher"):
        recommended([row("near", "student", validation=1, test=1, speed=1)], tolerance=1.0)


def test_the_front_is_written_with_intervals_and_one_recommendation() -> None:
    near = row("near", "student", validation=900, test=890, speed=100)
    written = to_json([TEACHER, near], near)
    assert [one["recommended"] for one in written] == [False, True]
    assert written[1]["accuracy"] == 89.0
    assert written[1]["accuracy_interval"][0] < 89 < written[1]["accuracy_interval"][1]
    assert written[1]["gain"] == pytest.approx(-1.0)
    assert written[1]["speed_up"] == 10
    text = "\n".join(markdown([TEACHER, near], near))
    assert "**near** (student) | 89.0 %" in text and "| 10.0x |" in text


def test_the_chart_is_a_whole_svg_with_a_dot_for_each_network() -> None:
    picture = ElementTree.fromstring(drawing([TEACHER, row("near", "student", validation=1, test=890, speed=100)]))
    dots = [one for one in picture.iter("{http://www.w3.org/2000/svg}circle")]
    assert len(dots) == 2
