"""What each section of the report shows, against the metrics computed from the same predictions."""

from __future__ import annotations

import base64
import dataclasses
import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from report_html import Page, table_of
from test_metrics import random_table

from reinception import metrics
from reinception.data.sources.open_source import open_source
from reinception.metrics import PredictionTable, calibration
from reinception.recipe import RECIPES
from reinception.report import formatting
from reinception.report.activation_overlay import activation_overlays
from reinception.report.curves import learning_curves
from reinception.report.read_run import Run
from reinception.report.sections.class_scores import class_rows, pr_and_roc_charts
from reinception.report.sections.confusion_matrix import confusion_section
from reinception.report.sections.dataset import dataset
from reinception.report.sections.mistakes import mistakes
from reinception.report.sections.reliability import overall_calibration
from reinception.report.sections.summary import summary
from reinception.report.sections.thresholds import thresholds
from reinception.report.sections.training_cost import changes, costs

pytest_plugins = ["report_fixtures"]


def test_the_summary_is_the_accuracy_with_its_interval_against_the_majority(page: Page, run: Run) -> None:
    right = metrics.accuracy(table_of(run))
    name, base = metrics.majority(table_of(run))
    assert run.split == "test"
    assert f"{formatting.percent(right.percent)} correct" in page.text
    assert f"95 % interval {formatting.interval(*right.interval())}" in page.text
    assert f"always answering “{name}”, which is right for {formatting.percent(base.percent)}" in page.text
    assert "24 images of the test split" in page.text


@pytest.mark.parametrize(
    ("right", "n", "said"),
    [(95, 100, "is better than"), (20, 100, "is worse than"), (55, 100, "is not significantly different")],
)
def test_the_summary_says_when_there_is_no_evidence(right: int, n: int, said: str) -> None:
    targets = np.arange(n) % 2
    predicted = np.where(np.arange(n) < right, targets, 1 - targets)
    table = PredictionTable(
        names=tuple(map(str, range(n))),
        targets=targets,
        probabilities=np.eye(2, dtype=np.float32)[predicted],
        classes=("a", "b"),
    )
    assert said in summary(table, "test").sentence
    assert "chose the weights" in summary(table, "val").sentence


def test_the_data_table_counts_what_the_run_counted(run: Run) -> None:
    shown = dataset(run, run.table)
    assert shown is not None
    source = open_source(run.config["root"])
    wanted = Counter(source.classes[record.target] for record in source.records)
    assert {row.name: row.total for row in shown.rows} == wanted
    assert sum(shown.totals) == 48
    assert shown.splits == ("train", "val", "test")


def test_the_curves_are_those_of_the_log(run: Run) -> None:
    drawn = {chart.title: chart for chart in learning_curves(run.log)}
    assert list(drawn) == ["Loss", "Validation error, percent", "Learning rate", "Gradient norm, before clipping"]
    errors = [line["top1_error"] for line in run.log if line["split"] == "val"]
    assert drawn["Validation error, percent"].svg.count("<circle") == len(errors)
    assert formatting.percent(min(errors)) in drawn["Validation error, percent"].note


def test_the_confusion_table_holds_the_counts(run: Run) -> None:
    table = table_of(run)
    shown = confusion_section(run, table)
    counts = metrics.confusion(table)
    cells = [[int(cell.count) if cell.count != "·" else 0 for cell in row] for _, row in shown.rows]
    assert cells == counts.tolist()
    assert [name for name, _ in shown.rows] == list(table.classes)


def test_curves_of_few_classes_are_drawn_and_of_many_not(page: Page, run: Run) -> None:
    drawn = pr_and_roc_charts(table_of(run))
    assert [chart.title for chart in drawn] == [
        "Precision-recall curve, percent",
        "ROC curve: true positive rate, percent",
    ]
    assert all([name for _, name in chart.legend] == list(run.config["classes"]) for chart in drawn)
    assert all(chart.svg.count("<polyline") == 2 for chart in drawn)
    assert "false positive rate" in page.text
    assert pr_and_roc_charts(random_table(0, k=12)) == ()


def test_every_cell_links_to_its_images(page: Page, run: Run) -> None:
    table = table_of(run)
    shown = confusion_section(run, table)
    anchors = {attributes["id"] for tag, attributes in page.tags if tag == "div" and "id" in attributes}
    links = {attributes["href"] for tag, attributes in page.tags if tag == "a"} - {"#confusion"}
    assert links == {f"#{anchor}" for anchor in anchors} == {f"#{one.anchor}" for one in shown.linked}
    assert {cell.anchor for _, row in shown.rows for cell in row if cell.count != "·"} == anchors
    for one in shown.linked:
        row, column = map(int, one.anchor.split("-")[1:])
        inside = {table.names[i] for i in np.flatnonzero((table.targets == row) & (table.predicted == column))}
        assert {image.name for image in one.images} <= inside
        assert len(one.images) == min(len(inside), 12)


