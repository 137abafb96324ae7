"""The Fréchet distance: exact where it is known, finite and not negative for any rank, with an honest interval."""

from __future__ import annotations

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from reinception.errors import ReinceptionError
from reinception.generative import compare_fid, fid, frechet_distance


def _spd(rng: np.random.Generator, d: int) -> np.ndarray:
    root = rng.normal(size=(2 * d, d))
    return root.T @ root / (2 * d) + 0.1 * np.eye(d)


def test_equal_covariances_leave_the_squared_distance_of_the_means() -> None:
    d = 2048
    assert frechet_distance(np.zeros(d), np.eye(d), np.ones(d), np.eye(d)) == pytest.approx(2048, rel=1e-9)


def test_diagonal_covariances() -> None:
    a, b = np.array([1.0, 4.0, 0.25]), np.array([9.0, 1.0, 0.0])
    shift = np.array([1.0, -2.0, 0.5])
    expected = ((np.sqrt(a) - np.sqrt(b)) ** 2).sum() + shift @ shift
    assert frechet_distance(np.zeros(3), np.diag(a), shift, np.diag(b)) == pytest.approx(expected, rel=1e-12)


def test_covariances_that_do_not_commute() -> None:
    found = frechet_distance([0, 0], [[2, 1], [1, 2]], [0, 0], [[1, 0], [0, 3]])  # type: ignore[arg-type]
    assert found == pytest.approx(8 - 2 * np.sqrt(14), rel=1e-12)
    assert found == pytest.approx(0.5166852264521173, abs=1e-12)


@pytest.mark.parametrize("d", [2, 3, 8, 31, 100])
def test_it_is_the_sum_by_eigvalsh_of_the_symmetric_product(d: int) -> None:
    rng = np.random.default_rng(d)
    for _ in range(5):
        a, b = _spd(rng, d), _spd(rng, d)
        values, vectors = np.linalg.eigh(a)
        root = vectors * np.sqrt(values) @ vectors.T
        cross = np.sqrt(np.linalg.eigvalsh(root @ b @ root)).sum()
        expected = np.trace(a) + np.trace(b) - 2 * cross
        assert frechet_distance(np.zeros(d), a, np.zeros(d), b) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("d", [1, 2, 5, 16, 64, 200])
