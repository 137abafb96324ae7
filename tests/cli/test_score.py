"""`reinception score` as a process: what it prints, writes and refuses."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two files of features that are not very different."""
    folder, rng = tmp_path_factory.mktemp("features"), np.random.default_rng(0)
    for name, shift in (("real", 0.0), ("generated", 0.4)):
        np.savez(folder / f"{name}.npz", features=rng.normal(shift, 1.0, size=(200, 6)))
    return folder / "real.npz", folder / "generated.npz"


def test_scores_are_printed_and_written_with_their_intervals(
    command: Command, features: tuple[Path, Path], tmp_path: Path
) -> None:
    result = command("score", *features, "--metrics", "fid,kid,prdc", "--json", tmp_path / "s.json")
    assert result.returncode == 0, result.stderr
    told = json.loads((tmp_path / "s.json").read_text())
    low, high = told["frechet_distance"]["interval"]
    assert low < told["frechet_distance"]["infinite"] < high
    assert told["frechet_distance"]["num_real"] == 200
    names = ["frechet_distance", "kernel_distance", "precision", "recall", "density", "coverage"]
    assert [line.split(":")[0] for line in result.stdout.splitlines()[:6]] == names


def test_two_generators_are_compared_with_an_interval(
    command: Command, features: tuple[Path, Path], tmp_path: Path
) -> None:
    real, near = features
    far = tmp_path / "far.npz"
    np.savez(far, features=np.load(near)["features"] + 1.0)
    result = command("score", real, near, "--against", far, "--json", tmp_path / "s.json")
    assert result.returncode == 0, result.stderr
    told = json.loads((tmp_path / "s.json").read_text())
    found = told["frechet_distance_difference"]
    assert found["interval"][0] < found["value"] < found["interval"][1] < 0 and found["better"] == "generated"
    wanted = told["frechet_distance"]["infinite"] - found["against"]["infinite"]
    assert found["value"] == pytest.approx(wanted)
    assert told["against"]["num_images"] == 200
    assert "GENERATED is nearer to the real images" in result.stdout
    same = command("score", real, near, "--against", near, "--json")
    assert json.loads(same.stdout)["frechet_distance_difference"]["better"] is None
    refused = command("score", real, near, "--against", far, "--metrics", "kid")
    assert refused.returncode == 2 and "compared by fid" in refused.stderr


def test_json_alone_goes_to_the_standard_output(command: Command, features: tuple[Path, Path]) -> None:
    result = command("score", *features, "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["frechet_distance"]["value"] > 0


def test_the_statistics_of_the_real_images_may_be_written(
    command: Command, features: tuple[Path, Path], tmp_path: Path
) -> None:
    first = command("score", *features, "--statistics", tmp_path / "real.npz", "--json")
    second = command("score", tmp_path / "real.npz", features[1], "--json")
    values = [json.loads(one.stdout)["frechet_distance"]["value"] for one in (first, second)]
    assert values[0] == pytest.approx(values[1], rel=1e-12)
    assert command("score", *features, "--statistics", tmp_path / "real.npz").returncode == 1


def test_images_without_weights_are_told_what_to_get(
    command: Command, solar_cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    result = command("score", solar_cells, solar_cells)
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1
    assert "pt_inception-2015-12-05-6726825d.pth" in result.stderr and str(tmp_path) in result.stderr


def test_bad_images_are_named_and_the_rest_count(
    command: Command, solar_cells: Path, small_run: Path, tmp_path: Path
) -> None:
    import shutil

    folder = tmp_path / "generated"
    shutil.copytree(solar_cells / "functional", folder)
    (folder / "torn.png").write_bytes(b"no image")
    result = command("score", solar_cells, folder, "--weights", small_run, "--no-cache", "--workers", 0)
    assert result.returncode == 0, result.stderr
    assert "reinception: torn.png: is not an image" in result.stderr
    assert "16 images, 1 could not be used" in result.stdout


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--metrics", "sfid"), 2, "they are fid, kid, is, prdc"),
        (("--mode", "tensorflow"), 2, "tf, pytorch_fid, clean, torchmetrics"),
        (("--no-cache", "--cache", "x"), 2, "exclude each other"),
        (("--metrics", "is"), 1, "needs the images"),
    ],
)
def test_what_makes_no_sense_is_one_line(
    command: Command, features: tuple[Path, Path], words: tuple[str, ...], code: int, said: str
) -> None:
    result = command("score", *features, *words)
    assert (result.returncode, len(result.stderr.splitlines())) == (code, 1)
    assert said in result.stderr