def test_many_classes_are_drawn_by_their_filled_cells_only(run: Run) -> None:
    n, k = 500, 300
    rng = np.random.default_rng(0)
    table = PredictionTable(
        names=tuple(map(str, range(n))),
        targets=rng.integers(0, k, n),
        probabilities=rng.dirichlet(np.ones(k), n).astype(np.float32),
        classes=tuple(f"class {i}" for i in range(k)),
    )
    shown = confusion_section(run, table)
    assert shown.rows == ()
    assert str(shown.heat_map).count("<rect") == np.count_nonzero(metrics.confusion(table)) + 1
    f1 = [score.f1 for score, _ in class_rows(table) if score.f1 is not None]
    assert f1 == sorted(f1)


def test_mistakes_come_hardest_first_with_small_embedded_images(page: Page, run: Run) -> None:
    table = table_of(run)
    shown = mistakes(run, table)
    wrong = np.flatnonzero(table.predicted != table.targets)
    own = table.probabilities[wrong, table.targets[wrong]]
    assert [one.name for one in shown] == [table.names[row] for row in wrong[np.argsort(own, kind="stable")][:24]]
    for one in shown:
        assert one.uri is not None
        with Image.open(io.BytesIO(base64.b64decode(one.uri.partition(",")[2]))) as opened:
            assert (opened.format, max(opened.size)) == ("JPEG", 192)
    assert set(page.images()) >= {one.uri for one in shown}


def test_what_is_fitted_is_fitted_on_validation_and_shown_on_test(page: Page, run: Run) -> None:
    assert run.split == "test" and run.validation is not None
    temperature = calibration.fit_temperature(run.validation)
    shown = overall_calibration(table_of(run), run.validation)
    after = calibration.calibration_error(calibration.with_temperature(table_of(run), temperature))
    assert [name for name, *_ in shown.rows] == ["uncalibrated", f"temperature {temperature:.2f}"]
    assert shown.rows[1][3] == formatting.percent(100 * after)
    assert shown.sentence in page.text
    without = overall_calibration(table_of(run), None)
    assert [name for name, *_ in without.rows] == ["uncalibrated"]
    assert thresholds(table_of(run), None).rows == ()


def test_thresholds_are_those_of_the_validation_images() -> None:
    table, validation = random_table(1, n=300, skill=2), random_table(2, n=200, skill=2)
    shown = thresholds(table, validation)
    chosen = calibration.threshold_for(validation, 0.9)
    assert chosen is not None
    here = calibration.answered_at(table, chosen.threshold)
    assert here.precision is not None
    row = next(row for row in shown.rows if row[0] == formatting.percent(90))
    assert row[1:4] == (
        f"{chosen.threshold:.3f}",
        formatting.percent(100 * here.coverage),
        formatting.percent(here.precision.percent),
    )
    assert [coverage for coverage, *_ in shown.sets] == [formatting.percent(90, 0), formatting.percent(95, 0)]


def test_class_activation_overlays_of_mistakes_are_drawn_over_what_the_network_saw(page: Page, run: Run) -> None:
    table = table_of(run)
    wrong = [int(row) for row in np.flatnonzero(~table.correct)]
    drawn = activation_overlays(run, table, wrong)
    assert sorted(drawn) == wrong
    assert set(page.images()) >= {image.overlay for image in mistakes(run, table)}
    with Image.open(io.BytesIO(base64.b64decode(drawn[wrong[0]].partition(",")[2]))) as opened:
        colours = np.asarray(opened).astype(int)
    assert opened.size == (192, 192)
    assert np.abs(colours[:, :, 0] - colours[:, :, 2]).max() > 40
    assert activation_overlays(dataclasses.replace(run, folder=Path("/nowhere")), table, wrong) == {}


def test_costs_and_changes_are_those_of_the_run(page: Page, run: Run) -> None:
    known = dict(costs(run))
    measured = {"one image", "batches of 8", "measured on"}
    assert {"parameters", "multiply-adds", "model file", "training", "training speed", *measured} == set(known)
    alone = run.speed["runs"][0]
    assert known["one image"].startswith(f"{alone['median_milliseconds']:.3g} ms (median of {alone['n']}, 95 % within ")
    assert f"{run.speed['threads']} thread" in known["measured on"]
    assert not measured & set(dict(costs(dataclasses.replace(run, speed={}))))
    assert ("epochs", str(RECIPES["from_scratch"].epochs), "2") in changes(run)
    assert ("batch_size", "32", "8") in changes(run)
    assert "Changed from the recipe" in page.text
