"""A frozen trunk: its features are computed once and found by content; the classifier on them is solved for."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cells import class_folders
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression

from reinception.data.images.augment import augment
from reinception.data.loading.loader import normalise
from reinception.data.loading.read import training_image
from reinception.data.sources.open_source import open_source
from reinception.data.sources.records import Record
from reinception.errors import Interrupted, ReinceptionError, UsageError
from reinception.inference.compute import Compute
from reinception.metrics import PredictionTable
from reinception.model.artifact import Manifest, load, save
from reinception.model.build import Network, build
from reinception.preprocess import Preprocessing
from reinception.spec import count_border
from reinception.train.frozen import FrozenTrunk
from reinception.train.head import solve_heads
from reinception.train.run.start import TrainConfig, resume, train

ONE = Compute(workers=0, batch_size=8)


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return class_folders(tmp_path_factory.mktemp("cells"), per_class=16)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model file of random weights, a tenth of the width."""
    from reinception import family

    arch = family.network("inception_v3", num_classes=2, width=0.1, input_size=75, aux="none")
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save(build(arch, seed=0), path, Manifest(arch=arch, classes=("a", "b"), preprocessing=Preprocessing(input_size=75)))
    return path


@pytest.fixture
def network(weights: Path) -> Network:
    return load(weights).network


PIXELS = Preprocessing(input_size=75, resize="whole")


def trunk(network: Network, root: Path | None, **changes: Any) -> FrozenTrunk:
    given: dict[str, Any] = {
        "preprocessing": PIXELS,
        "compute": ONE,
        "augmentation": "gentle",
        "say": lambda line: None,
    } | changes
    return FrozenTrunk(network=network, root=root, **given)


def records_in(folder: Path) -> Sequence[Record]:
    return open_source(folder).records


# -- the features ------------------------------------------------------------------------------------------------------


