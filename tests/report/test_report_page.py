"""What the report page must never do and how it is written: hostile names, missing files, and a real browser."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from report_html import HOSTILE_CLASS, HOSTILE_FILE, Page, table_of

from reinception.errors import ReinceptionError
from reinception.metrics import PredictionTable
from reinception.report.curves import learning_curves
from reinception.report.page import render, write_report
from reinception.report.read_run import Run, read_log, read_run
from reinception.report.sections.mistakes import mistakes

pytest_plugins = ["report_fixtures"]


def test_the_page_asks_for_nothing_and_runs_nothing(page: Page) -> None:
    names = Counter(tag for tag, _ in page.tags)
    assert not names.keys() & {"script", "link", "iframe", "object", "embed", "form", "base", "audio", "video"}
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on") or name in {"style", "srcset", "action"}]
        assert (attributes.get("href") or "#").startswith("#"), "a link may only lead to a place on the page"
        if "src" in attributes:
            assert (attributes["src"] or "").startswith("data:image/jpeg;base64,"), tag


def test_the_policy_allows_this_style_sheet_and_embedded_images_only(trained: Path) -> None:
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
    table = dataclasses.replace(table_of(run), names=(f"{HOSTILE_CLASS}/{HOSTILE_FILE}",) * len(table_of(run)))
    again = Page(render(dataclasses.replace(run, table=table)))
    assert HOSTILE_FILE in again.text
    assert again.images()
    assert "x" not in again.images()


def test_images_that_have_moved_are_left_out_and_the_rest_is_shown(run: Run) -> None:
    moved = dataclasses.replace(run, config={**run.config, "root": "/nowhere"})
    page = Page(render(moved))
    assert page.images() == []
    assert page.text.count("image file not found") == len(mistakes(run, table_of(run)))
    assert "Confusion matrix" in page.text


def test_what_is_needed_to_reproduce_the_run_is_there_and_the_folder_is_not(page: Page, run: Run) -> None:
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


def test_a_run_that_was_not_evaluated_shows_what_it_has(folder: Path) -> None:
    shutil.rmtree(folder / "predictions")
    page = Page(render(read_run(folder)))
    assert "Learning curves" in page.text
    assert "Reproduce" in page.text
    assert "Accuracy on" not in page.text
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
    table = table_of(run)
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


def test_the_log_line_of_a_run_is_the_json_the_report_reads(run: Run) -> None:
    train_lines = [line for line in run.log if line["split"] == "train"]
    wanted = {"epoch", "seconds", "loss", "learning_rate", "gradient_norm", "images_per_second"}
    assert all(wanted <= line.keys() for line in train_lines)


def test_the_old_key_of_the_learning_rate_is_read_as_the_new_one(tmp_path: Path) -> None:
    log = tmp_path / "metrics.jsonl"
    lines = [{"split": "train", "epoch": 1, "rate": 0.5}, {"split": "train", "epoch": 2, "learning_rate": 0.25}]
    log.write_text("\n".join(map(json.dumps, lines)))
    assert [line["learning_rate"] for line in read_log(log)] == [0.5, 0.25]
    (chart,) = learning_curves(read_log(log))
    assert (chart.title, chart.note) == ("Learning rate", "Highest 0.5.")


# -- in a browser ------------------------------------------------------------------------------------------------------


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_in_a_browser_nothing_is_asked_for_nothing_runs_and_nothing_is_complained_about(
    run: Run, tmp_path: Path
) -> None:
    table = table_of(run)
    names = (f"{HOSTILE_CLASS}/{HOSTILE_FILE}", *table.names[1:])
    page = tmp_path / "report.html"
    page.write_text(render(dataclasses.replace(run, table=dataclasses.replace(table, names=names))), encoding="utf-8")
    log = tmp_path / "net.json"
    dump = browse(page.as_uri() + "#cell-0-1", "--dump-dom", f"--log-net-log={log}", profile=tmp_path / "profile")
    assert f"Accuracy on {len(table)} images" in re.sub(r"\s+", " ", dump.stdout)
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
