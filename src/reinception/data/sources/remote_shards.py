"""Remote data as a source: tar shards, whose headers are read once and cached, packed folders, and manifests."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from reinception.data.sources.labels import BadValueError
from reinception.data.sources.manifest import SUFFIXES as MANIFESTS
from reinception.data.sources.manifest import open_manifest
from reinception.data.sources.records import Source
from reinception.data.sources.remote import NUM_AT_ONCE, RemoteFile, expanded, size_and_version
from reinception.data.sources.shards import (
    INDEX_NAME,
    ShardCollection,
    ShardContents,
    open_packed,
    read_contents,
)
from reinception.data.sources.tar import Member, members_of
from reinception.errors import ReinceptionError
from reinception.files import cache_folder, new_text_file

_FORMAT = 3


def open_remote(address: str, *, group_column: str = "group") -> Source:
    """A manifest (`.csv`, `.jsonl`), tar shards (`.tar`, several by braces), or else the folder of `data pack`.

    `s3://bucket/{train,val}-{000..009}.tar` gives the records that a local folder with those ten shards gives. The
    headers of a shard are read once; its contents are kept in the user's cache folder (`cache_folder`) until the
    shard's size or version changes.
    """
    if address.lower().endswith(MANIFESTS):
        return open_manifest(address, group_column=group_column)
    address = address.rstrip("/")
    if not address.lower().endswith(".tar"):
        if "{" in address:
            raise ReinceptionError(f"{address}: braces stand for shards: end it with .tar")
        return open_packed(address.removesuffix(f"/{INDEX_NAME}"))
    root = address.partition("{")[0].rpartition("/")[0]
    addresses = sorted(expanded(address))
    names = [place.removeprefix(f"{root}/") for place in addresses]
    collection = ShardCollection(names)
    with ThreadPoolExecutor(NUM_AT_ONCE) as threads:
        for name, place, contents in zip(names, addresses, threads.map(_contents, addresses), strict=True):
            collection.add(name, contents, place)
    return collection.source(root)


def _contents(address: str) -> ShardContents:
    """The contents of a shard, from the cache where they are known."""
    size, version = size_and_version(address)
    key = [_FORMAT, address, size, version]
    path = cache_folder() / "shards" / f"{hashlib.sha256(json.dumps(key).encode()).hexdigest()}.json"
    if (known := _known(path, key)) is not None:
        return known
    file = RemoteFile(address, size)
    try:
        contents = read_contents(members_of(address, file, size), file.at)
    except BadValueError as error:
        raise ReinceptionError(f"{address}: {error}") from None
    document = {"key": key, **dataclasses.asdict(contents)}
    # Where there is no room for a cache, the headers are read again the next time.
    with contextlib.suppress(OSError, ReinceptionError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with new_text_file(path, replace=True) as text:
            json.dump(document, text)
    return contents


def _known(path: Path, key: list[str | int]) -> ShardContents | None:
    """The contents kept at `path`; None where there are none that are whole."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["key"] != key:
            return None
        images = [Member(**member) for member in document["images"]]
        return ShardContents(images=images, labels=dict(document["labels"]), num_ignored=int(document["num_ignored"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
