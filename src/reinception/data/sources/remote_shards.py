"""Data elsewhere as a source: tar shards whose index is made once and kept, packed folders, and manifests."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from reinception.data.sources.manifest import SUFFIXES as MANIFESTS
from reinception.data.sources.manifest import open_manifest
from reinception.data.sources.records import Source
from reinception.data.sources.remote import NUM_AT_ONCE, Parts, expanded, size_and_version
from reinception.data.sources.shards import INDEX_NAME, Listing, Scan, list_shard, open_packed, split_named
from reinception.data.sources.tar import Member, members_of
from reinception.errors import ReinceptionError
from reinception.files import cache_folder, new_text_file

_FORMAT = 1


def open_remote(address: str, *, group_column: str = "group") -> Source:
    """A manifest (`.csv`, `.jsonl`), tar shards (`.tar`, several by braces), or else the folder of `data pack`.

    `s3://bucket/{train,val}-{000..009}.tar` gives the records that a local folder with those ten shards gives. The
    headers of a shard are read once; what they say is kept in the user's cache folder (`cache_folder`) until the
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
    scan = Scan()
    with ThreadPoolExecutor(NUM_AT_ONCE) as threads:
        for place, listing in zip(addresses, threads.map(_listed, addresses), strict=True):
            name = place.removeprefix(f"{root}/")
            scan.add(name, listing, place, split_named(name))
    return scan.source(root)


def _listed(address: str) -> Listing:
    """What the shard's headers say, from the cache where it is known."""
    size, version = size_and_version(address)
    key = [_FORMAT, address, size, version]
    path = cache_folder() / "shards" / f"{hashlib.sha256(json.dumps(key).encode()).hexdigest()}.json"
    if (known := _known(path, key)) is not None:
        return known
    parts = Parts(address, size)
    listing = list_shard(members_of(address, parts, size), parts.at)
    said = {
        "key": key,
        "pictures": [dataclasses.astuple(member) for member in listing.pictures],
        "labels": listing.labels,
        "num_ignored": listing.num_ignored,
    }
    # Where there is no room for a cache, the headers are read again the next time.
    with contextlib.suppress(OSError, ReinceptionError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with new_text_file(path, replace=True) as file:
            json.dump(said, file)
    return listing


def _known(path: Path, key: list[str | int]) -> Listing | None:
    """The listing kept at `path`; None where there is none that is whole."""
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        if said["key"] != key:
            return None
        pictures = [Member(name=str(name), offset=int(at), size=int(size)) for name, at, size in said["pictures"]]
        return Listing(pictures=pictures, labels=dict(said["labels"]), num_ignored=int(said["num_ignored"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
