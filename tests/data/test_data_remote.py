"""Data elsewhere: the same records, sequence and pixels as the local files; whatever goes wrong is one line."""

from __future__ import annotations

import builtins
import http.server
import re
import shutil
import socketserver
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from test_data_shards import example_image, shard, tree

from reinception.data.loading.evaluation_stream import evaluation_batches
from reinception.data.loading.loader import TrainingStream
from reinception.data.loading.read import bytes_of
from reinception.data.prepare.audit import check_images
from reinception.data.prepare.pack import pack
from reinception.data.sources import remote
from reinception.data.sources.open_source import open_source
from reinception.data.sources.records import Record
from reinception.data.sources.remote import ATTEMPTS, expanded
from reinception.errors import ReinceptionError, UsageError
from reinception.preprocess import Preprocessing


class Store(socketserver.ThreadingMixIn, http.server.HTTPServer):
    """A real server on loopback that serves a folder in parts, and can be told to misbehave."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.folder, self.knows_ranges = folder, True
        self.num_to_break, self.status = 0, 0
        self.asked: list[str] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def answer(self, *, with_body: bool) -> None:
        store, asked_for = self.server, self.headers.get("Range")
        assert isinstance(store, Store)
        path = store.folder / self.path.lstrip("/")
        if with_body:
            store.asked.append(f"{self.path} {asked_for}")
        if with_body and store.status:
            self.send_response(store.status)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if not path.is_file():
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        data, status = path.read_bytes(), 200
        self_says = {"ETag": f'"{path.stat().st_mtime_ns}"'}
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", asked_for or "")
        if found and store.knows_ranges:
            first, last = int(found[1]), min(int(found[2]), len(data) - 1)
            self_says["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
            data, status = data[first : last + 1], 206
        self.send_response(status)
        for name, value in self_says.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if not with_body:
            return
        if store.num_to_break:  # the connection ends in the middle of the body
            store.num_to_break -= 1
            self.wfile.write(data[: len(data) // 2])
            self.close_connection = True
            return
        self.wfile.write(data)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setattr(remote, "FIRST_PAUSE_SECONDS", 0.01)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four shards of two splits."""
    for split, numbers in (("train", range(2)), ("val", range(2))):
        for number in numbers:
            files: list[tuple[str, bytes]] = []
            for place in range(5):
                value = 10 * place + number + (100 if split == "val" else 0)
                files += [
                    (f"s/{place}.png", example_image(value, size=(20, 16))),
                    (f"s/{place}.cls", b"cat dog".split()[place % 2]),
                ]
            shard(tmp_path / "data" / f"{split}-{number:03d}.tar", *files)
    return tmp_path / "data"


@pytest.fixture
def store(folder: Path) -> Iterator[Store]:
    server = Store(folder)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def in_memory(folder: Path) -> str:
    files = fsspec.filesystem("memory")
    for path in folder.iterdir():
        files.pipe_file(f"/{folder.parent.name}/{path.name}", path.read_bytes())
    return f"memory://{folder.parent.name}"


def same_but_for_the_place(records: Sequence[Record]) -> list[Record]:
    return [replace(record, path=Path(), address=None) for record in records]


@pytest.mark.parametrize("where", ["http", "memory", "file"])
def test_shards_elsewhere_are_the_same_records_sequence_and_bits(folder, store, where):
    before = tree(folder)
    root = {"http": store.address, "memory": in_memory(folder), "file": f"file://{folder}"}[where]
    local, source = open_source(folder), open_source(root + "/{train,val}-{000..001}.tar")
    assert (source.classes, source.splits, source.fingerprint) == (local.classes, local.splits, local.fingerprint)
    assert same_but_for_the_place(source.records) == same_but_for_the_place(local.records)
    assert [bytes_of(record) for record in source.records] == [bytes_of(record) for record in local.records]

    def batches(records: Sequence[Record], workers: int) -> list[torch.Tensor]:
        stream = TrainingStream(
            records, input_size=12, augmentation="inception", batch_size=4, seed=0, workers=workers, cache_bytes=0
        )
        return [batch.images for batch in islice(stream.batches(), 5)]

    expected = batches(local.split("train"), 0)
    for workers in (0, 2):
        assert all(map(torch.equal, batches(source.split("train"), workers), expected))
    ours, theirs = (
        list(evaluation_batches(one.split("val"), Preprocessing(input_size=8), batch_size=3, workers=1))
        for one in (source, local)
    )
    assert all(torch.equal(a.images, b.images) and not a.bad for a, b in zip(ours, theirs, strict=True))
    assert tree(folder) == before


def test_the_headers_are_read_once_and_again_when_the_shard_changes(folder, store):
    address = store.address + "/{train,val}-{000..001}.tar"
    first = open_source(address)
    assert len(store.asked) == 4
    assert open_source(address).records == first.records
    assert len(store.asked) == 4
    shard(folder / "val-001.tar", ("s/new.png", example_image(3)), ("s/new.cls", b"dog"))
    assert len(open_source(address).records) == len(first.records) - 4
    assert len(store.asked) == 5


