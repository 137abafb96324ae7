"""The Inception score: its two limits, and no influence of the order of the images."""

from __future__ import annotations

import numpy as np
import pytest

from reinception.errors import ReinceptionError
from reinception.generative import inception_score


@pytest.mark.parametrize("splits", [1, 10])
def test_one_hot_answers_spread_over_the_classes_score_their_number_even_when_sorted(splits: int) -> None:
    rows = np.eye(10)[np.repeat(np.arange(10), 1000)]
    assert inception_score(rows, splits=splits).value == pytest.approx(10.0, rel=1e-12)


def test_equal_answers_score_one() -> None:
    found = inception_score(np.full((50, 7), 1 / 7))
    assert found.value == pytest.approx(1.0, abs=1e-12)
    assert found.interval == pytest.approx((1.0, 1.0))


def test_any_permutation_gives_the_same_bits() -> None:
    rng = np.random.default_rng(0)
    rows = rng.dirichlet(np.ones(6), size=200).astype(np.float32)
    assert inception_score(rng.permutation(rows)) == inception_score(rows)


def test_it_is_the_published_formula() -> None:
    rows = np.random.default_rng(0).dirichlet(np.ones(5), size=300)
    divergences = (rows * (np.log(rows) - np.log(rows.mean(0)))).sum(1)
    found = inception_score(rows, splits=1)
    assert found.value == found.whole == pytest.approx(np.exp(divergences.mean()), rel=1e-12)
    assert found.spread is None


def test_logits_go_through_a_softmax() -> None:
    logits = np.random.default_rng(0).normal(size=(100, 8)) * 30
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    assert inception_score(logits, logits=True, splits=5).whole == pytest.approx(inception_score(p, splits=5).whole)


def test_the_interval_covers_the_score_of_the_distribution() -> None:
    rng = np.random.default_rng(0)
    big = inception_score(rng.dirichlet(np.full(5, 0.3), size=200_000), splits=1).value
    draws = [inception_score(rng.dirichlet(np.full(5, 0.3), size=2000), splits=1) for _ in range(200)]
    assert 0.90 <= np.mean([one.interval[0] <= big <= one.interval[1] for one in draws]) <= 0.99


def test_what_is_no_probability_is_one_line() -> None:
    with pytest.raises(ReinceptionError, match="no probabilities"):
        inception_score(np.ones((20, 3)))
    with pytest.raises(ReinceptionError, match="10 splits of 3 images"):
        inception_score(np.full((3, 2), 0.5))
    with pytest.raises(ReinceptionError, match="not finite"):
        inception_score(np.full((30, 2), np.nan))
