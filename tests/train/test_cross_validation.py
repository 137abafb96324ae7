"""Cross-validation: each fold is a run of its own, the same alone as in the whole, judged on images it never read."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cells import class_folders
from safetensors.torch import load_file

from reinception.data.sources.open_source import open_source
from reinception.data.sources.records import Record
from reinception.data.sources.split import assign_fold
from reinception.errors import Interrupted, UsageError
from reinception.inference.evaluate import evaluate
from reinception.metrics import PredictionTable, accuracy
from reinception.metrics.significance import student_interval
from reinception.train.run.start import TrainConfig, resume, train

FOLDS = 3


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return class_folders(tmp_path_factory.mktemp("cells"), per_class=9)


def folds(cells: Path, out: Path, **changes: Any) -> TrainConfig:
    config = TrainConfig(
        data=cells, out=out, epochs=1, batch_size=4, input_size=75, width=0.1, precision="fp32", folds=FOLDS
    )
    return replace(config, **changes)


@pytest.fixture(scope="module")
def whole(cells: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(folds(cells, tmp_path_factory.mktemp("folds") / "run"))


def same_bits(one: Path, other: Path) -> bool:
    first, second = load_file(one / "last.safetensors"), load_file(other / "last.safetensors")
    predictions = [(run / "predictions" / "test.csv").read_bytes() for run in (one, other)]
    return all(first[name].equal(second[name]) for name in first) and predictions[0] == predictions[1]


# -- the split ---------------------------------------------------------------------------------------------------------


def test_every_image_is_in_the_test_of_one_fold_and_folds_are_alike() -> None:
    source = open_source("elpv")
    seen: Counter[str] = Counter()
    for fold in range(1, 5):
        split = assign_fold(source, folds=4, fold=fold, seed=1)
        test = split.split("test")
        seen.update(record.name for record in test)
        assert abs(len(test) - len(source.records) / 4) <= 2
        for target in (0, 1):
            of_class = [record for record in source.records if record.target == target]
            assert abs(sum(record.target == target for record in test) - len(of_class) / 4) <= 1
        val = split.split("val")
        assert len(val) == pytest.approx(0.1 * (len(source.records) - len(test)), abs=2)
    assert set(seen) == {record.name for record in source.records} and set(seen.values()) == {1}


def test_a_fold_depends_on_the_seed_and_the_names_and_not_on_the_order(cells: Path) -> None:
    source = open_source(cells)
    turned = replace(source, records=tuple(source.records)[::-1])

    def test_of(one: Any, seed: int) -> set[str]:
        return {record.name for record in assign_fold(one, folds=3, fold=2, seed=seed).split("test")}

    assert test_of(source, 0) == test_of(turned, 0) != test_of(source, 1)


def test_a_test_split_that_exists_is_left_out_of_all_folds(cells: Path, tmp_path: Path) -> None:
    for folder in sorted(cells.iterdir()):
        for index, path in enumerate(sorted(folder.iterdir())):
            to = tmp_path / ("test" if index < 2 else "val" if index < 4 else "train") / folder.name
            to.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, to)
    source = open_source(tmp_path)
    unseen = {record.name for record in source.split("test")}
    used = {record.name for fold in (1, 2, 3) for record in assign_fold(source, folds=3, fold=fold).split("test")}
    assert used == {record.name for record in source.records} - unseen


def test_folds_that_cannot_be_are_refused(cells: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has only 9 images; use fewer folds"):
        assign_fold(open_source(cells), folds=10, fold=1)
    for changes, said in (
        ({"folds": 1}, "--folds must be at least 2"),
        ({"fold": 4}, "a fold from 1 to K"),
        ({"folds": None, "fold": 1}, "give --folds K too"),
    ):
        with pytest.raises(UsageError, match=said):
            train(folds(cells, tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()


# -- runs --------------------------------------------------------------------------------------------------------------


def test_a_fold_alone_is_the_fold_of_the_whole_to_the_bit(cells: Path, whole: Path, tmp_path: Path) -> None:
    for fold in (3, 2):  # in another order, and after the whole has run in this process
        assert same_bits(whole / f"fold-{fold}", train(folds(cells, tmp_path / str(fold), fold=fold)))


def test_the_result_is_the_mean_of_the_folds_with_its_interval(cells: Path, whole: Path) -> None:
    told = json.loads((whole / "folds.json").read_text())
    tables = [PredictionTable.load_csv(whole / f"fold-{fold}" / "predictions" / "test.csv") for fold in (1, 2, 3)]
    rates = [accuracy(table).percent for table in tables]
    assert told["mean"] == pytest.approx(sum(rates) / 3) and told["interval"] == pytest.approx(student_interval(rates))
    pooled = PredictionTable.load_csv(whole / "predictions" / "test.csv")
    assert sorted(pooled.names) == sorted(record.name for record in open_source(cells).records)
    assert told["pooled"] == pytest.approx(accuracy(pooled).percent) and told["num_images"] == 18


def test_evaluating_the_model_of_a_fold_finds_its_test_images(cells: Path, whole: Path) -> None:
    judged = PredictionTable.load_csv(whole / "fold-2" / "predictions" / "test.csv")
    assert evaluate(whole / "fold-2", str(cells)).table.names == judged.names


def test_no_test_image_is_read_before_the_fold_is_judged(
    cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A decoder that looks on: which images it has been asked for when the judging begins."""
    from reinception.data.loading import read
    from reinception.data.prepare import audit
    from reinception.train.run import start, verdict

    seen: set[str] = set()
    original = read.bytes_of

    def watching(record: Record, *rest: Any) -> bytes:
        seen.add(record.name)
        return original(record, *rest)

    def pixels(record: Record, *rest: Any) -> Any:
        seen.add(record.name)
        return read.decode(original(record, *rest), keep_grey=True)

    at_judging: list[set[str]] = []

    def judge(*given: Any) -> None:
        at_judging.append(set(seen))
        verdict.judge(*given)

    monkeypatch.setattr(read, "bytes_of", watching)
    monkeypatch.setattr("reinception.data.loading.evaluation_stream.pixels_of", pixels)
    monkeypatch.setattr(audit, "pixels_of", pixels)
    monkeypatch.setattr(audit, "ordered_map", _in_this_process)
    monkeypatch.setattr(start, "judge", judge)
    train(folds(cells, tmp_path / "run", fold=1))
    split = assign_fold(open_source(cells), folds=FOLDS, fold=1)
    (before,) = at_judging
    assert before == {record.name for name in ("train", "val") for record in split.split(name)}
    assert seen == {record.name for record in split.records}


