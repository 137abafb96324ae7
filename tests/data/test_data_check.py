"""`data check`, `data split` and the corpus of bad images: seeded defects are found, nothing else, nothing moves."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import struct
import time
import zlib
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_data_shards import tree

from command import SMALLEST, Command
from reinception.cli import main
from reinception.data.images.decode import Pixels, decode
from reinception.data.loading.evaluation_stream import evaluation_batches
from reinception.data.loading.read import pixels_of, training_image
from reinception.data.prepare import audit as audit_room
from reinception.data.prepare.audit import audit, check_images, same_images
from reinception.data.prepare.duplicates import MAX_HASH_DISTANCE, Thumbprint, connected_components, near_duplicates
from reinception.data.prepare.group_split import GroupSplit, group_split, grouped, write_manifest
from reinception.data.prepare.pack import pack
from reinception.data.sources.open_source import open_source
from reinception.data.sources.records import Record, Source
from reinception.errors import BadImage, ReinceptionError, UsageError
from reinception.preprocess import Preprocessing


def photograph(seed: int, height: int = 120, width: int = 160) -> Image.Image:
    """Soft shapes in colours, another for each seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, form: str = "JPEG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *before: bytes, interlace: int = 0) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(before) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def plant(root: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def clean(num: int = 24) -> dict[str, bytes]:
    """Images of three classes, in train and test, without a fault."""
    return {
        f"{'test' if index % 4 == 0 else 'train'}/{'abc'[index % 3]}/{index:02d}.jpg": encoded(photograph(index))
        for index in range(3 * num)
    }


def deep(seed: int) -> Image.Image:
    return Image.fromarray(np.asarray(photograph(seed).convert("L")).astype(np.uint16) * 257)


def clear(seed: int) -> Image.Image:
    return Image.merge("RGBA", (*photograph(seed).split(), Image.new("L", (160, 120), 90)))


SEEDED: dict[str, tuple[str, dict[str, bytes]]] = {  # kind -> (where it is reported, files)
    "truncated": ("train/a/cut.jpg", {"train/a/cut.jpg": encoded(photograph(900))[:-700]}),
    "empty": ("train/a/nothing.jpg", {"train/a/nothing.jpg": b""}),
    "not_an_image": ("train/b/page.jpg", {"train/b/page.jpg": b"<!doctype html><html>404</html>"}),
    "corrupt": ("train/b/bits.png", {"train/b/bits.png": png(9, 1, 8, 0, bytes(10))[:45] + b"\xff" * 30}),
    "too_large": ("train/b/bomb.png", {"train/b/bomb.png": png(30_000, 30_000, 1, 0, bytes(3751 * 9))}),
    "leak": ("test/c/twin.jpg", {f"{s}/c/twin.jpg": encoded(photograph(901)) for s in ("train", "test")}),
    "conflicting_labels": ("train/a/both.jpg", {f"train/{c}/both.jpg": encoded(photograph(902)) for c in "ab"}),
    "duplicate": ("train/c/1st.jpg", {f"train/c/{n}.jpg": encoded(photograph(903)) for n in ("1st", "2nd")}),
    "near_leak": (
        "test/c/small.jpg",
        {
            "train/c/large.jpg": encoded(photograph(904, 480, 640), quality=95),
            "test/c/small.jpg": encoded(photograph(904, 480, 640).resize((300, 225)), quality=70),
        },
    ),
    "near_duplicate": (
        "train/a/saved.png",
        {
            "train/a/saved.png": encoded(photograph(905), "PNG"),
            "train/a/saved_again.jpg": encoded(photograph(905), quality=60),
        },
    ),
    "sixteen_bit": (
        "train/a/deep.png",
        {
            "train/a/deep.png": encoded(
                Image.fromarray(np.asarray(photograph(906).convert("L")).astype("u2") * 257), "PNG"
            )
        },
    ),
    "orientation": ("train/b/lying.jpg", {"train/b/lying.jpg": encoded(photograph(907), exif=turned(6))}),
    "cmyk": ("train/b/print.jpg", {"train/b/print.jpg": encoded(photograph(908).convert("CMYK"))}),
    "transparent": (
        "train/b/clear.png",
        {
            "train/b/clear.png": encoded(
                Image.merge("RGBA", (*photograph(909).split(), Image.new("L", (160, 120), 90))), "PNG"
            )
        },
    ),
    "odd_size": ("train/c/tiny.jpg", {"train/c/tiny.jpg": encoded(photograph(910, 11, 14))}),
    "misnamed": ("train/c/liar.jpg", {"train/c/liar.jpg": encoded(photograph(911), "PNG")}),
    "tiny_class": ("rare", {"train/rare/1.jpg": encoded(photograph(912))}),
    "ignored": ("data", {"train/a/._1.jpg": b"AppleDouble", "train/a/.hidden.jpg": b"x"}),
}
ERRORS = {"truncated", "empty", "not_an_image", "corrupt", "too_large", "leak", "conflicting_labels"}
# One image of a class of its own makes the largest class twenty times as large.
WITH_IT = {"tiny_class": {"imbalance"}, "sixteen_bit": {"grey_among_colours"}}


