"""Every verb among hostile names, on streams that are not UTF-8, without a home, temporary folder or descriptors."""

from __future__ import annotations

import io
import json
import os
import resource
import shutil
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from command import SMALLEST
from processes import READ_ONLY, SOAK, ends, start, surrounded
from reinception.data.sources.open_source import open_source
from reinception.metrics import PredictionTable

NAMES = (
    *("a\nb.png", os.fsdecode(b"p\xe4.png"), "-dash.png", " space .png", "quote\"'`$.png", "x" * 251 + ".png"),
    *("日本.png", "tab\t.png"),
)
LONGEST = 255


@dataclass(frozen=True, kw_only=True)
class Place:
    """A model, a run, and a folder of class folders whose images have hostile names, two lists of predictions."""

    model: Path
    run: Path
    data: Path
    tables: tuple[Path, Path]

    @property
    def names(self) -> set[str]:
        return {f"{folder.name}/{name}" for folder in self.data.iterdir() for name in NAMES}


@pytest.fixture(scope="module")
def hostile(place: Path, small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    root = tmp_path_factory.mktemp("hostile")
    images = {folder.name: sorted(folder.iterdir()) for folder in (place / "images").iterdir()}
    solar = iter(open_source("elpv").records)
    for label in sorted(images):
        (root / "data" / label).mkdir(parents=True)
        for name in NAMES:
            shutil.copy(next(solar).path, root / "data" / label / name)
    tables = (root / "one.csv", root / "other.csv")
    for table in tables:
        shutil.copy(small_run / "predictions" / "test.csv", table)
    return Place(model=place / "model.safetensors", run=small_run, data=root / "data", tables=tables)


BRIEFLY = ("--against", "none", "--batch-size", "1", "--rounds", "1", "--precision", "fp32", "--skip-compiled")
Words = Callable[[Place, Path], list[object]]
VERBS: dict[str, tuple[str, Words]] = {  # by verb, the ending of its result and its command line
    "predict": (".json", lambda at, out: ["predict", at.model, at.data, "--json", out]),
    "features": (".npz", lambda at, out: ["features", at.model, at.data, "-o", out]),
    "evaluate": (".json", lambda at, out: ["evaluate", at.model, at.data, "--json", out]),
    "data check": (".json", lambda at, out: ["data", "check", at.data, "--workers", 1, "--json", out]),
    "data split": (".csv", lambda at, out: ["data", "split", at.data, "--no-compare", "-o", out]),
    "data pack": ("", lambda at, out: ["data", "pack", at.data, "-o", out]),
    "train": ("", lambda at, out: ["train", at.data, "-o", out, "--epochs", 1, *SMALLEST]),
    "report": (".html", lambda at, out: ["report", at.run, "-o", out]),
    "compare": (".json", lambda at, out: ["compare", *at.tables, "--json", out]),
    "draw": (".svg", lambda at, out: ["draw", "inception_v3", "-o", out]),
    "weights identify": (".json", lambda at, out: ["weights", "identify", at.model, "--json", out]),
    "score": (".json", lambda at, out: ["score", at.data, at.data, "--weights", at.model, "--json", out]),
    "export": ("", lambda at, out: ["export", at.model, "-o", out, "--check", at.data]),
    "rewrite check": (".json", lambda at, out: ["rewrite", "check", at.model, "--json", out]),
    "bench": (".json", lambda at, out: ["bench", at.model, *BRIEFLY, "--json", out]),
    "recipe find-rate": (
        ".csv",
        lambda at, out: ["recipe", "find-rate", at.data, "--steps", 10, "--csv", out, *SMALLEST],
    ),
    "recipe suggest": (".json", lambda at, out: ["recipe", "suggest", at.data, "--time-budget", "1s", "--json", out]),
    "ablate": ("", lambda at, out: ["ablate", at.data, "-o", out, "--table", 2, "--epochs", 1, *SMALLEST[:2]]),
    "doctor": (".json", lambda at, out: ["doctor", "--json", out]),
    "models": (".json", lambda at, out: ["models", "--json", out]),
    "show": (".json", lambda at, out: ["show", "inception_v3", "--json", out]),
    "recipe show": (".json", lambda at, out: ["recipe", "show", "fine_tune", "--json", out]),
}
DAILY = {
    *("predict", "features", "evaluate", "data check", "data split", "data pack", "train", "report", "compare"),
    *("draw", "weights identify", "score", "export"),
}
TAKE_WORKERS = {"predict", "features", "evaluate", "data check", "data pack", "train", "score", "recipe find-rate"}


def _each(daily: Collection[str], without: Collection[str] = ()) -> list[Any]:
    """Every verb, those that are not `daily` in the soak only."""
    return [pytest.param(verb, marks=[] if verb in daily else SOAK) for verb in VERBS if verb not in without]


def ascii_streams() -> None:
    """As PYTHONIOENCODING=ascii makes them."""
    sys.stdout = io.TextIOWrapper(os.fdopen(1, "wb", closefd=False), encoding="ascii")
    sys.stderr = io.TextIOWrapper(os.fdopen(2, "wb", closefd=False), encoding="ascii", write_through=True)


def few_descriptors(num: int) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (num, num))


def is_one_line(log: Path) -> bool:
    said = log.read_text(encoding="utf-8", errors="replace")
    return "Traceback" not in said and "fault of reinception" not in said and "reinception: " in said.splitlines()[-1]


