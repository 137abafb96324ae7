"""The ladder on one's own data: rows as values, equal budgets, a study that goes on where it was killed."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from command import Command
from reinception import family
from reinception.cli import main
from reinception.errors import ReinceptionError, UsageError
from reinception.metrics import PredictionTable
from reinception.recipe import FROM_SCRATCH, SGD, Recipe, RMSPropTF
from reinception.train.ablate import AblateConfig, StudyRow, ablate, rows, small_data, table


def test_table_3_is_one_change_a_row_in_optimizer_smoothing_or_network() -> None:
    ladder = rows("table_3", input_size=75)
    assert [row.network for row in ladder] == [entry.arch.name for entry in family.TABLE_3]
    assert [row.reported and row.reported.top1_error for row in ladder] == [23.4, 23.1, 22.8, 21.6, 21.2]
    assert [type(row.recipe.optimizer) for row in ladder] == [SGD, *[RMSPropTF] * 4]
    assert [row.recipe.label_smoothing for row in ladder] == [0, 0, 0.1, 0.1, 0.1]
    assert {row.input_size for row in ladder} == {75}
    shared = {field.name for field in dataclasses.fields(Recipe)} - {"name", "about", "sources", "optimizer"}
    for row in ladder:
        for name in shared - {"label_smoothing", "schedule"}:
            assert getattr(row.recipe, name) == getattr(FROM_SCRATCH, name)
        assert Recipe.from_json(row.recipe.to_json()) == row.recipe
    assert ladder[3].recipe == ladder[4].recipe
    architectures = [dataclasses.replace(entry.arch, name="") for entry in family.TABLE_3]
    assert architectures[0] == architectures[1] == architectures[2] != architectures[3] != architectures[4]


def test_table_2_has_its_own_sizes_and_the_experiments_their_variants() -> None:
    assert [(row.network, row.input_size) for row in rows("table_2")] == [
        ("inception_v3_79", 79),
        ("inception_v3_151", 151),
        ("inception_v3", 299),
    ]
    assert [row.reported and row.reported.top1_error for row in rows("table_2")] == [24.8, 23.6, 23.4]
    assert [row.name for row in rows("auxiliary", input_size=75)] == ["none", "plain", "batch_norm", "dropout"]
    assert [row.name for row in rows("figure_2")] == ["5x5", "linear", "relu"]
    with pytest.raises(UsageError, match="its subject"):
        rows("table_2", input_size=75)
    with pytest.raises(UsageError, match="unknown study 'table_9'; known: table_2, table_3, figure_2"):
        rows("table_9")


def test_every_number_of_a_small_recipe_has_a_source() -> None:
    for entry in family.TABLE_3:
        assert all(row.source or row.path == "label_smoothing" for row in small_data(entry.recipe).rows())


@pytest.fixture(scope="module")
def study(solar_cells: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A small study, killed without warning after its first row."""
    out = tmp_path_factory.mktemp("ablation") / "figure 2"
    words = ["ablate", str(solar_cells), "-o", str(out), "--experiment", "figure_2", "--epochs", "1", "--seeds", "1"]
    words += ["--width", "0.05", "--input-size", "75", "--batch-size", "8"]
    process = subprocess.Popen(
        [sys.executable, "-m", "reinception", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 200
    while not (out / "unfinished" / "config.json").exists() or not (out / "5x5" / "seed-0").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    return out, words


def test_a_killed_study_goes_on_where_it_was(
    command: Command, study: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    out, words = study
    first = out / "5x5" / "seed-0" / "model.safetensors"
    before = first.stat().st_mtime_ns
    assert not (out / "table.md").exists()
    result = command(*words)
    assert result.returncode == 0, result.stderr
    assert first.stat().st_mtime_ns == before
    assert not (out / "unfinished").exists()
    assert sorted(path.parent.parent.name for path in out.glob("*/seed-0/report.html")) == ["5x5", "linear", "relu"]
    text = (out / "table.md").read_text(encoding="utf-8")
    assert result.stdout == text
    for said in (
        "| 5x5 |",
        "| linear |",
        "n = 8 test images for each of 1 seed\n",
        "budget 1 epoch ",
        " steps)",
        "torch",
    ):
        assert said in text
    assert "no evidence" in text or "+" in text
    mtimes = {path: path.stat().st_mtime_ns for path in out.glob("*/seed-0/*.safetensors")}
    assert (main(words), capsys.readouterr().out) == (0, text)  # everything is there: nothing is trained again
    assert {path: path.stat().st_mtime_ns for path in mtimes} == mtimes
    assert main([*words[:-1], "4"]) == 1
    assert "holds a study with another batch_size" in capsys.readouterr().err
    models = {json.loads((run / "config.json").read_text())["model"] for run in out.glob("*/seed-0")}
    assert models == {"figure_2_5x5", "figure_2_linear", "figure_2_relu"}


def judged(out: Path, row: StudyRow, seed: int, right: int) -> None:
    """The run of a row and seed, of whose 100 test images the first `right` are right."""
    run = out / row.name / f"seed-{seed}"
    (run / "predictions").mkdir(parents=True)
    (run / "metrics.jsonl").write_text('{"step": 5}\n', encoding="utf-8")
    is_right = np.arange(100) < right
    table = PredictionTable(
        names=tuple(f"{number}.png" for number in range(100)),
        targets=np.zeros(100, dtype=np.int64),
        probabilities=np.stack([np.where(is_right, 0.9, 0.1), np.where(is_right, 0.1, 0.9)], axis=1).astype(np.float32),
        classes=("a", "b"),
    )
    table.save_csv(run / "predictions" / "test.csv")


@pytest.mark.parametrize(
    ("above", "below", "gain"),
    [
        # By images alone 8 more of 100, three times over, would be beyond doubt; the seeds say that it is luck.
        ((60, 60, 60), (60, 60, 84), "+8.0 (-26.4 to +42.4), no evidence"),
        ((60, 60, 60), (68, 67, 69), "+8.0 (+5.0 to +11.3)"),
        ((60,), (68,), "+8.0 (+3.0 to +14.0)"),
    ],
)
def test_the_luck_of_one_seed_is_no_merit_of_a_row(tmp_path: Path, above, below, gain) -> None:
    first, second = rows("table_3")[:2]
    for row, rights in ((first, above), (second, below)):
        for seed, right in enumerate(rights):
            judged(tmp_path, row, seed, right)
    text = table(AblateConfig(data="d", out=str(tmp_path), num_seeds=len(above)), (first, second))
    assert f"| {gain} |" in text
    assert ("one seed: " in text) == (len(above) == 1)


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ReinceptionError, match="exists already and is no study"):
        ablate(AblateConfig(data="elpv", out=str(tmp_path)))
    with pytest.raises(UsageError, match="--seeds must be at least 1"):
        ablate(AblateConfig(data="elpv", out=str(tmp_path / "new"), num_seeds=0))


def test_the_command_asks_for_the_same() -> None:
    config = AblateConfig(data="my data", out="o", study="table_2", budget_seconds=90, width=0.25, batch_size=8)
    assert config.command() == (
        "reinception ablate 'my data' -o o --table 2 --budget 90s --seeds 1 --width 0.25 --batch-size 8"
    )