def _in_this_process(job: Any, tasks: Any, workers: int, **options: Any) -> Any:
    from reinception.data.loading.watchdog import Watchdog

    return (job(task, Watchdog()) for task in tasks)


def test_an_interrupted_cross_validation_goes_on_where_it_was(
    cells: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from reinception.train.run.signals import StopRequest

    calls: list[int] = []
    original = StopRequest.check

    def check(stop: StopRequest) -> None:
        calls.append(1)
        if (tmp_path / "run" / "fold-2" / "state").is_dir() and len(calls) % 5 == 0:
            raise Interrupted("", number=15)
        original(stop)

    with monkeypatch.context() as patch, pytest.raises(Interrupted, match=r"train --resume .*run$"):
        patch.setattr(StopRequest, "check", check)
        train(folds(cells, tmp_path / "run"))
    assert not (tmp_path / "run" / "folds.json").exists()
    resume(tmp_path / "run")
    for fold in (1, 2, 3):
        assert same_bits(whole / f"fold-{fold}", tmp_path / "run" / f"fold-{fold}")
    assert (tmp_path / "run" / "folds.json").read_bytes() == (whole / "folds.json").read_bytes()


def test_on_random_labels_every_fold_is_at_chance(cells: Path, tmp_path: Path) -> None:
    """A classifier that carried anything from fold to fold would know the images of the later ones."""
    from reinception import family
    from reinception.data.images.random_stream import RandomStream
    from reinception.model.artifact import Manifest, save
    from reinception.model.build import build
    from reinception.preprocess import Preprocessing

    paths = sorted(open_source("elpv").records, key=lambda record: record.name)[:48]
    order = RandomStream("labels", 1).permutation(len(paths))
    for place, index in enumerate(order.tolist()):
        to = tmp_path / "data" / ("a" if place % 2 else "b")
        to.mkdir(parents=True, exist_ok=True)
        shutil.copy(paths[index].path, to)
    arch = family.network("inception_v3", num_classes=2, width=0.1, input_size=75, aux="none")
    manifest = Manifest(arch=arch, classes=("a", "b"), preprocessing=Preprocessing(input_size=75))
    save(build(arch, seed=0), tmp_path / "weights.safetensors", manifest)
    run = train(
        TrainConfig(
            data=tmp_path / "data",
            out=tmp_path / "run",
            weights=tmp_path / "weights.safetensors",
            freeze="trunk",
            folds=4,
            cache=tmp_path / "cache",
            precision="fp32",
        )
    )
    for fold in range(1, 5):
        low, high = accuracy(PredictionTable.load_csv(run / f"fold-{fold}" / "predictions" / "test.csv")).interval()
        assert low < 50 < high
