"""Tar shards: read in place wherever they come from, refused when they could lead outside, packed and read back."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reinception.data.images.decode import decode
from reinception.data.loading.read import bytes_of, pixels_of
from reinception.data.loading.watchdog import Watchdog
from reinception.data.prepare import pack as packing
from reinception.data.prepare.pack import pack
from reinception.data.sources import tar as tar_room
from reinception.data.sources.open_source import open_source
from reinception.data.sources.split import assign_splits
from reinception.data.sources.tar import members
from reinception.errors import ReinceptionError


def example_image(value: int, form: str = "PNG", size: tuple[int, int] = (6, 5)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, (value, 255 - value, 7)).save(file, form)
    return file.getvalue()


def shard(path: Path, *files: tuple[str, bytes], form: int = tarfile.PAX_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as archive:
        for name, data in files:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def tree(folder: Path) -> dict[str, str]:
    """Every file and folder below, with a digest of the content and the date of its last change."""
    return {
        str(path.relative_to(folder)): f"{path.stat().st_mtime_ns} {path.stat().st_mode} "
        + (hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "")
        for path in sorted(folder.rglob("*"))
    }


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_have_their_names_and_places_in_every_dialect(tmp_path, form):
    long = "d" * 60 + "/" + "n" * 90 + ".png"
    names = ["a.png", long] + ([] if form == tarfile.USTAR_FORMAT else ["ü" * 120 + ".png"])
    path = shard(tmp_path / "x.tar", *((name, example_image(index)) for index, name in enumerate(names)), form=form)
    found = list(members(path))
    assert [member.name for member in found] == names
    content = path.read_bytes()
    for index, member in enumerate(found):
        assert content[member.offset : member.offset + member.size] == example_image(index)


def test_webdataset_shards_are_read_in_place(tmp_path):
    shard(
        tmp_path / "train-0.tar", ("s/1.png", example_image(1)), ("s/1.cls", b"10"), ("2.jpg", example_image(2, "JPEG"))
    )
    shard(
        tmp_path / "train-1.tar", ("2.jpg", example_image(3, "JPEG")), ("2.json", b'{"label": 9}'), ("2.txt", b"a cat")
    )
    (tmp_path / "train-0.tar").unlink()
    shard(tmp_path / "train-0.tar", ("s/1.png", example_image(1)), ("s/1.cls", b"10"))
    shard(tmp_path / "val" / "0.tar", ("4.png", example_image(4)), ("4.cls", b"9\n"))
    before = tree(tmp_path)
    source = open_source(tmp_path)
    assert source.classes == ("9", "10")
    assert [(record.name, record.target, record.split) for record in source.records] == [
        ("train-0/s/1.png", 1, "train"),
        ("train-1/2.jpg", 0, "train"),
        ("val/0/4.png", 0, "val"),
    ]
    assert [bytes_of(record) for record in source.records] == [
        example_image(1),
        example_image(3, "JPEG"),
        example_image(4),
    ]
    assert np.array_equal(pixels_of(source.records[1]), decode(example_image(3, "JPEG")))
    assert source.num_ignored == 1
    assert len(source.fingerprint) == 64
    assert tree(tmp_path) == before


def test_without_labels_the_folder_in_the_shard_is_the_class(tmp_path):
    shard(tmp_path / "0.tar", ("cat/1.png", example_image(1)), ("dog/2.png", example_image(2)), ("dog/._2.png", b"x"))
    source = open_source(tmp_path)
    assert [source.classes[record.target] for record in source.records] == ["cat", "dog"]
    shard(tmp_path / "1.tar", ("3.png", example_image(1)))
    with pytest.raises(ReinceptionError, match=r"'3\.png' has no class"):
        open_source(tmp_path)


def special(kind: bytes, name: str = "x.png", target: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


@pytest.mark.parametrize(
    ("member", "says"),
    [
        (special(b"0", "../../evil.png"), "leads outside"),
        (special(b"0", "/etc/evil.png"), "leads outside"),
        (special(b"0", "a/../../evil.png"), "leads outside"),
        (special(b"2", target="/etc/passwd"), "is a link"),
        (special(b"1", target="a.png"), "is a hard link"),
        (special(b"3"), "is a device"),
        (special(b"4"), "is a device"),
        (special(b"6"), "is a pipe"),
        (special(b"S"), "is sparse"),
        (special(b"V"), "of the unknown kind"),
    ],
)
def test_members_that_are_no_plain_files_inside_are_refused_in_one_line(tmp_path, member, says):
    data = tmp_path / "data"
    data.mkdir()
    with tarfile.open(data / "0.tar", "w") as archive:
        archive.addfile(special(b"0", "a.png"))
        archive.addfile(member)
    before = tree(tmp_path)
    with pytest.raises(ReinceptionError, match=says) as caught:
        open_source(data)
    assert str(caught.value).startswith(str(data / "0.tar"))
    assert "\n" not in str(caught.value)
    assert tree(tmp_path) == before


def test_a_million_members_are_refused(tmp_path, monkeypatch):
    assert tar_room.MAX_MEMBERS < 1_000_000
    monkeypatch.setattr(tar_room, "MAX_MEMBERS", 300)
    header = special(b"0", "a.txt").tobuf()
    (tmp_path / "0.tar").write_bytes(header * 301)
    with pytest.raises(ReinceptionError, match="more than 300 members"):
        open_source(tmp_path)


def test_a_member_said_to_be_huge_is_refused_without_reading_it(tmp_path):
    for kind, says in ((b"0", "lacks some of its"), (b"x", "lacks some of its"), (b"L", "lacks some of its")):
        member = special(kind)
        member.size = 1 << 40
        (tmp_path / "0.tar").write_bytes(member.tobuf(tarfile.GNU_FORMAT) + bytes(2048))
        with pytest.raises(ReinceptionError, match=says):
            open_source(tmp_path)
    member.size = 80 << 20
    with (tmp_path / "0.tar").open("wb") as file:  # the name itself is a bomb: sparse, 80 MB long
        file.write(member.tobuf(tarfile.GNU_FORMAT))
        file.truncate(100 << 20)
    tracemalloc.start()
    with pytest.raises(ReinceptionError, match="is no name"):
        open_source(tmp_path)
    assert tracemalloc.get_traced_memory()[1] < 10 << 20
    tracemalloc.stop()


def test_compressed_damaged_and_empty_shards_are_refused(tmp_path):
    plain = shard(
        tmp_path / "plain" / "0.tar", ("a/1.png", example_image(1)), ("b/2.png", example_image(2))
    ).read_bytes()
    (tmp_path / "data").mkdir()
    path = tmp_path / "data" / "0.tar"
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(special(b"0"))
    with pytest.raises(ReinceptionError, match=r"is compressed \(gzip\)"):
        open_source(tmp_path / "data")
    path.write_bytes(plain[:100] + b"\xff" + plain[101:])
    with pytest.raises(ReinceptionError, match="damaged or no tar file"):
        open_source(tmp_path / "data")
    path.write_bytes(bytes(10240))
    with pytest.raises(ReinceptionError, match="hold no images"):
        open_source(tmp_path / "data")


def test_any_damage_to_a_header_is_one_line_or_a_listing(tmp_path):
    plain = shard(tmp_path / "0.tar", ("a/1.png", example_image(1)), ("b/2.png", example_image(2))).read_bytes()
    random = np.random.default_rng(4)
    for _ in range(200):
        data = bytearray(plain)
        for place in random.integers(0, 512, 2):
            data[place] = random.integers(256)
        header = data[:512]
        header[148:156] = b" " * 8  # with a right checksum, so that the fields are looked at
        data[148:156] = b"%06o\0 " % sum(header)
        (tmp_path / "0.tar").write_bytes(data[: random.integers(500, len(data))])
        try:
            list(members(tmp_path / "0.tar"))
        except ReinceptionError as error:
            assert "\n" not in str(error)


# -- packing -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for index in range(23):
        place = tmp_path / "data" / "ab"[index % 2]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{index}.x.png").write_bytes(example_image(index, size=(30 + index, 40)))
    return tmp_path / "data"


def test_packed_images_are_the_same_data(folder, tmp_path):
    before = tree(folder)
    source = assign_splits(open_source(folder), seed=3)
    packed = pack(source, tmp_path / "out", per_shard=5, workers=2)
    assert (packed.num_images, packed.num_listed, packed.num_shards) == (23, 23, 5)
    again = open_source(tmp_path / "out")
    assert (again.classes, again.fingerprint) == (source.classes, source.fingerprint)
    for mine, theirs in zip(again.records, source.records, strict=True):
        assert (mine.name, mine.target, mine.split) == (theirs.name, theirs.target, theirs.split)
        assert bytes_of(mine) == theirs.path.read_bytes()
    assert tree(folder) == before
    index = json.loads((tmp_path / "out" / "index.json").read_text())
    for one in index["shards"]:
        assert hashlib.sha256((tmp_path / "out" / one["name"]).read_bytes()).hexdigest() == one["sha256"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "index.csv",
        "index.json",
        *(f"shard-0000{number}.tar" for number in range(5)),
    ]


def test_shards_without_their_index_are_still_webdataset_shards(folder, tmp_path):
    pack(open_source(folder), tmp_path / "out", per_shard=100)
    for name in ("index.json", "index.csv"):
        (tmp_path / "out" / name).unlink()
    source = open_source(tmp_path / "out")
    assert source.classes == ("0", "1")
    assert [record.target for record in source.records] == [record.target for record in open_source(folder).records]


def test_an_interrupted_pack_goes_on_to_the_same_bytes(folder, tmp_path, monkeypatch):
    source = open_source(folder)
    pack(source, tmp_path / "whole", per_shard=5)
    written: list[int] = []
    true_add = packing._add

    def failing(archive: tarfile.TarFile, name: str, data: bytes) -> None:
        if name.startswith("00000012"):
            raise KeyboardInterrupt
        true_add(archive, name, data)

    monkeypatch.setattr(packing, "_add", failing)
    # In this process, so that the test sees which images are written.
    monkeypatch.setattr(packing, "ordered_map", lambda job, tasks, workers: (job(task, Watchdog()) for task in tasks))
    with pytest.raises(KeyboardInterrupt):
        pack(source, tmp_path / "out", per_shard=5)
    monkeypatch.setattr(packing, "_add", lambda *more: (written.append(1), true_add(*more))[1])
    with pytest.raises(ReinceptionError, match="with other options"):
        pack(source, tmp_path / "out", per_shard=6)
    (tmp_path / "out" / "shard-00001.tar").write_bytes(b"damaged since")
    pack(source, tmp_path / "out", per_shard=5)
    assert len(written) == 2 * (5 + 5 + 5 + 3)  # shard 0 was whole, shard 1 damaged, the others not there
    for path in (tmp_path / "whole").iterdir():
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()
    with pytest.raises(ReinceptionError, match="exists already"):
        pack(source, tmp_path / "out", per_shard=5)


def test_packing_can_shrink_and_leaves_out_what_can_not_be_read(folder, tmp_path):
    (folder / "a" / "bad.png").write_bytes(example_image(1)[:40])
    packed = pack(open_source(folder), tmp_path / "out", shorter_side=35)
    assert (packed.num_images, packed.num_listed) == (23, 24)
    assert [bad.name for bad in packed.left_out] == ["a/bad.png"]
    sizes = {pixels_of(record).shape[:2] for record in open_source(tmp_path / "out").records}
    assert {min(size) for size in sizes} == {30, 31, 32, 33, 34, 35}


def test_an_index_that_does_not_fit_is_refused(folder, tmp_path):
    pack(open_source(folder), tmp_path / "out", per_shard=100)
    rows = tmp_path / "out" / "index.csv"
    text = rows.read_text()
    for was, is_now, says in [
        ("shard-00000.tar,512,", "shard-00000.tar,99999999,", "lies outside"),
        ("shard-00000.tar,512,", "../../etc/passwd,512,", "cannot be used"),
        (",a,", ",c,", "does not fit"),
        ("path,label", "path,class", "its header is another"),
    ]:
        assert was in text
        rows.write_text(text.replace(was, is_now, 1))
        with pytest.raises(ReinceptionError, match=says):
            open_source(tmp_path / "out")
    rows.write_text(text)
    with (tmp_path / "out" / "shard-00000.tar").open("ab") as file:
        file.write(b"more")
    with pytest.raises(ReinceptionError, match="another size"):
        open_source(tmp_path / "out")
