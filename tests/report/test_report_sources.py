"""Images in the report wherever the run read them, and the run compared with another: real runs, real files."""

from __future__ import annotations

import base64
import csv
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from report_html import Page, table_of

from command import SMALLEST, Command
from reinception import metrics
from reinception.data.loading.read import pixels_of
from reinception.errors import ReinceptionError
from reinception.metrics import PredictionTable
from reinception.metrics.significance import compare
from reinception.report.card import card
from reinception.report.page import render, write_report
from reinception.report.read_run import read_run
from reinception.report.report_image import report_image
from reinception.report.sections.baseline import MOST_LOST, compare_with_baseline


@pytest.fixture(scope="module")
def manifest(solar_cells: Path) -> Path:
    """The solar cells in a manifest that lies beside their folders, each with a group."""
    path = solar_cells.parent / "cells.csv"
    files = sorted(solar_cells.glob("*/*.png"))
    rows = [(file.relative_to(path.parent), file.parent.name, f"module {i % 3}") for i, file in enumerate(files)]
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("path", "label", "group"), *rows])
    return path


@pytest.fixture(scope="module")
def from_manifest(command: Command, manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _trained(command, manifest, tmp_path_factory.mktemp("manifest") / "run")


@pytest.fixture(scope="module")
def from_tar(command: Command, manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tar")
    packed = command("data", "pack", manifest, "-o", folder / "shards")
    assert packed.returncode == 0, packed.stderr
    assert list((folder / "shards").glob("*.tar"))
    return _trained(command, folder / "shards", folder / "run")


def _trained(command: Command, data: Path, out: Path) -> Path:
    result = command("train", data, "-o", out, "--epochs", 1, *SMALLEST)
    assert result.returncode == 0, result.stderr
    return out


@pytest.mark.parametrize("source", ["from_manifest", "from_tar"])
def test_images_of_manifests_and_tar_shards_are_shown(source: str, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(source)
    run = read_run(folder)
    table = table_of(run)
    assert set(run.records) == set(table.names)
    for row, name in enumerate(table.names):
        uri = report_image(run, table, row).uri
        assert uri is not None
        with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as shown:
            small = np.asarray(shown.convert("L").resize((16, 16), Image.Resampling.BOX), dtype=float)
        original = Image.fromarray(pixels_of(run.records[name])).convert("L").resize((16, 16), Image.Resampling.BOX)
        assert np.abs(small - np.asarray(original, dtype=float)).mean() < 4
    html = (folder / "report.html").read_text(encoding="utf-8")
    assert html.count("data:image/jpeg;base64,") >= len(table)
    assert "image file not found" not in html
    assert {record.group for record in run.records.values()} <= {"module 0", "module 1", "module 2"}


def test_shards_that_have_moved_leave_the_rest_of_the_page(from_tar: Path, tmp_path: Path) -> None:
    shards = from_tar.parent / "shards"
    shards.rename(tmp_path / "elsewhere")
    try:
        html = write_report(from_tar, tmp_path / "report.html").read_text(encoding="utf-8")
    finally:
        (tmp_path / "elsewhere").rename(shards)
    assert "data:image" not in html and "Confusion matrix" in html


@pytest.fixture
def baselines(small_run: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Predictions for the run's own test images: all right, and as the run has them."""
    table = table_of(read_run(small_run))
    perfect = PredictionTable(
        names=table.names[::-1],
        targets=table.targets[::-1],
        probabilities=np.eye(2, dtype=np.float32)[table.targets[::-1]],
        classes=table.classes,
    )
    return perfect.save_csv(tmp_path / "perfect.csv"), table.save_csv(tmp_path / "same.csv")


def test_the_verdict_compared_with_a_baseline_is_that_of_compare(small_run: Path, baselines: tuple[Path, Path]) -> None:
    run = read_run(small_run)
    table, perfect = table_of(run), PredictionTable.load_csv(baselines[0])
    found, wanted = compare_with_baseline(run, baselines[0]), compare(table, perfect)
    assert f"{wanted.difference:+.1f}" in found.evidence
    assert f"{wanted.only_b_right} only in the other" in found.evidence
    assert found.num_lost == wanted.only_b_right == len(table) - metrics.accuracy(table).count
    assert [one.name for one in found.lost] and len(found.lost) == min(found.num_lost, MOST_LOST)
    assert all(one.uri and one.actual != one.predicted for one in found.lost)
    word = "No evidence" if wanted.better is None else "Worse than"
    assert found.verdict.startswith(word) and "“perfect.csv”" in found.verdict


def test_where_there_is_no_evidence_the_page_and_the_card_say_so(
    command: Command, small_run: Path, baselines: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "report.html"
    result = command("report", small_run, "--baseline", small_run, "-o", out)
    assert (result.returncode, result.stdout.strip()) == (0, str(out)), result.stderr
    html = out.read_text(encoding="utf-8")
    assert "No evidence that it is better or worse than “small” on the same images" in html
    assert "Correct there, wrong here" not in html
    assert "No evidence" not in (small_run / "report.html").read_text(encoding="utf-8")
    assert compare_with_baseline(read_run(small_run), baselines[1]).num_lost == 0


def test_a_baseline_that_cannot_be_one_is_one_clear_line(
    command: Command, small_run: Path, from_manifest: Path, tmp_path: Path
) -> None:
    other = command("report", small_run, "--baseline", from_manifest, "-o", tmp_path / "r.html")
    assert (other.returncode, other.stderr.count("\n")) == (1, 1)
    assert "evaluated on different images" in other.stderr
    with pytest.raises(ReinceptionError, match="gone: holds no predictions for the test split"):
        compare_with_baseline(read_run(small_run), "gone")
    assert not (tmp_path / "r.html").exists()


def test_a_baseline_whose_name_is_html_does_nothing(small_run: Path, tmp_path: Path) -> None:
    run = read_run(small_run)
    hostile = table_of(run).save_csv(tmp_path / "<img src=x onerror=alert(1)>.csv")
    page = Page(render(run, compare_with_baseline(run, hostile)))
    assert hostile.name in page.text
    assert "x" not in page.images()
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert r"\<img src=x onerror=alert(1)\>" in card(run, compare_with_baseline(run, hostile))
