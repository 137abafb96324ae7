"""Bootstrap and Student intervals, McNemar's and Fisher's tests, Holm's correction: against scipy and simulation."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.stats import binomtest, fisher_exact
from test_metrics import random_table, tiny_table

from reinception import metrics
from reinception.errors import ReinceptionError
from reinception.metrics import PredictionTable, significance
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


def test_the_bootstrap_of_a_confusion_matrix_is_that_of_its_images() -> None:
    table = random_table(5, n=120, k=4)
    got = significance.bootstrap(table, num=4000, seed=1)
    rng = np.random.default_rng(2)
    drawn = []
    for _ in range(1500):
        rows = rng.integers(0, len(table), len(table))
        again = dataclasses.replace(table, targets=table.targets[rows], probabilities=table.probabilities[rows])
        drawn.append((metrics.accuracy(again).percent / 100, metrics.balanced_accuracy(again), metrics.macro_f1(again)))
    for name, values in zip(("accuracy", "balanced_accuracy", "macro_f1"), zip(*drawn, strict=True), strict=True):
        assert got[name] == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])), abs=0.012)
    assert significance.bootstrap(table, num=200, seed=3) == significance.bootstrap(table, num=200, seed=3)


def test_bootstrap_intervals_cover_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    truth = np.array([[300, 40, 20], [30, 180, 30], [20, 25, 100]], dtype=np.float64)
    truth /= truth.sum()
    recall = truth.diagonal() / truth.sum(axis=1)
    f1 = 2 * truth.diagonal() / (truth.sum(axis=1) + truth.sum(axis=0))
    wanted = {"accuracy": truth.trace(), "balanced_accuracy": recall.mean(), "macro_f1": f1.mean()}
    covered = dict.fromkeys(wanted, 0)
    num = 1500
    for _ in range(num):
        counts = rng.multinomial(656, truth.ravel()).reshape(3, 3)
        resampled = significance._resample_confusion(counts, 600, rng)
        for name, value in wanted.items():
            low, high = significance._percentiles(resampled[name], 0.95)
            covered[name] += low <= value <= high
    assert all(0.93 <= count / num <= 0.97 for count in covered.values()), covered


def test_bootstrap_intervals_of_degenerate_tables_are_points() -> None:
    got = significance.bootstrap(tiny_table([0, 0], [[1.0], [1.0]]), num=50)
    assert got["accuracy"] == got["balanced_accuracy"] == got["macro_f1"] == (1, 1)
    assert got["brier_score"] == (0, 0)


def test_an_empty_table_has_no_interval() -> None:
    empty = tiny_table([0], [[1.0, 0.0]])
    empty = dataclasses.replace(empty, names=(), targets=empty.targets[:0], probabilities=empty.probabilities[:0])
    with pytest.raises(ReinceptionError, match="there is no"):
        significance.bootstrap(empty)


def test_the_bootstrap_of_the_accuracy_equals_that_of_scipy() -> None:
    table = random_table(6, n=300, k=3)
    theirs = stats.bootstrap(
        (table.correct.astype(float),), np.mean, n_resamples=5000, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    assert significance.bootstrap(table, num=5000)["accuracy"] == pytest.approx(tuple(theirs), abs=0.007)


@given(st.lists(st.integers(0, 60), min_size=4, max_size=4))
def test_fishers_test_equals_that_of_scipy_for_any_table(cells: list[int]) -> None:
    right, wrong, other_right, other_wrong = cells
    wanted = fisher_exact([[right, wrong], [other_right, other_wrong]]).pvalue
    got = significance.fisher(right, right + wrong, other_right, other_right + other_wrong)
    assert got == pytest.approx(wanted, rel=1e-6, abs=1e-300)


# -- comparison --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pair", [(0, 0), (1, 0), (5, 5), (3, 12), (40, 18), (700, 640), (0, 3000)])
def test_mcnemar_is_the_exact_binomial_test(pair: tuple[int, int]) -> None:
    wanted = binomtest(pair[0], sum(pair)).pvalue if sum(pair) else 1.0
    assert significance.mcnemar(*pair) == pytest.approx(wanted, rel=1e-9, abs=1e-300)


@pytest.mark.parametrize("counts", [(0, 5, 3, 9), (7, 7, 0, 4), (31, 60, 44, 60), (5, 5, 5, 5), (200, 333, 507, 667)])
def test_fishers_test_equals_that_of_scipy(counts: tuple[int, int, int, int]) -> None:
    right, n, other, m = counts
    wanted = fisher_exact([[right, n - right], [other, m - other]]).pvalue
    assert significance.fisher(*counts) == pytest.approx(wanted, rel=1e-6)


def test_holms_correction_is_that_of_his_paper_and_errs_in_one_list_of_twenty() -> None:
    assert significance.holm([0.01, 0.04, 0.03]) == pytest.approx((0.03, 0.06, 0.06))
    assert significance.holm([0.6, 0.9]) == (1.0, 1.0)
    assert significance.holm([]) == ()
    rng = np.random.default_rng(0)
    wrong = sum(min(significance.holm(rng.random(8).tolist())) < 0.05 for _ in range(4000))
    assert 0.04 < wrong / 4000 < 0.06


def predicting(right: list[bool], *, classes: tuple[str, str] = ("a", "b")) -> PredictionTable:
    rows = np.eye(2, dtype=np.float32)[[0 if one else 1 for one in right]]
    names = tuple(f"{i}.png" for i in range(len(right)))
    return PredictionTable(
        names=names, targets=np.zeros(len(right), dtype=np.int64), probabilities=rows, classes=classes
    )


def test_a_comparison_counts_pairs_and_says_when_there_is_no_evidence() -> None:
    a = predicting([True] * 90 + [False] * 10)
    b = predicting([True] * 60 + [False] * 30 + [True] * 4 + [False] * 6)
    found = significance.compare(a, b)
    assert (found.n, found.both_right, found.only_a_right, found.only_b_right) == (100, 60, 30, 4)
    assert (found.a.count, found.b.count, found.difference, found.better) == (90, 64, 26, "A")
    low, high = found.interval
    assert 10 < low < 26 < high < 40
    other = significance.compare(b, a)
    assert (other.difference, other.better, other.p_value) == (-26, "B", found.p_value)
    near = significance.compare(a, predicting([True] * 88 + [False] * 2 + [True] * 3 + [False] * 7))
    assert near.better is None
    assert near.interval[0] < 0 < near.interval[1]
    same = significance.compare(a, a)
    assert (same.better, same.p_value, same.difference, same.interval) == (None, 1, 0, (0, 0))


def test_images_are_matched_by_name_and_labels_by_word() -> None:
    a = predicting([True, False, True])
    turned = dataclasses.replace(a, names=a.names[::-1], probabilities=a.probabilities[::-1])
    assert significance.compare(a, turned).difference == 0
    swapped = dataclasses.replace(a, classes=("b", "a"), targets=1 - a.targets, probabilities=a.probabilities[:, ::-1])
    assert significance.compare(a, swapped).both_right == 2
    with pytest.raises(ReinceptionError, match=r"different images \(3 and 2, 2 in common\)"):
        significance.compare(a, predicting([True, True]))
    with pytest.raises(ReinceptionError, match=r"'0\.png' is 'a' for one and 'c'"):
        significance.compare(a, predicting([True] * 3, classes=("c", "b")))


def test_the_difference_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    shares = np.array([0.12, 0.08, 0.8])
    covered = 0
    for _ in range(1500):
        only_a, only_b, _rest = rng.multinomial(600, shares)
        drawn = rng.multinomial(600, np.array([only_a, only_b, 600 - only_a - only_b]) / 600, size=600)
        low, high = significance._percentiles((drawn[:, 0] - drawn[:, 1]) / 600, 0.95)
        covered += low <= 0.04 <= high
    assert 0.93 <= covered / 1500 <= 0.97
    assert math.isclose(shares[0] - shares[1], 0.04)
