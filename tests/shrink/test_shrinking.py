"""`shrink` as a command: students trained and judged on the teacher's own split; killed, it goes on."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import reinception as ri
from command import Command
from reinception.errors import ReinceptionError
from reinception.metrics import PredictionTable
from reinception.model.artifact import load


@pytest.fixture(scope="module")
def flags(solar_cells: Path, small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    out = tmp_path_factory.mktemp("shrink") / "out"
    goal = ("--multiply-adds", "9.6M", "--num-students", "1", "--time-budget", "12s", "--teacher-views", "2")
    return ["shrink", str(small_run), str(solar_cells), "-o", str(out), *goal]


@pytest.fixture(scope="module")
def front(command: Command, flags: list[str]) -> Path:
    """The folder of a search that was killed while its first student trained, and then went on."""
    out = Path(flags[4])
    process = subprocess.Popen(
        [sys.executable, "-m", "reinception", *flags], stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        deadline = time.monotonic() + 120
        while not list(out.glob("*/state/*")) and time.monotonic() < deadline:
            assert process.poll() is None, "it ended before it was killed"
            time.sleep(0.05)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert not (out / "front.json").exists()
    result = command(*flags)
    assert result.returncode == 0, result.stderr
    assert "recommended" in result.stdout
    return out


def test_the_front_names_teacher_student_and_control(front: Path) -> None:
    rows = json.loads((front / "front.json").read_text(encoding="utf-8"))
    assert [row["what"] for row in rows] == ["teacher", "student", "from labels alone", "cascade"]
    assert rows[1]["multiply_adds"] <= 9.6e6 < rows[0]["multiply_adds"]
    assert all(row["images_per_second"] > 0 for row in rows)
    assert (front / "front.svg").is_file() and (front / "front.md").is_file()


def test_students_are_judged_on_what_the_teacher_held_out(front: Path, small_run: Path) -> None:
    rows = json.loads((front / "front.json").read_text(encoding="utf-8"))
    wanted = set(PredictionTable.load_csv(small_run / "predictions" / "test.csv").names)
    for row in rows[1:3]:
        assert set(PredictionTable.load_csv(front / row["model"] / "predictions" / "test.csv").names) == wanted


def test_the_cascade_has_a_threshold_and_is_never_dearer_than_both(front: Path) -> None:
    cascade = json.loads((front / "cascade.json").read_text(encoding="utf-8"))
    rows = {row["what"]: row for row in json.loads((front / "front.json").read_text(encoding="utf-8"))}
    assert cascade["threshold"] > 0 and 0 <= cascade["passed_on"] <= 1
    expected = rows["student"]["multiply_adds"] + cascade["passed_on"] * rows["teacher"]["multiply_adds"]
    assert rows["cascade"]["multiply_adds"] == pytest.approx(expected, abs=1)


def test_a_student_is_an_ordinary_model(front: Path, command: Command, solar_cells: Path) -> None:
    rows = json.loads((front / "front.json").read_text(encoding="utf-8"))
    student = front / rows[1]["model"]
    assert load(student).classes == ("defective", "functional")
    result = command("evaluate", student, solar_cells, "--json", "-", "--precision", "fp32")
    assert result.returncode == 0, result.stderr
    measured = 100 - json.loads(result.stdout)["top1_error"]
    assert measured == pytest.approx(rows[1]["accuracy"])


def test_another_search_is_not_written_over(front: Path, command: Command, flags: list[str]) -> None:
    result = command(*flags, "--seed", 7)
    assert result.returncode == 1
    assert "another seed" in result.stderr


def test_a_folder_that_is_no_search_is_left_alone(command: Command, flags: list[str], tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    result = command(*flags[:4], tmp_path, *flags[5:])
    assert result.returncode == 1 and "holds no search" in result.stderr
    assert [one.name for one in tmp_path.iterdir()] == ["notes.txt"]


def test_a_cascade_answers_as_the_front_says(front: Path, small_run: Path, command: Command, solar_cells: Path) -> None:
    rows = {row["what"]: row for row in json.loads((front / "front.json").read_text(encoding="utf-8"))}
    small = front / rows["student"]["model"]
    names = PredictionTable.load_csv(small_run / "predictions" / "test.csv").names
    images = [solar_cells / name for name in names]
    precision = ("--precision", "fp32", "--backend", "torch")
    result = command("predict", small, small_run, *images, "--cascade", "--json", "-", *precision)
    assert result.returncode == 0, result.stderr
    answers = json.loads(result.stdout)
    right = [one["labels"][0]["label"] == Path(one["path"]).parent.name for one in answers]
    assert 100 * sum(right) / len(right) == pytest.approx(rows["cascade"]["accuracy"])
    alone = {}
    for model in (small, small_run):
        result = command("predict", model, *images, "--json", "-", *precision)
        alone[model] = json.loads(result.stdout)
    for threshold, model in ((1e-9, small), (1.5, small_run)):
        result = command(
            "predict", small, small_run, *images, "--cascade", "--threshold", threshold, "--json", "-", *precision
        )
        assert json.loads(result.stdout) == alone[model]


def test_a_predictor_of_two_models_is_a_cascade(front: Path, small_run: Path, solar_cells: Path) -> None:
    small = next(front.glob("inception*0.5"))
    image = next((solar_cells / "functional").iterdir())
    never, always = (ri.Predictor([small, small_run], precision="fp32", backend="torch", threshold=t) for t in (0, 2))
    for cascade, model in ((never, small), (always, small_run)):
        alone = ri.Predictor(model, precision="fp32", backend="torch")(image)
        again = pickle.loads(pickle.dumps(cascade))(image)
        assert again.labels == cascade(image).labels == alone.labels
    with pytest.raises(ReinceptionError, match="threshold"):
        ri.Predictor([small, small_run])


def test_a_cascade_without_a_threshold_says_what_to_do(small_run: Path, command: Command, solar_cells: Path) -> None:
    result = command("predict", small_run, small_run, solar_cells, "--cascade")
    assert result.returncode == 1
    assert "give --threshold" in result.stderr
