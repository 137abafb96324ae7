"""A run goes on: for more epochs, with moved images, from weights of the same classes, and in one process at a time."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import shutil
from itertools import pairwise
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch
from cells import class_folders

from processes import ends, start
from reinception import family
from reinception.errors import ReinceptionError, UsageError
from reinception.model.artifact import Manifest, load, save
from reinception.model.build import build
from reinception.preprocess import Preprocessing
from reinception.train.config import TrainConfig
from reinception.train.run.checkpoint import Checkpoints
from reinception.train.run.going_on import with_found_data
from reinception.train.run.plan import make_plan
from reinception.train.run.run_lock import RunLock
from reinception.train.run.start import resume, train

PER_CLASS = 8
SPLIT = {"val_fraction": 0.25, "test_fraction": 0.25}


def config(data: Path, out: Path, **changes: Any) -> TrainConfig:
    """Two steps an epoch."""
    shape = {} if "weights" in changes else {"width": 0.1, "input_size": 75}
    given: dict[str, Any] = {"epochs": 2, "batch_size": 4, "precision": "fp32", **shape, **SPLIT, **changes}
    return TrainConfig(data=data, out=out, **given)


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `data` and a finished `run` of two epochs."""
    root = tmp_path_factory.mktemp("begun")
    (root / "data").mkdir()
    train(config(class_folders(root / "data", per_class=PER_CLASS), root / "run"))
    return root


@pytest.fixture
def place(begun: Path, tmp_path: Path) -> Path:
    """A copy of `begun` of one's own; its run still knows the images of `begun`."""
    return Path(shutil.copytree(begun, tmp_path / "place"))


def rates(run: Path) -> list[tuple[int, float]]:
    """(step, learning rate) of every training line."""
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [(line["step"], line["learning_rate"]) for line in lines if line["split"] == "train"]


# -- more epochs -------------------------------------------------------------------------------------------------------


