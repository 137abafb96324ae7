"""Tar shards read in place: through the index that `data pack` wrote, or through one made from their headers."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from reinception.data.images.formats import PICTURE_SUFFIXES
from reinception.data.sources.manifest import require_sound_labels
from reinception.data.sources.records import NO_SPLIT, SPLIT_WORDS, Columns, RecordTable, Source
from reinception.data.sources.remote import read_whole, sizes_and_versions
from reinception.data.sources.tar import Member, members
from reinception.errors import ReinceptionError

INDEX_NAME, ROWS_NAME, FORMAT = "index.json", "index.csv", 1
ROW_FIELDS = ("path", "label", "split", "group", "stratum", "probability", "shard", "offset", "size")

_MAX_LABEL_BYTES = 4096
_SHARD_SPLIT = re.compile(r"(train|val|valid|validation|test)(?![a-z])", re.IGNORECASE)


def holds_shards(root: Path) -> bool:
    """Whether a folder is one of tar shards: tar files in it or in its split folders."""
    return any(True for _ in _shards(root))


def open_shards(root: Path) -> Source:
    """The pictures in a folder's tar files, as in WebDataset: `key.jpg` beside `key.cls` (a class name or number) or
    `key.json` (with `label` or `cls`); without those the class is the folder that the member lies in.

    A shard whose name begins with a split, as `train-0000.tar`, or that lies in a split folder, is of that split. The
    folder of `data pack` has an index of its own, which is used when every shard has the size it says; it keeps names,
    splits, groups and certainties. Nothing is extracted and nothing written.
    """
    if (root / INDEX_NAME).exists():
        return open_packed(root)
    scan = Scan()
    for split, path in _shards(root):
        with path.open("rb") as file:
            handle = file.fileno()
            listing = list_shard(members(path), lambda offset, size, of=handle: os.pread(of, size, offset))
        scan.add(path.relative_to(root).as_posix(), listing, path, split)
    return scan.source(root)


def _shards(root: Path) -> Iterator[tuple[int, Path]]:
    """(code of the split or NO_SPLIT, path) of every tar file, by name."""
    try:
        entries = sorted(os.scandir(root), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.name.endswith(".tar") and entry.is_file():
            yield split_named(entry.name), Path(entry.path)
        elif entry.name.lower() in SPLIT_WORDS and entry.is_dir():
            for path in sorted(Path(entry.path).glob("*.tar")):
                yield SPLIT_WORDS[entry.name.lower()], path


@dataclass(kw_only=True)
class Listing:
    """What the headers of one shard say: its pictures, the label of each key that has one, and how much else."""

    pictures: list[Member] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)
    num_ignored: int = 0


def list_shard(found: Iterable[Member], read_at: Callable[[int, int], bytes]) -> Listing:
    """The listing of one shard; `read_at(offset, size)` reads the members that are labels."""
    listing = Listing()
    for member in found:
        key, suffix = _key(member.name)
        if suffix in PICTURE_SUFFIXES and not Path(member.name).name.startswith("."):
            listing.pictures.append(member)
        elif suffix in (".cls", ".json") and member.size <= _MAX_LABEL_BYTES:
            label = _label(read_at(member.offset, member.size), suffix)
            if label is not None:
                listing.labels[key] = label
        else:
            listing.num_ignored += 1
    return listing


def split_named(name: str) -> int:
    """The code of the split that a shard's name says, by its folder or its beginning; or NO_SPLIT."""
    *folders, last = name.split("/")
    found = _SHARD_SPLIT.match(last)
    if folders and (code := SPLIT_WORDS.get(folders[-1].lower())) is not None:
        return code
    return SPLIT_WORDS[found[1].lower()] if found else NO_SPLIT


@dataclass
class Scan:
    """What the headers of all shards say; where they lie elsewhere, `addresses` beside the `paths`."""

    names: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    splits: bytearray = field(default_factory=bytearray)
    paths: list[Path] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)
    files: array[int] = field(default_factory=lambda: array("i"))
    offsets: array[int] = field(default_factory=lambda: array("q"))
    sizes: array[int] = field(default_factory=lambda: array("q"))
    num_ignored: int = 0

    def add(self, name: str, listing: Listing, place: Path | str, split: int) -> None:
        """The pictures of one shard, which is called `name` and lies at `place`, a path or an address."""
        stem = name.removesuffix(".tar")
        for member in listing.pictures:
            key, _ = _key(member.name)
            label = listing.labels.get(key) or Path(member.name).parent.name
            if not label:
                raise ReinceptionError(f"{place}: {member.name!r} has no class: put {key}.cls beside it, or a folder")
            self.names.append(f"{stem}/{member.name}")
            self.labels.append(label)
            self.splits.append(split)
            self.files.append(len(self.paths))
            self.offsets.append(member.offset)
            self.sizes.append(member.size)
        self.add_file(place)
        self.num_ignored += listing.num_ignored

    def add_file(self, place: Path | str) -> None:
        self.paths.append(Path(place))
        if isinstance(place, str):
            self.addresses.append(place)

    def source(self, root: Path | str) -> Source:
        """ReinceptionError where there are no pictures, or their labels are no task."""
        if not self.names:
            raise ReinceptionError(f"{root}: its tar files hold no pictures: check that they are what you meant")
        found = set(self.labels)
        classes = sorted(found, key=int) if all(label.isdecimal() for label in found) else sorted(found)
        return _source(root, classes, self, self.num_ignored)


