"""That intervals by repetition are Student's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from reinception.metrics.significance import student_interval


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=40), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_the_interval_of_a_mean_is_students(values: list[float], confidence: float) -> None:
    expected = stats.t.interval(
        confidence, len(values) - 1, loc=np.mean(values), scale=max(stats.sem(values), np.finfo(float).tiny)
    )
    assert student_interval(values, confidence=confidence) == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_one_value_has_no_interval() -> None:
    with pytest.raises(ValueError, match="two values or more, got 1"):
        student_interval([3.0])