def test_it_agrees_with_scipys_root(d: int) -> None:
    linalg = pytest.importorskip("scipy.linalg")
    rng = np.random.default_rng(d)
    for _ in range(8):
        a, b, shift = _spd(rng, d), _spd(rng, d), rng.normal(size=d)
        expected = shift @ shift + np.trace(a) + np.trace(b) - 2 * np.trace(linalg.sqrtm(a @ b)).real
        assert frechet_distance(np.zeros(d), a, shift, b) == pytest.approx(expected, rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("d", [1024, 2048])
def test_it_agrees_with_scipys_root_at_full_width(d: int) -> None:
    linalg = pytest.importorskip("scipy.linalg")
    rng = np.random.default_rng(d)
    a, b = _spd(rng, d), _spd(rng, d)
    expected = np.trace(a) + np.trace(b) - 2 * np.trace(linalg.sqrtm(a @ b)).real
    assert frechet_distance(np.zeros(d), a, np.zeros(d), b) == pytest.approx(expected, rel=1e-6)


def test_few_images_of_many_features_are_finite_and_agree_with_scipy_where_that_is_finite() -> None:
    linalg = pytest.importorskip("scipy.linalg")
    random = np.random.RandomState(2023)
    for exponent in range(1, 11):
        for width in (2, 4, 16, 64):
            n = 2**exponent
            a, b = random.randn(n, width), random.randn(n, width) * 1.1 + 0.1
            found = fid(real=a, generated=b, interval=False).value
            assert np.isfinite(found) and found >= 0
            product = np.cov(a, rowvar=False) @ np.cov(b, rowvar=False)
            with np.errstate(all="ignore"):
                root = linalg.sqrtm(product) if n > width else None
            if root is not None and np.isfinite(root).all():
                shift = a.mean(0) - b.mean(0)
                traces = np.trace(np.cov(a, rowvar=False)) + np.trace(np.cov(b, rowvar=False))
                assert found == pytest.approx(shift @ shift + traces - 2 * np.trace(root).real, abs=1e-5)


def test_four_images_of_four_features_are_finite() -> None:
    random = np.random.RandomState(1)
    found = fid(real=random.randn(4, 4), generated=random.randn(4, 4)).value
    assert np.isfinite(found) and found >= 0


def test_flat_images_through_a_mean_pool() -> None:
    rows = np.repeat([[0.0], [0.5], [1.0]], 6, axis=1)
    from reinception.generative import moments_of

    moments = moments_of(rows)
    assert moments.mean.tolist() == [0.5] * 6
    assert moments.covariance.tolist() == [[0.25] * 6] * 6


@pytest.mark.parametrize(("n", "factor"), [(778, 1.83805e-7), (100, 1.12231e-5)])
def test_copies_add_no_rank(n: int, factor: float) -> None:
    rows = np.random.default_rng(n).normal(size=(n, 40))
    result = fid(real=rows, generated=np.tile(rows, (3, 1)))
    trace = np.trace(np.cov(rows, rowvar=False))
    assert result.value == pytest.approx(factor * trace, rel=1e-5)
    assert result.num_distinct == (n, n)
    assert any("copies of others" in note for note in result.notes)


def test_copies_of_fewer_images_than_features() -> None:
    rows = np.random.default_rng(0).normal(size=(100, 300))
    result = fid(real=rows, generated=np.tile(rows, (3, 1)))
    assert result.value == pytest.approx(1.12231e-5 * np.square(rows - rows.mean(0)).sum() / 99, rel=1e-5)
    assert result.interval is None
    assert any("too few images" in note for note in result.notes)


def test_a_collapsed_generator_gives_the_distance_within_its_span() -> None:
    rng = np.random.default_rng(0)
    few = rng.normal(size=(40, 300))
    basis, _ = np.linalg.qr(few.T)
    real, generated = few[rng.integers(0, 40, 800)], few[rng.integers(0, 40, 800)]
    inside = fid(real=real @ basis, generated=generated @ basis, interval=False).value
    found = {fid(real=real, generated=generated, interval=False).value for _ in range(10)}
    assert len(found) == 1
    assert found.pop() == pytest.approx(inside, rel=1e-6)


@pytest.mark.slow
def test_five_thousand_images_of_forty_kinds_at_full_width() -> None:
    rng = np.random.default_rng(0)
    few = rng.normal(size=(40, 2048)).astype(np.float32)
    basis, _ = np.linalg.qr(few.astype(np.float64).T)
    real, generated = few[rng.integers(0, 40, 5000)], few[rng.integers(0, 40, 5000)]
    inside = fid(real=real @ basis, generated=generated @ basis, interval=False).value
    found = {fid(real=real, generated=generated).value for _ in range(2)}
    assert len(found) == 1 and found.pop() == pytest.approx(inside, rel=1e-6)


def test_two_images_without_spread() -> None:
    result = fid(real=np.zeros((2, 5)), generated=np.ones((2, 5)))
    assert result.value == 5.0
    assert result.interval is None and result.standard_error is None
    assert any("too few" in note for note in result.notes) and any("no interval" in note for note in result.notes)


def test_a_set_against_itself_is_zero() -> None:
    rows = np.random.default_rng(0).normal(size=(64, 10))
    assert fid(real=rows, generated=rows[::-1]).value == pytest.approx(0, abs=1e-12)


@hypothesis.given(st.integers(0, 2**32 - 1))
@hypothesis.settings(max_examples=10)
def test_the_order_of_the_images_changes_no_bit(seed: int) -> None:
    rng = np.random.default_rng(7)
    real, generated = rng.normal(size=(60, 4)), rng.normal(0.3, 1.2, size=(45, 4))
    expected = fid(real=real, generated=generated)
    shuffle = np.random.default_rng(seed)
    assert fid(real=shuffle.permutation(real), generated=shuffle.permutation(generated)) == expected


def test_the_two_sets_may_be_exchanged() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(50, 6)), rng.normal(0.5, 1.5, size=(80, 6))
    one, other = fid(real=a, generated=b), fid(real=b, generated=a)
    assert one.value == pytest.approx(other.value, rel=1e-12)
    assert one.standard_error == pytest.approx(other.standard_error, rel=1e-9)


def test_another_seed_changes_the_extrapolation_only() -> None:
    rng = np.random.default_rng(0)
    real, generated = rng.normal(size=(60, 4)), rng.normal(0.3, 1.2, size=(45, 4))
    one, other = (fid(real=real, generated=generated, seed=seed) for seed in (0, 1))
    assert one.value == other.value and one.standard_error == other.standard_error
    assert one.infinite != other.infinite
    assert (one.seed, other.seed) == (0, 1)


def test_the_interval_is_that_of_a_known_linear_case() -> None:
    # One feature of equal spread: the distance is (m2 - m1)^2 + (s2 - s1)^2, whose delta-method error is known.
    rng = np.random.default_rng(3)
    a, b = rng.normal(0, 1, size=(4000, 1)), rng.normal(2, 1, size=(4000, 1))
    result = fid(real=a, generated=b)
    assert result.standard_error == pytest.approx(np.sqrt(2 * (2 * 2) ** 2 / 4000), rel=0.05)
    assert result.bias == pytest.approx(1 / 4000 * 2.5, abs=2e-3)


