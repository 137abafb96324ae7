"""Reads tar shards in place: through the index that `data pack` wrote, or through one made from their headers."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from reinception.data.images.formats import IMAGE_SUFFIXES
from reinception.data.sources.records import NO_SPLIT, SPLIT_WORDS, Source
from reinception.data.sources.remote import read_whole, sizes_and_versions
from reinception.data.sources.table_builder import TableBuilder
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
    """The images in a folder's tar files, as in WebDataset: `key.jpg` beside `key.cls` (a class name or number) or
    `key.json` (with `label` or `cls`); without those the class is the folder that the member lies in.

    A shard whose name begins with a split, as `train-0000.tar`, or that lies in a split folder, is of that split. The
    folder of `data pack` has an index of its own, which is used when every shard has the size it says; it keeps names,
    splits, groups and certainties. Nothing is extracted and nothing written.
    """
    if (root / INDEX_NAME).exists():
        return open_packed(root)
    collection = ShardCollection()
    for split, path in _shards(root):
        with path.open("rb") as file:
            handle = file.fileno()
            contents = read_contents(members(path), lambda offset, size, of=handle: os.pread(of, size, offset))
        collection.add(path.relative_to(root).as_posix(), contents, path, split)
    return collection.source(root)


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
class ShardContents:
    """What the headers of one shard list: its images, the label of each key that has one, and how many other files."""

    images: list[Member] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)
    num_ignored: int = 0


def read_contents(found: Iterable[Member], read_at: Callable[[int, int], bytes]) -> ShardContents:
    """The contents of one shard; `read_at(offset, size)` reads the members that are labels."""
    contents = ShardContents()
    for member in found:
        key, suffix = _key(member.name)
        if suffix in IMAGE_SUFFIXES and not Path(member.name).name.startswith("."):
            contents.images.append(member)
        elif suffix in (".cls", ".json") and member.size <= _MAX_LABEL_BYTES:
            label = _label(read_at(member.offset, member.size), suffix)
            if label is not None:
                contents.labels[key] = label
        else:
            contents.num_ignored += 1
    return contents


def split_named(name: str) -> int:
    """The code of the split in a shard's name, in its folder or at its beginning; or NO_SPLIT."""
    *folders, last = name.split("/")
    found = _SHARD_SPLIT.match(last)
    if folders and (code := SPLIT_WORDS.get(folders[-1].lower())) is not None:
        return code
    return SPLIT_WORDS[found[1].lower()] if found else NO_SPLIT


class ShardCollection:
    """The images of several shards."""

    def __init__(self) -> None:
        self._table = TableBuilder()
        self._num_ignored = 0

    def add(self, name: str, contents: ShardContents, place: Path | str, split: int) -> None:
        """The images of one shard, which is called `name` and lies at `place`, a path or an address."""
        stem, file = name.removesuffix(".tar"), self._table.add_file(place)
        for member in contents.images:
            key, _ = _key(member.name)
            label = contents.labels.get(key) or Path(member.name).parent.name
            if not label:
                raise ReinceptionError(f"{place}: {member.name!r} has no class: put {key}.cls beside it, or a folder")
            self._table.add(f"{stem}/{member.name}", label, split)
            self._table.locate(file, member.offset, member.size)
        self._num_ignored += contents.num_ignored

    def source(self, root: Path | str) -> Source:
        """ReinceptionError where there are no images, or their labels are no classification task."""
        labels = set(self._table.labels)
        if not labels:
            raise ReinceptionError(f"{root}: its tar files hold no images: check that they are what you meant")
        classes = sorted(labels, key=int) if all(label.isdecimal() for label in labels) else sorted(labels)
        return self._table.source(
            root, name=_folder_name(root), root=root, classes=classes, num_ignored=self._num_ignored
        )


def _folder_name(root: Path | str) -> str:
    return root.rpartition("/")[2] if isinstance(root, str) else root.name or root.resolve().name


def _key(name: str) -> tuple[str, str]:
    """A member's key (up to the first dot of its file name, as in WebDataset) and its suffix (from the last dot)."""
    folder, slash, last = name.rpartition("/")
    return folder + slash + last.split(".")[0], Path(last).suffix.lower()


def _label(data: bytes, suffix: str) -> str | None:
    text = data.decode("utf-8", "replace").strip()
    if suffix == ".cls":
        return text or None
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return None
    label = values.get("label", values.get("cls")) if isinstance(values, Mapping) else None
    return None if label is None else str(label)


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
                code = SPLIT_WORDS[split] if split else NO_SPLIT
                table.add(name, label, code, group=group, stratum=stratum, certainty=float(probability or 1))
                table.locate(number, start, length)
    except (OSError, ValueError, KeyError, csv.Error) as error:
        raise ReinceptionError(f"{rows}: cannot be used ({error}): pack the data again") from error
    if not table.names or set(table.labels) - set(index["classes"]):
        raise ReinceptionError(f"{rows}: does not fit {INDEX_NAME}: pack the data again")
    return table.source(root, name=_folder_name(root), root=root, classes=index["classes"])


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
