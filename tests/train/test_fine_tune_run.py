"""Whole runs of fine-tuning: resumed between two stages, judged as logged, with classes that a split lacks."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from reinception.errors import ReinceptionError
from reinception.inference.evaluate import evaluate
from reinception.model.artifact import load
from reinception.recipe import Growth, named
from reinception.train.config import TrainConfig
from reinception.train.run.start import resume, train

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def tuned(solar_cells: Path, place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run whose stages join and whose images grow nearly to its end; with a checkpoint at every step."""
    recipe = dataclasses.replace(
        named("fine_tune"),
        batch_size=8,
        epochs=2,
        batch_norm="train",
        unfreeze_fraction=0.95,
        growth=Growth(first_side=0.6, full_from=0.7, num_sides=2),
        sources={},
    )
    other = tmp_path_factory.mktemp("cells")  # other names of classes than those of the weights: a new classifier
    for old, new in (("defective", "broken"), ("functional", "whole")):
        shutil.copytree(solar_cells / old, other / new)
    config = TrainConfig(
        data=other,
        out=other.with_name("tuned"),
        weights=place / "model.safetensors",
        recipe=recipe,
        input_size=126,
        precision="fp32",
        checkpoint_steps=1,
    )
    return train(config)


def test_a_run_resumed_between_two_stages_ends_with_the_same_bits(tuned: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(tuned, run)
    newest = max((run / "state").glob("step-*.json"))
    for path in (newest, newest.with_suffix(".safetensors"), run / "state" / "finished.json", run / "report.html"):
        path.unlink()
    before = json.loads(max((run / "state").glob("step-*.json")).read_text())["run"]["learning"]
    assert 0 < len(before["stages"]) < 6
    shutil.rmtree(run / "predictions")
    resume(run)
    for name in (f"state/{newest.stem}.safetensors", "predictions/val.csv", "predictions/test.csv"):
        assert (run / name).read_bytes() == (tuned / name).read_bytes()


def test_images_grow_to_the_input_size_in_a_run(tuned: Path) -> None:
    log = (tuned / "log.txt").read_text()
    assert log.index("training images of 76 pixels") < log.index("training images of 126 pixels")


def test_the_saved_file_is_as_good_as_the_log_says(tuned: Path) -> None:
    lines = [json.loads(line) for line in (tuned / "metrics.jsonl").read_text().splitlines()]
    training = load(tuned).manifest.training
    (logged,) = [line for line in lines if line["split"] == "val" and line["step"] == training["step"]]
    again = evaluate(tuned, json.loads((tuned / "config.json").read_text())["root"], split="val").summary()
    assert training["weights"] == "parameter average"
    assert again["top1_error"] == logged["top1_error"]
    assert again["negative_log_likelihood"] == pytest.approx(logged["loss"], rel=1e-12)


def test_a_class_that_the_test_images_lack_moves_no_label(tuned: Path, tmp_path: Path) -> None:
    root = Path(json.loads((tuned / "config.json").read_text())["root"])
    data = tmp_path / "data"
    shutil.copytree(root, data / "train")
    shutil.copytree(root / "whole", data / "test" / "whole")
    scores = {one["label"]: one["support"] for one in evaluate(tuned, data).summary()["per_class"]}
    assert scores == {"broken": 0, "whole": 16}
    shutil.copytree(root / "broken", data / "test" / "unheard")
    with pytest.raises(ReinceptionError, match="class 'unheard' occurs in test but not in train"):
        evaluate(tuned, data)