@pytest.mark.parametrize("kind", SEEDED)
def test_each_seeded_defect_is_found_and_nothing_else(tmp_path, kind):
    pytest.importorskip("imagehash")
    where, files = SEEDED[kind]
    plant(tmp_path / "data", clean() | files)
    before = tree(tmp_path)
    found = audit(open_source(tmp_path / "data"))
    told = {(problem.kind, problem.name) for problem in (*found.errors, *found.warnings)}
    assert (kind, where) in told
    assert {name for name, _ in told} == {kind} | WITH_IT.get(kind, set())
    assert bool(found.errors) == (kind in ERRORS)
    assert tree(tmp_path) == before


def test_all_defects_together_are_told_apart(command: Command, tmp_path):
    pytest.importorskip("imagehash")
    files = clean()
    for _, more in SEEDED.values():
        files |= more
    data = plant(tmp_path / "data", files)
    before = tree(data)
    page, list_, report = tmp_path / "page.html", tmp_path / "bad.txt", tmp_path / "report.json"
    result = command("data", "check", data, "--json", report, "--html", page, "--quarantine", list_)
    assert result.returncode == 1, result.stderr
    assert "7 errors" in result.stderr
    assert result.stderr.count("\n") == 1
    assert "images/s" in result.stdout
    told = json.loads(report.read_text())
    assert {one["kind"] for one in told["errors"]} == ERRORS
    kinds = Counter(one["kind"] for one in (*told["errors"], *told["warnings"]))
    assert all(kinds[kind] == 1 for kind in SEEDED), kinds
    assert told["num_files"] == told["num_images"] + 5
    assert {(group["kind"], group["crosses_splits"], group["conflicting_labels"]) for group in told["duplicates"]} == {
        ("exact", True, False),
        ("exact", False, True),
        ("exact", False, False),
        ("near", True, False),
        ("near", False, False),
    }
    assert list_.read_text().splitlines() == told["quarantine"]
    assert len(told["quarantine"]) == 5
    html = page.read_text()
    assert html.count("data:image/jpeg;base64,") >= 8
    assert "http" not in html.replace("http-equiv", "") and "<script" not in html
    assert "content=\"default-src 'none'; img-src data:;" in html
    assert tree(data) == before
    again = command("data", "check", data, "--json", report)
    assert again.returncode == 1
    assert "exists already" in again.stderr


def test_clean_images_and_the_solar_cells_raise_no_alarm(tmp_path):
    plant(tmp_path / "data", clean())
    found = audit(open_source(tmp_path / "data"))
    assert (found.errors, found.warnings, found.duplicates) == ((), (), ())
    cells = audit(open_source("elpv"), workers=2)
    assert (cells.num_decoded, cells.errors, cells.warnings, cells.duplicates) == (2624, (), (), ())


def test_warnings_alone_are_no_failure(command: Command, tmp_path):
    data = plant(tmp_path / "data", clean() | SEEDED["duplicate"][1])
    result = command("data", "check", data)
    assert result.returncode == 0
    assert "duplicate 1" in result.stdout


@pytest.mark.parametrize("how", ["crash", "hang"])
def test_an_image_that_crashes_or_hangs_the_decoder_is_named_and_the_rest_is_checked(tmp_path, monkeypatch, how):
    source = open_source(plant(tmp_path / "data", clean(8)))
    victim = source.records[5].path.read_bytes()
    true_decode = audit_room.decode

    def deadly(data: bytes, **options: Any) -> Pixels:
        if data == victim:
            time.sleep(60) if how == "hang" else os.abort()
        return true_decode(data, **options)

    monkeypatch.setattr(audit_room, "decode", deadly)
    found = audit(source, workers=2, patience=1.5)
    assert [(problem.kind, problem.name) for problem in found.errors] == [(how, source.records[5].name)]
    assert found.num_decoded == len(source.records) - 1
    assert found.quarantine == (source.records[5].name,)


