"""Manifests as labelled records: what they may hold, what is refused with its line, and how large they may be."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from reinception.data.loading.evaluation_stream import evaluation_batches
from reinception.data.loading.loader import TrainingStream
from reinception.data.sources.open_source import open_source
from reinception.data.sources.records import Record
from reinception.data.sources.split import assign_splits
from reinception.errors import ReinceptionError, UsageError
from reinception.preprocess import Preprocessing


def write(path: Path, *lines: str) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def test_rows_become_records_relative_to_the_manifest(tmp_path):
    path = write(
        tmp_path / "cells.csv",
        "label,path,extra,split,group,stratum,probability",
        "cat,a/1.png,x,train,p1,tabby,1",
        'dog,"b, c/2.png",y,validation,,,0.75',
        "dog,b/3.png,,,p1,,",
    )
    source = open_source(path)
    assert (source.name, source.root, source.classes) == ("cells", tmp_path, ("cat", "dog"))
    assert list(source.records) == [
        Record(path=tmp_path / "a/1.png", name="a/1.png", target=0, split="train", group="p1", stratum="tabby"),
        Record(path=tmp_path / "b, c/2.png", name="b, c/2.png", target=1, split="val", certainty=0.75),
        Record(path=tmp_path / "b/3.png", name="b/3.png", target=1, group="p1"),
    ]
    assert source.splits == ("train", "val")
    assert [record.name for record in source.split("val")] == ["b, c/2.png"]
    assert source.records[1:] == list(source.records)[1:]
    assert source.records[-1] == source.records[2]
    with pytest.raises(IndexError):
        source.records[3]


def test_json_lines_say_the_same_as_csv(tmp_path):
    rows = [{"path": "ä/1.png", "label": 3, "split": None}, {"path": "2.png", "label": 7, "probability": 0.5}]
    lines = write(tmp_path / "m.jsonl", *(json.dumps(row) for row in rows), "")
    table = write(tmp_path / "m.csv", "path,label,probability", "ä/1.png,3,", "2.png,7,0.5")
    assert open_source(lines).records == open_source(table).records
    assert open_source(lines).classes == ("3", "7")


def test_another_column_can_be_the_group(tmp_path):
    path = write(tmp_path / "m.csv", "path,label,patient", "1.png,a,p", "2.png,b,p")
    assert [record.group for record in open_source(path, group_column="patient").records] == ["p", "p"]
    assert [record.group for record in open_source(path).records] == [None, None]
    with pytest.raises(UsageError, match=r"lacks 'ward'; it has 'path', 'label', 'patient'"):
        open_source(path, group_column="ward")
    with pytest.raises(UsageError, match=r"only a \.csv or \.jsonl"):
        open_source("elpv", group_column="ward")


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (["path,label", "1.png,a", "1.png,b"], r"line 3: '1\.png' is listed twice"),
        (["path,label", ",a"], "line 2: the path is empty"),
        (["path,label", "1.png,"], "line 2: the label is empty"),
        (["path,label", "1.png,a,b"], "line 2: has 3 fields, not 2"),
        (["path,label,split", "1.png,a,train", "2.png,b,holdout"], "line 3: the split 'holdout' is none of train"),
        (["path,label,probability", "1.png,a,1.5"], r"line 2: the probability '1\.5' is not a number from 0 to 1"),
        (["path,label,probability", "1.png,a,nan"], "line 2: the probability 'nan'"),
        (["path,species", "1.png,a"], "lacks 'label'; it has 'path', 'species'"),
        (["path,label", "1.png,a", "2.png,a"], "only one class"),
        (
            ["path,label,split", "1.png,a,train", "2.png,b,train", "3.png,c,test"],
            "class 'c' occurs in test but not in train",
        ),
        (["path,label"], "lists no images"),
        ([], "lacks 'label', 'path'"),
        (["path,label", '"1.png,a'], "is not CSV"),
    ],
)
def test_a_faulty_manifest_is_refused_with_its_line(tmp_path, lines, says):
    path = write(tmp_path / "m.csv", *lines)
    with pytest.raises(ReinceptionError, match=says) as caught:
        open_source(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("line", "says"), [("[1]", "is not a JSON object"), ('{"path"', "is not one JSON object")])
def test_faulty_json_lines_are_refused(tmp_path, line, says):
    with pytest.raises(ReinceptionError, match=says):
        open_source(write(tmp_path / "m.jsonl", line))


def test_a_manifest_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ReinceptionError, match=r"m\.csv: cannot be read"):
        open_source(tmp_path / "m.csv")


def test_a_manifest_is_split_trained_on_and_evaluated_like_a_folder(tmp_path):
    for index in range(40):
        Image.new("L", (9, 9), index).save(tmp_path / f"{index}.png")
    rows = [f"{index}.png,{'ab'[index % 2]}" for index in range(40)]
    source = assign_splits(open_source(write(tmp_path / "m.csv", "path,label", *rows)), seed=1)
    folder = tmp_path / "copy"
    for index in range(40):
        (folder / "ab"[index % 2]).mkdir(parents=True, exist_ok=True)
        (folder / "ab"[index % 2] / f"{index}.png").write_bytes((tmp_path / f"{index}.png").read_bytes())
    assert {split: len(source.split(split)) for split in source.splits} == {
        split: len(assign_splits(open_source(folder)).split(split)) for split in source.splits
    }
    stream = TrainingStream(source.split("train"), input_size=8, augmentation="none", batch_size=4, seed=0, workers=0)
    batch = next(stream.batches())
    assert batch.targets.tolist() == [source.split("train")[index].target for index in batch.indices.tolist()]
    scored, *_ = evaluation_batches(source.split("test"), Preprocessing(input_size=8), batch_size=99, workers=2)
    assert scored.bad == ()
    assert [int(image.max()) for image in scored.images] == [
        int(record.name.removesuffix(".png")) for record in source.split("test")
    ]


def test_a_label_that_is_not_certain_becomes_probabilities(tmp_path):
    for name in ("1.png", "2.png", "3.png"):
        Image.new("L", (4, 4)).save(tmp_path / name)
    path = write(tmp_path / "m.csv", "path,label,probability", "1.png,a,0.7", "2.png,b,", "3.png,c,1")
    options: dict[str, Any] = {"input_size": 4, "augmentation": "none", "batch_size": 3, "seed": 0, "workers": 0}
    batch = next(TrainingStream(open_source(path).records, num_classes=3, **options).batches())
    expected = np.array([[0.7, 0.15, 0.15], [0, 1, 0], [0, 0, 1]], dtype=np.float32)
    assert batch.labels.numpy() == pytest.approx(expected[batch.indices.numpy()])
    with pytest.raises(ReinceptionError, match="not certain"):
        next(TrainingStream(open_source(path).records, **options).batches())
    certain = write(tmp_path / "certain.csv", "path,label", "1.png,a", "2.png,b", "3.png,c")
    batch = next(TrainingStream(open_source(certain).records, num_classes=3, **options).batches())
    assert batch.labels is batch.targets


def test_what_is_left_out_changes_no_fingerprint(tmp_path):
    for name in ("1.png", "2.png", "3.png"):
        Image.new("L", (4, 4)).save(tmp_path / name)
    source = open_source(write(tmp_path / "m.csv", "path,label", "1.png,a", "2.png,b", "3.png,b"))
    rest = source.without(frozenset({"3.png"}))
    assert [record.name for record in rest.records] == ["1.png", "2.png"]
    assert rest.fingerprint == source.fingerprint
    with pytest.raises(ReinceptionError, match=r"not there: '9\.png'"):
        source.without(frozenset({"9.png"}))


def test_a_million_entries_are_indexed_within_500_megabytes(tmp_path):
    path = tmp_path / "million.csv"
    numbers = np.arange(1_000_000)
    with path.open("w") as file:
        file.write("path,label,split,group\n")
        file.writelines(f"part{n % 997}/photo_{n:08d}.jpg,class{n % 1000},train,patient{n // 7}\n" for n in numbers)
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from reinception.data.sources.open_source import open_source\n"
        "source = open_source(sys.argv[1])\n"
        # ru_maxrss would count what the parent had before this program took its place.
        "peak = Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0]\n"
        "print(len(source.records), len(source.classes), source.records[-1].name, int(peak) / 1024)\n"
    )
    said = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=True).stdout
    num, classes, last, mebibytes = said.split()
    assert (num, classes, last) == ("1000000", "1000", "part8/photo_00999999.jpg")
    assert float(mebibytes) < 500
