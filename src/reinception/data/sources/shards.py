"""Reads tar shards in place: through the index that `data pack` wrote, or through one made from their headers."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, TextIO

from reinception.data.images.formats import IMAGE_SUFFIXES
from reinception.data.sources.class_folders import holds_class_folders
from reinception.data.sources.labels import (
    NO_SPLIT,
    SPLITS,
    BadValueError,
    label_of,
    not_utf8,
    shown,
    split_code,
    split_names,
)
from reinception.data.sources.manifest import COLUMNS
from reinception.data.sources.reading import IgnoredEntries, Reading
from reinception.data.sources.records import Source
from reinception.data.sources.remote import read_whole, sizes_and_versions
from reinception.data.sources.table_builder import TableBuilder
from reinception.data.sources.tar import Member, members
from reinception.errors import ReinceptionError

INDEX_NAME, ROWS_NAME, FORMAT = "index.json", "index.csv", 1
ROW_FIELDS = (*COLUMNS, "shard", "offset", "size")

_MAX_LABEL_BYTES = {".cls": 4096, ".json": 1 << 20}


def holds_shards(root: Path) -> bool:
    """Whether a folder is one of tar shards: tar files in it or in its split folders, and no class folders beside."""
    shards, _ = _shards(root)
    return (root / INDEX_NAME).exists() or (bool(shards) and not holds_class_folders(root))


def open_shards(root: Path) -> Source:
    """The images in a folder's tar files, as in WebDataset: `key.jpg` beside `key.cls` (a class name or number) or
    `key.json` (with `label` or `cls`); where no image has those the class is the folder that the member lies in.

    A shard whose name is that of a split and numbers, as `train-0000.tar`, or that lies in a split folder, is of that
    split (`labels.split_names`). The folder of `data pack` has an index of its own, which is used when every shard has
    the size it says; it keeps names, splits, groups and certainties. Nothing is extracted and nothing written.
    """
    if (root / INDEX_NAME).exists():
        return open_packed(root)
    shards, ignored = _shards(root)
    collection = ShardCollection([name for name, _ in shards], ignored)
    for name, path in shards:
        with path.open("rb") as file:
            handle = file.fileno()
            try:
                contents = read_contents(members(path), lambda offset, size, of=handle: os.pread(of, size, offset))
            except BadValueError as error:
                raise ReinceptionError(f"{path}: {error}") from None
        collection.add(name, contents, path)
    return collection.source(root)


def _shards(root: Path) -> tuple[list[tuple[str, Path]], IgnoredEntries]:
    """(name, path) of every tar file in a folder and in its split folders, and what else lies there."""
    found, ignored = list[tuple[str, Path]](), IgnoredEntries()

    def look(folder: Path, prefix: str) -> None:
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError:
            return
        for entry in entries:
            name = prefix + entry.name
            if entry.name.startswith("."):
                ignored.add("hidden (the name begins with a dot)", name)
            elif entry.name.endswith(".tar") and entry.is_file():
                found.append((name, Path(entry.path)))
            elif not prefix and split_code(entry.name) is not None and entry.is_dir():
                look(Path(entry.path), f"{entry.name}/")
            else:
                ignored.add("files and folders beside the shards", name)

    look(root, "")
    return found, ignored


@dataclass(kw_only=True)
class ShardContents:
    """What the headers of one shard list: its images, the label of each key that has one, and how many other files."""

    images: list[Member] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)
    num_ignored: int = 0


def read_contents(found: Iterable[Member], read_at: Callable[[int, int], bytes]) -> ShardContents:
    """The contents of one shard; `read_at(offset, size)` reads the members that are labels.

    BadValueError where a label cannot be read, and where two members of different labels have one key.
    """
    contents, sources = ShardContents(), dict[str, str]()
    for member in found:
        key, suffix = _key(member.name)
        if Path(member.name).name.startswith("."):
            contents.num_ignored += 1
        elif suffix in IMAGE_SUFFIXES:
            contents.images.append(member)
        elif suffix in _MAX_LABEL_BYTES and member.size <= _MAX_LABEL_BYTES[suffix]:
            try:
                label = _label(read_at(member.offset, member.size), suffix)
            except BadValueError as error:
                raise BadValueError(f"{shown(member.name)}: its label {error}") from None
            if label is not None and contents.labels.setdefault(key, label) != label:
                raise BadValueError(
                    f"{shown(sources[key])} and {shown(member.name)} give the images {key}.* two labels (a key ends at "
                    "the first dot of a file name): rename them without dots"
                )
            sources[key] = member.name
        else:
            contents.num_ignored += 1
    return contents


class ShardCollection:
    """The images of several shards, whose `names` are known beforehand: together they say which are splits."""

    def __init__(self, names: Sequence[str], ignored: IgnoredEntries | None = None) -> None:
        self._table, self._remarks = TableBuilder(), list[str]()
        self._ignored = ignored or IgnoredEntries()
        self._splits, self._of_folders = dict[str, int](), dict[str, None]()
        stems = {name: name.rpartition("/")[2].removesuffix(".tar") for name in names}
        numbered = split_names(stems.values(), numbered=True)
        for name, stem in stems.items():
            folder = name.rpartition("/")[0].rpartition("/")[2]
            by_folder = split_code(folder) if folder else None
            self._splits[name] = numbered.get(stem, NO_SPLIT) if by_folder is None else by_folder
            if (code := self._splits[name]) != NO_SPLIT:
                self._of_folders[f"{f'{folder}/' if by_folder is not None else f'{stem}.tar'} is {SPLITS[code]}"] = None
            elif any(stem.lower().startswith(word) for word in ("train", "val", "test")):
                self._remarks.append(
                    f"the shard {shown(name)} is not taken for a split, for its name says more: put it into a folder "
                    "train, val or test if it is one"
                )
        self._num_beside = 0

    def add(self, name: str, contents: ShardContents, place: Path | str) -> None:
        """The images of one shard, which is called `name` and lies at `place`, a path or an address."""
        stem, file = name.removesuffix(".tar"), self._table.add_file(place)
        for member in contents.images:
            key, _ = _key(member.name)
            beside = contents.labels.get(key)
            try:
                label = beside or label_of(PurePosixPath(member.name).parent.name)
            except BadValueError:
                raise ReinceptionError(
                    f"{place}: {member.name!r} has no class: put {key}.cls beside it, or a folder"
                ) from None
            if self._table.names and (beside is None) == (self._num_beside > 0):
                here, there = ("none", "one") if beside is None else ("one", "none")
                raise ReinceptionError(
                    f"{place}: {shown(member.name)} has {here} of the labels beside images, and "
                    f"{shown(self._table.names[-1])} {there}: give all one, or none, and the folders are the classes"
                )
            self._num_beside += beside is not None
            self._table.add(f"{stem}/{member.name}", label, self._splits[name])
            self._table.locate(file, member.offset, member.size)
        self._ignored.add("members of shards that are no images", name, contents.num_ignored)

    def source(self, root: Path | str) -> Source:
        """ReinceptionError where there are no images, or their labels are no classification task."""
        labels = set(self._table.labels)
        if not labels:
            raise ReinceptionError(f"{root}: its tar files hold no images: check that they are what you meant")
        classes = sorted(labels, key=int) if all(label.isdecimal() for label in labels) else sorted(labels)
        splits = list(self._of_folders)
        reading = Reading(
            layout="tar shards",
            labels="the .cls or .json beside each image" if self._num_beside else "the folders inside the shards",
            splits=(*splits[:3], *([f"and {len(splits) - 3} more"] if len(splits) > 3 else [])),
            ignored=self._ignored.counted(),
            remarks=tuple(self._remarks[:3]),
        )
        return self._table.source(root, name=_folder_name(root), root=root, classes=classes, reading=reading)


def _folder_name(root: Path | str) -> str:
    return root.rpartition("/")[2] if isinstance(root, str) else root.name or root.resolve().name


def _key(name: str) -> tuple[str, str]:
    """A member's key (up to the first dot of its file name, as in WebDataset) and its suffix (from the last dot)."""
    folder, slash, last = name.rpartition("/")
    return folder + slash + last.split(".")[0], Path(last).suffix.lower()