# -- splits ------------------------------------------------------------------------------------------------------------


def splits_of(source_records: object) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for record in source_records:  # type: ignore[attr-defined]
        found.setdefault(record.group or record.name, set()).add(record.split)
    return found


def split_apart(source: Source, *, workers: int = 1, **options: Any) -> list[GroupSplit]:
    """Split without tearing duplicates apart, as `data split` does."""
    return group_split(source, same_images(source.records, workers=workers), **options)


@pytest.fixture(scope="module")
def cells() -> Source:
    """Every fourth solar cell: 15 of most modules."""
    source = open_source("elpv")
    return replace(source, records=source.records[::4])


def test_solar_modules_are_never_torn_and_classes_are_shared_out(cells):
    source = cells
    (division,) = split_apart(grouped(source, "group"), seed=1, workers=2)
    assert all(len(splits) == 1 for splits in splits_of(division.source.records).values())
    assert division.num_groups == 44
    shares = {split: len(division.source.split(split)) / 656 for split in ("train", "val", "test")}
    assert shares == pytest.approx({"train": 0.65, "val": 0.1, "test": 0.25}, abs=0.04)
    for split in ("train", "test"):
        records = division.source.split(split)
        assert sum(record.target for record in records) / len(records) == pytest.approx(821 / 2624, abs=0.08)


def test_without_groups_the_solar_cells_are_shared_out_by_class_and_certainty(cells):
    (division,) = split_apart(grouped(cells, None), workers=2)
    counts = Counter((record.split, record.target, record.stratum) for record in division.source.records)
    total = Counter((record.target, record.stratum) for record in division.source.records)
    for (target, stratum), num in total.items():
        for split, share in (("train", 0.65), ("val", 0.1), ("test", 0.25)):
            assert abs(counts[split, target, stratum] - share * num) <= 1.5


def test_images_that_are_the_same_never_cross_a_split(tmp_path):
    pytest.importorskip("imagehash")
    files = {}
    for index in range(30):
        image = photograph(index)
        files[f"{'ab'[index % 2]}/{index}.jpg"] = encoded(image, quality=95)
        files[f"{'ab'[index % 2]}/{index}_again.jpg"] = encoded(image.resize((240, 180)), quality=80)
        files[f"{'ab'[index % 2]}/{index}_copy.jpg"] = encoded(image, quality=95)
    source = open_source(plant(tmp_path / "data", files))
    for division in (*split_apart(source, seed=5), *split_apart(source, seed=5, folds=3)):
        split_of = {record.name: record.split for record in division.source.records}
        for name, split in split_of.items():
            assert split_of[name.replace("_again", "").replace("_copy", "")] == split
        assert set(division.source.splits) == {"train", "val", "test"}
        assert division.num_duplicates == 90


def test_folds_test_every_image_once(tmp_path):
    source = open_source(plant(tmp_path / "data", {n.split("/", 1)[1]: data for n, data in clean(10).items()}))
    divisions = split_apart(grouped(source, r"regex:(\d)\.jpg$"), folds=4)
    tested = [record.name for division in divisions for record in division.source.split("test")]
    assert sorted(tested) == sorted(record.name for record in source.records)
    assert (
        split_apart(source, folds=4, seed=1)[0].source.records == split_apart(source, folds=4, seed=1)[0].source.records
    )
    assert split_apart(source, seed=1)[0].source.records != split_apart(source, seed=2)[0].source.records


def test_groups_come_from_folders_patterns_and_columns(tmp_path):
    files = {f"{'ab'[n % 2]}/p{n % 5}/{n}_v{n % 7}.jpg": encoded(photograph(n)) for n in range(35)}
    source = open_source(plant(tmp_path / "data", files))
    assert {record.group for record in grouped(source, "folder").records} == {
        f"{c}/p{n}" for c in "ab" for n in range(5)
    }
    assert {record.group for record in grouped(source, r"regex:_v(\d)").records} == set("0123456")
    for by, says in [
        ("group", "has no groups"),
        ("regex:[", "no regular"),
        ("regex:zz", "matches no"),
        ("ward", "it is group"),
    ]:
        with pytest.raises(UsageError, match=says):
            grouped(source, by)
    with pytest.raises(UsageError, match="at least 2"):
        split_apart(source, folds=1)


