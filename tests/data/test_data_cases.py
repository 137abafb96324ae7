"""What people's folders, lists and shards are taken for, what is refused at once, and what the check says of images."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import struct
import tarfile
import tracemalloc
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image, ImageDraw

from command import Command
from reinception.data.images.crops import crop_pixels, distinct_crops, evaluation_pixels
from reinception.data.images.decode import decode
from reinception.data.images.jpeg import open_jpeg
from reinception.data.images.jpeg_header import read_header
from reinception.data.prepare.audit import audit
from reinception.data.prepare.group_split import group_split
from reinception.data.sources.exclusions import read_exclusions, write_exclusions
from reinception.data.sources.labels import label_of, shown, split_code, split_names, twins
from reinception.data.sources.open_source import open_source
from reinception.data.sources.records import Source
from reinception.data.sources.split import assign_splits
from reinception.data.sources.understanding import understand
from reinception.errors import BadImage, ReinceptionError
from reinception.preprocess import Crops, Preprocessing
from reinception.train.config import TrainConfig
from reinception.train.run.plan import Plan, make_plan


def texture(seed: int, height: int = 48, width: int = 48) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def plant(root: Path, *names: str) -> Path:
    for seed, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix.lower() in (".png", ".jpg", ".ppm", ".pgm", ".tga"):
            texture(seed).convert("L" if path.suffix == ".pgm" else "RGB").save(path)
        else:
            path.write_bytes(b"no image")
    return root


def shard(path: Path, *members: tuple[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def counts(source: Source) -> dict[str, dict[str, int]]:
    return understand(source).classes


def refusal(data: Path) -> str:
    with pytest.raises(ReinceptionError) as caught:
        open_source(data)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# -- layouts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("Training", "dev", "Testing"),
        ("TRAIN", "Valid", "evaluation"),
        ("training_set", "val-set", "test_set"),
        ("seg_train", "seg_val", "seg_test"),
        ("train_images", "val_images", "test_images"),
        ("train/train", "validation/validation", "eval/eval"),
    ],
)
def test_the_usual_names_of_splits_are_known(tmp_path, train, val, test):
    files = [f"{split}/{name}/{split[-3:]}.png" for split in (train, val, test) for name in ("cat", "dog")]
    source = open_source(plant(tmp_path, *files))
    assert counts(source) == {name: {"train": 1, "val": 1, "test": 1} for name in ("cat", "dog")}
    assert f"{train}/ is train" in str(understand(source))


def test_words_beside_a_split_that_differ_are_no_split():
    assert split_names(["train_station", "test_tube"]) == {}
    assert split_names(["train_station", "test_tube", "car"]) == {}
    assert split_names(["train-0001", "val_3-of-8", "data"], numbered=True) == {"train-0001": 0, "val_3-of-8": 1}
    assert [split_code(name) for name in (" Train ", "TEST_SET", "dev", "trainer", "contest")] == [0, 2, 1, None, None]


def test_a_folder_unpacked_into_one_of_its_own_name_is_read(tmp_path):
    root = plant(tmp_path / "flowers", "flowers/rose/1.png", "flowers/tulip/2.png", "flowers.txt")
    source = open_source(root)
    assert source.classes == ("rose", "tulip")
    assert source.num_ignored == 1
    assert "if its folders ('rose', 'tulip') are the classes, name" in refusal(
        plant(tmp_path / "x", "y/rose/1.png", "y/tulip/2.png")
    )


def test_a_class_that_is_called_like_a_split_is_a_class_and_that_is_said(tmp_path):
    source = open_source(plant(tmp_path, "bus/1.png", "car/2.png", "train/3.png"))
    assert source.classes == ("bus", "car", "train")
    assert source.splits == ()
    assert "'train' is taken for a class, not a split" in str(understand(source))


def test_shards_of_classes_that_begin_like_splits_are_none(tmp_path):
    for name in ("car", "test_tube", "train_station"):
        shard(tmp_path / f"{name}-000.tar", (f"{name}/1.png", b"x"))
    source = open_source(tmp_path)
    assert counts(source) == {name: {"": 1} for name in source.classes}
    assert "'test_tube-000.tar' is not taken for a split" in str(understand(source))


def test_class_folders_win_over_an_archive_beside_them_and_it_is_named(tmp_path):
    plant(tmp_path, "rose/1.png", "tulip/2.png", "daisy/3.png")
    shard(tmp_path / "flowers.tar", ("rose/1.png", b"x"), ("tulip/2.png", b"x"))
    said = str(understand(open_source(tmp_path)))
    assert "3 images of 3 classes; class folders" in said
    assert "left out: 1 archives, such as 'flowers.tar'" in said


def test_a_hidden_class_is_named_with_its_number_of_images(tmp_path):
    said = str(understand(open_source(plant(tmp_path, ".net/1.png", ".net/2.png", "c/3.png", "java/4.png"))))
    assert "the folder '.net' is hidden, for its name begins with a dot, and its 2 images are left out" in said
    assert "left out: 1 hidden" in said


def test_what_is_left_out_is_counted_by_kind_with_an_example(tmp_path):
    names = ("a/1.png", "b/2.png", "a/x.npy", "b/y.npy", "notes.txt", "a/.DS_Store", "loose.png", "list.csv")
    left_out = {one.kind: (one.count, one.example) for one in open_source(plant(tmp_path, *names)).reading.ignored}
    assert left_out[".npy files"] == (2, "a/x.npy")
    assert left_out[".txt files"] == (1, "notes.txt")
    assert left_out["manifests"] == (1, "list.csv")
    assert left_out["images outside any class folder"] == (1, "loose.png")
    assert sum(num for num, _ in left_out.values()) == 6


@pytest.mark.parametrize(("name", "between"), [("metadata.csv", ","), ("metadata.tsv", "\t")])
def test_a_list_beside_loose_images_is_named_and_read(tmp_path, name, between):
    plant(tmp_path, "1.png", "2.png")
    (tmp_path / name).write_text("file_name,label\n1.png,cat\n2.png,dog\n".replace(",", between))
    assert f"name the manifest, {tmp_path / name}" in refusal(tmp_path)
    assert open_source(tmp_path / name).classes == ("cat", "dog")


def test_folders_that_hold_the_same_folders_are_doubted(tmp_path):
    names = [f"{part}/{name}/1.png" for part in ("fold1", "fold2") for name in ("cat", "dog")]
    assert "every class folder holds the same folders ('cat', 'dog')" in str(
        understand(open_source(plant(tmp_path, *names)))
    )


def test_classes_without_held_out_images_are_named(tmp_path):
    one = assign_splits(open_source(plant(tmp_path / "one", *(f"sku{n}/1.png" for n in range(4)))))
    assert "no image is held out for test" in str(understand(one))
    rare = plant(
        tmp_path / "rare", *(f"{name}/{n}.png" for name in ("common", "usual") for n in range(10)), "rare/1.png"
    )
    assert "1 of 3 classes have no image in test: 'rare'" in str(understand(assign_splits(open_source(rare))))


def test_every_fold_can_be_trained(tmp_path):
    names = [f"{name}/{n}.png" for name in ("common", "usual") for n in range(6)]
    source = open_source(plant(tmp_path, *names, "rare/1.png"))
    for fold in group_split(source, None, folds=3):
        assert {record.target for record in fold.source.split("train")} == {0, 1, 2}
    with pytest.raises(ReinceptionError, match="leaves a fold without test images"):
        group_split(open_source(plant(tmp_path / "few", "a/1.png", "b/1.png", "c/1.png")), None, folds=2)


# -- labels and names --------------------------------------------------------------------------------------------------


def csv(path: Path, *lines: str, encoding: str = "utf-8") -> Path:
    path.write_bytes("".join(f"{line}\n" for line in lines).encode(encoding))
    return path


def test_spaces_around_values_are_dropped(tmp_path):
    plant(tmp_path, "apple/1.png", "pear/2.png")
    for number, lines in enumerate(
        (
            ("path, label", "apple/1.png, apple ", "pear/2.png, pear"),
            ("label, path", "apple, apple/1.png", "pear , pear/2.png "),
        )
    ):
        source = open_source(csv(tmp_path / f"{number}.csv", *lines))
        assert source.classes == ("apple", "pear")
        assert all(record.path.is_file() for record in source.records)


def test_labels_that_differ_only_in_case_spaces_or_number_are_named(tmp_path):
    assert twins(["apple", "Apple", "a b", "ab", "1", "01", "1.0", "x"]) == [
        ["apple", "Apple"],
        ["a b", "ab"],
        ["1", "01", "1.0"],
    ]
    said = str(understand(open_source(csv(tmp_path / "m.csv", "path,label", "1.png,apple", "2.png,Apple"))))
    assert "'Apple', 'apple' differ only in case" in said


def test_what_cannot_be_seen_is_shown():
    assert shown("a ") == "'a '"
    assert shown("a\u200b\xa0") == "'a\\u200b\\xa0'"
    assert shown("cafe\u0301") == "'cafe\\u0301'"
    assert label_of("\u200b cafe\u0301 \ufeff") == "café"


@pytest.mark.parametrize(
    ("label", "says"),
    [("null", "line 2: the label is null"), ("NaN", "line 2: the label is nan"), ("0.5", "line 2: the label is 0.5"),
     ('["a"]', "line 2: the label is a list"), ('" "', "line 2: the label is empty (' ')")],
)  # fmt: skip
def test_a_json_value_that_is_no_label_is_refused_with_its_line(tmp_path, label, says):
    lines = ['{"path": "1.png", "label": "a"}', f'{{"path": "2.png", "label": {label}}}']
    assert says in refusal(csv(tmp_path / "m.jsonl", *lines))


def test_one_number_is_one_class(tmp_path):
    lines = [f'{{"path": "{n}.png", "label": {label}}}' for n, label in enumerate(("1", "1.0", '"1"', "0", "0.0"))]
    assert counts(open_source(csv(tmp_path / "m.jsonl", *lines))) == {"0": {"": 2}, "1": {"": 3}}


def test_a_missing_label_among_numbers_is_refused_and_among_names_it_is_one(tmp_path):
    assert "line 3: the label 'nan' among numbers" in refusal(
        csv(tmp_path / "n.csv", "path,label", "1.png,0", "2.png,nan", "3.png,1")
    )
    source = open_source(csv(tmp_path / "m.csv", "path,label", "1.png,NA", "2.png,FR"))
    assert source.classes == ("FR", "NA")
    assert "'NA' is what programs write where a label is missing" in str(understand(source))


def test_other_encodings_and_delimiters_are_read_or_named(tmp_path):
    rows = ("path,label", "1.png,Käse", "2.png,Brot")
    says = refusal(csv(tmp_path / "old.csv", *rows, encoding="cp1252"))
    assert "line 2: the label 'K\\udce4se' is not UTF-8 (in Windows-1252 it reads 'Käse')" in says
    for name, lines, encoding in (
        ("semi.csv", [row.replace(",", ";") for row in rows], "utf-8"),
        ("tab.tsv", [row.replace(",", "\t") for row in rows], "utf-8"),
        ("sep.csv", ["sep=,", *rows], "utf-8-sig"),
        ("wide.csv", rows, "utf-16"),
    ):
        assert open_source(csv(tmp_path / name, *lines, encoding=encoding)).classes == ("Brot", "Käse")


def test_one_name_in_two_unicode_forms_is_one_class(tmp_path):
    names = [
        f"{split}/{unicodedata.normalize(form, 'café')}/1.png" for split, form in (("train", "NFC"), ("val", "NFD"))
    ]
    source = open_source(plant(tmp_path, *names, "train/b/2.png"))
    assert counts(source) == {"b": {"train": 1}, "café": {"train": 1, "val": 1}}
    assert "'cafe\\u0301', 'café' are one class" in str(understand(source))


@pytest.mark.parametrize(
    "name",
    ["image #1.png", "#1.png", " lead.png", '"q".png', "a\nb.png", "12", "p\udce4.png", "x # y.png", "a\u2028b.png"],
)
def test_a_written_exclusion_list_is_read_back_for_every_name(tmp_path, name):
    write_exclusions(tmp_path / "bad.txt", [f"a/{name}", name])
    assert read_exclusions(tmp_path / "bad.txt") == {f"a/{name}", name}


def test_an_exclusion_means_the_path_and_no_namesake(tmp_path):
    plant(tmp_path, "3.png", "sub/3.png", "sub/4.png", "deep/4.png", "5.png")
    rows = [
        f"{name},{number % 2}" for number, name in enumerate(("3.png", "sub/3.png", "sub/4.png", "deep/4.png", "5.png"))
    ]
    source = open_source(csv(tmp_path / "m.csv", "path,label", *rows))
    assert len(source.without(frozenset({"3.png"})).records) == 4
    assert "sub/3.png" in {record.name for record in source.without(frozenset({"3.png"})).records}
    with pytest.raises(ReinceptionError, match=r"'4\.png', as 2 images are called"):
        source.without(frozenset({"4.png"}))


def test_labels_of_one_key_that_differ_are_refused_and_the_rule_is_said(tmp_path):
    path = shard(tmp_path / "s.tar", ("22.00.jpg", b"x"), ("22.00.cls", b"0"), ("22.01.jpg", b"x"), ("22.01.cls", b"1"))
    assert "a key ends at the first dot" in refusal(path.parent)


@pytest.mark.parametrize(
    ("beside", "says"),
    [
        ('{"label": null}', "its label is null"),
        ('{"label": [1]}', "its label is a list"),
        ("{", "not JSON"),
        ('{"caption": "x"}', "none of the labels"),
    ],
)
def test_no_image_of_a_shard_changes_the_source_of_its_label(tmp_path, beside, says):
    path = shard(
        tmp_path / "s.tar",
        ("a/1.jpg", b"x"),
        ("a/1.json", b'{"label": 1}'),
        ("a/2.jpg", b"x"),
        ("a/2.json", beside.encode()),
    )
    assert says in refusal(path.parent)


def test_apple_double_files_beside_shards_are_ignored_and_counted(tmp_path):
    for split in ("train", "val"):
        shard(tmp_path / split / "s.tar", ("1.jpg", b"x"), ("1.cls", b"0"), ("2.jpg", b"x"), ("2.cls", b"1"))
        (tmp_path / split / "._s.tar").write_bytes(b"\0\5\x16\7")
    assert open_source(tmp_path).num_ignored == 2


def test_paths_of_windows_and_names_without_an_ending_are_found_or_named(tmp_path):
    plant(tmp_path, "cat/1.jpg", "dog/2.jpg")
    for name, lines in (
        ("back.csv", ("path,label", "cat\\1.jpg,cat", "dog\\2.jpg,dog")),
        ("short.csv", ("filename,class", "cat/1,cat", "dog/2,dog")),
    ):
        source = open_source(csv(tmp_path / name, *lines))
        assert [record.name for record in source.records] == ["cat/1.jpg", "dog/2.jpg"]
    assert "is a path of Windows" in refusal(
        csv(tmp_path / "abs.csv", "path,label", "C:\\data\\cat\\1.jpg,cat", "x.jpg,dog")
    )


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_names_that_are_not_utf8_and_streams_that_are_not_lose_no_result(
    command: Command, tmp_path, encoding, monkeypatch
):
    for name in (b"K\xe4se", "Brötchen".encode()):
        os.makedirs(os.path.join(os.fsencode(tmp_path), b"data", name))
        texture(1).save(os.fsdecode(os.path.join(os.fsencode(tmp_path), b"data", name, b"p\xe41.jpg")))
    monkeypatch.setenv("PYTHONIOENCODING", encoding)
    result = command("data", "split", tmp_path / "data", "-o", tmp_path / "m.csv", "--no-compare")
    assert "too few to split" in result.stderr
    result = command("data", "check", tmp_path / "data", "--json", tmp_path / "r.json")
    assert "2 of 2 images decode" in result.stdout, result.stderr
    assert len(json.loads((tmp_path / "r.json").read_text("utf-8"))["classes"]) == 2


# -- images ------------------------------------------------------------------------------------------------------------


def test_ppm_pgm_pbm_and_tga_are_read(tmp_path):
    pixels = np.asarray(texture(3))
    for name in ("a.ppm", "b.tga"):
        Image.fromarray(pixels).save(tmp_path / name)
        assert np.array_equal(decode(tmp_path / name), pixels)
    Image.fromarray(pixels[:, :, 0]).save(tmp_path / "c.pgm")
    assert np.array_equal(decode(tmp_path / "c.pgm", keep_grey=True), pixels[:, :, 0])
    Image.fromarray(pixels[:, :, 0]).convert("1").save(tmp_path / "d.pbm")
    assert set(np.unique(decode(tmp_path / "d.pbm"))) == {0, 255}
    (tmp_path / "e.ppm").write_bytes((tmp_path / "a.ppm").read_bytes()[:-9])
    with pytest.raises(BadImage, match="truncated"):
        decode(tmp_path / "e.ppm")


def bands(num: int, depth: str = "H") -> bytes:
    """A whole TIFF of 4 x 4 pixels and `num` bands."""
    size = struct.calcsize(depth)
    data = bytes(16 * num * size)
    bits, tags = struct.pack(f"<{num}H", *[8 * size] * num), b""
    end = 8 + len(data)
    for tag, kind, count, value in (
        (256, 4, 1, 4), (257, 4, 1, 4), (258, 3, num, end), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8),
        (277, 3, 1, num), (278, 4, 1, 4), (279, 4, 1, len(data)),
    ):  # fmt: skip
        tags += struct.pack("<HHII", tag, kind, count, value)
    return b"II*\0" + struct.pack("<I", end + len(bits)) + data + bits + struct.pack("<H", 9) + tags + bytes(4)


def test_a_whole_tiff_that_is_not_read_is_not_called_damaged():
    with pytest.raises(BadImage, match="is whole, but has 13 bands of 16 bits: convert it") as caught:
        decode(bands(13))
    assert caught.value.kind == "format"
    with pytest.raises(BadImage, match="damaged"):
        decode(bands(13)[:-300] + bytes(4))


def exif(orientation: int) -> bytes:
    block = Image.Exif()
    block[0x0112] = orientation
    return block.tobytes()


@pytest.mark.parametrize("first", [1, 6, None])
@pytest.mark.parametrize("second", [1, 3, 8, None])
def test_training_and_evaluation_turn_an_image_with_two_exif_segments_alike(first, second):
    file = io.BytesIO()
    texture(5, 40, 64).save(file, "JPEG")
    data = file.getvalue()
    for orientation in (second, first):
        if orientation is not None:
            block = exif(orientation)
            data = data[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + data[2:]
    header, opened = read_header(data), open_jpeg(data)
    assert header is not None and opened is not None
    assert opened.pixels(1).shape[:2] == decode(data).shape[:2]


def made(root: Path, draw: Callable[[int], Image.Image], num: int = 10) -> Source:
    for number in range(2 * num):
        path = root / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        draw(number).save(path)
    return open_source(root)


def white_icon(number: int) -> Image.Image:
    image = Image.new("RGBA", (32, 32), (255, 255, 255, 0))
    ImageDraw.Draw(image).ellipse((4, 4, 8 + number, 9 + number), fill=(255, 255, 255, 255))
    return image


def test_images_that_are_of_one_colour_for_the_network_are_found(tmp_path):
    found = audit(made(tmp_path / "icons", white_icon))
    (error,) = [one for one in found.errors if one.kind == "all_alike"]
    assert error.reason.startswith("20 of 20 images are alike for the network")
    assert "its transparent parts are put on white" in error.reason
    few = audit(made(tmp_path / "few", lambda n: Image.new("L", (40, 40), 7) if n == 4 else texture(n)))
    assert [(one.kind, one.name) for one in few.warnings if one.kind == "blank"] == [("blank", "a/4.png")]


def test_the_range_that_deep_images_use_is_named(tmp_path):
    def xray(number: int) -> Image.Image:
        return Image.fromarray((np.asarray(texture(number).convert("L")).astype(np.uint16) * 16).astype(np.uint16))

    found = audit(made(tmp_path, xray))
    (narrow,) = [one for one in found.warnings if one.kind == "narrow_range"]
    assert narrow.reason.startswith("20 of 20 images")
    deep = next(one for one in found.warnings if one.kind == "sixteen_bit")
    assert "of 65,535" in deep.reason
    assert "train --deep-range LOW,HIGH" in deep.reason


def test_small_images_among_small_ones_are_not_odd(tmp_path):
    found = audit(made(tmp_path, lambda number: texture(number, 28, 28)))
    assert [one.kind for one in found.warnings if one.kind == "odd_size"] == []


def test_crops_of_a_line_take_bounded_memory():
    line = np.random.default_rng(0).integers(0, 256, (20_000, 1, 3), dtype=np.uint8)
    tracemalloc.start()
    square = evaluation_pixels(line, Preprocessing(input_size=299, resize="shorter_side"))
    crops = Crops(input_size=299, scales=(342,), num_squares=1, whole=False)
    many = crop_pixels(line, list(distinct_crops(1, 20_000, crops)), Preprocessing(input_size=299))
    assert tracemalloc.get_traced_memory()[1] < 100 << 20
    tracemalloc.stop()
    assert square.shape == (299, 299, 3)
    assert many.shape[1:] == (299, 299, 3)


def test_an_image_that_is_too_large_is_named_with_its_size_and_can_be_packed():
    file = io.BytesIO()
    texture(1, 600, 800).save(file, "JPEG")
    with pytest.raises(
        BadImage, match=r"\(800 x 600 pixels are more than the 0 million allowed\): shrink it; data pack"
    ):
        decode(file.getvalue(), max_pixels=150_000)
    assert decode(file.getvalue(), max_pixels=150_000, at_least=300).shape == (300, 400, 3)
    with pytest.raises(BadImage, match="too large"):
        decode(file.getvalue(), max_pixels=150_000, at_least=301)
    assert Image.MAX_IMAGE_PIXELS is not None, "the process's own limit stays"


def test_a_list_of_refused_images_keeps_its_promise_for_a_missing_one(tmp_path):
    plant(tmp_path, "a/1.png", "b/2.png", "b/3.png")
    source = open_source(csv(tmp_path / "m.csv", "path,label", "a/1.png,a", "a/gone.png,a", "b/2.png,b", "b/3.png,b"))
    write_exclusions(tmp_path / "bad.txt", audit(source).quarantine)
    rest = source.without(read_exclusions(tmp_path / "bad.txt"))
    assert [record.name for record in rest.records] == ["a/1.png", "b/2.png", "b/3.png"]
    assert rest.fingerprint == source.fingerprint


def test_packing_that_leaves_images_out_fails_like_predict(command: Command, tmp_path):
    plant(tmp_path / "data", "a/1.png", "a/2.png", "b/3.png")
    (tmp_path / "data/a/2.png").write_bytes(b"")
    result = command("data", "pack", tmp_path / "data", "-o", tmp_path / "out", "--shorter-side", 20)
    assert result.returncode == 1
    assert "1 images were left out; the rest is packed" in result.stderr
    assert len(open_source(tmp_path / "out").records) == 2


# -- the range that deep images use, and what transparent ones are put on ----------------------------------------------


def deep(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(values.astype(np.uint16)).save(file, "PNG")
    return file.getvalue()


def test_a_deep_grey_is_scaled_by_the_range_that_is_asked_for_and_cut_off_outside():
    values = np.array([[0, 100, 2100], [4095, 5000, 65535]])
    ranged = Preprocessing(deep_range=(100, 4100))
    assert decode(deep(values), keep_grey=True, preprocessing=ranged).tolist() == [[0, 0, 128], [255, 255, 255]]
    assert decode(deep(values), keep_grey=True).tolist() == [[0, 0, 8], [16, 19, 255]]
    pixels = texture(1).convert("L")
    assert np.array_equal(decode(pixels, preprocessing=ranged), decode(pixels)), "8 bits are as they are"


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L", "RGB", "I;16"])
def test_what_is_transparent_shows_the_background_in_every_kind_of_file(mode):
    file, colour = io.BytesIO(), (10, 20, 30)
    if mode in ("RGBA", "LA"):
        Image.new(mode, (4, 4), (255, 255, 255, 0) if mode == "RGBA" else (255, 0)).save(file, "PNG")
    else:
        image = Image.fromarray(np.full((4, 4), 7, np.uint16)) if mode == "I;16" else Image.new(mode, (4, 4), 7)
        if mode == "P":
            image.putpalette([value for value in range(256) for _ in "rgb"])
        image.save(file, "PNG", transparency=(7, 0, 0) if mode == "RGB" else 7)
    seen = decode(file.getvalue(), keep_grey=True, preprocessing=Preprocessing(background=colour))
    assert (seen == colour).all()
    assert (decode(file.getvalue()) == 255).all()


def test_training_evaluation_and_prediction_use_the_range_and_background_of_the_model(tmp_path):
    from reinception.data.loading.read import pixels_of, training_image
    from reinception.inference.predictor import pixels_of_item

    how = Preprocessing(deep_range=(0, 4095), background=(0, 0, 0))
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").write_bytes(deep(np.arange(4096).reshape(64, 64)))
    for record in open_source(tmp_path).records:
        seen = pixels_of(record, preprocessing=how)
        assert (seen.min(), seen.max()) == (0, 255)
        assert np.array_equal(cast("np.ndarray", training_image(record, preprocessing=how)), seen)
        assert np.array_equal(pixels_of_item(record.path, how), seen)
        assert np.array_equal(pixels_of_item(record.path.read_bytes(), how), seen)


def test_range_and_background_are_kept_with_a_model_and_models_of_before_have_none():
    how = Preprocessing(deep_range=(0, 4095), background=(1, 2, 3))
    document = json.loads(json.dumps(how.to_json()))
    assert Preprocessing.from_json(document) == how
    before = {name: value for name, value in document.items() if name not in ("deep_range", "background")}
    assert Preprocessing.from_json(before) == Preprocessing()
    cases: list[tuple[str, Any]] = [("deep_range", (5, 5)), ("deep_range", (0, 70_000)), ("background", (0, 0, 256))]
    for name, wrong in cases:
        with pytest.raises(ReinceptionError, match=f"preprocessing: {name} cannot be"):
            dataclasses.replace(how, **{name: wrong})


def test_train_takes_range_and_background_by_flag_and_keeps_them(tmp_path):
    asked: dict[str, Any] = {"deep_range": (0, 4095), "background": (0, 0, 0)}
    config = TrainConfig(data="d", out=tmp_path / "o", width=0.1, input_size=75, **asked)
    assert "--background 0,0,0 --deep-range 0,4095" in config.command()
    plan = make_plan(config)
    assert {name: getattr(plan.preprocessing, name) for name in asked} == asked
    described = json.loads(json.dumps(plan.to_json() | {"precision": "fp32"}))
    assert Plan.from_json(described, out=tmp_path).config.deep_range == (0, 4095)


def tiff(pixels: np.ndarray, photometric: int, extra: tuple[int, ...] = ()) -> bytes:
    """An uncompressed TIFF of pixels (h, w, bands), with `extra` samples as the standard numbers them."""
    height, width, num = pixels.shape
    bits, data = pixels.dtype.itemsize * 8, pixels.tobytes()
    beyond, end = b"", 8 + len(data)
    entries = []
    for tag, values in (
        (256, (width,)), (257, (height,)), (258, (bits,) * num), (259, (1,)), (262, (photometric,)), (273, (8,)),
        (277, (num,)), (278, (height,)), (279, (len(data),)), (338, extra),
    ):  # fmt: skip
        value = struct.pack(f"<{len(values)}H", *values)
        if len(value) > 4:
            value, beyond = struct.pack("<I", end + len(beyond)), beyond + value
        entries += [struct.pack("<HHI", tag, 3, len(values)) + value.ljust(4, b"\0")] if values else []
    table = struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
    return b"II*\0" + struct.pack("<I", end + len(beyond)) + data + beyond + table


def test_tiffs_of_deep_colours_and_of_grey_with_opacity_are_read_or_refused_by_name():
    values = np.random.default_rng(0).integers(0, 65536, (6, 5, 3), dtype=np.uint16)
    assert np.array_equal(decode(tiff(values, 2)), values >> 8)
    grey = np.array([[[100, 255], [100, 0]]], dtype=np.uint8)
    assert decode(tiff(grey, 1, extra=(2,))).tolist() == [[[100] * 3, [255] * 3]]
    with pytest.raises(BadImage, match="is whole, but has 2 bands of 16 bits: convert it"):
        decode(tiff(grey.astype(np.uint16) * 257, 1, extra=(2,)))
    with pytest.raises(BadImage, match="is whole, but has 3 bands of 16 bits: convert it"):
        decode(tiff(values, 1, extra=(0, 0)))


@pytest.mark.parametrize(
    ("num", "photometric", "extra", "is_said"),
    [(4, 2, (0,), True), (5, 2, (2, 0), True), (2, 1, (0,), True), (4, 2, (2,), False), (3, 2, (), False)],
)
def test_bands_of_a_tiff_that_are_left_out_are_named_however_many_images_have_them(
    tmp_path, num, photometric, extra, is_said
):
    for number, name in enumerate(("a/1.tif", "a/2.tif", "b/3.tif", "b/4.tif")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        values = np.random.default_rng(number).integers(0, 256, (40, 40, num), dtype=np.uint8)
        (tmp_path / name).write_bytes(tiff(values, photometric, extra))
    found = audit(open_source(tmp_path))
    said = [one.name for one in found.warnings if one.kind == "extra_bands"]
    assert said == (["a/1.tif", "a/2.tif", "b/3.tif", "b/4.tif"] if is_said else [])
    assert found.errors == ()


def test_a_damaged_image_is_named_by_pack_and_not_copied(command: Command, tmp_path):
    plant(tmp_path / "data", "a/1.png", "a/2.png", "b/3.png")
    whole = (tmp_path / "data/a/2.png").read_bytes()
    (tmp_path / "data/a/2.png").write_bytes(whole[: len(whole) // 2])
    result = command("data", "pack", tmp_path / "data", "-o", tmp_path / "out")
    assert result.returncode == 1
    assert "a/2.png" in result.stderr
    assert "truncated" in result.stderr
    assert len(open_source(tmp_path / "out").records) == 2
