"""Prediction and features of many images: written as they come, in bounded memory, whole or not at all."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reinception import family
from reinception.errors import BadImage, ReinceptionError, UsageError
from reinception.files import write_json
from reinception.inference.compute import Compute
from reinception.inference.features import features, features_stream
from reinception.inference.predict import csv_writer, json_writer, predict, predict_stream
from reinception.inference.stream import expand
from reinception.model.artifact import Manifest, Model, save
from reinception.model.build import build
from reinception.preprocess import Preprocessing

HERE = Compute(workers=0)


@pytest.fixture(scope="module")
def model() -> Model:
    arch = family.network("inception_v3", num_classes=3, width=0.05, input_size=75, aux="none")
    manifest = Manifest(arch=arch, classes=("a", "b", "c"), preprocessing=Preprocessing(input_size=75))
    return Model(build(arch, seed=0).eval(), manifest)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty small images, of which one is none."""
    root = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for index in range(20):
        Image.fromarray(generator.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(root / f"{index:02}.png")
    (root / "07.png").write_bytes(b"no")
    return root


def manifest_of(folder: Path, path: Path, rows: int) -> Path:
    names = sorted(one.name for one in folder.iterdir())
    with path.open("w") as file:
        file.write("note,path\n")
        file.writelines(f"x,{folder / names[index % len(names)]}\n" for index in range(rows))
    return path


def test_a_manifest_means_its_images_in_its_order_and_as_often_as_it_lists_them(
    model: Model, folder: Path, tmp_path: Path
) -> None:
    listed = manifest_of(folder, tmp_path / "m.csv", 45)
    lines = tmp_path / "m.jsonl"
    lines.write_text('{"path": "near.png", "label": "a"}\n{"path": "https://host/far.png"}\n')
    (tmp_path / "near.png").write_bytes((folder / "00.png").read_bytes())
    found = predict(model, [listed, lines, folder / "01.png"], compute=HERE)
    names = sorted(map(str, folder.iterdir()))
    wanted = [*(names[index % 20] for index in range(45)), str(tmp_path / "near.png"), "https://host/far.png"]
    assert [one.path for one in found] == [*wanted, str(folder / "01.png")]
    assert [one.path for one in found if one.error] == [names[7], names[7], "https://host/far.png"]
    alone = predict(model, folder, compute=HERE)
    rows = [one.probabilities.tobytes() for one in (found[1], found[21], alone[1]) if one.probabilities is not None]
    assert len(rows) == 3 and len(set(rows)) == 1


def test_a_damaged_manifest_is_an_error_that_names_the_line(model: Model, tmp_path: Path) -> None:
    for text, message in (
        ('path\na.png\n""\n', "line 3: the path is empty"),
        ("path,label\na.png\n", "line 2: has 1 fields, not 2"),
        ("where\na.png\n", "lacks 'path'"),
    ):
        (tmp_path / "m.csv").write_text(text)
        with pytest.raises(ReinceptionError, match=message):
            predict(model, tmp_path / "m.csv", compute=HERE)
    (missing,) = predict(model, tmp_path / "gone.csv", compute=HERE)
    assert "no such file" in (missing.error or "")


def test_the_listing_is_read_only_a_little_ahead_of_the_results(model: Model, folder: Path) -> None:
    taken = 0

    def endless() -> Iterator[Path]:
        nonlocal taken
        while True:
            taken += 1
            yield folder / "00.png"

    stream = predict_stream(model, endless(), compute=Compute(workers=0, batch_size=4))  # pyrefly: ignore
    assert len(list(islice(stream, 100))) == 100
    assert taken < 200


def test_progress_knows_the_total_when_the_list_is_at_its_end(model: Model, folder: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    progress = Compute(workers=0, batch_size=2, progress=lambda done, total: seen.append((done, total)))
    predict(model, [folder, folder, folder / "none-*.png"], compute=progress)
    assert [done for done, _ in seen] == list(range(1, 42))
    assert seen[0] == (1, None)
    assert seen[-1] == (41, 41)


def test_what_leads_to_no_image_keeps_its_place_in_the_order(model: Model, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    first, second = folder / "00.png", folder / "01.png"
    paths = [tmp_path / "x*.png", first, tmp_path / "empty", folder / "07.png", second, tmp_path / "y*.png"]
    found = predict(model, paths, compute=HERE)
    assert [one.path for one in found] == [str(path) for path in paths]
    assert [one.error is None for one in found] == [False, True, False, False, True, False]
    assert [one.path for one in predict(model, [tmp_path / "x*.png"], compute=HERE)] == [str(tmp_path / "x*.png")]
    assert predict(model, [], compute=HERE) == []
    (nothing,) = expand([tmp_path / "empty"])
    assert isinstance(nothing, BadImage)


def test_json_written_as_it_comes_is_the_json_of_the_whole_list(model: Model, folder: Path, tmp_path: Path) -> None:
    found = predict(model, [folder, tmp_path / "\udcff.png", tmp_path / "é.png"], compute=HERE)
    for number, some in enumerate((found, found[:1], [])):
        with json_writer(tmp_path / f"stream{number}.json") as write:
            for one in some:
                write(one)
        text = (tmp_path / f"stream{number}.json").read_text(encoding="utf-8")
        assert json.loads(text) == [one.to_json() for one in some]
        write_json([one.to_json() for one in some if "\udcff" not in one.path], tmp_path / f"whole{number}.json")
        if number:
            assert text == (tmp_path / f"whole{number}.json").read_text(encoding="utf-8")


def test_a_result_that_is_not_finished_leaves_no_file(model: Model, folder: Path, tmp_path: Path) -> None:
    (one,) = predict(model, folder / "00.png", compute=HERE)
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(KeyboardInterrupt), json_writer(out / "p.json") as write:
        write(one)
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt), csv_writer(out / "p.csv", model.classes) as write:
        write(one)
        raise KeyboardInterrupt
    assert list(out.iterdir()) == []


def test_features_one_by_one_are_those_of_the_list(model: Model, folder: Path) -> None:
    found = features(model, folder, compute=HERE)
    stream = list(features_stream(model, folder, compute=Compute(workers=2, batch_size=3)))
    assert [one.path for one in stream if one.values is not None] == list(found.paths)
    assert np.stack([one.values for one in stream if one.values is not None]).tobytes() == found.values.tobytes()
    assert {one.path: one.error for one in stream if one.error is not None} == found.errors


def test_workers_and_batches_change_no_prediction(model: Model, folder: Path) -> None:
    wanted = [one.to_json() for one in predict(model, folder, compute=HERE)]
    for size, workers in ((1, 0), (7, 2), (100, 1)):
        again = predict(model, folder, compute=Compute(batch_size=size, workers=workers))
        assert [one.to_json() for one in again] == wanted


def test_csv_written_as_it_comes_has_a_row_for_each(model: Model, folder: Path, tmp_path: Path) -> None:
    found = predict(model, folder, compute=HERE)
    with csv_writer(tmp_path / "p.csv", model.classes) as write:
        for one in found:
            write(one)
    with (tmp_path / "p.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == [one.path for one in found]
    assert [row["predicted"] for row in rows] == [one.label or "" for one in found]


def test_compute_refuses_what_makes_no_sense() -> None:
    with pytest.raises(UsageError, match="backend 'x' is unknown"):
        Compute(backend="x")  # pyrefly: ignore[bad-argument-type]
    with pytest.raises(UsageError, match="batch_size must be at least 1"):
        Compute(batch_size=0)


PEAK = """
import resource, sys
from reinception.cli import main

code = main(["predict", sys.argv[1], sys.argv[2], "--json", sys.argv[3], "--workers", sys.argv[4]])
assert code == 1, code  # one of the images is none
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def peak(model: Path, manifest: Path, out: Path, *, workers: int) -> int:
    """MiB that predicting took at most."""
    words = [sys.executable, "-c", PEAK, *map(str, (model, manifest, out, workers))]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return int(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(("few", "many"), [(200, 2000), pytest.param(2000, 20_000, marks=pytest.mark.slow)])
def test_many_images_take_no_more_memory_than_few(
    model: Model, folder: Path, tmp_path: Path, few: int, many: int
) -> None:
    file = tmp_path / "m.safetensors"
    save(model, file)
    peaks = []
    for rows in (few, many):
        listed = manifest_of(folder, tmp_path / f"{rows}.csv", rows)
        peaks.append(peak(file, listed, tmp_path / f"{rows}.json", workers=0))
        with (tmp_path / f"{rows}.json").open() as out:
            assert sum(line.startswith('    "path"') for line in out) == rows
    assert peaks[1] - peaks[0] < 30, peaks  # 11 MiB for 200,000 rows against 2,000