def test_a_written_manifest_is_data_with_the_same_records(command: Command, tmp_path):
    data = plant(tmp_path / "data", {n.split("/", 1)[1]: content for n, content in clean(8).items()})
    before = tree(data)
    out = tmp_path / "deep" / "er" / "split.csv"
    out.parent.mkdir(parents=True)
    result = command("data", "split", data, "-o", out, "--group-by", r"regex:(\d)\.", "--seed", 7)
    assert result.returncode == 0, result.stderr
    assert "test: " in result.stdout
    assert "groups kept whole" in result.stdout
    source = open_source(out)
    assert {record.path.resolve() for record in source.records} == {path.resolve() for path in data.rglob("*.jpg")}
    assert all(record.path.parent.name == source.classes[record.target] for record in source.records)
    assert all(len(splits) == 1 for splits in splits_of(source.records).values())
    assert command("data", "split", out, "-o", tmp_path / "f.csv", "--group-by", "group", "--folds", 2).returncode == 0
    assert {path.name for path in tmp_path.glob("*.csv")} == {"f.fold0.csv", "f.fold1.csv"}
    assert tree(data) == before
    write_manifest(source, tmp_path / "again.csv")
    assert open_source(tmp_path / "again.csv").fingerprint != ""


def test_groups_that_share_a_member_are_one():
    assert connected_components([[3, 1], [5], [1, 7], [9, 8]]) == [[1, 3, 7], [5], [8, 9]]


# -- the quarantine and a read-only place ------------------------------------------------------------------------------


