"""What the report shows and what it must never do, on a real run over real images with hostile names."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import json
import math
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from test_metrics import random_table

from reinception import metrics
from reinception.data.sources.open_source import open_source
from reinception.errors import ReinceptionError
from reinception.metrics import PredictionTable, calibration
from reinception.recipe import RECIPES
from reinception.report import calibration_section, charts, formatting, sections, write_report
from reinception.report.activation_overlay import evidence
from reinception.report.card import card
from reinception.report.confusion import confusion
from reinception.report.page import render
from reinception.report.read_run import Run, read_run
from reinception.report.training_cost import changes, costs
from reinception.train.run.start import TrainConfig, train

HOSTILE_CLASS = "<script>alert(1)<script>"
HOSTILE_FILE = '"><img src=x onerror=alert(1)>.png'


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """The network is too small to share between threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 solar cells of each kind; one kind and one file have names that are HTML."""
    root = tmp_path_factory.mktemp("data") / "cells"
    elpv = open_source("elpv")
    for target, name in enumerate(["functional", HOSTILE_CLASS]):
        (root / name).mkdir(parents=True)
        for record in [record for record in elpv.records if record.target == target][:24]:
            shutil.copy(record.path, root / name)
    first = min((root / HOSTILE_CLASS).iterdir())
    first.rename(first.with_name(HOSTILE_FILE))
    return root


@pytest.fixture(scope="module")
def trained(cells: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder as `train` leaves it: a very narrow network, two epochs."""
    out = tmp_path_factory.mktemp("runs") / "first & only"
    config = TrainConfig(
        data=cells, out=out, epochs=2, batch_size=8, input_size=139, width=0.05, test_fraction=0.5, val_fraction=0.1
    )
    return train(config)


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    """A copy of the run that a test may spoil."""
    return shutil.copytree(trained, tmp_path / "run")


@pytest.fixture(scope="module")
def run(trained: Path) -> Run:
    return read_run(trained)


