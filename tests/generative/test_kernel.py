"""The kernel distance: unbiased, seeded, with a standard error, in bounded memory."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from reinception.errors import ReinceptionError
from reinception.generative import kernel as module
from reinception.generative import kid


def test_the_estimate_is_the_unbiased_one_and_may_be_negative() -> None:
    found = kid(real=np.array([[0.0], [1.0]]), generated=np.array([[0.0], [2.0]]))
    assert found.value == -13.0 and found.full == -13.0  # the biased one would be 19.75


def test_it_is_the_sum_over_all_pairs_written_out() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 5)), rng.normal(0.4, 1, size=(41, 5))

    def k(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (a @ b.T / 5 + 1) ** 3

    xx, yy = k(x, x), k(y, y)
    expected = (xx.sum() - np.trace(xx)) / (30 * 29) + (yy.sum() - np.trace(yy)) / (41 * 40) - 2 * k(x, y).mean()
    assert kid(real=x, generated=y).full == pytest.approx(expected, rel=1e-12)


def test_equal_distributions_are_at_zero_within_the_standard_error() -> None:
    rng = np.random.default_rng(0)
    found = [kid(real=rng.normal(size=(40, 6)), generated=rng.normal(size=(40, 6)), num_subsets=1) for _ in range(200)]
    values = np.array([one.value for one in found])
    assert abs(values.mean()) < 2.5 * values.std() / np.sqrt(len(values))
    assert (values < 0).any()
    assert np.mean([one.contains_zero for one in found]) > 0.95


def test_the_interval_covers_the_distance_of_the_distributions() -> None:
    rng = np.random.default_rng(1)
    n, draws = 60, []
    for _ in range(200):
        draws.append(kid(real=rng.normal(size=(n, 4)), generated=rng.normal(0.5, 1.0, size=(n, 4)), num_subsets=1))
    truth = np.mean([one.value for one in draws])  # unbiased, so the mean of many is the truth
    covered = np.mean([one.interval[0] <= truth <= one.interval[1] for one in draws])
    assert 0.90 <= covered <= 0.99
    error = np.mean([one.standard_error for one in draws])
    assert error == pytest.approx(np.std([one.value for one in draws]), rel=0.2)


def test_every_run_and_any_order_give_the_same_bits_and_another_seed_others() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(50, 4)), rng.normal(0.2, 1, size=(60, 4))
    first = kid(real=x, generated=y, subset_size=20, num_subsets=10)
    assert kid(real=rng.permutation(x), generated=rng.permutation(y), subset_size=20, num_subsets=10) == first
    other = kid(real=x, generated=y, subset_size=20, num_subsets=10, seed=1)
    assert other.value != first.value and other.full == first.full
    assert (first.seed, other.seed) == (0, 1)


def test_the_default_subset_is_all_where_there_are_fewer_than_a_thousand() -> None:
    rng = np.random.default_rng(0)
    found = kid(real=rng.normal(size=(30, 3)), generated=rng.normal(size=(50, 3)), num_subsets=5)
    assert (found.subset_size, found.num_subsets) == (30, 5)
    assert found.spread is not None


def test_subsets_that_are_all_the_whole_set_show_no_certainty() -> None:
    rng = np.random.default_rng(0)
    found = kid(real=rng.normal(size=(30, 3)), generated=rng.normal(size=(30, 3)))
    assert found.spread is None and found.num_subsets == 1
    assert found.standard_error > 0
    assert "no spread" in found.notes[0]


def test_six_images_have_a_value_an_error_and_contain_zero() -> None:
    rng = np.random.default_rng(2)
    found = kid(real=rng.normal(size=(6, 10)), generated=rng.normal(size=(6, 10)))
    assert found.standard_error > 0 and found.contains_zero


def test_means_over_subsets_and_over_all_pairs_estimate_the_same() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(400, 3)), rng.normal(0.5, 1, size=(400, 3))
    found = kid(real=x, generated=y, subset_size=100, num_subsets=200)
    assert found.full is not None
    assert found.value == pytest.approx(found.full, abs=4 * found.spread / np.sqrt(200))  # type: ignore[operator]
    without = kid(real=x, generated=y, subset_size=100, num_subsets=200, full=False)
    assert without.full is None and without.value == found.value
    # The error from subsets is no smaller than that from all pairs.
    assert without.standard_error > 0.9 * found.standard_error


def test_block_sizes_agree_and_bound_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(1500, 8)), rng.normal(size=(1500, 8))
    whole = kid(real=x, generated=y, full=True, num_subsets=1).full
    monkeypatch.setattr(module, "_BLOCK_ROWS", 100)
    tracemalloc.start()
    blocked = kid(real=x, generated=y, full=True, num_subsets=1).full
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert blocked == pytest.approx(whole, rel=1e-12, abs=1e-12)
    assert peak < 1500 * 1500 * 8 / 4  # the whole matrix alone would be 18 MB


@pytest.mark.parametrize(
    ("n", "m", "size", "said"),
    [
        (1, 5, None, "real: 1 image; the unbiased estimate needs at least two"),
        (876, 900, 1000, "a subset of 1000 images cannot be drawn from 876; give 2 to 876"),
        (10, 10, 1, "a subset of 1 images cannot"),
    ],
)
def test_what_cannot_be_estimated_is_one_line(n: int, m: int, size: int | None, said: str) -> None:
    with pytest.raises(ReinceptionError, match=said):
        kid(real=np.zeros((n, 2)), generated=np.zeros((m, 2)), subset_size=size)