def _label(data: bytes, suffix: str) -> str | None:
    """The label in a member, None for JSON that has no key for one."""
    text = data.decode("utf-8-sig", "surrogateescape")
    if suffix == ".cls":
        if why := not_utf8(text):
            raise BadValueError(why)
        return label_of(text)
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadValueError(f"is in a file that is not JSON ({error}): correct it") from None
    found = [values[name] for name in ("label", "cls") if name in values] if isinstance(values, Mapping) else []
    return label_of(found[0]) if found else None


# -- with the index of `data pack` -------------------------------------------------------------------------------------


def open_packed(root: Path | str) -> Source:
    """The folder of `data pack`, a path or an address, through its index."""
    index, table, rows = _read_index(root), TableBuilder(), _inside(root, ROWS_NAME)
    files = dict[str, tuple[int, int]]()  # the number and the size of each shard
    places = [_inside(root, shard["name"]) for shard in index["shards"]]
    for shard, place, size in zip(index["shards"], places, _sizes(places), strict=True):
        if size != shard["size"]:
            raise ReinceptionError(f"{place}: is missing or has another size than {INDEX_NAME} says: pack it again")
        files[shard["name"]] = table.add_file(place), shard["size"]
    try:
        with _text(rows) as file:
            reader = csv.reader(file, strict=True)
            if tuple(next(reader, ())) != ROW_FIELDS:
                raise ValueError("its header is another")
            for name, label, split, group, stratum, probability, shard, offset, size in reader:
                (number, limit), start, length = files[shard], int(offset), int(size)
                if start < 0 or length < 0 or start + length > limit:
                    raise ValueError(f"{name!r} lies outside {shard}")
                code = SPLITS.index(split) if split else NO_SPLIT
                table.add(name, label, code, group=group, stratum=stratum, certainty=float(probability or 1))
                table.locate(number, start, length)
    except (OSError, ValueError, KeyError, csv.Error) as error:
        raise ReinceptionError(f"{rows}: cannot be used ({error}): pack the data again") from error
    if not table.names or set(table.labels) - set(index["classes"]):
        raise ReinceptionError(f"{rows}: does not fit {INDEX_NAME}: pack the data again")
    reading = Reading(layout="the shards of data pack", labels=f"its {ROWS_NAME}")
    return table.source(root, name=_folder_name(root), root=root, classes=index["classes"], reading=reading)


def _read_index(root: Path | str) -> dict[str, Any]:
    """The index that `data pack` wrote: `classes`, and of each shard `name`, `size` and `sha256`."""
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
        raise ReinceptionError(f"{place}: cannot be used ({error}): pack the data again") from error
    return index


def _inside(root: Path | str, name: str) -> Path | str:
    return f"{root}/{name}" if isinstance(root, str) else root / name


def _text(place: Path | str) -> TextIO:
    file = io.BytesIO(read_whole(place)) if isinstance(place, str) else place.open("rb")
    return io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="")


def _sizes(places: Sequence[Path | str]) -> list[int | None]:
    """The bytes of each file, None where there is none; remote ones are requested several at a time."""
    remote = [place for place in places if isinstance(place, str)]
    if remote:
        return [size for size, _ in sizes_and_versions(remote)]
    return [place.stat().st_size if isinstance(place, Path) and place.is_file() else None for place in places]