class Page(HTMLParser):
    """Every tag with its attributes, the text of the page, and whether tags are closed in order."""

    VOID = frozenset({"meta", "img", "br", "link", "hr", "input"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"[ \n]+", " ", " ".join(self.words))

    def pictures(self) -> list[str]:
        return [attributes["src"] or "" for tag, attributes in self.tags if tag == "img"]


@pytest.fixture(scope="module")
def page(trained: Path) -> Page:
    return Page((trained / "report.html").read_text(encoding="utf-8"))


def test_the_page_asks_for_nothing_and_runs_nothing(page: Page) -> None:
    names = Counter(tag for tag, _ in page.tags)
    assert not names.keys() & {"script", "link", "iframe", "object", "embed", "form", "base", "audio", "video"}
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on") or name in {"style", "srcset", "action"}]
        assert (attributes.get("href") or "#").startswith("#"), "a link may only lead to a place on the page"
        if "src" in attributes:
            assert (attributes["src"] or "").startswith("data:image/jpeg;base64,"), tag


def test_the_policy_allows_this_style_sheet_and_embedded_pictures_only(trained: Path) -> None:
    html = (trained / "report.html").read_text(encoding="utf-8")
    (style,) = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    (policy,) = (
        attributes["content"] for tag, attributes in Page(html).tags if attributes.get("http-equiv") and tag == "meta"
    )
    wanted = f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    assert policy == wanted
    assert "url(" not in style
    assert "@import" not in style


def test_names_that_are_html_are_shown_and_do_nothing(page: Page, run: Run) -> None:
    assert HOSTILE_CLASS in page.text
    table = dataclasses.replace(_table(run), names=(f"{HOSTILE_CLASS}/{HOSTILE_FILE}",) * len(_table(run)))
    again = Page(render(dataclasses.replace(run, table=table)))
    assert HOSTILE_FILE in again.text
    assert again.pictures()
    assert "x" not in again.pictures()


def _table(run: Run) -> PredictionTable:
    assert run.table is not None
    return run.table


def test_the_verdict_is_the_accuracy_with_its_interval_against_the_majority(page: Page, run: Run) -> None:
    right = metrics.accuracy(_table(run))
    name, base = metrics.majority(_table(run))
    assert run.split == "test"
    assert f"{formatting.percent(right.percent)} correct" in page.text
    assert f"95 % interval {formatting.interval(*right.interval())}" in page.text
    assert f"always answering “{name}”, which is right for {formatting.percent(base.percent)}" in page.text
    assert "24 images of the test split" in page.text


@pytest.mark.parametrize(
    ("right", "n", "said"), [(95, 100, "is better than"), (20, 100, "is worse than"), (55, 100, "is not told apart")]
)
def test_the_verdict_says_when_there_is_no_evidence(right: int, n: int, said: str) -> None:
    targets = np.arange(n) % 2
    predicted = np.where(np.arange(n) < right, targets, 1 - targets)
    table = PredictionTable(
        names=tuple(map(str, range(n))),
        targets=targets,
        probabilities=np.eye(2, dtype=np.float32)[predicted],
        classes=("a", "b"),
    )
    assert said in sections.verdict(table, "test").sentence
    assert "chose the weights" in sections.verdict(table, "val").sentence


def test_the_data_table_counts_what_the_run_counted(run: Run) -> None:
    data = sections.data(run, run.table)
    assert data is not None
    source = open_source(run.config["root"])
    wanted = Counter(source.classes[record.target] for record in source.records)
    assert {row.name: row.total for row in data.rows} == wanted
    assert sum(data.totals) == 48
    assert data.splits == ("train", "val", "test")


def test_the_curves_are_those_of_the_log(run: Run) -> None:
    charts = {chart.title: chart for chart in sections.curves(run)}
    assert list(charts) == ["Loss", "Validation error, percent", "Learning rate", "Gradient norm"]
    errors = [line["top1_error"] for line in run.log if line["split"] == "val"]
    assert charts["Validation error, percent"].svg.count("<circle") == len(errors)
    assert formatting.percent(min(errors)) in charts["Validation error, percent"].note


def test_the_confusion_table_holds_the_counts(run: Run) -> None:
    table = _table(run)
    shown = confusion(run, table)
    counts = metrics.confusion(table)
    cells = [[int(cell.count) if cell.count != "·" else 0 for cell in row] for _, row in shown.rows]
    assert cells == counts.tolist()
    assert [name for name, _ in shown.rows] == list(table.classes)


def test_the_ranking_of_few_classes_is_drawn_and_of_many_not(page: Page, run: Run) -> None:
    drawn = sections.ranking_charts(_table(run))
    assert [chart.title for chart in drawn] == ["Precision", "Found"]
    assert all([name for _, name in chart.legend] == list(run.config["classes"]) for chart in drawn)
    assert all(chart.svg.count("<polyline") == 2 for chart in drawn)
    assert "others called so, percent" in page.text
    assert sections.ranking_charts(random_table(0, k=12)) == ()


def test_every_cell_opens_its_images(page: Page, run: Run) -> None:
    table = _table(run)
    shown = confusion(run, table)
    anchors = {attributes["id"] for tag, attributes in page.tags if tag == "div" and "id" in attributes}
    links = {attributes["href"] for tag, attributes in page.tags if tag == "a"} - {"#confusion"}
    assert links == {f"#{anchor}" for anchor in anchors} == {f"#{one.anchor}" for one in shown.opened}
    assert {cell.opens for _, row in shown.rows for cell in row if cell.count != "·"} == anchors
    for one in shown.opened:
        row, column = map(int, one.anchor.split("-")[1:])
        inside = {table.names[i] for i in np.flatnonzero((table.targets == row) & (table.predicted == column))}
        assert {picture.name for picture in one.pictures} <= inside
        assert len(one.pictures) == min(len(inside), 12)


def test_many_classes_are_drawn_by_their_filled_cells_only(run: Run) -> None:
    n, k = 500, 300
    rng = np.random.default_rng(0)
    table = PredictionTable(
        names=tuple(map(str, range(n))),
        targets=rng.integers(0, k, n),
        probabilities=rng.dirichlet(np.ones(k), n).astype(np.float32),
        classes=tuple(f"class {i}" for i in range(k)),
    )
    shown = confusion(run, table)
    assert shown.rows == ()
    assert str(shown.picture).count("<rect") == np.count_nonzero(metrics.confusion(table)) + 1
    f1 = [float(row.f1) for row in sections.classes(table) if row.f1 != "–"]
    assert f1 == sorted(f1)


def test_mistakes_come_hardest_first_with_small_embedded_pictures(page: Page, run: Run) -> None:
    table = _table(run)
    mistakes = sections.mistakes(run, table)
    wrong = np.flatnonzero(table.predicted != table.targets)
    own = table.probabilities[wrong, table.targets[wrong]]
    assert [one.name for one in mistakes] == [table.names[row] for row in wrong[np.argsort(own, kind="stable")][:24]]
    for one in mistakes:
        assert one.uri is not None
        with Image.open(io.BytesIO(base64.b64decode(one.uri.partition(",")[2]))) as picture:
            assert (picture.format, max(picture.size)) == ("JPEG", 192)
    assert set(page.pictures()) >= {one.uri for one in mistakes}


def test_pictures_that_have_moved_are_left_out_and_the_rest_is_shown(run: Run) -> None:
    moved = dataclasses.replace(run, config={**run.config, "root": "/nowhere"})
    page = Page(render(moved))
    assert page.pictures() == []
    assert page.text.count("image file not found") == len(sections.mistakes(run, _table(run)))
    assert "Confusion" in page.text


def test_what_is_needed_to_do_it_again_is_there_and_the_folder_is_not(page: Page, run: Run) -> None:
    assert str(run.config["command"]) in page.text
    assert "--split test" in page.text
    assert str(run.config["fingerprint"]) in page.text
    assert torch.__version__ in page.text
    assert '"root"' not in page.text
    assert "multiply-adds" in page.text


def test_the_report_in_the_run_is_renewed_and_no_other_file_is_written_over(folder: Path, tmp_path: Path) -> None:
    (folder / "report.html").write_text("old")
    assert write_report(folder) == folder / "report.html"
    assert (folder / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    out = tmp_path / "mine.html"
    out.write_text("mine")
    with pytest.raises(ReinceptionError, match=r"mine\.html: exists already"):
        write_report(folder, out)
    assert out.read_text() == "mine"


def test_the_same_run_gives_the_same_page(folder: Path) -> None:
    first, card_first = write_report(folder).read_bytes(), (folder / "MODEL_CARD.md").read_bytes()
    assert write_report(folder).read_bytes() == first
    assert (folder / "MODEL_CARD.md").read_bytes() == card_first


def test_a_run_that_was_not_judged_shows_what_it_has(folder: Path) -> None:
    shutil.rmtree(folder / "predictions")
    page = Page(render(read_run(folder)))
    assert "Learning curves" in page.text
    assert "Do it again" in page.text
    assert "Verdict" not in page.text
    (folder / "metrics.jsonl").unlink()
    assert "Learning curves" not in Page(render(read_run(folder))).text


def test_without_a_test_split_the_validation_images_are_shown_as_such(folder: Path) -> None:
    (folder / "predictions" / "test.csv").unlink()
    text = Page(render(read_run(folder))).text
    assert "of the validation split" in text
    assert "The same images chose the weights" in text


def test_a_log_cut_off_in_its_last_line_is_read_up_to_there(folder: Path) -> None:
    log = folder / "metrics.jsonl"
    lines = read_run(folder).log
    log.write_text(log.read_text(encoding="utf-8") + '{"split": "tra')
    assert read_run(folder).log == lines
    log.write_text('{"split": "tra\n' + log.read_text(encoding="utf-8"))
    with pytest.raises(ReinceptionError, match=r"metrics\.jsonl, line 1: is not JSON"):
        read_run(folder)


def test_a_folder_that_is_no_run_is_one_clear_line(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(ReinceptionError, match="no such run folder"):
        write_report(tmp_path / "gone")
    with pytest.raises(ReinceptionError, match=r"no config\.json in this folder"):
        write_report(tmp_path)
    (folder / "config.json").write_text("[]")
    with pytest.raises(ReinceptionError, match=r"config\.json: holds no JSON object"):
        write_report(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(ReinceptionError, match=r"config\.json: cannot be read as JSON"):
        write_report(folder)


def test_ten_thousand_images_stay_small(run: Run) -> None:
    table = _table(run)
    rows = np.arange(10_000) % len(table)
    many = PredictionTable(
        names=tuple(table.names[row] for row in rows),
        targets=table.targets[rows],
        probabilities=table.probabilities[rows],
        classes=table.classes,
    )
    assert len(render(dataclasses.replace(run, table=many)).encode()) < 2_000_000


def test_ten_thousand_noisy_images_of_many_classes_stay_under_15_mb(run: Run, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = [tmp_path / f"{i}.png" for i in range(20)]
    for path in noise:
        Image.fromarray(rng.integers(0, 256, (200, 200, 3), dtype=np.uint8)).save(path, compress_level=1)
    table = PredictionTable(
        names=tuple(noise[i % 20].name for i in range(10_000)),
        targets=rng.integers(0, 16, 10_000),
        probabilities=rng.dirichlet(np.ones(16), 10_000).astype(np.float32),
        classes=tuple(f"class {i}" for i in range(16)),
    )
    spread = dataclasses.replace(
        run, folder=tmp_path, table=table, validation=None, config={**run.config, "root": str(tmp_path)}
    )
    assert len(render(spread).encode()) < 15_000_000


# -- trust, evidence, cost ---------------------------------------------------------------------------------------------


def test_what_is_fitted_is_fitted_on_validation_and_shown_on_test(page: Page, run: Run) -> None:
    assert run.split == "test" and run.validation is not None
    temperature = calibration.fit_temperature(run.validation)
    shown = calibration_section.calibrated(_table(run), run.validation)
    after = calibration.calibration_error(calibration.with_temperature(_table(run), temperature))
    assert [name for name, *_ in shown.rows] == ["as it is", f"temperature {temperature:.2f}"]
    assert shown.rows[1][3] == formatting.percent(100 * after)
    assert shown.sentence in page.text
    without = calibration_section.calibrated(_table(run), None)
    assert [name for name, *_ in without.rows] == ["as it is"]
    assert calibration_section.thresholds(_table(run), None).rows == ()


def test_thresholds_are_those_of_the_validation_images() -> None:
    table, validation = random_table(1, n=300, skill=2), random_table(2, n=200, skill=2)
    shown = calibration_section.thresholds(table, validation)
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
    assert [promised for promised, *_ in shown.sets] == [formatting.percent(90, 0), formatting.percent(95, 0)]


def test_the_evidence_of_a_mistake_is_drawn_over_what_the_network_saw(page: Page, run: Run) -> None:
    table = _table(run)
    wrong = [int(row) for row in np.flatnonzero(~table.correct)]
    drawn = evidence(run, table, wrong)
    assert sorted(drawn) == wrong
    assert set(page.pictures()) >= {picture.overlay for picture in sections.mistakes(run, table)}
    with Image.open(io.BytesIO(base64.b64decode(drawn[wrong[0]].partition(",")[2]))) as picture:
        colours = np.asarray(picture).astype(int)
    assert picture.size == (192, 192)
    assert np.abs(colours[:, :, 0] - colours[:, :, 2]).max() > 40
    assert evidence(dataclasses.replace(run, folder=Path("/nowhere")), table, wrong) == {}


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


# -- the model card ----------------------------------------------------------------------------------------------------


def test_the_model_card_has_no_empty_section_and_no_live_html(run: Run) -> None:
    text = card(run)
    for part in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        title, _, body = part.partition("\n")
        assert len(body.strip()) > 20, title
    assert "More information" not in text and "None" not in text
    assert formatting.percent(metrics.accuracy(_table(run)).percent, 2) in text
    assert "<script>" not in text
    assert r"\<script\>" in text
    assert str(run.config["command"]) in text


def test_a_card_leaves_out_what_the_run_does_not_know(run: Run) -> None:
    bare = dataclasses.replace(
        run,
        folder=Path("/nowhere"),
        config={},
        environment={},
        log=(),
        table=None,
        split=None,
        validation=None,
        speed={},
    )
    titles = re.findall(r"^## (.*)$", card(bare), flags=re.MULTILINE)
    assert titles == ["Training"]


# -- in a browser ------------------------------------------------------------------------------------------------------


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_in_a_browser_nothing_is_asked_for_nothing_runs_and_nothing_is_complained_about(
    run: Run, tmp_path: Path
) -> None:
    table = _table(run)
    names = (f"{HOSTILE_CLASS}/{HOSTILE_FILE}", *table.names[1:])
    page = tmp_path / "report.html"
    page.write_text(render(dataclasses.replace(run, table=dataclasses.replace(table, names=names))), encoding="utf-8")
    log = tmp_path / "net.json"
    dump = browse(page.as_uri() + "#cell-0-1", "--dump-dom", f"--log-net-log={log}", profile=tmp_path / "profile")
    assert f"Verdict on {len(table)} images" in re.sub(r"\s+", " ", dump.stdout)
    assert "CONSOLE" not in dump.stderr, dump.stderr
    assert requested(log) == []
    tags = Page(dump.stdout).tags
    assert "script" not in {tag for tag, _ in tags}
    assert not [name for _, attributes in tags for name in attributes if name.startswith("on")]
    assert HOSTILE_CLASS in Page(dump.stdout).text and HOSTILE_FILE in Page(dump.stdout).text


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_the_browser_test_would_see_a_request_and_a_complaint(tmp_path: Path) -> None:
    page = tmp_path / "bad.html"
    page.write_text("<script>console.error('seen')</script><img src='http://127.0.0.1:9/x.png'>")
    log = tmp_path / "net.json"
    dump = browse(page.as_uri(), "--dump-dom", f"--log-net-log={log}", profile=tmp_path / "profile")
    assert "CONSOLE" in dump.stderr and "seen" in dump.stderr
    assert requested(log) == ["http://127.0.0.1:9/x.png"]


def browse(address: str, *flags: str, profile: Path) -> subprocess.CompletedProcess[str]:
    """A real browser without network on one page; its complaints are on the error stream."""
    assert CHROMIUM is not None
    quiet = ("--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync")
    return subprocess.run(
        [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", *quiet, f"--user-data-dir={profile}",
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--enable-logging=stderr", "--v=0",
            *flags, address,
        ],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip


def requested(log: Path) -> list[str]:
    """The addresses that a page asked for, by the browser's own record; what the browser itself wants has no origin."""
    events = [one.get("params", {}) for one in json.loads(log.read_text(encoding="utf-8"))["events"]]
    return [one["url"] for one in events if one.get("initiator", "not an origin") != "not an origin"]


# -- charts and words --------------------------------------------------------------------------------------------------


finite = st.floats(-1e6, 1e6, allow_nan=False).map(lambda x: round(x, 6))


@given(low=finite, span=st.floats(1e-4, 1e6), at_most=st.integers(2, 9))
def test_ticks_are_round_and_few_and_cover_when_asked(low: float, span: float, at_most: int) -> None:
    high = low + span
    inside, around = charts.ticks(low, high, at_most), charts.ticks(low, high, at_most, cover=True)
    slack = span * 1e-6
    assert all(low - slack <= x <= high + slack for x in inside)
    assert len(inside) <= at_most
    assert around[0] <= low + slack
    assert around[-1] >= high - slack
    step = around[1] - around[0]
    assert round(step / 10 ** math.floor(math.log10(step) + 1e-6), 3) in {1, 2, 5, 10}


@given(low=st.floats(1e-6, 1e3), factor=st.floats(1.001, 1e6))
def test_logarithmic_ticks_are_at_least_two(low: float, factor: float) -> None:
    marks = charts.log_ticks(low, low * factor)
    assert len(marks) >= 2
    assert marks == sorted(marks)


@given(points=st.lists(st.tuples(st.integers(0, 9999), finite), min_size=1, max_size=700).map(sorted))
def test_every_line_can_be_drawn_inside_its_picture(points: list[tuple[float, float]]) -> None:
    drawn = charts.line_chart(
        [charts.Line(name="x", points=points, style="line-a")], title="t", x_label="epoch", log=True
    )
    (line,) = re.findall(r'<polyline[^>]*points="([^"]*)"', drawn)
    pairs = [tuple(map(float, pair.split(","))) for pair in line.split()]
    assert len(pairs) <= 240
    assert all(0 <= x <= charts.WIDTH and 0 <= y <= charts.HEIGHT for x, y in pairs)


def test_values_that_are_no_numbers_are_left_out_of_a_line() -> None:
    points = [(0.0, 1.0), (1.0, math.nan), (2.0, math.inf), (3.0, 2.0)]
    drawn = charts.line_chart(
        [charts.Line(name="x", points=points, style="line-a", dots=True)], title="t", x_label="epoch"
    )
    assert drawn.count("<circle") == 2
    assert not charts.line_chart(
        [charts.Line(name="x", points=[(0, math.nan)], style="line-a")], title="t", x_label="e"
    )


def test_thinning_keeps_the_mean_and_the_last_point() -> None:
    points = [(float(i), float(i % 7)) for i in range(5000)]
    thinned = charts.thin(points)
    assert len(thinned) == 240
    assert thinned[-1] == points[-1]
    assert np.mean([y for _, y in thinned]) == pytest.approx(3, abs=0.05)


def test_numbers_are_written_as_people_write_them() -> None:
    assert formatting.percent(81.42) == "81.4\u202f%"
    assert formatting.interval(79.46, 85.31) == "79.5 to 85.3\u202f%"
    assert [formatting.count(1, "image"), formatting.count(2624, "image"), formatting.count(2, "class", "classes")] == [
        "1 image",
        "2,624 images",
        "2 classes",
    ]
    assert [formatting.duration(s) for s in (0.4, 59.4, 300, 7505)] == ["0 s", "59 s", "5 min 00 s", "2 h 05 min"]
    assert [charts.short(x) for x in (0.045, 12, 1e-5, 25000)] == ["0.045", "12", "1e-05", "25,000"]


def test_the_log_line_of_a_run_is_the_json_the_report_reads(trained: Path) -> None:
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    train_lines = [line for line in lines if line["split"] == "train"]
    assert {"epoch", "seconds", "loss", "rate", "gradient_norm", "images_per_second"} <= train_lines[0].keys()
