"""Where a network is weaker: slices of real images that really differ, and what the report may say of them."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from report_html import Page, table_of

from reinception.data.sources.open_source import open_source
from reinception.metrics import PredictionTable, wilson
from reinception.metrics.significance import fisher
from reinception.report.card import card
from reinception.report.formatting import interval
from reinception.report.page import render
from reinception.report.read_run import Run, read_run
from reinception.report.sections.slices import LEAST_IMAGES, slice_section, slices
from reinception.report.slice_features import slice_features

NUM = 120
CLASSES = ("defective", "functional")


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 solar cells, every second one at a third of its brightness, every fourth cut to half its width, and a
    manifest with columns of its own."""
    root = tmp_path_factory.mktemp("slices")
    rows = []
    for i, record in enumerate(open_source("elpv").records[:NUM]):
        with Image.open(record.path) as opened:
            image = opened.convert("L")
        dark = i % 2 == 1
        image = image.point(lambda value: value // 3) if dark else image.point(lambda value: 120 + value // 2)
        image = image.crop((0, 0, 150, 300)) if i % 4 == 0 else image
        image.save(root / f"{i:03}.png")
        rows.append(
            (f"{i:03}.png", CLASSES[i // 2 % 2], "test", f"site {i % 3}", "night" if dark else "day", str(i), "")
        )
    with (root / "cells.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("path", "label", "split", "group", "light", "hour", "empty"), *rows])
    return root


@pytest.fixture
def run(cells: Path, small_run: Path) -> Run:
    """A run judged on those cells: wrong on two thirds of the dark ones, on a tenth of the others."""
    rng = np.random.default_rng(0)
    targets = np.arange(NUM) // 2 % 2
    wrong = rng.random(NUM) < np.where(np.arange(NUM) % 2 == 1, 0.66, 0.1)
    table = PredictionTable(
        names=tuple(f"{i:03}.png" for i in range(NUM)),
        targets=targets,
        probabilities=np.array([[0.9, 0.1], [0.1, 0.9]], dtype=np.float32)[np.where(wrong, 1 - targets, targets)],
        classes=CLASSES,
    )
    read = read_run(small_run)
    config = {**read.config, "root": str(cells), "data": "cells.csv", "classes": list(CLASSES), "splits": {}}
    return dataclasses.replace(read, config=config, table=table, validation=None)


def test_features_are_what_the_manifest_says_and_what_the_pixels_are_like(run: Run) -> None:
    found = {feature.name: feature for feature in slice_features(run, table_of(run))}
    assert list(found) == ["group", "hour", "light", "shorter side", "brightness", "contrast"]
    assert set(found["light"].values) == {"day", "night"}
    assert set(found["group"].values) == {"site 0", "site 1", "site 2"}
    assert {value.partition(",")[0] for value in found["hour"].values} == {
        "lowest third",
        "middle third",
        "highest third",
    }
    dark = {
        row for row, value in zip(found["brightness"].rows, found["brightness"].values, strict=True) if "low" in value
    }
    assert dark <= {i for i in range(NUM) if i % 2 == 1}


def test_the_slice_that_falls_behind_comes_first_with_interval_rest_and_corrected_p(run: Run) -> None:
    table = table_of(run)
    found = slices(slice_features(run, table), table)
    assert [one.deficit for one in found] == sorted((one.deficit for one in found), reverse=True)
    assert all(min(one.n, one.rest.n) >= LEAST_IMAGES for one in found)
    night = next(one for one in found if one.feature == "light")
    odd = np.arange(NUM) % 2 == 1
    counts = (int(table.correct[odd].sum()), 60, int(table.correct[~odd].sum()), 60)
    assert (night.value, night.accuracy.count, night.n, night.rest.count, night.rest.n) == ("night", *counts)
    assert fisher(*counts) < night.p < 0.001
    assert len({(one.feature, one.value) for one in found}) == len(found)
    shown = slice_section(run, table)
    assert shown is not None
    assert "light “night”" in shown.sentence and "significantly lower accuracy than the rest" in shown.sentence
    low, high = wilson(counts[0], 60)
    row = next(row for row in shown.rows if row.feature == "light")
    page, words = render(run), f"{100 * low:.1f} to {100 * high:.1f}\u202f%"
    assert row.significant and interval(*row.accuracy.interval()) == words and f"<small>{words}</small>" in page
    assert "Accuracy by slice" in page and "Holm" in page
    assert "- light, night: " in card(run)


def test_what_the_classes_explain_is_said_to_be_the_classes(run: Run) -> None:
    table = table_of(run)
    hard = (table.targets == 0) & (np.arange(NUM) % 3 > 0)
    probabilities = np.eye(2, dtype=np.float32)[np.where(hard, 1, table.targets)]
    odd = dataclasses.replace(table, probabilities=probabilities)
    values = np.where(
        np.arange(NUM) % 8 < 4, "mixed", np.where(table.targets == 0, "of the hard class", "of the easy class")
    )
    feature = dataclasses.replace(
        slice_features(run, table)[0], name="made", rows=np.arange(NUM), values=tuple(map(str, values))
    )
    worst = slices([feature], odd)[0]
    assert worst.value == "of the hard class"
    assert worst.deficit > 0.3 and worst.explained_by_classes
    assert worst.expected == pytest.approx(odd.correct[(values == "mixed") & (table.targets == 0)].mean())


def test_where_nothing_differs_there_is_no_evidence_and_where_there_is_too_little_no_section(run: Run) -> None:
    table = table_of(run)
    right = dataclasses.replace(table, probabilities=np.eye(2, dtype=np.float32)[table.targets])
    shown = slice_section(run, right)
    assert shown is not None
    assert "none has significantly lower accuracy than the rest" in shown.sentence
    assert shown.worse == ()
    few = dataclasses.replace(
        table, names=table.names[:50], targets=table.targets[:50], probabilities=table.probabilities[:50]
    )
    few_run = dataclasses.replace(run, table=few)
    assert slice_section(few_run, few) is None
    assert "Accuracy by slice" not in render(few_run)
    assert "Accuracy by slice" not in card(few_run)


@pytest.mark.parametrize("kind", ["json lines", "tabs", "UTF-16 with semicolons"])
def test_a_manifest_of_any_kind_that_is_read_says_the_same(kind: str, run: Run, cells: Path) -> None:
    with (cells / "cells.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    name = {"json lines": "cells.jsonl", "tabs": "cells.tsv"}.get(kind, "wide.csv")
    lines = [",".join(values) for values in [rows[0], *(row.values() for row in rows)]]
    text = "\n".join(map(json.dumps, rows) if kind == "json lines" else lines)
    text = text if kind == "json lines" else text.replace(",", "\t" if kind == "tabs" else ";")
    (cells / name).write_text(text, encoding="utf-16" if kind.startswith("UTF-16") else "utf-8")
    again = dataclasses.replace(run, config={**run.config, "data": name})
    one, other = (slice_features(each, table_of(each)) for each in (run, again))
    assert [(a.name, a.values, a.rows.tolist()) for a in one] == [(b.name, b.values, b.rows.tolist()) for b in other]


def test_columns_and_groups_that_are_html_are_shown_and_do_nothing(run: Run, cells: Path) -> None:
    text = (cells / "cells.csv").read_text(encoding="utf-8")
    (cells / "hostile.csv").write_text(
        text.replace("light", "<img src=x onerror=alert(1)>", 1).replace("night", "<script>alert(1)</script>"),
        encoding="utf-8",
    )
    page = Page(render(dataclasses.replace(run, config={**run.config, "data": "hostile.csv"})))
    assert "<img src=x onerror=alert(1)>" in page.text and "<script>alert(1)</script>" in page.text
    assert "script" not in {tag for tag, _ in page.tags}
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert all(uri.startswith("data:image/jpeg;base64,") for uri in page.images())
