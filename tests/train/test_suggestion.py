"""What `recipe suggest` chooses: by passes that fit into the time, and never a network that manages six steps."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from cells import class_folders
from safetensors.torch import load_file

from command import Command
from processes import ends, start_ranks
from reinception import family
from reinception.errors import UsageError
from reinception.model.artifact import Manifest, save
from reinception.model.build import build
from reinception.preprocess import Preprocessing
from reinception.train.config import AUTO, TrainConfig
from reinception.train.run.start import resume, train
from reinception.train.run.suggestion import ENOUGH_PASSES, Suggestion, TrainingCandidate, choose, suggest


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return class_folders(tmp_path_factory.mktemp("cells"), per_class=12)


def candidate(name: str, passes: float, enough: float, work: int) -> TrainingCandidate:
    changes = {"freeze": "trunk"} if name == "frozen" else {}
    return TrainingCandidate(
        what=name, changes=changes, seconds_per_image=work / 1e9, passes=passes, enough=enough, multiply_adds=work
    )


SCRATCH = [candidate("small", 300, 40, 1), candidate("middle", 60, 40, 5), candidate("large", 0.2, 40, 1000)]


@pytest.mark.parametrize(
    ("tuned", "keep", "expected"),
    [
        ([], True, "middle"),
        ([candidate("tuned 299", 6, 4, 9), candidate("tuned 210", 12, 4, 5), candidate("frozen", 30, 1, 9)], False, 3),
        ([candidate("tuned 299", 2, 4, 9), candidate("tuned 210", 5, 4, 5), candidate("frozen", 30, 1, 9)], False, 4),
        ([candidate("tuned 299", 1, 4, 9), candidate("tuned 210", 2, 4, 5), candidate("frozen", 9, 1, 9)], False, 1),
        ([candidate("tuned 299", 1, 4, 9), candidate("tuned 210", 2, 4, 5), candidate("frozen", 9, 1, 9)], True, 5),
    ],
)
def test_the_largest_that_gets_through_enough_passes_is_chosen(
    tuned: list[TrainingCandidate], keep: bool, expected: int | str
) -> None:
    chosen, why = choose(SCRATCH, tuned, keep_weights=keep)
    names = [one.what for one in [*SCRATCH, *tuned]]
    assert chosen.what == (expected if isinstance(expected, str) else names[expected])
    assert why.startswith("because ")


def test_where_nothing_fits_the_smallest_is_taken_and_said_to_be_too_little() -> None:
    slow = [replace(one, passes=0.5) for one in SCRATCH]
    chosen, why = choose(slow, [], keep_weights=True)
    assert chosen.what == "small" and "give it more time" in why


def suggestion(cells: Path, **changes: Any) -> Suggestion:
    return suggest(replace(TrainConfig(data=cells, out="RUN", precision="fp32", recipe=AUTO), **changes))


def test_a_suggestion_changes_nothing_and_knows_the_size_of_the_images(cells: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    from PIL import Image

    for path in sorted(cells.rglob("*.png")):
        to = small / path.parent.name
        to.mkdir(parents=True, exist_ok=True)
        with Image.open(path) as image:
            image.resize((100, 110)).save(to / path.name)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    found = suggestion(small, time_budget_seconds=3600.0)
    assert torch.equal(torch.get_rng_state(), before)
    assert "training images of 2 classes, about 100 pixels a side" in found.about
    assert all(one.changes["input_size"] <= 110 for one in found.candidates)
    assert found.chosen.passes >= ENOUGH_PASSES or "even the smallest" in found.why
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    arch = family.network("inception_v3", num_classes=2, width=0.1, input_size=110, aux="none")
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save(
        build(arch, seed=0), path, Manifest(arch=arch, classes=("a", "b"), preprocessing=Preprocessing(input_size=110))
    )
    return path


def test_fine_tuning_and_the_frozen_trunk_stand_beside_training_from_scratch(cells: Path, weights: Path) -> None:
    found = suggestion(cells, weights=weights, time_budget_seconds=600.0)
    kinds = {(one.changes["recipe"], one.changes.get("freeze")) for one in found.candidates}
    assert kinds == {("small_images", None), ("fine_tune", None), ("fine_tune", "trunk")}
    assert found.config.recipe == "fine_tune" and found.config.weights == weights  # a tiny network on few images
    told = json.loads(json.dumps(found.to_json()))
    assert told["recipe"] == "fine_tune" and told["command"] == found.config.command()


def test_train_makes_the_same_kind_of_choice_says_so_and_keeps_it(
    command: Command, cells: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    result = command("train", cells, "-o", run, "--time-budget", "3s", "--precision", "fp32", "--seed", 1)
    assert result.returncode == 0, result.stderr
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("chosen for 3 s: ")]
    config = json.loads((run / "config.json").read_text())
    assert f"width {config['width']:g} at {config['input_size']} px" in line
    assert "--recipe auto" in config["asked"] and "--recipe small_images" in config["command"]
    assert f"--input-size {config['input_size']}" in config["command"]
    assert config["width"] <= 0.25


def test_explicit_flags_win(command: Command, cells: Path, tmp_path: Path) -> None:
    flags = ("--width", "0.1", "--time-budget", "1s", "--input-size", "75", "--precision", "fp32")
    result = command("train", cells, "-o", tmp_path / "run", *flags)
    assert result.returncode == 0, result.stderr
    assert "chosen for" not in result.stderr
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["width"], config["input_size"]) == (0.1, 75) and "asked" not in config


def test_a_resumed_run_keeps_the_choice(cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from reinception.errors import Interrupted
    from reinception.train.run import suggestion as module
    from reinception.train.run.signals import StopRequest

    config = TrainConfig(data=cells, out=tmp_path / "run", recipe=AUTO, time_budget_seconds=4.0, precision="fp32")
    original, calls = StopRequest.check, []

    def check(stop: StopRequest) -> None:
        if (tmp_path / "run" / "state").is_dir():
            calls.append(1)
        if len(calls) == 3:
            raise Interrupted("", number=15)
        original(stop)

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(StopRequest, "check", check)
        train(config)
    before = json.loads((tmp_path / "run" / "config.json").read_text())

    def never(*given: Any, **named: Any) -> None:
        raise AssertionError("a resumed run measures again")

    monkeypatch.setattr(module, "suggest", never)
    resume(tmp_path / "run")
    after = json.loads((tmp_path / "run" / "config.json").read_text())
    assert after == before
    name, tensor = next(iter(load_file(tmp_path / "run" / "model.safetensors").items()))
    assert tensor.isfinite().all(), name


def test_ranks_agree_on_the_choice_of_the_first(cells: Path, tmp_path: Path) -> None:
    words = ["train", cells, "-o", tmp_path / "run", "--time-budget", "4s", "--replicas", 2, "--precision", "fp32"]
    processes = start_ranks(words, tmp_path / "log", world=2)
    said = [tmp_path.joinpath(f"log.{rank}") for rank in (0, 1)]
    assert ends(*processes) == [0, 0], said[0].read_text()[-2000:]
    assert said[0].read_text().count("chosen for 4 s") == 1


def test_auto_without_a_time_is_refused(cells: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--recipe auto chooses for one run of --time-budget"):
        train(TrainConfig(data=cells, out=tmp_path / "run", recipe=AUTO))
