"""How folders and the solar cells become labelled records, and who of them trains, chooses and judges."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from reinception.data.images.random_stream import RandomStream
from reinception.data.sources.elpv import modules
from reinception.data.sources.open_source import open_source
from reinception.data.sources.records import Record, Source
from reinception.data.sources.split import assign_splits
from reinception.errors import ReinceptionError, UsageError


def plant(root: Path, *names: str) -> Path:
    """A tree with one tiny image under each name, or an empty folder where the name ends with a slash."""
    for name in names:
        path = root / name
        if name.endswith("/"):
            path.mkdir(parents=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (4, 4), len(name)).save(path, "PNG")
    return root


def listing(source: Source) -> dict[str, str]:
    return {record.name: source.classes[record.target] for record in source.records}


def test_class_folders_become_classes_in_sorted_order(tmp_path):
    source = open_source(str(plant(tmp_path / "pets", "dog/1.png", "cat/2.jpg", "cat/deep/er/3.PNG")))
    assert source.name == "pets"
    assert source.classes == ("cat", "dog")
    assert listing(source) == {"cat/2.jpg": "cat", "cat/deep/er/3.PNG": "cat", "dog/1.png": "dog"}
    assert [record.target for record in source.records] == [0, 0, 1]
    assert all(record.path.is_file() and record.split is None for record in source.records)
    assert source.num_ignored == 0
    assert source.splits == ()


@pytest.mark.parametrize("spelling", ["val", "valid", "validation", "Validation"])
def test_split_folders_become_splits_under_one_name(tmp_path, spelling):
    plant(tmp_path, "train/a/1.png", "train/b/2.png", f"{spelling}/a/3.png", "test/b/4.png")
    source = open_source(tmp_path)
    assert source.splits == ("train", "val", "test")
    assert [record.name for record in source.split("val")] == [f"{spelling}/a/3.png"]
    assert [record.name for record in source.split("test")] == ["test/b/4.png"]


def test_a_class_that_is_missing_in_one_split_renumbers_nothing(tmp_path):
    plant(tmp_path, "train/a/1.png", "train/b/2.png", "train/c/3.png", "test/c/4.png", "val/b/5.png")
    source = open_source(tmp_path)
    assert source.classes == ("a", "b", "c")
    assert source.split("test")[0].target == 2
    assert source.split("val")[0].target == 1


def test_hidden_apple_double_and_foreign_files_are_ignored_and_counted(tmp_path):
    plant(
        tmp_path, "a/1.png", "b/2.png", ".ipynb_checkpoints/3.png", "a/._1.png", "a/.hidden/4.png", "__MACOSX/a/1.png"
    )
    (tmp_path / "README.txt").write_text("hello")
    (tmp_path / "a" / "notes.txt").write_text("hello")
    (tmp_path / "b" / "Thumbs.db").write_bytes(b"\xd0\xcf")
    source = open_source(tmp_path)
    assert list(listing(source)) == ["a/1.png", "b/2.png"]
    assert source.num_ignored == 7


def test_an_image_counts_by_content_where_its_name_says_nothing(tmp_path):
    plant(tmp_path, "a/0001", "a/2.dat", "b/3.png")
    assert list(listing(open_source(tmp_path))) == ["a/0001", "a/2.dat", "b/3.png"]


def test_a_file_named_like_an_image_is_listed_so_that_its_refusal_can_be_seen(tmp_path):
    plant(tmp_path, "a/1.png", "b/2.png")
    (tmp_path / "a" / "page.jpg").write_text("<html>")
    (tmp_path / "a" / "phone.HEIC").write_bytes(b"\x00\x00\x00\x1cftypheic")
    (tmp_path / "a" / "lost.png").symlink_to("nowhere.png")
    assert {"a/page.jpg", "a/phone.HEIC", "a/lost.png"} < listing(open_source(tmp_path)).keys()


def test_links_are_followed_but_not_in_circles(tmp_path):
    plant(tmp_path / "elsewhere", "1.png", "2.png")
    plant(tmp_path / "data", "b/3.png")
    (tmp_path / "data" / "a").symlink_to("../elsewhere")
    (tmp_path / "elsewhere" / "again").symlink_to(".")
    (tmp_path / "elsewhere" / "loop").symlink_to("loop")
    source = open_source(tmp_path / "data")
    assert list(listing(source)) == ["a/1.png", "a/2.png", "b/3.png"]
    assert source.num_ignored == 2


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["cat/1.png"], "only one class ('cat')"),
        (["train/cat/1.png", "val/cat/1.png"], "only one class ('cat')"),
        (["cat/1.png", "dog/2.png", "cow/"], "class folder without images ('cow')"),
        (["train/a/1.png", "train/b/1.png", "val/a/"], "class folder without images (val: 'a')"),
        (["train/a/1.png", "train/b/1.png", "val/c/1.png"], "class 'c' occurs in val but not in train"),
        (
            ["train/a/1.png", "train/b/1.png", "test/c/1.png", "val/d/1.png"],
            "class 'c', 'd' occurs in test and val but",
        ),
        (["1.png", "2.png"], "holds no images in class folders; 2 images lie outside"),
        (["train/1.png"], "holds no images in class folders; 1 images lie outside"),
        (["cat/", "dog/"], "holds no images"),
        ([".git/1.png"], "holds no images"),
        (["train/a/1.png", "train/b/1.png", "c/1.png"], "'train' beside 'c'"),
        (["train/a/1.png", "train/b/1.png", "val/a/1.png", "valid/a/1.png"], "'val', 'valid' are all the val split"),
    ],
)
def test_a_folder_that_is_no_classification_task_is_refused_in_one_line(tmp_path, names, says):
    with pytest.raises(ReinceptionError) as caught:
        open_source(plant(tmp_path, *names))
    assert says in str(caught.value)
    assert str(caught.value).startswith(f"{tmp_path}: ")
    assert "\n" not in str(caught.value)


def test_a_missing_folder_and_a_file_are_refused_in_one_line(tmp_path):
    with pytest.raises(ReinceptionError, match="absent: there is no such folder"):
        open_source(tmp_path / "absent")
    (tmp_path / "file.zip").write_bytes(b"PK")
    with pytest.raises(ReinceptionError, match=r"file\.zip: is a file"):
        open_source(tmp_path / "file.zip")


def test_a_source_with_nothing_but_a_test_split_can_be_opened(tmp_path):
    source = open_source(plant(tmp_path, "test/a/1.png", "test/b/1.png"))
    assert source.splits == ("test",)
    with pytest.raises(ReinceptionError, match="has no split 'train': it has test"):
        source.split("train")


def test_the_fingerprint_changes_with_names_sizes_targets_and_classes_and_with_nothing_else(tmp_path):
    source = open_source(plant(tmp_path / "one", "a/1.png", "b/2.png"))
    again = open_source(plant(tmp_path / "two", "a/1.png", "b/2.png"))
    split = assign_splits(source)
    assert source.fingerprint == again.fingerprint == split.fingerprint
    assert len(source.fingerprint) == 64
    first, second = source.records
    others = [
        replace(source, classes=("a", "c")),
        replace(source, records=(first, replace(second, target=0))),
        replace(source, records=(first, replace(second, name="b/3.png"))),
        replace(source, records=(first,)),
    ]
    assert len({source.fingerprint, *(other.fingerprint for other in others)}) == 5
    (tmp_path / "two" / "a" / "1.png").write_bytes(b"another size")
    assert open_source(tmp_path / "two").fingerprint != source.fingerprint


def test_elpv_has_the_published_counts():
    source = open_source("elpv")
    assert source.classes == ("functional", "defective")
    assert [sum(record.target == target for record in source.records) for target in (0, 1)] == [1803, 821]
    assert Counter(record.stratum for record in source.records) == {
        **{"mono 0.00": 588, "mono 0.33": 117, "mono 0.67": 56, "mono 1.00": 313},
        **{"poly 0.00": 920, "poly 0.33": 178, "poly 0.67": 50, "poly 1.00": 402},
    }
    assert source.records[0].name == "images/cell0001.png"
    assert source.records[0].path.is_file()


def test_elpv_cells_are_grouped_into_the_published_number_of_modules():
    records = open_source("elpv").records
    sizes = [(key, len(list(cells))) for key, cells in groupby(record.group for record in records)]
    assert len(sizes) == len({key for key, _ in sizes}) == 44
    first = {record.group: (record.stratum or "").split()[0] for record in reversed(records)}
    kinds = Counter(first.values())
    assert kinds == {"mono": 18, "poly": 26}
    assert Counter(size for _, size in sizes) == {60: 40, 54: 1, 50: 1, 72: 1, 48: 1}
    assert {records[1440].group, records[1493].group} == {"module 24"}
    assert {records[2034].group, records[2083].group} == {"module 34"}
    assert records[1439].group != records[1440].group != records[1494].group


def test_runs_of_other_lengths_are_cut_into_sixties():
    assert Counter(modules(["mono"] * 130 + ["poly"] * 30)) == {0: 60, 1: 60, 2: 10, 3: 30}
    assert modules([]) == []


def test_elpv_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.delitem(sys.modules, "elpv_dataset", raising=False)
    with pytest.raises(ReinceptionError, match=r'pip install "reinception\[demo\]"'):
        open_source("elpv")


def test_reading_elpv_imports_neither_the_package_nor_pandas():
    room = "reinception.data.sources.open_source"
    code = f"import sys; from {room} import open_source; open_source('elpv'); print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"elpv_dataset", "pandas", "torch", "PIL"} & set(run.stdout.split())


def some_source(counts: dict[tuple[int, str], int]) -> Source:
    records = [
        Record(
            path=Path(f"{target}{stratum}{index}"), name=f"{target}/{stratum}/{index}", target=target, stratum=stratum
        )
        for (target, stratum), count in counts.items()
        for index in range(count)
    ]
    return Source(name="made", root=Path(), classes=("a", "b", "c"), records=tuple(records))


@given(
    counts=st.dictionaries(st.tuples(st.integers(0, 2), st.sampled_from("xyz")), st.integers(1, 40), min_size=1),
    test=st.integers(0, 50),
    val=st.integers(0, 49),
    seed=st.integers(0, 5),
)
def test_a_split_gives_each_class_its_share_and_each_stratum_nearly(counts, test, val, seed):
    source = some_source(counts)
    divided = assign_splits(source, seed=seed, val_fraction=val / 100, test_fraction=test / 100)
    assert [replace(record, split=None) for record in divided.records] == list(source.records)
    for target in {target for target, _ in counts}:
        members = [record for record in divided.records if record.target == target]
        got = Counter(record.split for record in members)
        assert got.keys() <= {"train", "val", "test"}
        assert got["train"] >= 1
        for split, percent in (("test", test), ("val", val)):
            assert got[split] <= len(members) * Fraction(percent, 100) + Fraction(1, 2)
            assert got[split] >= len(members) * Fraction(percent, 100) - Fraction(1, 2) or got["train"] == 1
        for stratum in {record.stratum for record in members}:
            inside = [record for record in members if record.stratum == stratum]
            num_test = sum(record.split == "test" for record in inside)
            assert abs(num_test - Fraction(len(inside) * got["test"], len(members))) < 1


@given(seed=st.integers(0, 3), val=st.sampled_from([0, 0.05, 0.1, 0.3]))
def test_the_test_split_does_not_depend_on_the_validation_fraction_or_the_order_of_the_records(seed, val):
    source = some_source({(0, "x"): 31, (0, "y"): 7, (1, "x"): 20})
    names = [record.name for record in assign_splits(source, seed=seed).split("test")]
    turned = replace(source, records=source.records[::-1])
    assert sorted(r.name for r in assign_splits(turned, seed=seed, val_fraction=val).split("test")) == sorted(names)


def test_another_seed_gives_another_split_and_the_same_seed_the_same():
    source = some_source({(0, "x"): 200, (1, "y"): 200})
    assert assign_splits(source, seed=1) == assign_splits(source, seed=1)
    assert assign_splits(source, seed=1) != assign_splits(source, seed=2)


def test_elpv_is_split_65_10_25_and_75_25_as_in_the_papers():
    source = open_source("elpv")
    sizes = Counter(record.split for record in assign_splits(source).records)
    assert sizes == {"train": 1706, "val": 262, "test": 656}
    both = assign_splits(source, val_fraction=0)
    assert Counter(record.split for record in both.records) == {"train": 1968, "test": 656}
    assert Counter(record.target for record in both.split("test")) == {0: 451, 1: 205}
    first = [record.name.removeprefix("images/cell") for record in both.split("test")[:5]]
    assert first == ["0001.png", "0002.png", "0006.png", "0009.png", "0015.png"]  # golden: every result rests on it


def test_existing_splits_are_kept_and_only_a_missing_validation_split_is_taken_from_train(tmp_path):
    names = [f"train/{kind}/{index}.png" for kind in "ab" for index in range(10)]
    source = open_source(plant(tmp_path, *names, "test/a/1.png", "test/b/1.png"))
    divided = assign_splits(source, val_fraction=0.2)
    assert Counter(record.split for record in divided.records) == {"train": 16, "val": 4, "test": 2}
    assert all(record.name.startswith("test/") for record in divided.split("test"))
    assert all(record.name.startswith("train/") for record in divided.split("val"))
    assert assign_splits(divided, val_fraction=0.5) == divided
    partly = replace(source, records=tuple(replace(r, split=None) if r.split == "train" else r for r in source.records))
    assert Counter(r.split for r in assign_splits(partly, val_fraction=0.2).records) == {
        "train": 16,
        "val": 4,
        "test": 2,
    }


@pytest.mark.parametrize(("val", "test"), [(-0.1, 0.2), (0.5, 0.5), (0, 1), (float("nan"), 0.2)])
def test_fractions_that_leave_nothing_to_train_on_are_wrong_usage(val, test):
    with pytest.raises(UsageError, match="must be at least 0 and together below 1"):
        assign_splits(some_source({(0, "x"): 4}), val_fraction=val, test_fraction=test)


def test_draws_are_a_function_of_their_key_alone():
    first, again, other = RandomStream("split", 1, 2), RandomStream("split", 1, 2), RandomStream("split", 12)
    assert [first.integer(1000) for _ in range(4)] == [again.integer(1000) for _ in range(4)]
    assert other.permutation(9).tolist() != RandomStream("split", 1, 2).permutation(9).tolist()
    # Golden values: a change here changes every split and every training run.
    assert RandomStream("golden", 0).permutation(8).tolist() == [1, 7, 5, 2, 3, 4, 6, 0]
    assert RandomStream("golden", 0).integer(10**6) == 967352


@given(key=st.integers(0, 10**6), low=st.floats(-1e3, 1e3), width=st.floats(1e-3, 1e3))
def test_draws_stay_in_their_range(key, low, width):
    draws = RandomStream("range", key)
    assert low <= draws.uniform(low, low + width) <= low + width
    assert 0 <= draws.integer(7) < 7
    assert np.array_equal(np.sort(draws.permutation(50)), np.arange(50))
