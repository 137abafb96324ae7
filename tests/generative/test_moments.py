"""Sums of features: the same bits in any order, in parts of any size, on any number of processes."""

from __future__ import annotations

import pickle

import hypothesis
import hypothesis.extra.numpy as arrays
import hypothesis.strategies as st
import numpy as np
import pytest
import torch

from reinception.errors import ReinceptionError
from reinception.generative import Moments, moments_of


def _rows(n: int, d: int, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(1.0, 2.0, size=(n, d)).astype(np.float32)


@pytest.mark.parametrize("n", [500, 2500])
def test_mean_and_covariance_are_numpys_whatever_the_batches(n: int) -> None:
    rows = _rows(n, 24)
    moments = Moments(24)
    for batch in np.array_split(rows, [1, 50, 51, 400]):
        moments.update(batch)
    assert moments.num_rows == n
    assert np.abs(moments.mean - rows.mean(0, dtype=np.float64)).max() < 1e-12
    assert np.abs(moments.covariance - np.cov(rows.astype(np.float64), rowvar=False)).max() < 1e-12


def test_covariance_is_the_exact_one_to_the_last_places() -> None:
    # On the grid 1/2 the sums are small integers, so the exact covariance is known as a fraction.
    moments = moments_of(np.array([[0.5, -1.0], [1.0, 3.0], [-2.0, 0.5]]))
    assert moments.covariance == pytest.approx(np.array([[31 / 12, 23 / 24], [23 / 24, 49 / 12]]), rel=1e-15)
    assert (moments.covariance == moments.covariance.T).all()
    assert moments.mean.tolist() == [-0.5 / 3, 2.5 / 3]


@hypothesis.given(
    arrays.arrays(np.float32, (17, 3), elements=st.floats(-100, 100, width=32)),
    st.permutations(range(17)),
    st.lists(st.integers(0, 17), max_size=4),
)
def test_any_order_and_any_parts_give_the_same_bits(rows: np.ndarray, order: list[int], cuts: list[int]) -> None:
    whole = moments_of(rows, limit=128)
    parts = [moments_of(part, limit=128) for part in np.array_split(rows[order], sorted(cuts))]
    merged = Moments(3)
    for part in reversed(parts):
        merged.merge(pickle.loads(pickle.dumps(part)))
    assert merged.fingerprint == whole.fingerprint
    assert merged.covariance.tobytes() == whole.covariance.tobytes()
    assert merged.mean.tobytes() == whole.mean.tobytes()


def test_offsets_cost_no_digits() -> None:
    rows = _rows(100, 4).astype(np.float64) / 64
    near, far = moments_of(np.round(rows, 6), limit=128), moments_of(np.round(rows, 6) + 100.0, limit=128)
    assert np.abs(near.covariance - far.covariance).max() < 1e-12


def test_the_largest_values_do_not_overflow(monkeypatch: pytest.MonkeyPatch) -> None:
    import reinception.generative.moments as module

    monkeypatch.setattr(module, "_CARRY_ROWS", 3000)  # so that what does not fit is carried
    rows = np.where(np.arange(10_000)[:, None] % 2, 128.0, -128.0) * np.ones((1, 2))
    moments = Moments(2)
    moments.update(rows)
    other = moments_of(rows, limit=128)
    moments.merge(other)
    assert moments.covariance == pytest.approx(np.full((2, 2), 128.0**2 * 20_000 / 19_999), rel=1e-15)
    assert moments.mean.tolist() == [0.0, 0.0]


@hypothesis.given(arrays.arrays(np.float32, (9, 4), elements=st.floats(-100, 100, width=32)))
def test_the_way_for_many_rows_gives_the_same(rows: np.ndarray) -> None:
    import reinception.generative.moments as module

    moments = moments_of(rows, limit=128)
    few = moments.covariance
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_CARRY_ROWS", 4)
        assert moments.covariance == pytest.approx(few, rel=1e-15, abs=1e-30)
        carried = Moments(4)
        for part in np.array_split(rows, 4):
            carried.update(part)
        assert carried.fingerprint == moments.fingerprint


def test_tensors_and_halves_are_taken_too() -> None:
    rows = torch.arange(12, dtype=torch.float32).view(4, 3)
    for kind in (torch.float64, torch.bfloat16, torch.float16, torch.int64):
        assert moments_of(rows.to(kind)).covariance.tolist() == moments_of(rows.numpy()).covariance.tolist()


@pytest.mark.parametrize(
    ("value", "said"),
    [(np.nan, "row 1, column 2 is nan: not finite"), (200.0, "row 1, column 2 is 200: larger than the limit 128")],
)
def test_a_value_that_cannot_be_summed_is_named(value: float, said: str) -> None:
    rows = np.zeros((3, 4))
    rows[1, 2] = value
    with pytest.raises(ReinceptionError, match=said):
        Moments(4).update(rows)


def test_what_does_not_fit_is_one_line() -> None:
    with pytest.raises(ReinceptionError, match="different widths: 3 beside 4"):
        Moments(4).update(np.zeros((2, 3)))
    with pytest.raises(ReinceptionError, match="1 image: a covariance needs at least two"):
        _ = moments_of(np.zeros((1, 3))).covariance
    with pytest.raises(ReinceptionError, match="limit 64 cannot be added"):
        Moments(4).merge(Moments(4, limit=64))
    with pytest.raises(ReinceptionError, match="power of two"):
        Moments(4, limit=100)
    with pytest.raises(ReinceptionError, match="shape"):
        Moments(4).update(np.zeros(4))
