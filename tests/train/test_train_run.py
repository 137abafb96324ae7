"""Whole runs on real solar cells: what they write, that they repeat bit for bit, and what they refuse beforehand."""

from __future__ import annotations

import csv
import json
import re
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cells import class_folders
from safetensors.torch import load_file

from reinception.data.images.decode import decode
from reinception.errors import ReinceptionError, UsageError
from reinception.metrics import PredictionTable
from reinception.model.artifact import load
from reinception.recipe import Recipe, named
from reinception.train.config import Freeze
from reinception.train.optim import learning_rate_at
from reinception.train.run.dry_run import dry_run
from reinception.train.run.start import TrainConfig, train

PER_CLASS = 24

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of class folders with real solar cells, 24 of each class."""
    return class_folders(tmp_path_factory.mktemp("cells"), per_class=PER_CLASS)


def small(cells: Path, out: Path, **changes: Any) -> TrainConfig:
    """A run of seconds: 75 pixels, a tenth of the width, float32."""
    config = TrainConfig(
        data=cells, out=out, epochs=2, batch_size=8, input_size=75, width=0.1, precision="fp32", test_fraction=0.25
    )
    return replace(config, **changes)


def metrics_of(run: Path, split: str) -> list[dict[str, Any]]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if line["split"] == split]


@pytest.fixture(scope="module")
def finished(cells: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One finished run."""
    return train(small(cells, tmp_path_factory.mktemp("runs") / "run"))


def same_tensors(first: Path, second: Path) -> bool:
    one, other = load_file(first), load_file(second)
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_two_runs_with_one_seed_end_with_the_same_bits_with_0_and_2_workers(
    cells: Path, finished: Path, tmp_path: Path
) -> None:
    again = train(small(cells, tmp_path / "again", workers=2))
    other = train(small(cells, tmp_path / "other", seed=1))
    for name in ("model.safetensors", "last.safetensors"):
        assert same_tensors(finished / name, again / name)
        assert not same_tensors(finished / name, other / name)
    for name in ("predictions/val.csv", "predictions/test.csv"):
        assert (finished / name).read_bytes() == (again / name).read_bytes()


def test_a_run_folder_holds_everything(cells: Path, finished: Path) -> None:
    present = {path.relative_to(finished).as_posix() for path in finished.rglob("*") if path.is_file()}
    assert present == {
        "MODEL_CARD.md",
        "config.json",
        "curves.svg",
        "environment.json",
        "last.safetensors",
        "log.txt",
        "metrics.jsonl",
        "model.safetensors",
        "predictions/test.csv",
        "predictions/val.csv",
        "report.html",
        "results.csv",
        "speed.json",
        "state/finished.json",
        *(f"state/step-{step:09d}.{kind}" for step in (4, 8) for kind in ("json", "safetensors")),
    }
    config = json.loads((finished / "config.json").read_text())
    assert config["classes"] == sorted(path.name for path in cells.iterdir())
    assert sum(count for split in config["splits"].values() for count in split.values()) == 2 * PER_CLASS
    assert {split: sum(counts.values()) for split, counts in config["splits"].items()} == {
        "train": 32, "val": 4, "test": 12
    }  # fmt: skip
    recipe = Recipe.from_json(config["recipe"])
    assert (recipe.epochs, recipe.sources["epochs"]) == (2, "--epochs")
    assert config["command"].startswith("reinception train ")
    environment = json.loads((finished / "environment.json").read_text())
    assert environment["torch"] == torch.__version__
    assert environment["precision"] == "fp32"


def test_the_metrics_follow_the_run(finished: Path) -> None:
    steps = metrics_of(finished, "train")
    assert [line["step"] for line in steps] == list(range(1, 9))  # 2 epochs of 32 images in batches of 8
    assert steps[-1]["epoch"] == 2.0
    for line in steps:
        assert line["loss"] > 0
        assert line["auxiliary_loss"] > 0
        assert line["gradient_norm"] > 0
        assert line["images_per_second"] > 0
    validations = metrics_of(finished, "val")
    assert [line["epoch"] for line in validations] == [1.0, 2.0]
    with (finished / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["val_top1_error"]) for row in rows] == [line["top1_error"] for line in validations]
    assert len(metrics_of(finished, "test")) == 1


def test_the_model_file_says_how_it_came_to_be_and_predicts_what_the_run_predicted(finished: Path) -> None:
    network, manifest = load(finished)
    assert manifest.training["recipe"]["name"] == "from_scratch"
    assert manifest.training["held_out"]["num_images"] == 12
    assert manifest.origin["from"] == "random initial weights"
    best = min(metrics_of(finished, "val"), key=lambda line: (line["top1_error"], line["loss"]))
    assert manifest.training["step"] == best["step"]
    table = PredictionTable.load_csv(finished / "predictions" / "test.csv")
    assert table.classes == manifest.classes
    config = json.loads((finished / "config.json").read_text())
    assert manifest.preprocessing.resize == "whole"
    for row in range(3):
        pixels = decode(Path(config["root"]) / table.names[row])
        square = torch.nn.functional.interpolate(
            torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None].float(),
            size=(75, 75), mode="bilinear", antialias=True, align_corners=False,
        )  # fmt: skip
        p = network(square / 127.5 - 1).softmax(1)[0].detach().numpy()
        np.testing.assert_allclose(p, table.probabilities[row], atol=2e-2)  # Pillow rounds pixels, torch does not