def test_only_the_parts_that_are_needed_are_asked_for(folder, store):
    source = open_source(f"{store.address}/train-000.tar")
    record = source.records[2]
    store.asked.clear()
    assert bytes_of(record) == example_image(20, size=(20, 16))
    assert record.offset is not None
    assert record.size is not None
    assert store.asked == [f"/train-000.tar bytes={record.offset}-{record.offset + record.size - 1}"]


def test_a_packed_folder_and_a_manifest_elsewhere_are_the_same_data(folder, store, tmp_path):
    local = open_source(folder)
    pack(local, folder / "packed", per_shard=7)
    again = open_source(f"{store.address}/packed/")
    assert (again.classes, again.fingerprint) == (local.classes, local.fingerprint)
    assert [bytes_of(record) for record in again.records] == [bytes_of(record) for record in local.records]
    (folder / "one.png").write_bytes(example_image(1))
    (folder / "sub").mkdir()
    (folder / "sub" / "two.png").write_bytes(example_image(2))
    (folder / "m.csv").write_text(f"path,label\none.png,a\nsub/two.png,b\n{store.address}/sub/two.png,b\n")
    source = open_source(f"{store.address}/m.csv")
    assert [bytes_of(record) for record in source.records] == [example_image(1), example_image(2), example_image(2)]
    assert check_images(source.records, workers=1) == []
    shutil.copytree(folder / "sub", tmp_path / "here" / "sub")
    shutil.copy(folder / "one.png", tmp_path / "here")
    shutil.copy(folder / "m.csv", tmp_path / "here")
    assert open_source(tmp_path / "here" / "m.csv").fingerprint == source.fingerprint


def test_braces_stand_for_several_addresses():
    assert expanded("s3://b/x-{08..11}.tar") == [f"s3://b/x-{number}.tar" for number in ("08", "09", "10", "11")]
    assert expanded("s3://b/{a,b}/{0..1}.tar") == [f"s3://b/{one}.tar" for one in ("a/0", "a/1", "b/0", "b/1")]
    with pytest.raises(UsageError, match="does not count upwards"):
        expanded("s3://b/{9..1}.tar")
    with pytest.raises(UsageError, match="10,000,000,000 files"):
        expanded("s3://b/{0..99999}{0..99999}.tar")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("absent.tar", r"absent\.tar: there is no such file"),
        ("absent", r"absent/index\.json: there is no such file"),
        ("absent.csv", r"absent\.csv: there is no such file"),
        ("{0..2}", "end it with .tar"),
    ],
)
def test_what_is_not_there_is_one_line(store, name, says):
    with pytest.raises(ReinceptionError, match=says) as caught:
        open_source(f"{store.address}/{name}")
    assert "\n" not in str(caught.value)


def test_a_shard_elsewhere_that_leads_outside_is_refused(folder, store):
    shard(folder / "evil.tar", ("../../evil.png", example_image(1)))
    with pytest.raises(ReinceptionError, match=r"evil\.tar: .* leads outside"):
        open_source(f"{store.address}/evil.tar")


def test_a_server_without_ranges_is_named(store):
    source = open_source(f"{store.address}/train-000.tar")
    store.knows_ranges = False
    with pytest.raises(ReinceptionError, match=r"train-000\.tar: its server sends the whole file"):
        bytes_of(source.records[1])


def test_a_connection_that_breaks_is_tried_again_and_then_named_with_file_and_place(store):
    source = open_source(f"{store.address}/train-000.tar")
    record = source.records[1]
    expected = bytes_of(record)
    store.num_to_break = ATTEMPTS - 1
    assert bytes_of(record) == expected
    store.num_to_break = ATTEMPTS
    with pytest.raises(ReinceptionError, match=rf"train-000\.tar: the connection was lost at byte {record.offset:,}"):
        bytes_of(record)
    assert bytes_of(record) == expected
    store.status = 503
    store.asked.clear()
    with pytest.raises(ReinceptionError, match=f"{ATTEMPTS} times"):
        bytes_of(record)
    assert len(store.asked) == ATTEMPTS
    store.status = 403
    with pytest.raises(ReinceptionError, match="is refused"):
        bytes_of(record)
    assert len(store.asked) == ATTEMPTS + 1


@pytest.mark.parametrize("workers", [0, 1])
def test_a_lost_connection_ends_an_evaluation_and_is_no_bad_image(store, workers):
    source = open_source(f"{store.address}/train-000.tar")
    store.status = 500
    with pytest.raises(ReinceptionError, match="the connection was lost"):
        list(evaluation_batches(source.records, Preprocessing(input_size=8), batch_size=2, workers=workers))


def test_without_the_extra_it_is_said_what_to_install(monkeypatch):
    true_import = builtins.__import__

    def without(name: str, *more: Any) -> Any:
        if name.split(".", maxsplit=1)[0] == "fsspec":
            raise ImportError(name)
        return true_import(name, *more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UsageError, match=r'pip install "reinception\[remote\]"'):
        open_source("s3://bucket/x.tar")


def test_an_unknown_protocol_is_one_line():
    with pytest.raises(ReinceptionError, match=r"^nosuch://bucket/x\.tar: ") as caught:
        open_source("nosuch://bucket/x.tar")
    assert "\n" not in str(caught.value)
