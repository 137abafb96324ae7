"""REAL and GENERATED, whatever they are: the scores, what they are called, and what is refused in one line."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from processes import free_port
from reinception.errors import ReinceptionError, UsageError
from reinception.generative import (
    GenerativeMetrics,
    ScoreConfig,
    fid,
    inception_score,
    load_extractor,
    score,
)
from reinception.generative.extract import features_of_records, records_of
from reinception.inference.compute import Compute

ONE = Compute(workers=0)


@pytest.fixture(scope="module")
def config(narrow_model: Path) -> ScoreConfig:
    return ScoreConfig(metrics="fid,kid,is,prdc", weights=str(narrow_model), subsets=5)


def test_folders_are_scored_and_the_result_says_of_what(
    real_folder: Path, generated_folder: Path, config: ScoreConfig, narrow_model: Path
) -> None:
    report = score(real_folder, generated_folder, config, ONE)
    told = json.loads(json.dumps(report.to_json(), allow_nan=False))
    names = ["frechet_distance", "kernel_distance", "classifier_score", "precision", "recall", "density", "coverage"]
    assert list(report.scores) == names  # not FID's names: it is another network
    for name in names:
        assert set(told[name]) >= {"value", "interval", "mode", "num_generated"}
        assert told[name]["mode"] == "own"
    assert told["frechet_distance"]["num_real"] == 150 and told["frechet_distance"]["num_generated"] == 140
    assert told["extractor"]["extractor"] == hashlib.sha256(narrow_model.read_bytes()).hexdigest()
    assert told["real"]["num_found"] == 150 and told["real"]["errors"] == []
    assert told["compute"] == {"device": "cpu", "precision": "fp32", "backend": "torch", "batch_size": 32}
    assert told["versions"]["torch"] and told["versions"]["numpy"]
    assert len(report.lines()) >= 9 and report.lines()[0].startswith("frechet_distance: ")


def test_the_values_are_those_of_the_functions(
    real_folder: Path, generated_folder: Path, config: ScoreConfig, narrow_model: Path
) -> None:
    extractor = load_extractor(narrow_model)
    real, generated = (
        features_of_records(extractor, records_of(one), ONE).features for one in (real_folder, generated_folder)
    )
    report = score(real_folder, generated_folder, config, ONE)
    assert report.scores["frechet_distance"]["value"] == fid(real=real, generated=generated).value
    logits = extractor.logits(generated)
    assert report.scores["classifier_score"]["value"] == inception_score(logits, logits=True).value


def test_a_streaming_metric_gives_the_same(
    real_folder: Path, generated_folder: Path, config: ScoreConfig, narrow_model: Path
) -> None:
    same_size = [
        np.asarray(Image.open(path).convert("RGB").resize((80, 75))) for path in sorted(real_folder.iterdir())[:60]
    ]
    images = np.stack(same_size).transpose(0, 3, 1, 2)
    metric = GenerativeMetrics(narrow_model, metrics=("fid", "is"), limit=1024, value_range=(0, 1))
    metric.update(images[:20], real=True)
    metric.update(images[20:30].astype(np.float32) / 255, real=True)
    metric.update(images[30:], real=False)
    other = GenerativeMetrics(narrow_model, metrics=("fid", "is"), limit=1024)
    other.update(images[30:][::-1], real=False)
    other.update(images[:30], real=True)
    assert metric.compute() == other.compute()


def test_statistics_stand_for_their_images(
    real_folder: Path, generated_folder: Path, config: ScoreConfig, tmp_path: Path
) -> None:
    only_fid = dataclasses.replace(config, metrics="fid")
    report = score(real_folder, generated_folder, only_fid, ONE)
    path = report.save_statistics("real", tmp_path / "real.npz")
    from_images = report.scores["frechet_distance"]
    from_file = score(path, generated_folder, only_fid, ONE).scores["frechet_distance"]
    assert from_file["value"] == pytest.approx(from_images["value"], rel=1e-12)
    assert from_file["num_real"] == 150
    assert from_file["interval"] is None and any("no interval" in note for note in from_file["notes"])
    with pytest.raises(ReinceptionError, match="kid needs the images or their features; these are statistics"):
        score(path, generated_folder, config, ONE)


def test_features_of_others_have_other_names_than_fid(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("real", "generated"):
        np.savez(tmp_path / f"{name}.npz", features=rng.normal(size=(50, 6)))
    report = score(tmp_path / "real.npz", tmp_path / "generated.npz", ScoreConfig(metrics="fid,kid,prdc"))
    assert list(report.scores)[:3] == ["frechet_distance", "kernel_distance", "precision"]
    with pytest.raises(ReinceptionError, match="is needs the images, or a file of features that has logits too"):
        score(tmp_path / "real.npz", tmp_path / "generated.npz", ScoreConfig(metrics="is"))


def test_the_fid_graph_with_its_own_weights_gives_fid(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    known = {"extractor": "6726825d" + "0" * 56, "mode": "tf", "is_fid": True}
    for name in ("real", "generated"):
        np.savez(tmp_path / f"{name}.npz", features=rng.normal(size=(50, 6)), reinception=np.array(json.dumps(known)))
    np.savez(tmp_path / "plain.npz", mu=np.zeros(6), sigma=np.eye(6))
    report = score(tmp_path / "real.npz", tmp_path / "generated.npz", ScoreConfig(metrics="fid,kid"))
    assert list(report.scores) == ["fid", "kid"]
    assert report.to_json()["fid"]["mode"] == "tf"
    mixed = score(tmp_path / "plain.npz", tmp_path / "generated.npz")
    assert list(mixed.scores) == ["fid"]
    assert any("does not say of which extractor" in note for note in mixed.scores["fid"]["notes"])


@pytest.mark.parametrize(("key", "value"), [("extractor", "f" * 64), ("mode", "clean")])
def test_statistics_of_another_extractor_or_mode_are_refused(tmp_path: Path, key: str, value: str) -> None:
    known = {"extractor": "a" * 64, "mode": "tf"}
    for name, told in (("one", known), ("other", known | {key: value})):
        np.savez(tmp_path / f"{name}.npz", mu=np.zeros(3), sigma=np.eye(3), reinception=np.array(json.dumps(told)))
    with pytest.raises(ReinceptionError, match=f"other.npz: is of another {key} .*: compute both alike"):
        score(tmp_path / "one.npz", tmp_path / "other.npz")


def test_features_of_different_widths_are_refused(real_folder: Path, config: ScoreConfig, tmp_path: Path) -> None:
    np.savez(tmp_path / "f.npz", features=np.random.default_rng(0).normal(size=(50, 6)))
    with pytest.raises(ReinceptionError, match="different widths"):
        score(real_folder, tmp_path / "f.npz", config, ONE)


def test_bad_images_are_named_rows_and_one_image_is_refused(
    real_folder: Path, config: ScoreConfig, tmp_path: Path
) -> None:
    some = tmp_path / "some"
    shutil.copytree(real_folder, some)
    (some / "003.png").write_bytes(b"no image")
    report = score(real_folder, some, dataclasses.replace(config, metrics="fid"), ONE)
    told = report.to_json()["generated"]
    assert told["num_found"] == 150 and told["num_images"] == 149
    assert [error["path"] for error in told["errors"]] == ["003.png"]
    assert any("1 could not be used, first 003.png" in line for line in report.lines())
    one = tmp_path / "one"
    one.mkdir()
    shutil.copy(real_folder / "000.png", one)
    with pytest.raises(ReinceptionError, match="generated: 1 image; a covariance needs at least two"):
        score(real_folder, one, dataclasses.replace(config, metrics="fid"), ONE)
    (one / "000.png").write_bytes(b"no image")
    with pytest.raises(ReinceptionError, match=r"none of 1 images can be used, first 000.png"):
        score(real_folder, one, config, ONE)


def test_images_stretched_one_by_one_are_warned_of(config: ScoreConfig, real_folder: Path, tmp_path: Path) -> None:
    stretched = tmp_path / "stretched"
    stretched.mkdir()
    for path in sorted(real_folder.iterdir())[:40]:
        grey = np.asarray(Image.open(path).convert("L"), dtype=np.float64)
        full = np.rint((grey - grey.min()) / (grey.max() - grey.min()) * 255).astype(np.uint8)
        Image.fromarray(full).save(stretched / path.name)
    only_fid = dataclasses.replace(config, metrics="fid")
    assert (
        "generated: 40 of 40 images span exactly 0 to 255" in score(real_folder, stretched, only_fid, ONE).warnings[0]
    )
    assert not score(real_folder, real_folder, only_fid, ONE).warnings


def test_a_second_run_is_the_same_and_says_that_it_was_cached(
    real_folder: Path, generated_folder: Path, config: ScoreConfig, tmp_path: Path
) -> None:
    cached = dataclasses.replace(config, cache=tmp_path)
    first, second = (score(real_folder, generated_folder, cached, ONE) for _ in range(2))
    assert first.scores == second.scores == score(real_folder, generated_folder, config, Compute(workers=2)).scores
    assert first.sets["real"]["cached"] is None and second.sets["real"]["cached"]["num_images"] == 150
    assert any("cached on 2" in line and "from 150 images" in line for line in second.lines())


def test_metrics_that_do_not_exist_are_named() -> None:
    with pytest.raises(UsageError, match="metrics: 'sfid'; they are fid, kid, is, prdc"):
        ScoreConfig(metrics="sfid,fid")


_RANK = """
import json, sys
from pathlib import Path
import torch
from reinception.distributed import Ranks
from reinception.generative import ScoreConfig, score
from reinception.inference import feature_cache
from reinception.inference.compute import Compute