def _coverage(d: int, n: int, m: int, *, shift: float, scale: float, repetitions: int) -> tuple[float, float]:
    rng = np.random.default_rng(d * 1000 + n)
    first = _spd(rng, d)
    second = _spd(rng, d) if scale == 0 else first * scale
    a, b = np.linalg.cholesky(first), np.linalg.cholesky(second)
    true = frechet_distance(np.zeros(d), first, np.full(d, shift), second)
    inside, infinite = 0, []
    for _ in range(repetitions):
        result = fid(real=rng.normal(size=(n, d)) @ a.T, generated=rng.normal(size=(m, d)) @ b.T + shift)
        assert result.interval is not None and result.infinite is not None
        inside += result.interval[0] <= true <= result.interval[1]
        infinite.append(result.infinite)
    assert np.mean(infinite) == pytest.approx(true, abs=3 * np.std(infinite) / np.sqrt(repetitions) + 0.02 * true)
    return inside / repetitions, true


@pytest.mark.parametrize(("d", "n", "m"), [(8, 400, 400), (16, 1000, 500)])
def test_the_interval_covers_the_distance_of_the_distributions(d: int, n: int, m: int) -> None:
    covered, _ = _coverage(d, n, m, shift=0.2, scale=0, repetitions=200)
    assert 0.90 <= covered <= 0.98


@pytest.mark.slow
@pytest.mark.parametrize(("d", "n", "m"), [(4, 200, 200), (8, 300, 1000), (16, 1000, 1000), (32, 1000, 1000)])
@pytest.mark.parametrize("scale", [0.0, 1.5])
def test_the_interval_covers_over_many_draws(d: int, n: int, m: int, scale: float) -> None:
    covered, _ = _coverage(d, n, m, shift=0.3, scale=scale, repetitions=600)
    assert 0.90 <= covered <= 0.98


def test_the_plain_value_of_few_images_is_too_large_and_the_extrapolated_is_not() -> None:
    rng = np.random.default_rng(0)
    results = [fid(real=rng.normal(size=(200, 16)), generated=rng.normal(size=(200, 16))) for _ in range(20)]
    assert np.mean([result.value for result in results]) > 0.5
    assert abs(np.mean([result.infinite or 0.0 for result in results])) < 0.1
    assert sum(bool(result.interval and result.interval[0] == 0) for result in results) >= 17


def test_comparing_two_generators_says_which_is_nearer() -> None:
    rng = np.random.default_rng(0)
    real = rng.normal(size=(1500, 8))
    near, far = rng.normal(0.1, 1.0, size=(1500, 8)), rng.normal(0.5, 1.0, size=(1500, 8))
    found = compare_fid(real=real, a=near, b=far)
    assert found.better == "A" and found.value < 0
    assert found.value == pytest.approx((found.a.infinite or 0) - (found.b.infinite or 0))
    mirrored = compare_fid(real=real, a=far, b=near)
    assert mirrored.better == "B" and mirrored.standard_error == pytest.approx(found.standard_error)
    alike = compare_fid(real=real, a=near, b=rng.normal(0.1, 1.0, size=(1500, 8)))
    assert alike.better is None


@pytest.mark.parametrize(
    ("real", "generated", "said"),
    [
        (np.zeros((1, 3)), np.zeros((5, 3)), "real: 1 image; a covariance needs at least two"),
        (np.zeros((5, 3)), np.zeros((0, 3)), "generated: 0 images"),
        (np.zeros((5, 3)), np.zeros((5, 4)), "different widths: real has 3, generated 4"),
        (np.zeros((5, 3)), np.full((5, 3), np.nan), "generated: row 0, column 0 is nan: not finite"),
        (np.zeros((5, 3)), np.full((5, 3), np.inf), "generated: row 0, column 0 is inf: not finite"),
        (np.zeros((5, 3)), np.array([["a"] * 3] * 5), "must be numbers"),
    ],
)
def test_input_that_cannot_be_scored_is_one_line(real: np.ndarray, generated: np.ndarray, said: str) -> None:
    with pytest.raises(ReinceptionError, match=said):
        fid(real=real, generated=generated)


def test_statistics_that_do_not_fit_are_one_line() -> None:
    with pytest.raises(ReinceptionError, match=r"mu must be \(d,\)"):
        frechet_distance(np.zeros(3), np.eye(2), np.zeros(3), np.eye(3))
    with pytest.raises(ReinceptionError, match="different widths: 2 and 3"):
        frechet_distance(np.zeros(2), np.eye(2), np.zeros(3), np.eye(3))
    with pytest.raises(ReinceptionError, match="not finite"):
        frechet_distance(np.zeros(2), np.full((2, 2), np.nan), np.zeros(2), np.eye(2))