@pytest.mark.parametrize("verb", _each(DAILY))
def test_names_that_the_file_system_allows_are_read_and_written_whatever_the_streams(
    verb: str, hostile: Place, tmp_path: Path
) -> None:
    ending, words = VERBS[verb]
    longest = LONGEST - len(".job") if verb == "features" else LONGEST  # beside it, features keeps its job
    begin = b"-\n" if verb == "export" else b"-\xe4\n"  # the runtimes open no file whose path is not UTF-8
    out = tmp_path / (os.fsdecode(begin) + "y" * (longest - len(begin) - len(ending)) + ending)
    log = tmp_path / "log"
    assert ends(start(words(hostile, out), log, before=ascii_streams)) == [0], log.read_text(errors="replace")[-2000:]
    assert out.exists()
    if verb in ("data split", "data pack"):
        names = {record.name for record in open_source(out).records}
        assert names == {f"{hostile.data}/{name}" if verb == "data split" else name for name in hostile.names} or (
            verb == "data split" and {Path(name).name for name in names} == set(NAMES)
        )
    elif verb == "train":
        table = PredictionTable.load_csv(out / "predictions" / "test.csv")
        assert set(table.names) <= hostile.names
    elif verb == "predict":
        found = json.loads(out.read_text(encoding="utf-8"))
        assert {Path(one["path"]).name for one in found} == set(NAMES)


def test_a_folder_that_no_runtime_could_open_is_refused_before_the_export_begins(
    hostile: Place, tmp_path: Path
) -> None:
    out, log = tmp_path / os.fsdecode(b"\xe4"), tmp_path / "log"
    assert ends(start(["export", hostile.model, "-o", out], log)) == [1]
    assert is_one_line(log) and "its path is not UTF-8" in log.read_text(errors="replace") and not out.exists()


@pytest.mark.parametrize("verb", _each({"predict", "data check"}))
def test_no_home_no_cache_and_no_temporary_folder_are_needed(verb: str, hostile: Place, tmp_path: Path) -> None:
    ending, words = VERBS[verb]
    nowhere = dict.fromkeys(("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "TMPDIR", "MPLCONFIGDIR"), "/dev/null/no")
    log, out = tmp_path / "log", tmp_path / f"out{ending}"
    assert ends(start(words(hostile, out), log, environment=nowhere)) == [0], log.read_text(errors="replace")[-2000:]
    assert out.exists()


@pytest.mark.parametrize("verb", _each({"features", "data check"}, without=VERBS.keys() - TAKE_WORKERS))
def test_with_few_descriptors_the_work_is_done_or_one_line_says_what_to_do_before_it_begins(
    verb: str, hostile: Place, tmp_path: Path
) -> None:
    ending, words = VERBS[verb]
    log, out = tmp_path / "log", tmp_path / f"out{ending}"
    many = words(hostile, out)
    if "--workers" in many:
        del many[many.index("--workers") : many.index("--workers") + 2]
    many += ["--workers", 24]
    (code,) = ends(start(many, log, before=partial(few_descriptors, 64)))
    assert code == 1, log.read_text()[-2000:]
    assert is_one_line(log)
    last = log.read_text().splitlines()[-1]
    assert "--workers 24 needs about" in last and "raise the limit (`ulimit -n`)" in last
    assert not out.exists() or not any(out.glob("*.safetensors"))
    fewer = last.partition("use --workers ")[2].partition(",")[0]
    assert 0 < int(fewer) < 24


@pytest.mark.parametrize("verb", [pytest.param("report"), pytest.param("data split", marks=SOAK)])
def test_few_descriptors_are_enough_for_what_starts_no_processes(verb: str, hostile: Place, tmp_path: Path) -> None:
    ending, words = VERBS[verb]
    log, out = tmp_path / "log", tmp_path / f"out{ending}"
    assert ends(start(words(hostile, out), log, before=partial(few_descriptors, 64))) == [0], log.read_text()[-2000:]


@SOAK
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
@pytest.mark.parametrize("verb", VERBS)
def test_with_everything_read_only_but_the_result_the_work_is_done(verb: str, hostile: Place, tmp_path: Path) -> None:
    """/dev/shm, /tmp and the home are read-only file systems, the locale is C, the streams are ASCII."""
    ending, words = VERBS[verb]
    (tmp_path / "out").mkdir()
    asked = (sys.executable, "-m", "reinception", *words(hostile, Path("/mnt") / f"out{ending}"))
    streams = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "HOME": "/srv"}
    done = surrounded(READ_ONLY, 'shift; exec "$@"', tmp_path / "out", *asked, environment=streams)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "out" / f"out{ending}").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
@pytest.mark.parametrize("workers", [0, 1])
def test_workers_that_cannot_share_decoded_images_decode_anew_and_that_is_said(
    workers: int, place: Path, tmp_path: Path
) -> None:
    words = ["train", place / "images", "-o", tmp_path / "out", "--epochs", 1, *SMALLEST, "--workers", workers]
    asked = (sys.executable, "-m", "reinception", *words)
    done = surrounded("mount -t tmpfs -o ro tmpfs /dev/shm", 'exec "$@"', *asked, environment={})
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stderr.count("decode each one anew in every epoch; --workers 0 keeps them") == workers
