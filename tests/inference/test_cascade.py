"""Cascade: the small network answers for what it is sure of, the large one for the rest, each for its own images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import hypothesis.strategies as st
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given

from reinception.errors import BadImage
from reinception.inference.cascade import ITEMS_AT_ONCE, Answer, Cascade, choose_threshold, passing
from reinception.metrics import PredictionTable

CASCADE = Cascade(threshold=0.8, columns=(1, 0))


def small(items: Sequence[float]) -> list[Answer]:
    """Each item is its own confidence in class 0; below 0 it cannot be read."""
    return [BadImage("x", "unreadable", "broken") if p < 0 else np.array([p, 1 - p], np.float32) for p in items]


def large(items: Sequence[float]) -> list[npt.NDArray[np.float32]]:
    return [np.array([0.25, 0.75], np.float32) for _ in items]  # classes in another order


def table_of(answers: Iterable[Answer]) -> npt.NDArray[np.float32]:
    return np.array([row for row in answers if not isinstance(row, BadImage)], np.float32).reshape(-1, 2)


def test_only_unsure_answers_are_passed_on_and_classes_are_matched_by_name() -> None:
    asked: list[float] = []

    def noted(items: Sequence[float]) -> list[npt.NDArray[np.float32]]:
        asked.extend(items)
        return large(items)

    found = list(CASCADE.answers([0.9, 0.6, -1.0, 0.1, 0.8], small, noted))
    assert asked == [0.6]
    assert isinstance(found[2], BadImage)
    np.testing.assert_array_equal(found[1], np.array([0.75, 0.25], np.float32))
    np.testing.assert_array_equal(found[0], small([0.9])[0])


def test_an_answer_that_is_not_a_number_goes_to_the_large_network() -> None:
    (found,) = CASCADE.answers([1.0], lambda _: [np.array([np.nan, np.nan], np.float32)], large)
    np.testing.assert_array_equal(found, np.array([0.75, 0.25], np.float32))


def test_the_ends_are_each_network_alone_to_the_bit() -> None:
    items = [0.5, 0.99, 0.7]
    alone = Cascade(threshold=0.0, columns=(0, 1)).answers(
        items, small, lambda items: pytest.fail("asked") or [] if items else []
    )
    np.testing.assert_array_equal(table_of(alone), table_of(small(items)))
    whole = Cascade(threshold=1.5, columns=(0, 1)).answers(items, small, large)
    np.testing.assert_array_equal(table_of(whole), table_of(large(items)))


@given(st.lists(st.floats(0.5, 1, width=32), max_size=3 * ITEMS_AT_ONCE), st.floats(0, 1.1))
def test_every_item_gets_one_answer_in_order(items: list[float], threshold: float) -> None:
    def own(part: Sequence[float]) -> list[npt.NDArray[np.float32]]:
        return [np.array([p, -p], np.float32) for p in part]

    def other(part: Sequence[float]) -> list[npt.NDArray[np.float32]]:
        return [np.array([p, -9], np.float32) for p in part]

    found = list(Cascade(threshold=threshold, columns=(0, 1)).answers(items, own, other))
    rows = table_of(found)
    assert rows[:, 0].tolist() == items
    assert (rows[:, 1] == -9).tolist() == [np.float32(p) < threshold for p in items]


# -- the threshold -----------------------------------------------------------------------------------------------------


def table(probabilities: list[float], targets: list[int], *, classes: tuple[str, str] = ("a", "b")) -> PredictionTable:
    first = np.array(probabilities, dtype=np.float32)
    names = tuple(f"{i}.png" for i in range(len(first)))
    return PredictionTable(
        names=names, targets=np.array(targets), probabilities=np.stack([first, 1 - first], axis=1), classes=classes
    )


LARGE = table([0.9, 0.9, 0.9, 0.1, 0.1], [0, 0, 0, 1, 1])
SMALL = table([0.95, 0.9, 0.7, 0.65, 0.4], [0, 0, 0, 1, 1])  # only the fourth disagrees


def test_the_lowest_threshold_of_the_wanted_agreement_is_chosen() -> None:
    assert choose_threshold(SMALL, LARGE, 1.0) == pytest.approx(0.7)
    assert choose_threshold(SMALL, LARGE, 0.8) == pytest.approx(0.6)
    wrong = table([0.1] * 5, [0, 0, 0, 1, 1])
    assert choose_threshold(wrong, table([0.9] * 5, [0, 0, 0, 1, 1]), 0.5) > 1


def test_answers_of_equal_confidence_stand_or_fall_together() -> None:
    tied = table([0.9, 0.9, 0.9], [0, 0, 1])
    whole = table([0.8, 0.8, 0.2], [0, 0, 1])
    assert choose_threshold(tied, whole, 1.0) > 1


@given(st.lists(st.floats(0.5, 1, width=32), min_size=1, max_size=40), st.data())
def test_the_fraction_passed_on_never_falls_as_the_threshold_rises(
    confidences: list[float], data: st.DataObject
) -> None:
    targets = data.draw(st.lists(st.integers(0, 1), min_size=len(confidences), max_size=len(confidences)))
    own, whole = table(confidences, targets), table([0.9] * len(confidences), targets)
    fractions = [passing(own, whole, t).passed_on for t in np.linspace(0, 1.1, 23)]
    assert fractions == sorted(fractions)
    assert fractions[0] == 0 and fractions[-1] == 1


def test_what_a_threshold_does_is_counted_on_images_matched_by_name_and_class() -> None:
    turned = PredictionTable(
        names=LARGE.names[::-1],
        targets=1 - LARGE.targets[::-1],
        probabilities=LARGE.probabilities[::-1, ::-1],
        classes=("b", "a"),
    )
    found = passing(SMALL, turned, 0.8)
    assert found == passing(SMALL, LARGE, 0.8)
    assert (found.passed_on, found.agreement, found.accuracy) == (pytest.approx(0.6), 1.0, 1.0)