feature_cache.IMAGES = 16  # so that every rank has something to do
real, generated, weights, out = sys.argv[1:]
config = ScoreConfig(metrics="fid,kid,is,prdc", weights=weights, subsets=5)
with Ranks(torch.device("cpu")) as ranks:
    report = score(real, generated, config, Compute(workers=0, ranks=ranks)).to_json()
    Path(f"{out}.{ranks.rank}").write_text(json.dumps(report))
"""


@pytest.mark.parametrize("world", [2, 3])
def test_several_ranks_give_the_bits_of_one(
    real_folder: Path, generated_folder: Path, config: ScoreConfig, tmp_path: Path, world: int
) -> None:
    damaged = tmp_path / "real"
    shutil.copytree(real_folder, damaged)
    (damaged / "007.png").write_bytes((damaged / "008.png").read_bytes()[:300])
    (damaged / "009.png").write_bytes(b"")
    common = {"WORLD_SIZE": world, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "OMP_NUM_THREADS": 1}
    words = [sys.executable, "-c", _RANK, damaged, generated_folder, config.weights, tmp_path / "out"]
    started = [
        subprocess.Popen(
            list(map(str, words)),
            env=os.environ
            | {"PYTHONPATH": os.pathsep.join(sys.path), "RANK": str(rank)}
            | {name: str(value) for name, value in common.items()},
        )
        for rank in range(world)
    ]
    assert [process.wait(timeout=200) for process in started] == [0] * world
    expected = json.loads(json.dumps(score(damaged, generated_folder, config, ONE).to_json()))
    assert len(expected["real"]["errors"]) == 2
    for rank in range(world):
        assert json.loads((tmp_path / f"out.{rank}").read_text()) == expected