def test_the_quarantine_is_left_out_by_train_and_evaluate(solar_cells: Path, tmp_path, capsys):
    data = tmp_path / "data"
    shutil.copytree(solar_cells, data)
    (data / "functional" / "bad.png").write_bytes(b"no image")
    list_, run = tmp_path / "bad.txt", tmp_path / "run"

    def said(*words: object, code: int = 0) -> str:
        assert main(list(map(str, words))) == code, capsys.readouterr().err
        return "".join(capsys.readouterr())

    said("data", "check", data, "--quarantine", list_, code=1)
    assert list_.read_text() == "functional/bad.png\n"
    for path in (data, *data.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = tree(data)
    asked = ("train", data, "-o", run, "--epochs", 1, *SMALLEST)
    assert "32 used of 33 listed" in said(*asked, "--exclude", list_)
    judged = said("evaluate", run, data, "--exclude", list_)
    assert "as in training" in judged
    assert " used of " in judged
    pack(open_source(data), tmp_path / "packed")
    assert open_source(tmp_path / "packed").classes == open_source(data).classes
    assert tree(data) == before
    for path in (data, *data.rglob("*")):
        path.chmod(0o755)


def test_every_pair_of_near_hashes_is_proposed_and_no_other():
    random = np.random.default_rng(2)
    small = random.integers(0, 256, 1024, dtype=np.uint8).tobytes()
    hashes = random.integers(0, 1 << 63, 600).tolist()
    for place in range(0, 400, 2):  # as far apart as is still near, and one bit further
        num_bits = 6 + place // 2 % 2
        hashes[place + 1] = hashes[place] ^ sum(1 << int(bit) for bit in random.choice(64, num_bits, replace=False))
    hashes[500:520] = [hashes[500]] * 20
    expected = [
        (one, other)
        for one in range(600)
        for other in range(one + 1, 600)
        if (hashes[one] ^ hashes[other]).bit_count() <= MAX_HASH_DISTANCE
    ]
    assert len(expected) >= 100 + 190
    assert near_duplicates([Thumbprint(hash=number, small=small) for number in hashes]) == expected


def test_a_split_that_compares_nothing_reads_no_image(command, tmp_path):
    rows = "".join(f"part{n % 5}/absent{n}.png,{'ab'[n % 2]}\n" for n in range(200))
    (tmp_path / "m.csv").write_text(f"path,label\n{rows}")
    result = command(
        "data", "split", tmp_path / "m.csv", "-o", tmp_path / "out.csv", "--no-compare", "--group-by", "folder"
    )
    assert result.returncode == 0, result.stderr
    assert "were not looked for" in result.stdout
    records = open_source(tmp_path / "out.csv").records
    assert {record.name for record in records} == {f"part{n % 5}/absent{n}.png" for n in range(200)}
    assert len({(record.name.split("/")[0], record.split) for record in records}) == 5


# -- the corpus --------------------------------------------------------------------------------------------------------


def corpus() -> dict[str, bytes]:
    """Bad, odd and hostile images, each a few lines of struct, zlib and Pillow."""
    image = photograph(1, 60, 80)
    jpeg, whole = encoded(image), encoded(image, "PNG")
    grey16 = struct.pack(">256H", *(value * 257 for value in range(256)))
    files = {f"exif{turn}.jpg": encoded(image, exif=turned(turn)) for turn in range(1, 9)}
    files |= {
        f"{form}_cut_{part}": encoded(image, form)[: -part or None]
        for form in ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP")
        for part in (2, 300)
    }
    for depth, colour in ((1, 0), (2, 0), (4, 0), (8, 0), (16, 0), (8, 2), (16, 2), (8, 4), (16, 4), (8, 6), (16, 6)):
        channels = {0: 1, 2: 3, 4: 2, 6: 4}[colour]
        row = b"\0" + bytes(range(1, -(-9 * channels * depth // 8) + 1))
        files[f"png_{depth}_{colour}.png"] = png(9, 5, depth, colour, row * 5)
    palette = chunk(b"PLTE", bytes(range(6)))
    files |= {
        "empty.jpg": b"",
        "html.jpg": b"<html><body>not found</body></html>",
        "svg.jpg": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
        "zeros.png": bytes(5000),
        "half.jpg": jpeg[: len(jpeg) // 2],
        "holes.jpg": jpeg[:900] + bytes(64) + jpeg[964:],
        "trailing.jpg": jpeg + b"after the end" * 50,
        "png_as_jpg.jpg": whole,
        "cmyk.jpg": encoded(image.convert("CMYK")),
        "progressive.jpg": encoded(image, progressive=True),
        "header_only.jpg": jpeg[: jpeg.index(b"\xff\xda")],
        "huge_header.jpg": jpeg.replace(struct.pack(">HH", 60, 80), struct.pack(">HH", 65000, 65000), 1),
        "large_header.jpg": jpeg.replace(struct.pack(">HH", 60, 80), struct.pack(">HH", 9900, 9000), 1),
        "no_tables.jpg": jpeg.replace(b"\xff\xdb", b"\xff\xfe"),
        "grey16.png": png(16, 16, 16, 0, b"".join(b"\0" + grey16[at : at + 32] for at in range(0, 512, 32))),
        "grey16_alpha.png": png(2, 1, 16, 4, b"\0" + bytes(8)),
        "bomb_1bit.png": png(30_000, 30_000, 1, 0, bytes(3751 * 40)),
        "bomb_text.png": png(2, 1, 8, 0, b"\0\1\2", chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(80 << 20), 1))),
        "bomb_profile.png": png(2, 1, 8, 0, b"\0\1\2", chunk(b"iCCP", b"k\0\0" + zlib.compress(bytes(80 << 20), 1))),
        "bad_checksum.png": whole[:60] + bytes([whole[60] ^ 1]) + whole[61:],
        "no_end.png": whole[:-12],
        "no_data.png": png(9, 9, 8, 0, b""),
        "too_little_data.png": png(90, 90, 8, 0, bytes(100)),
        "interlaced.png": png(1, 1, 8, 0, b"\0\7", interlace=1),
        "zero_size.png": png(0, 0, 8, 0, b""),
        "bad_depth.png": png(9, 9, 3, 0, bytes(90)),
        "palette_missing.png": png(2, 1, 8, 3, b"\0\0\1"),
        "palette_short.png": png(2, 1, 8, 3, b"\0\0\xff", palette),
        "negative_chunk.png": whole[:33] + b"\xff\xff\xff\xff" + whole[37:],
        "animated.gif": encoded(
            image.convert("P"), "GIF", save_all=True, append_images=[photograph(2, 60, 80).convert("P")]
        ),
        "animated.webp": encoded(image, "WEBP", save_all=True, append_images=[photograph(2, 60, 80)]),
        "float.tif": encoded(Image.fromarray(np.ones((5, 5), dtype=np.float32)), "TIFF"),
        "loop.tif": b"II*\0\x08\0\0\0\x01\0\x00\x01\x03\0\x01\0\0\0\x05\0\0\0\x08\0\0\0",
        "far.tif": b"II*\0\xff\xff\xff\x7f" + bytes(50),
        "head.bmp": b"BM" + bytes(60),
        "wide.bmp": b"BM" + struct.pack("<IHHIIiiHHIIiiII", 9**6, 0, 0, 54, 40, 2**31 - 1, 1, 1, 24, 0, 0, 0, 0, 0, 0),
        "head.gif": b"GIF89a\xff\xff\xff\xff\0\0\0",
        "riff.webp": b"RIFF\x10\0\0\0WEBPVP8 " + b"\xff" * 60,
        "heic.jpg": b"\0\0\0\x1cftypheic" + bytes(90),
    }
    return files


def train_on(records: list[Record]) -> None:
    """That training has the reference's pixels of images that can be read."""
    for record in records:
        image, whole = training_image(record), pixels_of(record)
        assert np.array_equal(image if isinstance(image, np.ndarray) else image.pixels(1), whole), record.name


def test_the_corpus_is_decoded_right_or_refused_with_a_reason(tmp_path):
    files = corpus()
    assert len(files) >= 40
    folder = plant(tmp_path / "corpus", files)
    records = [Record(path=folder / name, name=name, target=0) for name in sorted(files)]
    start = time.monotonic()
    problems = {problem.name: problem for problem in check_images(records, workers=2)}
    assert time.monotonic() - start < 60
    assert all(problem.reason and "\n" not in problem.reason for problem in problems.values())
    assert not {problem.kind for problem in problems.values()} & {"crash", "hang", "memory"}
    taken = {record.name for record in records} - set(problems)
    train_on([record for record in records if record.name in taken])
    assert {"trailing.jpg", "png_as_jpg.jpg", "cmyk.jpg", "grey16.png", "progressive.jpg", "animated.gif"} <= taken
    assert not {"empty.jpg", "half.jpg", "bomb_1bit.png", "huge_header.jpg", "bad_checksum.png", "JPEG_cut_300"} & taken
    upright = decode(folder / "exif1.jpg").shape
    assert {decode(folder / f"exif{turn}.jpg").shape for turn in range(1, 5)} == {upright}
    assert np.array_equal(decode(folder / "grey16.png")[:, :, 0].ravel(), np.arange(256))
    batches = list(evaluation_batches(records, Preprocessing(input_size=32), batch_size=16, workers=2))
    refused = {records[index].name: why.kind for batch in batches for index, why in batch.bad}
    assert refused == {name: problem.kind for name, problem in problems.items()}


def damaged(files: dict[str, bytes]) -> dict[str, bytes]:
    """Each file twice, with one to four bytes changed at random; the same ones in every run."""
    found = {}
    for name, data in files.items():
        for copy in range(2):
            draw, changed = random.Random(f"{name} {copy}"), bytearray(data)
            for _ in range(draw.randint(1, 4)) if data else ():
                changed[draw.randrange(len(data))] = draw.randrange(256)
            found[f"{copy}_{name}"] = bytes(changed)
    return found


def test_every_file_of_a_corpus_of_ones_own_is_decoded_or_refused(tmp_path):
    """Any folder: `REINCEPTION_IMAGE_CORPUS=/path pytest tests/data/test_data_check.py -k ones_own`."""
    folder = os.environ.get("REINCEPTION_IMAGE_CORPUS") or plant(tmp_path / "damaged", damaged(corpus()))
    paths = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    assert paths
    records = [Record(path=path, name=str(path.relative_to(folder)), target=0) for path in paths]
    problems = check_images(records, workers=2)
    assert all(problem.reason and "\n" not in problem.reason for problem in problems)
    deadly = [f"{problem.name}: {problem.reason}" for problem in problems if problem.kind in ("crash", "hang")]
    assert not deadly
    refused = {problem.name for problem in problems}
    train_on([record for record in records if record.name not in refused])


def test_a_refusal_is_a_reinception_error():
    assert issubclass(BadImage, ReinceptionError)
