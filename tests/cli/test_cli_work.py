"""train, evaluate, predict and report from the command line: on real images, and on what people get wrong."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from command import SMALLEST, Command
from reinception import cli
from reinception.metrics import wilson


def test_a_run_folder_holds_what_the_documents_promise(small_run: Path) -> None:
    files = {str(path.relative_to(small_run)) for path in small_run.rglob("*") if path.is_file()}
    assert {
        "config.json",
        "environment.json",
        "metrics.jsonl",
        "results.csv",
        "model.safetensors",
        "last.safetensors",
        "predictions/val.csv",
        "predictions/test.csv",
        "report.html",
        "log.txt",
    } <= files


def test_evaluate_finds_the_images_the_training_held_out(
    command: Command, small_run: Path, solar_cells: Path, tmp_path: Path
) -> None:
    predictions = tmp_path / "test.csv"
    result = command("evaluate", small_run, solar_cells, "--json", "-", "--predictions", predictions)
    assert result.returncode == 0, result.stderr
    scores = json.loads(result.stdout)
    assert (scores["num_listed"], scores["num_images"], scores["split"]) == (8, 8, "test")
    assert scores["protocol"] == "single crop"
    wrong = scores["top1_error_count"]
    assert scores["top1_error"] == 100 * wrong / 8
    assert scores["top1_error_interval"] == pytest.approx([100 * bound for bound in wilson(wrong, 8)])
    assert predictions.read_text() == (small_run / "predictions" / "test.csv").read_text()


def test_evaluate_prints_the_error_its_interval_and_each_class(
    small_run: Path, solar_cells: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["evaluate", str(small_run), str(solar_cells), "--split", "val"]) == 0
    said = capsys.readouterr().out
    assert "\nthe val split of " in said and "as in training (as asked): 4 images" in said
    assert "top-1 error" in said and "95 % interval" in said
    assert {"defective", "functional"} <= {line.split()[0] for line in said.splitlines() if line}


def test_a_model_with_itself_is_an_ensemble_that_scores_the_same(
    small_run: Path, solar_cells: Path, tmp_path: Path
) -> None:
    alone, together = tmp_path / "alone.json", tmp_path / "together.json"
    assert cli.main(["evaluate", str(small_run), str(solar_cells), "--json", str(alone)]) == 0
    assert cli.main(["evaluate", str(small_run), str(small_run), str(solar_cells), "--json", str(together)]) == 0
    one, two = json.loads(alone.read_text()), json.loads(together.read_text())
    assert (one["num_models"], two["num_models"]) == (1, 2)
    assert one["confusion"] == two["confusion"]


def test_predict_names_a_bad_file_and_goes_on(
    command: Command, small_run: Path, solar_cells: Path, tmp_path: Path
) -> None:
    good = sorted(solar_cells.rglob("*.png"))[:2]
    bad = tmp_path / "page.jpg"
    bad.write_text("<!DOCTYPE html><title>not found</title>")
    table = tmp_path / "labels.csv"
    result = command("predict", small_run, good[0], bad, good[1], "--top", 1, "--json", "-", "--csv", table)
    assert result.returncode == 1
    assert str(bad) in result.stderr.splitlines()[0]
    predictions = json.loads(result.stdout)
    assert [prediction["path"] for prediction in predictions] == [str(path) for path in (good[0], bad, good[1])]
    assert [len(prediction["labels"]) for prediction in predictions] == [1, 0, 1]
    assert [prediction["error"] is None for prediction in predictions] == [True, False, True]
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == [str(path) for path in (good[0], bad, good[1])]


def test_predict_takes_folders_and_globs_and_prints_a_line_for_each_image(
    small_run: Path, solar_cells: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["predict", str(small_run), f"{solar_cells}/functional/*.png", str(solar_cells / "defective")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 32
    assert all("functional" in line and "defective" in line and line.endswith(" %") for line in lines)


def test_report_says_where_it_is_and_never_writes_over_another_file(
    small_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    assert cli.main(["report", str(small_run), "-o", str(page)]) == 0
    assert capsys.readouterr().out.strip() == str(page)
    written = page.read_bytes()
    assert cli.main(["report", str(small_run), "-o", str(page)]) == 1
    assert str(page) in capsys.readouterr().err
    assert page.read_bytes() == written


def test_an_existing_run_folder_is_never_touched(
    small_run: Path, solar_cells: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in small_run.rglob("*")}
    assert cli.main(["train", str(solar_cells), "-o", str(small_run), "--epochs", "1", *SMALLEST]) == 1
    said = capsys.readouterr().err
    assert str(small_run) in said and len(said.splitlines()) == 1
    assert {path: path.stat().st_mtime_ns for path in small_run.rglob("*")} == before


def test_an_existing_result_file_is_refused_before_any_work(
    small_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for flag, words in (("--json", ["evaluate"]), ("--predictions", ["evaluate"]), ("--csv", ["predict"])):
        file = tmp_path / f"{flag[2:]}.old"
        file.write_text("kept")
        assert cli.main([*words, str(small_run), str(tmp_path / "missing"), flag, str(file)]) == 1
        assert str(file) in capsys.readouterr().err
        assert file.read_text() == "kept"


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["train", "no/such/folder", "-o", "run"], 1, "no/such/folder"),
        (["train", "photos", "-o", "run", "--model", "inception_v9"], 2, "inception_v3_lucid"),
        (["train", "photos", "-o", "run", "--recipe", "magic"], 2, "from_scratch"),
        (["train", "photos", "-o", "run", "--batch-size", "1"], 2, "batch size 1"),
        (["train", "photos", "-o", "run", "--input-size", "74"], 2, "75"),
        (["train", "photos", "-o", "run", "--input-size", "150", "--aux", "strict"], 2, "299"),
        (["train", "photos", "-o", "run", "--device", "quantum"], 2, "quantum"),
        (["train", "photos", "-o", "run", "--weights", "no.safetensors"], 1, "no.safetensors"),
        (["train", "one_class", "-o", "run"], 1, "only one class"),
        (["train", "empty_class", "-o", "run"], 1, "'empty'"),
        (["train", "truncated", "-o", "run", *SMALLEST], 1, "functional/cut.png"),
        (["evaluate", "no_run", "photos"], 1, "no_run"),
        (["evaluate", "photos", "photos"], 1, "photos"),
        (["predict", "no.safetensors", "photos"], 1, "no.safetensors"),
        (["predict", "no.safetensors", "photos", "--json", "-", "--csv", "-"], 2, "--csv"),
        (["report", "photos"], 1, "config.json"),
        (["report", "no_run"], 1, "no_run"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_leaves_nothing_behind(
    words: list[str],
    code: int,
    says: str,
    solar_cells: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("photos", "one_class", "empty_class", "truncated"):
        shutil.copytree(solar_cells, tmp_path / name)
    shutil.rmtree(tmp_path / "one_class" / "defective")
    (tmp_path / "empty_class" / "empty").mkdir()
    whole = next((solar_cells / "functional").iterdir()).read_bytes()
    (tmp_path / "truncated" / "functional" / "cut.png").write_bytes(whole[: len(whole) // 2])
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    assert cli.main(words) == code
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("reinception: ")
    assert says in last
    assert sorted(tmp_path.rglob("*")) == before


def test_an_interrupted_training_says_what_is_kept_and_how_to_go_on(solar_cells: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ["train", str(solar_cells), "-o", str(run), "--time-budget", "10m", *SMALLEST]
    process = subprocess.Popen([sys.executable, "-m", "reinception", *words], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (run / "metrics.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    last = said.splitlines()[-1]
    assert "Traceback" not in said
    assert last == f"reinception: interrupted; to go on: reinception train --resume {run}"