def test_a_finished_run_is_trained_for_more_epochs_and_the_rate_never_rises(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = place / "run"
    before = rates(run)
    assert resume(run, epochs=4) == run
    said = capsys.readouterr().err
    assert "planned anew: 4 epochs, 2 of them done, 4 steps to go; the learning rate goes on from" in said
    after = rates(run)
    assert after[: len(before)] == before
    assert [step for step, _ in after] == list(range(1, 9))
    peak = max(range(len(after)), key=lambda number: after[number][1])
    assert all(first >= second for (_, first), (_, second) in pairwise(after[peak:]))
    described = json.loads((run / "config.json").read_text())
    assert (described["epochs"], described["request"]["epochs"]) == (4, 4)
    assert described["recipe"]["sources"]["epochs"] == "--epochs beside --resume"
    assert (run / "predictions" / "test.csv").is_file()
    assert (run / "state" / "finished.json").is_file()
    assert resume(run) == run
    assert "finished already" in capsys.readouterr().err


def test_a_longer_run_that_is_interrupted_goes_on_to_the_same_bits(place: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(place / "run", tmp_path / "other"))
    resume(place / "run", epochs=4)
    resume(other, epochs=4)
    (other / "state" / "finished.json").unlink()
    Checkpoints(other / "state").forget_after(7)
    resume(other)
    assert rates(other) == rates(place / "run")
    names = [path.name for path in sorted((other / "state").glob("step-*.safetensors"))]
    assert names
    for name in names:
        assert (other / "state" / name).read_bytes() == (place / "run" / "state" / name).read_bytes()


def test_epochs_that_are_done_already_are_refused_and_the_finished_run_stays(place: Path) -> None:
    with pytest.raises(UsageError, match="--epochs 1 beside --resume: the run has trained 2 epochs already"):
        resume(place / "run", epochs=1)
    assert (place / "run" / "state" / "finished.json").is_file()
    assert (place / "run" / "predictions" / "test.csv").is_file()


def test_a_run_of_a_given_time_goes_on_for_epochs(begun: Path, tmp_path: Path) -> None:
    run = train(config(begun / "data", tmp_path / "run", epochs=None, time_budget_seconds=0.5))
    steps = rates(run)[-1][0]
    resume(run, epochs=steps // 2 + 2)
    assert rates(run)[-1][0] == 2 * (steps // 2 + 2)
    assert json.loads((run / "config.json").read_text())["time_budget_seconds"] is None


# -- moved images ------------------------------------------------------------------------------------------------------


def test_images_that_were_moved_are_given_or_found_and_then_remembered(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, moved = place / "run", Path(shutil.move(place / "data", tmp_path / "elsewhere"))
    resume(run, data=moved, epochs=3)
    assert f"images: {moved}, which were at" in capsys.readouterr().err
    assert json.loads((run / "config.json").read_text())["request"]["data"] == str(moved)
    resume(run, epochs=4)
    assert rates(run)[-1][0] == 8


def test_images_that_moved_together_with_their_run_are_found(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    for folder in ("data/a", "runs/one"):
        (new / folder).mkdir(parents=True)
    plan = make_plan(config(old / "data", new / "runs" / "one"))
    found = with_found_data(plan, {"data": "data", "home": str(old / "runs" / "one")})
    assert found.config.data == str(new / "data")
    there = dataclasses.replace(plan, config=dataclasses.replace(plan.config, data=new / "data"))
    assert with_found_data(there, {"data": "data"}) is there
    assert with_found_data(plan, {"data": "nowhere"}) is plan


def test_other_images_are_refused_and_nothing_is_changed(place: Path) -> None:
    run = place / "run"
    next(place.glob("data/*/*")).unlink()
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != "lock"}
    with pytest.raises(ReinceptionError, match=r"are not the images .* was begun with"):
        resume(run, data=place / "data", epochs=3)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != "lock"} == before


# -- one process at a time ---------------------------------------------------------------------------------------------


def _hold(out: Path, pipe: Connection) -> None:
    with RunLock(out, print) as lock:
        lock.take()
        pipe.send("has it")
        pipe.recv()


def test_a_second_resume_of_a_live_run_is_refused_with_the_number_of_the_first(place: Path, tmp_path: Path) -> None:
    ours, theirs = multiprocessing.Pipe()
    holder = multiprocessing.get_context("forkserver").Process(target=_hold, args=(place / "run", theirs))
    holder.start()
    assert ours.recv() == "has it"
    try:
        log = tmp_path / "log"
        assert ends(start(["train", "--resume", place / "run", "--epochs", 3], log)) == [1]
        (line,) = log.read_text().splitlines()
        assert f"process {holder.pid} on " in line
        assert "is training it" in line
    finally:
        holder.kill()
        holder.join()
    resume(place / "run", epochs=3)  # its lock is stale
    assert (place / "run" / "state" / "finished.json").is_file()


def test_one_process_takes_a_lock_once_and_gives_it_back(tmp_path: Path) -> None:
    with RunLock(tmp_path, print) as first, RunLock(tmp_path, print) as second:
        first.take()
        with pytest.raises(ReinceptionError, match=f"process {os.getpid()} on .* is training it"):
            second.take()
    with RunLock(tmp_path, print) as third:
        third.take()


# -- weights of the same classes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("turned", [False, True])
def test_a_classifier_of_the_same_classes_is_kept_in_any_order(
    turned: bool, begun: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network, manifest = load(begun / "run")
    classes = tuple(reversed(manifest.classes)) if turned else manifest.classes
    save(network, tmp_path / "weights.safetensors", dataclasses.replace(manifest, classes=classes))
    plan = make_plan(config(begun / "data", tmp_path / "run", weights=tmp_path / "weights.safetensors"))
    started = plan.for_classes(manifest.classes).network()
    for name, tensor in network.state_dict().items():
        is_turned = turned and "classifier" in name.split(".")
        assert torch.equal(started.state_dict()[name], tensor.flip(0) if is_turned else tensor), name
    train(dataclasses.replace(plan.config, epochs=1))
    order = ", put into their order" if turned else ""
    assert f"classifier: kept, its 2 classes are those of the data{order}\n" in capsys.readouterr().err


def test_two_stages_of_fine_tuning_go_on_from_what_the_first_has_learned(begun: Path, tmp_path: Path) -> None:
    first = train(config(begun / "data", tmp_path / "first", weights=begun / "run", freeze="trunk"))
    plan = make_plan(config(begun / "data", tmp_path / "second", weights=first))
    network, manifest = load(first)
    images = torch.randn(2, 3, 75, 75, generator=torch.Generator().manual_seed(0))
    assert torch.equal(plan.for_classes(manifest.classes).network().eval()(images), network(images))


def test_a_classifier_of_other_classes_is_new_and_it_is_said(tmp_path: Path) -> None:
    arch = family.network("inception_v3", num_classes=2, width=0.1, input_size=75, aux="none")
    manifest = Manifest(arch=arch, classes=("cat", "dog"), preprocessing=Preprocessing(input_size=75))
    save(build(arch, seed=5), tmp_path / "pets.safetensors", manifest)
    plan = make_plan(config(tmp_path, tmp_path / "run", weights=tmp_path / "pets.safetensors"))
    other = plan.for_classes(("cat", "cow"))
    assert other.outputs is None
    assert "classifier: new for the 2 classes of the data" in other.notes[-1]
    assert plan.learned is not None
    assert not torch.equal(other.network().classifier.weight, plan.learned.network.classifier.weight)


def test_weights_are_those_of_the_file_that_is_there_now(tmp_path: Path) -> None:
    arch = family.network("inception_v3", num_classes=2, width=0.1, input_size=75, aux="none")
    manifest = Manifest(arch=arch, classes=("cat", "dog"), preprocessing=Preprocessing(input_size=75))
    weights = []
    for seed in (1, 2):
        save(build(arch, seed=seed), tmp_path / "pets.safetensors", manifest)
        plan = make_plan(config(tmp_path, tmp_path / "run", weights=tmp_path / "pets.safetensors"))
        weights.append(plan.for_classes(("cat", "dog")).network().classifier.weight)
    assert not torch.equal(*weights)
