"""ROC and PR curves, calibration, thresholds and conformal sets: against other libraries and simulation."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics as oracle
from sklearn.calibration import calibration_curve
from test_metrics import random_table, tiny_table
from torchmetrics.classification import MulticlassCalibrationError

from reinception import metrics
from reinception.errors import ReinceptionError
from reinception.metrics import PredictionTable, calibration
from reinception.metrics.roc import one_vs_rest, precision_recall_curve, roc_curve


def coarse_table(seed: int, *, n: int = 150, k: int = 4) -> PredictionTable:
    """Probabilities of few distinct values: ties everywhere. The last class has no image."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(1, 4, (n, k)).astype(np.float64)
    return tiny_table(rng.integers(0, k - 1, n).tolist(), (rows / rows.sum(axis=1, keepdims=True)).tolist())


TABLES = [random_table(0, k=2), random_table(1, k=5, skill=2), random_table(2, k=12, skill=0), coarse_table(3)]


@pytest.mark.parametrize("table", TABLES)
def test_areas_and_curves_equal_those_of_scikit_learn(table: PredictionTable) -> None:
    for target, one in enumerate(one_vs_rest(table)):
        truth, score = table.targets == target, table.probabilities[:, target]
        if not truth.any():
            assert (one.average_precision, one.auroc) == (None, None)
            continue
        assert one.average_precision == pytest.approx(oracle.average_precision_score(truth, score), abs=1e-9)
        assert one.auroc == pytest.approx(oracle.roc_auc_score(truth, score), abs=1e-9)
        false, true, _ = oracle.roc_curve(truth, score, drop_intermediate=False)
        assert roc_curve(truth, score) == pytest.approx(np.stack([false, true], axis=1))
        precision, recall, _ = oracle.precision_recall_curve(truth, score)
        assert precision_recall_curve(truth, score)[::-1] == pytest.approx(np.stack([recall, precision], axis=1)[:-1])


def test_where_there_is_one_class_only_there_is_no_area() -> None:
    (one,) = one_vs_rest(tiny_table([0, 0], [[1.0], [1.0]]))
    assert (one.average_precision, one.auroc) == (1.0, None)