def test_plain_lines_go_to_the_error_stream_and_all_of_them_to_the_log(
    cells: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = train(small(cells, tmp_path / "run", epochs=1))
    out, err = capfd.readouterr()
    assert out == ""
    assert "\x1b" not in err
    assert "images/s" in err
    assert "held-out images" in err
    said = [line.split("  ", 1)[1] for line in (run / "log.txt").read_text().splitlines()]
    assert said[: len(said)] == err.splitlines()


def test_a_time_budget_is_kept_and_the_rate_comes_down_with_it(cells: Path, tmp_path: Path) -> None:
    run = train(small(cells, tmp_path / "run", epochs=None, time_budget_seconds=8.0))
    lines, validations = metrics_of(run, "train"), metrics_of(run, "val")
    seconds = [0.0, *sorted(line["seconds"] for line in [*lines, *validations])]
    slowest = max(after - before for before, after in pairwise(seconds))  # one step of a busy machine may be long
    newest = max((run / "state").glob("step-*.json"))
    planned = json.loads(newest.read_text())["run"]["training_seconds"]  # what start, judging and report leave
    assert 0 < planned < 8.0
    assert planned - 8 * slowest <= seconds[-1] <= planned + 2 * slowest
    assert len(validations) <= 11
    assert lines[-1]["progress"] >= 1 - 3 * slowest / planned
    schedule = named("from_scratch").schedule
    for line in lines:
        assert line["learning_rate"] == pytest.approx(learning_rate_at(schedule, progress=line["progress"], epochs=30))
    assert json.loads((run / "config.json").read_text())["time_budget_seconds"] == 8.0


def test_replicas_are_batches_of_their_own_in_one_step(cells: Path, tmp_path: Path) -> None:
    run = train(small(cells, tmp_path / "run", replicas=2, epochs=3))
    assert [line["epoch"] for line in metrics_of(run, "train")] == [0.5, 1.0, 1.5, 2.0, 2.5, 3.0]


def test_the_papers_recipe_runs(cells: Path, tmp_path: Path) -> None:
    run = train(small(cells, tmp_path / "run", recipe="paper_2015", replicas=2, epochs=1))
    assert {line["learning_rate"] for line in metrics_of(run, "train")} == {0.045}
    _, manifest = load(run)
    assert manifest.preprocessing.resize == "central_crop"


def test_a_dry_run_says_what_a_run_would_be_and_writes_nothing(cells: Path, tmp_path: Path) -> None:
    said = dry_run(small(cells, tmp_path / "run", replicas=2, epochs=3))
    lines = dict(line.split(maxsplit=1) for line in said.replace("one step", "one_step").splitlines())
    assert lines["data"].endswith(": train 32, val 4, test 12")
    assert lines["recipe"].startswith("from_scratch: 2 x 8 images a step")
    assert re.fullmatch(r"\S+ s \(median of 3, \S+ to \S+ s\), \S+ images/s", lines["one_step"])
    assert lines["length"].startswith("6 steps (3 epochs) in about ")
    each = (
        r"; \S+ MiB an image, so that a batch of about \S+ fits here"  # where this process had not held as much before
    )
    memory = re.fullmatch(rf"(\S+) GiB at its highest in these steps, this whole process({each})?", lines["memory"])
    assert memory is not None
    assert 0.1 < float(memory[1]) < 64
    assert list(tmp_path.iterdir()) == []


def test_a_split_of_ones_own_is_kept_and_no_test_split_is_made_up(cells: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    for folder in sorted(cells.iterdir()):
        for index, path in enumerate(sorted(folder.iterdir())[:10]):
            to = data / ("val" if index < 3 else "train") / folder.name
            to.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, to)
    run = train(small(data, tmp_path / "run", epochs=1))
    config = json.loads((run / "config.json").read_text())
    assert {split: sum(counts.values()) for split, counts in config["splits"].items()} == {"train": 14, "val": 6}
    assert not (run / "predictions" / "test.csv").exists()


# -- fine-tuning -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["trunk", "reduce35", "stem", "none"])
def test_what_is_frozen_keeps_its_bits_batch_norm_too(
    part: Freeze, cells: Path, finished: Path, tmp_path: Path
) -> None:
    config = small(cells, tmp_path / "run", weights=finished / "model.safetensors", width=1.0, input_size=None)
    run = train(replace(config, freeze=part, cache=tmp_path / "cache"))
    before, after = load_file(finished / "model.safetensors"), load_file(run / "last.safetensors")
    kept = {name for name in after if torch.equal(before[name], after[name])}
    stem = {name for name in after if name.startswith("stem.")}
    trunk = {name for name in after if not name.startswith(("aux.", "classifier."))}
    if part == "none":
        assert not {name for name in kept if not name.endswith("num_batches_tracked")}
    else:
        middle = {name for name in after if name.startswith(("stem.", "grid35.", "reduce35."))}
        assert kept == {"trunk": trunk, "reduce35": middle, "stem": stem}[part]
    assert any(name.startswith("aux.") for name in after) == (part != "trunk")


def test_a_fine_tuned_model_has_the_classes_of_its_new_data(cells: Path, finished: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    for name, source in zip(("a", "b", "c"), sorted(cells.iterdir()) * 2, strict=False):
        (data / name).mkdir(parents=True)
        for path in sorted(source.iterdir())[:8]:
            shutil.copy(path, data / name)
    run = train(small(data, tmp_path / "run", weights=finished, epochs=1, width=1.0, input_size=None))
    network, manifest = load(run)
    assert manifest.classes == ("a", "b", "c")
    assert network.classifier.out_features == 3
    assert manifest.origin["from"] == finished.name


# -- refusals: one line, nothing written -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"batch_size": 1}, UsageError, "batch size 1.*at least 2 images"),
        ({"input_size": 74}, UsageError, "input size 74 is too small.*at least 75"),
        ({"input_size": 150, "aux": "strict"}, UsageError, "150 is too small for the strict.*299"),
        ({"model": "inception_v9"}, UsageError, "unknown network 'inception_v9'"),
        ({"recipe": "papper"}, UsageError, "unknown recipe 'papper'"),
        ({"time_budget_seconds": 60.0}, UsageError, "--epochs and --time-budget exclude each other"),
        ({"epochs": None, "time_budget_seconds": 0.0}, UsageError, "--time-budget must be a positive"),
        ({"epochs": 0}, UsageError, "epochs must be positive"),
        ({"width": 0.0}, UsageError, "width"),
        ({"val_fraction": 0.5, "test_fraction": 0.5}, UsageError, "nothing to train on"),
        ({"precision": "fp8"}, UsageError, "--precision 'fp8'"),
        ({"device": "tpu"}, UsageError, "device tpu"),
        ({"freeze": "trunk"}, UsageError, "--freeze keeps what --weights brings"),
        ({"weights": "missing.safetensors", "width": 1.0}, ReinceptionError, "missing.safetensors: no such file"),
        ({"data": "missing"}, ReinceptionError, "missing"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_what_cannot_work_is_refused_in_one_line_and_nothing_is_written(
    changes: dict[str, Any], error: type[Exception], message: str, cells: Path, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message) as raised:
        train(small(cells, tmp_path / "run", **changes))
    assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_run_is_never_written_over(cells: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model.safetensors").write_text("precious")
    with pytest.raises(ReinceptionError, match="run: exists already"):
        train(small(cells, tmp_path / "run"))
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["model.safetensors"]
    assert (tmp_path / "run" / "model.safetensors").read_text() == "precious"


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_does_not_decode_is_named_before_anything_is_written(
    workers: int, cells: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(cells, data)
    victim = sorted(sorted(data.iterdir())[1].iterdir())[5]
    victim.write_bytes(victim.read_bytes()[:4000])
    way_out = "`data check --quarantine FILE` and leave them out with --exclude FILE"
    with pytest.raises(ReinceptionError, match=f"1 of 48 images cannot be used .*{victim.name}.*{way_out}"):
        train(small(data, tmp_path / "run", workers=workers))
    assert not (tmp_path / "run").exists()


def test_training_that_diverges_says_so(cells: Path, tmp_path: Path) -> None:
    recipe = named("from_scratch").changed("schedule.base_rate", 1e30, source="test")
    with pytest.raises(ReinceptionError, match=r"diverged at step \d+.*lower learning rate"):
        train(small(cells, tmp_path / "run", recipe=recipe, epochs=20))


def test_the_auxiliary_classifier_adapts_to_a_small_input_and_says_so(finished: Path) -> None:
    assert (
        "auxiliary classifier: adaptive to the grid (the published one needs an input of 299)"
        in (finished / "log.txt").read_text()
    )


def test_training_starts_from_others_weights_and_says_what_they_are(tmp_path: Path, cells: Path) -> None:
    """A torchvision state dict as it is: no conversion first, and what was dropped is in the log."""
    import torchvision

    theirs = torchvision.models.inception_v3(weights=None, init_weights=False, aux_logits=True)
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
    run = train(
        TrainConfig(
            data=str(cells),
            out=tmp_path / "run",
            weights=str(tmp_path / "theirs.pth"),
            freeze="trunk",
            cache=tmp_path / "cache",
            epochs=1,
            batch_size=8,
            input_size=75,
        )
    )
    network, manifest = load(run)
    stem = theirs.state_dict()["Conv2d_1a_3x3.conv.weight"]
    assert torch.equal(network.state_dict()["stem.0.conv.weight"], stem)
    assert manifest.classes == ("defective", "functional")
    assert "torchvision" in (run / "log.txt").read_text()
    assert "torchvision" in str(manifest.origin["origin_of_that"])
