"""Jobs over many images: written as they come, in parts or whole, continued to the same bytes after any kill."""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

import reinception as ri
from processes import ends, start
from reinception import cli, family
from reinception.inference.jobs import journal, result_files
from reinception.inference.jobs.journal import Journal, read_state
from reinception.inference.shard import Shard
from reinception.model.artifact import Manifest, save
from reinception.model.build import build
from reinception.preprocess import Preprocessing

ROWS = 200


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    arch = family.network("inception_v3", num_classes=3, width=0.05, input_size=75, aux="none")
    manifest = Manifest(arch=arch, classes=("a", "b", "=c"), preprocessing=Preprocessing(input_size=75))
    path = tmp_path_factory.mktemp("model") / "m.safetensors"
    save(build(arch, seed=0), path, manifest)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty small images, of which one is none, one has a name of a formula and one a name that is not UTF-8."""
    root = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    names = [f"{index:02}.png" for index in range(18)] + ["=é,.png", "\udcff.png"]
    for name in names:
        Image.fromarray(generator.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(root / "x.png")
        os.rename(root / "x.png", root / name)
    (root / "07.png").write_bytes(b"no")
    return root


@pytest.fixture(scope="module")
def listed(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return manifest_of(folder, tmp_path_factory.mktemp("listed") / "m.jsonl", ROWS)


@pytest.fixture(scope="module")
def many(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """More rows than are done before a signal comes."""
    return manifest_of(folder, tmp_path_factory.mktemp("many") / "m.jsonl", 20_000)


def manifest_of(folder: Path, path: Path, rows: int) -> Path:
    names = sorted(one.name for one in folder.iterdir() if one.name.isascii())
    lines = (json.dumps({"path": str(folder / names[index % len(names)])}) for index in range(rows))
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def run(*words: object) -> int:
    return cli.main([*map(str, words), "--workers", "0"])


def job_of(out: Path) -> Path:
    return out.with_name(f"{out.name}.job")


# -- what is written -----------------------------------------------------------------------------------------------


def test_csv_jsonl_and_parquet_hold_the_same_predictions_and_a_bad_image_is_a_row(
    model: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outs = [tmp_path / f"p{ending}" for ending in (".csv", ".jsonl", ".parquet")]
    for out in outs:
        assert run("predict", model, folder, "--top", 2, "-o", out) == 1  # one is bad
        assert not job_of(out).exists()
    said = capsys.readouterr()
    assert said.out.splitlines()[0] == f"{outs[0]}: 20 rows, 1 of them without a result"
    assert "07.png: is not an image" in said.err and "1 could not be read; the other 19 are done" in said.err
    found = [json.loads(line) for line in outs[1].read_text().splitlines()]
    assert [one["error"] is None for one in found].count(False) == 1
    wanted = ri.predict(model, folder, top=2)
    assert found == [one.to_json() for one in wanted]
    rows = pyarrow.parquet.read_table(outs[2]).to_pylist()
    with outs[0].open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        lines = list(csv.DictReader(file))
    header = ["path", "label", "probability", "label_2", "probability_2", "error"]
    assert list(lines[0]) == header == list(rows[0])
    for one, row, line in zip(wanted, rows, lines, strict=True):
        assert row["path"] == one.path.encode(errors="surrogateescape").decode(errors="backslashreplace")
        assert line["path"] == one.path
        assert row["error"] == one.error and line["error"] == (one.error or "")
        for number, suffix in enumerate(("", "_2")):
            label = one.labels[number] if one.labels else None
            assert row[f"label{suffix}"] == (label and label.label)
            assert line[f"label{suffix}"].removeprefix("'") == (label.label if label else "")
            number_in_csv = line[f"probability{suffix}"]
            assert (float(number_in_csv) if number_in_csv else None) == (label and label.probability)
            in_parquet = row[f"probability{suffix}"]
            assert (None if in_parquet is None else float(str(np.float32(in_parquet)))) == (label and label.probability)


def test_features_are_the_same_in_all_four_files(model: Path, folder: Path, tmp_path: Path) -> None:
    wanted = ri.features(model, folder)
    for ending in (".npz", ".csv", ".jsonl", ".parquet"):
        assert run("features", model, folder, "-o", tmp_path / f"f{ending}") == 1
    with np.load(tmp_path / "f.npz", allow_pickle=False) as read:
        assert set(read.files) == {"features", "paths", "failed", "reasons", "network", "preprocessing"}
        assert read["features"].tobytes() == wanted.values.tobytes() and read["features"].dtype == np.float32
        assert read["paths"].tolist() == list(wanted.paths)
        assert dict(zip(read["failed"].tolist(), read["reasons"].tolist(), strict=True)) == wanted.errors
    with (tmp_path / "f.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        lines = list(csv.reader(file))
    assert lines[0][:3] == ["path", "error", "features_0"]
    numbers = np.array([line[2:] for line in lines[1:] if not line[1]], dtype=np.float32)
    assert numbers.tobytes() == wanted.values.tobytes()
    objects = [json.loads(line) for line in (tmp_path / "f.jsonl").read_text().splitlines()]
    numbers = np.array([one["features"] for one in objects if one["features"]], dtype=np.float32)
    assert numbers.tobytes() == wanted.values.tobytes()
    column = pyarrow.parquet.read_table(tmp_path / "f.parquet")["features"].to_pylist()
    assert [one is None for one in column].count(True) == 1
    assert np.array([one for one in column if one], dtype=np.float32).tobytes() == wanted.values.tobytes()


def test_probabilities_of_all_classes_fit_in_an_npz(model: Path, folder: Path, tmp_path: Path) -> None:
    assert run("predict", model, folder, "-o", tmp_path / "p.npz") == 1
    wanted = [one for one in ri.predict(model, folder) if one.probabilities is not None]
    with np.load(tmp_path / "p.npz", allow_pickle=False) as read:
        assert read["classes"].tolist() == ["a", "b", "=c"]
        assert read["probabilities"].tolist() == [one.probabilities.tolist() for one in wanted]  # pyrefly: ignore


def test_parquet_of_several_row_groups_is_whole(
    model: Path, listed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(result_files, "GROUP_ROWS", 64)
    for verb, column in (("predict", "label"), ("features", "features")):
        out = tmp_path / f"{verb}.parquet"
        assert run(verb, model, listed, "-o", out) == 1
        table = pyarrow.parquet.read_table(out)
        assert table.num_rows == ROWS and pyarrow.parquet.ParquetFile(out).num_row_groups == 4
        assert [one is None for one in table[column].to_pylist()] == [
            error is not None for error in table["error"].to_pylist()
        ]


def test_an_output_is_never_overwritten_and_wrong_words_cost_nothing(
    model: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "p.csv"
    out.write_text("mine")
    assert run("predict", model, folder, "-o", out) == 1
    assert "exists already" in capsys.readouterr().err
    assert run("predict", model, folder, "-o", out, "--resume") == 0
    assert "nothing to do" in capsys.readouterr().out
    assert out.read_text() == "mine"
    for words, said in (
        (["-o", tmp_path / "p.txt"], "the ending of -o says what is written: .csv, .jsonl, .npz, .parquet"),
        (["--resume"], "--resume needs -o"),
        (["--shard", "1/2"], "--shard needs -o"),
        (["-o", tmp_path / "q.csv", "--shard", "0/2"], "'0/2' is not a shard such as 1/8"),
        (["-o", tmp_path / "q.csv", "--shard", "3/2"], "'3/2' is not a shard"),
        (["-o", tmp_path / "q.csv", "--csv", tmp_path / "r.csv"], "exclude each other"),
        (["-o", tmp_path / "q.csv", "--cascade"], "-o and --cascade exclude each other"),
    ):
        assert run("predict", model, folder, *words) == 2
        assert said in capsys.readouterr().err
    assert [one.name for one in tmp_path.iterdir()] == ["p.csv"]


def test_a_folder_in_the_way_that_is_no_jobs_is_left_alone(
    model: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job_of(tmp_path / "p.csv").mkdir()
    (job_of(tmp_path / "p.csv") / "rows.csv").write_text("mine")
    assert run("predict", model, folder, "-o", tmp_path / "p.csv", "--resume") == 1
    assert "is in the way and not ours" in capsys.readouterr().err
    assert (job_of(tmp_path / "p.csv") / "rows.csv").read_text() == "mine"


# -- shards ----------------------------------------------------------------------------------------------------------


def test_shards_one_after_another_are_the_list() -> None:
    for num, of in ((10, 3), (2, 5), (0, 2), (1000, 7)):
        parts = [Shard(number=number, of=of).range(num) for number in range(1, of + 1)]
        assert [index for part in parts for index in part] == list(range(num))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("verb", ["predict", "features"])
def test_two_shards_in_parallel_and_together_equal_one(verb: str, model: Path, listed: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole.jsonl"
    assert run(verb, model, listed, "-o", whole) == 1
    outs = [tmp_path / f"{number}.jsonl" for number in (1, 2)]
    started = [
        start([verb, model, listed, "-o", out, "--shard", f"{number}/2"], tmp_path / f"log{number}")
        for number, out in enumerate(outs, start=1)
    ]
    assert ends(*started) == [1, 1]
    assert b"".join(out.read_bytes() for out in outs) == whole.read_bytes()


def test_a_shard_of_few_images_has_the_bits_of_the_whole(model: Path, folder: Path, tmp_path: Path) -> None:
    """Few images are computed one by one, with another rounding; what counts is how many the whole list has."""
    outs = [tmp_path / f"{number}.jsonl" for number in range(1, 6)]
    for number, out in enumerate(outs, start=1):
        run("predict", model, folder, "-o", out, "--shard", f"{number}/5")
    found = [json.loads(line) for out in outs for line in out.read_text().splitlines()]
    assert found == [one.to_json() for one in ri.predict(model, folder)]


# -- going on --------------------------------------------------------------------------------------------------------


def commit_often() -> None:
    journal.COMMIT_SECONDS = 0.0


def killed_and_resumed(words: list[object], out: Path, *, kills: int, rows: int, seed: int) -> list[int]:
    """Kill a job at random moments, go on until it is done: how many rows were committed at each kill."""
    generator, seen = random.Random(seed), []
    for kill in range(kills):
        process = start([*words, "-o", out, "--resume"], out.with_suffix(".log"), before=commit_often)
        wanted = generator.randrange(rows * kill // (kills + 1), rows * (kill + 1) // (kills + 1))
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and process.is_alive() and committed(out) < wanted:
            time.sleep(0.002)
        time.sleep(generator.random() * 0.05)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        assert ends(process) == [-signal.SIGKILL]
        seen.append(committed(out))
    return seen


def committed(out: Path) -> int:
    try:
        return read_state(job_of(out)).rows
    except ri.ReinceptionError:
        return 0


@pytest.mark.parametrize(
    ("verb", "ending", "rows", "kills"),
    [
        ("predict", ".csv", ROWS, 3),
        ("features", ".parquet", ROWS, 1),
        ("features", ".npz", ROWS, 1),
        pytest.param("predict", ".jsonl", 20_000, 10, marks=pytest.mark.slow),
        pytest.param("features", ".parquet", 20_000, 10, marks=pytest.mark.slow),
    ],
)
def test_a_job_killed_at_random_moments_and_resumed_equals_an_uninterrupted_one_byte_for_byte(
    verb: str, ending: str, rows: int, kills: int, model: Path, folder: Path, tmp_path: Path
) -> None:
    listed = manifest_of(folder, tmp_path / "m.jsonl", rows)
    words: list[object] = [verb, model, listed]
    whole, out = tmp_path / f"whole{ending}", tmp_path / f"out{ending}"
    assert run(*words, "-o", whole) == 1
    seen = killed_and_resumed(words, out, kills=kills, rows=rows, seed=rows)
    assert not out.exists() and any(0 < one < rows for one in seen), seen
    assert seen == sorted(seen)
    assert run(*words, "-o", out, "--resume") == 1
    assert out.read_bytes() == whole.read_bytes()
    assert not job_of(out).exists()
    assert not [one for one in tmp_path.iterdir() if one.name.startswith(".")]


def interrupted(model: Path, listed: Path, out: Path, *more: object) -> None:
    """A job that Ctrl-C has stopped after some rows."""
    process = start(["predict", model, listed, "-o", out, *more], out.with_suffix(".log"), before=commit_often)
    deadline = time.monotonic() + 60
    while committed(out) == 0 and time.monotonic() < deadline:
        time.sleep(0.002)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGINT)
    assert ends(process) == [130]


def test_ctrl_c_names_the_command_that_goes_on(model: Path, many: Path, tmp_path: Path) -> None:
    out = tmp_path / "p.csv"
    interrupted(model, many, out)
    said = out.with_suffix(".log").read_text()
    assert f"interrupted; to go on: reinception predict {model} {many} -o {out} --resume" in said
    assert "Traceback" not in said
    assert not out.exists() and read_state(job_of(out)).rows > 0


def test_a_job_goes_on_only_with_the_same_words_model_and_images(
    model: Path, folder: Path, many: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, words = tmp_path / "p.csv", ["predict", model, many, "-o", tmp_path / "p.csv"]
    interrupted(model, many, out)
    other = tmp_path / "other.safetensors"
    save(build(ri.load(model).network.arch, seed=1), other, ri.load(model).manifest)
    more = manifest_of(folder, tmp_path / "n.jsonl", 100)
    more.write_text("\n".join(reversed(more.read_text().splitlines())))
    for changed, said in (
        (words, "--resume continues it"),
        ([*words, "--resume", "--top", 1], "top: 5 then, 1 now"),
        ([*words, "--resume", "--shard", "1/2"], "shard: none then, 1/2 now"),
        (["predict", other, *words[2:], "--resume"], "model: "),
        (["predict", model, more, *words[3:], "--resume"], "the images are no longer those of the first"),
        (["features", *words[1:], "--resume"], "verb: predict then, features now"),
    ):
        assert run(*changed) == 1
        assert said in capsys.readouterr().err
    rows = job_of(out) / "rows.csv"
    rows.write_bytes(rows.read_bytes()[:20])
    assert run(*words, "--resume") == 1
    assert "is shorter than its job left it" in capsys.readouterr().err
    (job_of(out) / "state.json").write_text("{")
    assert run(*words, "--resume") == 1
    assert "state.json: cannot be read" in capsys.readouterr().err


def test_one_process_at_a_time_writes_an_output(tmp_path: Path) -> None:
    out = tmp_path / "x.csv"
    with (
        Journal(out, {}, {"rows": b""}, resume=True),
        pytest.raises(ri.ReinceptionError, match=f"process {os.getpid()} is writing this output"),
        Journal(out, {}, {"rows": b""}, resume=True),
    ):
        pass


def test_a_finished_job_whose_folder_a_kill_has_left_is_tidied(model: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "p.csv"
    with Journal(out, {}, {"rows.csv": b"x\n"}, resume=False) as one:
        one.commit()
        out.write_text("x\n")
    assert run("predict", model, folder, "-o", out, "--resume") == 0
    assert not job_of(out).exists() and out.read_text() == "x\n"


def test_processes_that_start_the_same_array_of_jobs_twice_do_the_rest(
    model: Path, listed: Path, tmp_path: Path
) -> None:
    """A job array is started again as a whole: finished parts are left, the others go on."""
    outs = [tmp_path / f"{number}.jsonl" for number in (1, 2, 3)]
    words = [
        ["predict", model, listed, "-o", out, "--shard", f"{number}/3", "--resume"]
        for number, out in enumerate(outs, 1)
    ]
    assert run(*words[0]) == 1
    before = outs[0].stat().st_mtime_ns
    with ThreadPoolExecutor() as pool:
        codes = list(pool.map(lambda one: ends(start(one, one[4].with_suffix(".log")))[0], words))  # pyrefly: ignore
    assert codes == [0, 1, 1]
    assert outs[0].stat().st_mtime_ns == before
    assert sum(len(out.read_text().splitlines()) for out in outs) == ROWS


PEAK = """
import resource, sys
from reinception.cli import main

code = main(["features", *sys.argv[1:], "--workers", "0", "--backend", "torch"])
assert code == 1, code  # one of the images is none
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def test_a_job_of_many_images_takes_no_more_memory_than_of_few(model: Path, folder: Path, tmp_path: Path) -> None:
    """Also the files that are made of the finished rows."""
    peaks = []
    for rows in (200, 4000):
        listed = manifest_of(folder, tmp_path / f"{rows}.jsonl", rows)
        words = [sys.executable, "-c", PEAK, *map(str, (model, listed, "-o", tmp_path / f"{rows}.npz"))]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout.splitlines()[-1]))
        with np.load(tmp_path / f"{rows}.npz") as read:
            assert len(read["paths"]) + len(read["failed"]) == rows
    assert peaks[1] - peaks[0] < 30, peaks