def test_each_image_keeps_its_row_when_the_list_is_shuffled_renamed_and_shortened(
    network: Network, cells: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(cells, copy)
    records = list(records_in(copy))
    rows = trunk(network, tmp_path / "cache").rows(records)
    by_content = {record.path.read_bytes(): row for record, row in zip(records, rows, strict=True)}
    for number, path in enumerate(sorted(copy.rglob("*.png"), reverse=True)):
        path.rename(path.with_name(f"{number:03d}.png"))
    next(copy.rglob("*.png")).unlink()
    for compute in (ONE, Compute(workers=2, batch_size=5)):
        again = trunk(network, tmp_path / "cache", compute=compute)
        others = list(records_in(copy))[::-1]
        found = again.rows(others)
        assert again.num_computed == 0
        assert all(
            torch.equal(by_content[record.path.read_bytes()], row) for record, row in zip(others, found, strict=True)
        )


def test_whatever_a_feature_depends_on_is_part_of_its_key(network: Network, cells: Path, tmp_path: Path) -> None:
    records, root = list(records_in(cells))[:2], tmp_path / "cache"
    trunk(network, root).rows(records)

    def computed(network: Network = network, records: Sequence[Record] = records, **changes: Any) -> int:
        one = trunk(network, root, **changes)
        one.rows(records)
        return one.num_computed

    assert computed() == 0 and computed(augmentation="none") == 0  # the undistorted view has no augmentation
    others: list[dict[str, Any]] = [
        {"input_size": 80},
        {"resize": "central_crop"},
        {"interpolation": "bicubic"},
        {"mean": (0.4, 0.5, 0.5)},
        {"std": (0.4, 0.5, 0.5)},
        {"crop_fraction": 0.9},
        {"scaling": "per_image"},
    ]
    for change in others:
        assert computed(preprocessing=replace(PIXELS, **change)) == 2, change
    bordered = build(count_border(network.arch, True), seed=0)
    bordered.load_state_dict(network.state_dict())
    assert computed(bordered) == 2
    for name in ("stem.0.conv.weight", "grid8.0.point.0.bn.running_mean"):
        value = network.state_dict()[name].view(-1)
        value[0] = torch.nextafter(value[0], torch.tensor(torch.inf))
        assert computed() == 2, name
    network.classifier.weight.data.add_(1.0)
    assert computed() == 0


def test_an_image_replaced_by_one_of_equal_size_and_time_is_another(
    network: Network, cells: Path, tmp_path: Path
) -> None:
    path = tmp_path / "data" / "a" / "1.bmp"
    path.parent.mkdir(parents=True)
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (80, 80, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    record, before = Record(path=path, name="1.bmp", target=0), path.stat()
    assert trunk(network, tmp_path / "cache").rows([record]).shape == (1, network.num_features)
    pixels[40, 40] ^= 255
    Image.fromarray(pixels).save(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    again = trunk(network, tmp_path / "cache")
    again.rows([record])
    assert again.num_computed == 1


def test_a_view_from_the_cache_is_the_distorted_image_through_the_trunk(
    network: Network, cells: Path, tmp_path: Path
) -> None:
    import hashlib

    records = list(records_in(cells))[:6]
    trunk(network, tmp_path, compute=ONE).rows(records, view=2)
    cached = trunk(network, tmp_path)
    rows = cached.rows(records[::-1], view=2).flip(0)
    assert cached.num_computed == 0
    for record, row in zip(records, rows, strict=True):
        number = int.from_bytes(hashlib.sha256(record.path.read_bytes()).digest()[:8], "big")
        pixels = augment(training_image(record), kind="gentle", input_size=75, seed=0, epoch=2, index=number)
        image = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None]
        with torch.inference_mode():
            expected = network.eval().features(normalise(image, PIXELS))[0]
        assert torch.allclose(row, expected, atol=1e-5, rtol=1e-5)
    assert not torch.equal(rows, cached.rows(records)) and not torch.equal(rows, cached.rows(records, view=1))


# -- the classifier ----------------------------------------------------------------------------------------------------


def test_the_classifier_is_the_logistic_regression_of_scikit_learn() -> None:
    random = np.random.default_rng(0)
    features = random.normal(size=(60, 5)) * [1, 3, 0.2, 1, 1] + [0, 1, 0, 5, 0]
    labels = (features[:, 0] + random.normal(size=60) > 0).astype(int) + (features[:, 4] > 1)
    decay = 0.05
    scaled = (features - features.mean(axis=0)) / features.std(axis=0)
    theirs = LogisticRegression(C=1 / (decay * 60), tol=1e-10, max_iter=5000).fit(scaled, labels)
    targets = torch.nn.functional.one_hot(torch.from_numpy(labels))
    _, head = solve_heads(torch.from_numpy(features), targets, (1.0, decay))
    logits = torch.from_numpy(features).float() @ head.weight.T + head.bias
    assert np.allclose(logits.softmax(dim=1).numpy(), theirs.predict_proba(scaled), atol=1e-4)
    assert head.gradient_norm < 1e-5


def test_a_feature_that_never_changes_does_no_harm() -> None:
    features = torch.cat([torch.randn(20, 2, generator=torch.Generator().manual_seed(0)), torch.full((20, 1), 3.0)], 1)
    (head,) = solve_heads(features, torch.nn.functional.one_hot(torch.arange(20) % 2), (0.1,))
    assert bool(head.weight.isfinite().all()) and bool(head.bias.isfinite().all())


# -- runs --------------------------------------------------------------------------------------------------------------


def frozen(cells: Path, weights: Path, out: Path, **changes: Any) -> TrainConfig:
    given: dict[str, Any] = {"freeze": "trunk", "weights": weights, "precision": "fp32"}
    given |= {"cache": out.parent / "cache"} | changes
    return TrainConfig(data=cells, out=out, **given)


def test_a_run_from_the_cache_ends_with_the_bits_of_one_that_computes(
    cells: Path, weights: Path, tmp_path: Path
) -> None:
    cold = train(frozen(cells, weights, tmp_path / "cold", views=2))
    warm = train(frozen(cells, weights, tmp_path / "warm", views=2, workers=2, batch_size=5, seed=0))
    assert ", 0 computed now" in (warm / "log.txt").read_text()
    assert ", 40 computed now" in (cold / "log.txt").read_text()  # 20 training images, two views
    for name in ("model.safetensors", "last.safetensors"):
        one, other = load_file(cold / name), load_file(warm / name)
        assert all(torch.equal(one[key], other[key]) for key in one)
    for name in ("predictions/val.csv", "predictions/test.csv"):
        assert (cold / name).read_bytes() == (warm / name).read_bytes()
    head = json.loads((cold / "head.json").read_text())
    best = min(head["tried"], key=lambda one: one["validation"]["loss"])
    assert head["weight_decay"] == best["weight_decay"] and head["views"] == 2
    before = load_file(weights)
    after = load_file(cold / "last.safetensors")
    trunk_names = [name for name in after if not name.startswith("classifier.")]
    assert all(torch.equal(before[name], after[name]) for name in trunk_names)


def test_the_judged_probabilities_are_those_of_evaluating_the_file(cells: Path, weights: Path, tmp_path: Path) -> None:
    from reinception.inference.evaluate import evaluate

    run = train(frozen(cells, weights, tmp_path / "run"))
    judged = PredictionTable.load_csv(run / "predictions" / "test.csv")
    found = evaluate(run, str(cells)).table
    assert found.names == judged.names
    assert found.probabilities.tobytes() == judged.probabilities.tobytes()


def test_test_images_play_no_part_in_what_is_chosen(cells: Path, weights: Path, tmp_path: Path) -> None:
    heads = []
    for name in ("one", "other"):
        data = tmp_path / name
        for folder in sorted(cells.iterdir()):
            paths = sorted(folder.iterdir())
            parts = {"train": paths[:8], "val": paths[8:12], "test": paths[12:] if name == "one" else paths[:4]}
            for split, chosen in parts.items():
                (data / split / folder.name).mkdir(parents=True)
                for path in chosen:
                    shutil.copy(path, data / split / folder.name)
        run = train(frozen(data, weights, tmp_path / f"run_{name}"))
        heads.append((load_file(run / "model.safetensors"), json.loads((run / "head.json").read_text())))
    assert heads[0][1] == heads[1][1]
    assert all(torch.equal(heads[0][0][key], heads[1][0][key]) for key in heads[0][0])


def test_a_run_that_is_stopped_while_features_are_computed_resumes_to_the_same_bits(
    cells: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from reinception.inference import feature_cache
    from reinception.train.run.signals import StopRequest

    whole = train(frozen(cells, weights, tmp_path / "whole"))
    monkeypatch.setattr(feature_cache, "IMAGES", 4)
    calls = []

    def check(stop: StopRequest) -> None:
        calls.append(1)
        if len(calls) == 12:
            raise Interrupted("", number=15)

    config = frozen(cells, weights, tmp_path / "part", cache=tmp_path / "other")
    with monkeypatch.context() as patch, pytest.raises(Interrupted, match="train --resume"):
        patch.setattr(StopRequest, "check", check)
        train(config)
    assert list((tmp_path / "other").rglob("*.safetensors"))
    run = resume(tmp_path / "part")
    for name in ("model.safetensors", "last.safetensors"):
        one, other = load_file(whole / name), load_file(run / name)
        assert all(torch.equal(one[key], other[key]) for key in one)
    assert (whole / "predictions" / "test.csv").read_bytes() == (run / "predictions" / "test.csv").read_bytes()
    assert resume(run) == run  # finished


def test_a_run_that_is_stopped_while_it_is_judged_resumes_to_the_same_bits(
    cells: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from reinception.train.run import start

    whole = train(frozen(cells, weights, tmp_path / "whole"))

    def stopped(*given: Any) -> None:
        raise Interrupted("", number=15)

    with monkeypatch.context() as patch, pytest.raises(Interrupted, match="train --resume"):
        patch.setattr(start, "judge", stopped)
        train(frozen(cells, weights, tmp_path / "part"))
    run = resume(tmp_path / "part")
    for name in ("head.json", "predictions/test.csv", "results.csv"):
        one, other = (folder / name for folder in (whole, run))
        assert [line.split(",")[:2] for line in one.read_text().splitlines()] == [
            line.split(",")[:2] for line in other.read_text().splitlines()
        ]
    one, other = load_file(whole / "model.safetensors"), load_file(run / "model.safetensors")
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_bad_image_is_named_before_anything_is_written(cells: Path, weights: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(cells, data)
    train(frozen(data, weights, tmp_path / "first"))
    path = sorted(data.rglob("*.png"))[3]
    path.write_bytes(path.read_bytes()[:400])
    with pytest.raises(ReinceptionError, match=path.name):  # the others are in the cache, and not decoded again
        train(frozen(data, weights, tmp_path / "second"))
    assert not (tmp_path / "second").exists()


def test_without_validation_images_the_usual_decay_is_taken_and_said(
    cells: Path, weights: Path, tmp_path: Path
) -> None:
    run = train(frozen(cells, weights, tmp_path / "run", val_fraction=0.0))
    assert json.loads((run / "head.json").read_text())["weight_decay"] == 0.1
    assert "no validation images" in (run / "log.txt").read_text()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"views": 0}, "--views must be at least 1"),
        ({"views": 2, "freeze": "stem"}, "--views is for --freeze trunk"),
        ({"freeze": "grid28"}, "--freeze 'grid28': choose one of trunk"),
    ],
)
def test_what_cannot_be_is_refused(
    changes: dict[str, Any], said: str, cells: Path, weights: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=said):
        train(frozen(cells, weights, tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()