def _source(root: Path | str, classes: list[str], rows: Scan, num_ignored: int, **more: Any) -> Source:
    index = {label: target for target, label in enumerate(classes)}
    targets = np.fromiter((index[label] for label in rows.labels), dtype=np.int32, count=len(rows.labels))
    splits = np.frombuffer(bytes(rows.splits), dtype=np.uint8).astype(np.int8)
    splits[splits == NO_SPLIT] = -1
    require_sound_labels(root, classes, targets, splits)
    columns = Columns(
        root=Path() if isinstance(root, str) else root,
        names=rows.names,
        targets=targets,
        splits=splits,
        paths=tuple(rows.paths),
        files=np.array(rows.files, dtype=np.int32),
        offsets=np.array(rows.offsets, dtype=np.int64),
        sizes=np.array(rows.sizes, dtype=np.int64),
        base=root if isinstance(root, str) else None,
        addresses=tuple(rows.addresses),
        **more,
    )
    name = root.rpartition("/")[2] if isinstance(root, str) else root.name or root.resolve().name
    return Source(
        name=name,
        root=columns.root,
        classes=tuple(classes),
        records=RecordTable(columns),
        num_ignored=num_ignored,
        address=columns.base,
    )


def _key(name: str) -> tuple[str, str]:
    """A member's key and its suffix: WebDataset cuts at the first dot of the last part, pictures at the last."""
    folder, slash, last = name.rpartition("/")
    return folder + slash + last.split(".")[0], Path(last).suffix.lower()


def _label(data: bytes, suffix: str) -> str | None:
    text = data.decode("utf-8", "replace").strip()
    if suffix == ".cls":
        return text or None
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        return None
    label = said.get("label", said.get("cls")) if isinstance(said, Mapping) else None
    return None if label is None else str(label)


# -- with the index of `data pack` -------------------------------------------------------------------------------------


def open_packed(root: Path | str) -> Source:
    """The folder of `data pack`, a path or an address, through its index."""
    index = _read_index(root)
    rows, groups, strata, certainties = Scan(), list[str | None](), list[str | None](), array("d")
    limits, numbers, known = list[int](), dict[str, int](), dict[str, str]()
    places = [_inside(root, shard["name"]) for shard in index["shards"]]
    for shard, place, size in zip(index["shards"], places, _sizes(places), strict=True):
        if size != shard["size"]:
            raise ReinceptionError(f"{place}: is missing or has another size than {INDEX_NAME} says: pack it again")
        numbers[shard["name"]] = len(rows.paths)
        rows.add_file(place)
        limits.append(shard["size"])
    try:
        with _text(_inside(root, ROWS_NAME)) as file:
            reader = csv.reader(file, strict=True)
            if tuple(next(reader, ())) != ROW_FIELDS:
                raise ValueError("its header is another")
            for name, label, split, group, stratum, probability, shard, offset, size in reader:
                number, start, length = numbers[shard], int(offset), int(size)
                if start < 0 or length < 0 or start + length > limits[number]:
                    raise ValueError(f"{name!r} lies outside {shard}")
                rows.names.append(name)
                rows.labels.append(known.setdefault(label, label))
                rows.splits.append(SPLIT_WORDS[split] if split else NO_SPLIT)
                groups.append(known.setdefault(group, group) or None)
                strata.append(known.setdefault(stratum, stratum) or None)
                certainties.append(float(probability or 1))
                rows.files.append(number)
                rows.offsets.append(start)
                rows.sizes.append(length)
    except (OSError, ValueError, KeyError, csv.Error) as error:
        raise ReinceptionError(f"{_inside(root, ROWS_NAME)}: can not be used ({error}): pack the data again") from error
    if not rows.names or set(rows.labels) - set(index["classes"]):
        raise ReinceptionError(f"{_inside(root, ROWS_NAME)}: does not fit {INDEX_NAME}: pack the data again")
    return _source(
        root,
        index["classes"],
        rows,
        0,
        groups=groups if any(groups) else None,
        strata=strata if any(strata) else None,
        certainties=np.array(certainties) if min(certainties) < 1 else None,
    )


def _read_index(root: Path | str) -> dict[str, Any]:
    """What `data pack` says of its shards: `classes`, and of each shard `name`, `size` and `sha256`."""
    place = _inside(root, INDEX_NAME)
    try:
        with _text(place) as file:
            index = json.load(file)
        is_sound = index["format"] == FORMAT and all(
            isinstance(shard["size"], int) and Path(shard["name"]).name == shard["name"] for shard in index["shards"]
        )
        if not is_sound or not all(isinstance(name, str) for name in index["classes"]):
            raise ValueError("it is of another format")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ReinceptionError(f"{place}: can not be used ({error}): pack the data again") from error
    return index


def _inside(root: Path | str, name: str) -> Path | str:
    return f"{root}/{name}" if isinstance(root, str) else root / name


def _text(place: Path | str) -> TextIO:
    file = io.BytesIO(read_whole(place)) if isinstance(place, str) else place.open("rb")
    return io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="")


def _sizes(places: Sequence[Path | str]) -> list[int | None]:
    """The bytes of each file, None where there is none; those elsewhere are asked for several at a time."""
    elsewhere = [place for place in places if isinstance(place, str)]
    if elsewhere:
        return [size for size, _ in sizes_and_versions(elsewhere)]
    return [place.stat().st_size if isinstance(place, Path) and place.is_file() else None for place in places]
