"""`compare`, `features` and many crops at the command line: what they print, write and refuse."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from test_metrics import random_table

from reinception.cli import main
from reinception.data.images.crops import evaluation_pixels
from reinception.data.images.decode import decode
from reinception.data.loading.loader import normalise
from reinception.metrics import PredictionTable
from reinception.model.artifact import load


@dataclasses.dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


Verb = Callable[..., Done]


@pytest.fixture
def verb(capsys: pytest.CaptureFixture[str]) -> Verb:
    """`verb("compare", A, B)` runs the verb in this process; what a process of its own adds is tested elsewhere."""

    def run(*words: object) -> Done:
        capsys.readouterr()
        code = main(list(map(str, words)))
        return Done(code, *capsys.readouterr())

    return run


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Predictions of a good and of a random model on the same 300 images."""
    folder = tmp_path_factory.mktemp("predictions")
    good = random_table(0, n=300, skill=3)
    noise = dataclasses.replace(good, probabilities=good.probabilities[::-1])
    return good.save_csv(folder / "good.csv"), noise.save_csv(folder / "noise.csv")


def test_the_better_one_is_named_with_interval_and_p(verb: Verb, tables: tuple[Path, Path], tmp_path: Path) -> None:
    good, noise = tables
    result = verb("compare", good, noise, "--json", tmp_path / "c.json")
    assert (result.returncode, result.stderr) == (0, "")
    found = json.loads((tmp_path / "c.json").read_text(encoding="utf-8"))
    low, high = found["difference_interval"]
    assert found["better"] == "A" and 0 < low < found["difference"] < high and found["p_value"] < 1e-6
    assert found["n"] == 300
    assert re.search(r"^A is better \(McNemar's exact p = ", result.stdout, re.MULTILINE)
    assert f"A less B: {found['difference']:+.2f} points" in result.stdout
    assert json.loads(verb("compare", noise, good, "--json", "-").stdout)["better"] == "B"


def test_where_there_is_no_evidence_it_says_so(verb: Verb, small_run: Path, tables: tuple[Path, Path]) -> None:
    result = verb("compare", small_run, small_run)
    assert result.returncode == 0
    assert "no evidence that one is better than the other (McNemar's exact p = 1)" in result.stdout
    assert "on the test split" in result.stdout
    other = verb("compare", small_run, tables[0])
    assert other.returncode == 1
    assert "evaluated on different images" in other.stderr
    gone = verb("compare", small_run, "gone")
    assert (gone.returncode, gone.stderr.count("\n")) == (1, 1)
    assert "gone: neither a run folder with predictions nor a file of them" in gone.stderr


def test_a_run_can_be_compared_with_a_file_of_its_own_images(verb: Verb, small_run: Path, tmp_path: Path) -> None:
    table = PredictionTable.load_csv(small_run / "predictions" / "test.csv")
    perfect = dataclasses.replace(table, probabilities=np.eye(2, dtype=np.float32)[table.targets])
    found = json.loads(verb("compare", perfect.save_csv(tmp_path / "p.csv"), small_run, "--json", "-").stdout)
    assert found["only_b_right"] == 0
    assert found["accuracy_a"] == 100


def test_features_are_those_of_the_network_in_the_order_given(
    verb: Verb, small_run: Path, solar_cells: Path, tmp_path: Path
) -> None:
    (tmp_path / "bad.png").write_bytes(b"no")
    first = min((solar_cells / "defective").iterdir())
    out = tmp_path / "f.npz"
    images = (tmp_path / "bad.png", first, solar_cells / "functional")
    result = verb("features", small_run, *images, "-o", out, "--precision", "fp32")
    assert result.returncode == 1
    assert "bad.png" in result.stderr and "1 could not be read; the other 17 are done" in result.stderr
    with np.load(out, allow_pickle=False) as found:
        paths, values = found["paths"].tolist(), found["features"]
        preprocessing = json.loads(str(found["preprocessing"]))
    network, manifest = load(small_run, with_aux=False)
    assert paths == [str(first), *map(str, sorted((solar_cells / "functional").iterdir()))]
    assert values.shape == (17, network.num_features) and values.dtype == np.float32
    assert preprocessing == manifest.preprocessing.to_json()
    network.eval()
    with torch.no_grad():
        pixels = torch.from_numpy(evaluation_pixels(decode(first), manifest.preprocessing)).permute(2, 0, 1)[None]
        wanted = network.features(normalise(pixels, manifest.preprocessing))[0].numpy()
    assert values[0] == pytest.approx(wanted, abs=1e-4)
    again = verb("features", small_run, first, "-o", out)
    assert again.returncode == 1
    assert "exists already" in again.stderr


def test_many_crops_from_the_command_line(verb: Verb, small_run: Path, solar_cells: Path, tmp_path: Path) -> None:
    names = sorted(path.name for path in (solar_cells / "functional").iterdir())
    excluded = tmp_path / "excluded.txt"
    excluded.write_text("".join(f"{name}\n" for name in names[:2]))
    copy = shutil.copytree(solar_cells, tmp_path / "other")
    (copy / "functional" / names[-1]).unlink()  # other data than the training's: every image counts
    words = ("evaluate", small_run, copy, "--crops", 12, "--scales", "80", "--exclude", excluded, "--json", "-")
    result = verb(*words)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["protocol"] == "12 crops (scale 80)"
    assert (found["num_images"], found["num_excluded"]) == (29, 2)
    wrong = verb("evaluate", small_run, solar_cells, "--scales", "80")
    assert (wrong.returncode, "scales are for" in wrong.stderr) == (2, True)


def test_evaluate_judges_the_rest_and_fails_where_images_cannot_be_used(
    verb: Verb, small_run: Path, solar_cells: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(solar_cells, tmp_path / "spoilt")
    first = min((copy / "functional").iterdir())
    first.write_bytes(first.read_bytes()[:500])
    out = tmp_path / "evaluation.json"
    words = ("evaluate", small_run, copy, "--json", out, "--predictions", tmp_path / "p.csv")
    result = verb(*words)
    assert result.returncode == 1
    assert f"functional/{first.name}: is truncated" in result.stderr
    assert "1 of 32 images cannot be used; --exclude leaves them out" in result.stderr.splitlines()[-1]
    found = json.loads(out.read_text(encoding="utf-8"))
    assert (found["num_images"], len(found["refused"])) == (31, 1)
    assert len((tmp_path / "p.csv").read_text().splitlines()) == 32
    (tmp_path / "bad.txt").write_text(f"functional/{first.name}\n")
    assert verb("evaluate", small_run, copy, "--exclude", tmp_path / "bad.txt").returncode == 0