@pytest.mark.parametrize("table", TABLES)
def test_likelihood_and_brier_score_equal_those_of_scikit_learn(table: PredictionTable) -> None:
    labels, wide = list(range(len(table.classes))), table.probabilities.astype(np.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # rows of float32 do not sum to one in float64
        loss = oracle.log_loss(table.targets, wide, labels=labels)
        options: dict[str, Any] = {"labels": labels, "scale_by_half": False}
        brier = oracle.brier_score_loss(table.targets, wide, **options)
    assert calibration.negative_log_likelihood(table) == pytest.approx(loss, abs=1e-6)
    assert calibration.brier_score(table) == pytest.approx(brier, abs=1e-6)


def test_a_probability_of_zero_for_the_truth_is_very_bad_and_still_a_number() -> None:
    assert calibration.negative_log_likelihood(tiny_table([1], [[1.0, 0.0]])) == pytest.approx(87.34, abs=0.01)
    assert calibration.brier_score(tiny_table([1], [[1.0, 0.0]])) == 2
    assert calibration.brier_score(tiny_table([0], [[1.0]])) == 0


@pytest.mark.parametrize("num_bins", [10, 15])
@pytest.mark.parametrize("table", TABLES)
def test_the_calibration_error_equals_that_of_torchmetrics(table: PredictionTable, num_bins: int) -> None:
    theirs = MulticlassCalibrationError(num_classes=len(table.classes), n_bins=num_bins, norm="l1")
    wanted = float(theirs(torch.from_numpy(table.probabilities), torch.from_numpy(table.targets)))
    assert calibration.calibration_error(table, num_bins=num_bins) == pytest.approx(wanted, abs=1e-6)
    bins = calibration.reliability(table, num_bins=num_bins)
    assert sum(one.n for one in bins) == len(table)
    assert sum(one.right for one in bins) == metrics.accuracy(table).count
    assert all(one.low < one.confidence <= one.high + 1e-7 for one in bins)


@pytest.mark.parametrize("table", TABLES)
def test_the_calibration_of_each_predicted_class_is_that_of_its_images(table: PredictionTable) -> None:
    found = calibration.by_predicted_class(table)
    assert [one.name for one in found] == [table.classes[i] for i in np.unique(table.predicted)]
    assert sum(one.n for one in found) == len(table)
    for one in found:
        inside = table.predicted == table.classes.index(one.name)
        sure, right = table.probabilities[inside].max(axis=1), table.correct[inside]
        # Its bins are open on the other side, and no confidence here lies on an edge.
        theirs = calibration_curve(right, sure, n_bins=calibration.NUM_BINS)
        ours = np.array([[b.accuracy, b.confidence] for b in one.bins]).T
        assert ours == pytest.approx(np.stack(theirs), abs=1e-6)
        assert (one.n, one.right) == (int(inside.sum()), int(right.sum()))
        assert one.confidence == pytest.approx(float(sure.mean()), abs=1e-6)
        gaps = sum(b.n * abs(b.confidence - b.accuracy) for b in one.bins) / one.n
        assert one.error == pytest.approx(gaps, abs=1e-9)


def test_an_empty_table_is_refused() -> None:
    empty = tiny_table([0], [[1.0, 0.0]])
    empty = dataclasses.replace(empty, names=(), targets=empty.targets[:0], probabilities=empty.probabilities[:0])
    for score in (
        calibration.negative_log_likelihood,
        calibration.reliability,
        calibration.fit_temperature,
        calibration.risk_coverage,
    ):
        with pytest.raises(ReinceptionError, match="there is no"):
            score(empty)


# -- temperature -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_that_spoilt_a_calibrated_table_is_found_again(temperature: float) -> None:
    rng = np.random.default_rng(0)
    honest = rng.dirichlet(np.ones(4), 20_000).astype(np.float32)
    targets = (rng.random(20_000)[:, None] > honest.cumsum(axis=1)).sum(axis=1).clip(max=3)
    true = dataclasses.replace(random_table(0, n=20_000, k=4), targets=targets, probabilities=honest)
    spoilt = calibration.with_temperature(true, 1 / temperature)
    assert calibration.fit_temperature(spoilt) == pytest.approx(temperature, rel=0.03)
    calibrated = calibration.with_temperature(spoilt, calibration.fit_temperature(spoilt))
    assert calibration.calibration_error(calibrated) < 0.012
    assert (calibrated.predicted == true.predicted).all()


@pytest.mark.parametrize("table", TABLES)
def test_no_other_temperature_is_more_likely(table: PredictionTable) -> None:
    best = calibration.fit_temperature(table)
    loss = calibration.negative_log_likelihood(calibration.with_temperature(table, best))
    for other in (*np.geomspace(0.02, 50, 40), best * 1.01, best / 1.01):
        heated = calibration.with_temperature(table, float(other))
        assert loss <= calibration.negative_log_likelihood(heated) + 1e-6


def test_a_table_without_mistakes_gets_the_lowest_temperature_and_one_without_information_the_highest() -> None:
    assert calibration.fit_temperature(tiny_table([0, 1], [[0.9, 0.1], [0.2, 0.8]])) < 0.05
    assert calibration.fit_temperature(tiny_table([1, 0], [[0.9, 0.1], [0.2, 0.8]])) > 20
    with pytest.raises(ReinceptionError, match="above 0"):
        calibration.with_temperature(TABLES[0], 0)


# -- thresholds and conformal sets -------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", TABLES)
def test_risk_and_coverage_are_those_counted_one_threshold_at_a_time(table: PredictionTable) -> None:
    sure = table.probabilities.max(axis=1)
    points = calibration.risk_coverage(table)
    assert [point.threshold for point in points] == sorted(set(sure.tolist()), reverse=True)
    for point in points[:: max(1, len(points) // 20)]:
        assert point.answered == (sure >= point.threshold).sum()
        assert point.right == table.correct[sure >= point.threshold].sum()
        assert calibration.answered_at(table, point.threshold) == point
    assert points[-1].coverage == 1


def test_a_threshold_answers_most_of_what_keeps_the_wanted_precision() -> None:
    table = random_table(4, n=400, skill=2)
    chosen = calibration.threshold_for(table, 0.9)
    assert chosen is not None and chosen.precision is not None
    assert chosen.precision.percent >= 90
    more = [point for point in calibration.risk_coverage(table) if point.answered > chosen.answered]
    assert all(point.right < 0.9 * point.answered for point in more)
    assert calibration.threshold_for(tiny_table([1], [[0.9, 0.1]]), 0.5) is None
    assert calibration.answered_at(table, 1.1).precision is None


def test_conformal_sets_contain_the_target_as_often_as_guaranteed() -> None:
    held = []
    for seed in range(300):
        table = random_table(seed, n=240, k=6, skill=1.5)
        half = [_rows(table, slice(0, 100)), _rows(table, slice(100, None))]
        sets = calibration.conformal_sets(half[1], calibration.conformal_threshold(half[0], 0.9))
        held.append(np.take_along_axis(sets, half[1].targets[:, None], axis=1).mean())
    # The mean of the coverage lies between 0.9 and 0.9 + 1 / (n + 1).
    assert 0.9 - 0.005 <= np.mean(held) <= 0.9 + 1 / 101 + 0.005


def _rows(table: PredictionTable, chosen: slice) -> PredictionTable:
    return dataclasses.replace(
        table, names=table.names[chosen], targets=table.targets[chosen], probabilities=table.probabilities[chosen]
    )


def test_too_few_images_guarantee_nothing_but_every_class() -> None:
    few = random_table(0, n=8)
    assert calibration.conformal_threshold(few, 0.9) == 0
    assert calibration.conformal_sets(few, 0).all()
    assert calibration.conformal_threshold(random_table(0, n=9), 0.9) > 0
    with pytest.raises(ReinceptionError, match="between 0 and 1"):
        calibration.conformal_threshold(few, 1)
