"""CSV and JSON-lines manifests: one row per image, read in one pass into columns."""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
import posixpath
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from reinception.data.sources.labels import (
    NO_SPLIT,
    SPLIT_WORDS,
    BadValueError,
    are_numbers,
    label_of,
    listed,
    missing_words,
    not_utf8,
    shown,
    split_code,
)
from reinception.data.sources.listed_path import ListedPaths
from reinception.data.sources.reading import Reading
from reinception.data.sources.records import Record, Source
from reinception.data.sources.remote import is_address, read_whole
from reinception.data.sources.table_builder import TableBuilder
from reinception.errors import ReinceptionError, UsageError

SUFFIXES = (".csv", ".tsv", ".jsonl")
COLUMNS = ("path", "label", "split", "group", "stratum", "probability")
_ALIASES = {
    "path": ("file_name", "filename", "file_path", "filepath", "image_path", "image", "file"),
    "label": ("class", "category", "class_name"),
}
_NONE = ""
_DELIMITERS = ",;\t|"


def open_manifest(path: Path | str, *, group_column: str = "group") -> Source:
    """The images of a manifest, a path or an address (remote.py); no image is looked at yet.

    Columns (CSV, with a header; commas, semicolons or tabs) or keys (JSON lines): `path`, relative to the manifest or
    an address, and `label`, or one of the names in _ALIASES for them; perhaps `split` (labels.split_code, or nothing),
    `group`, `stratum`, and `probability`, how certain the label is (0 to 1); the rest belongs to the other classes in
    equal parts. `group_column` names another column as the group; further columns are ignored. Labels are those of
    `label_of`; a path that is not there as it is written is looked for as `ListedPaths` says. Classes are the sorted
    labels of all splits.

    `ReinceptionError` with the line for: no such file or column, an empty path or label, text that is not UTF-8, a path
    listed twice, an unknown split, a probability out of range; and where the labels are no classification task.
    """
    rows = _Rows(path, [group_column if name == "group" else name for name in COLUMNS], {"path", "label"})
    rows.required |= {group_column} - {"group"}
    table, seen, doubtful = TableBuilder(), set[str](), dict[str, tuple[int, str]]()
    for number, values in rows:
        try:
            name = rows.paths.find(values[0])
            label = _add_row(table, seen, name, values)
        except BadValueError as error:
            raise ReinceptionError(f"{path}, line {number}: {error}") from None
        if len(label) < 6 and label not in doubtful and missing_words([label]):
            doubtful[label] = (number, name)
    if not seen:
        raise ReinceptionError(f"{path}: lists no images: give it one row for each")
    _require_no_missing(path, doubtful, set(table.labels))
    reading = Reading(layout="a manifest", labels=f"its {rows.names['label']} column", remarks=tuple(rows.remarks))
    if any(split != NO_SPLIT for split in table.splits):
        reading = Reading(
            layout=reading.layout, labels=reading.labels, remarks=reading.remarks, splits=("from its split column",)
        )
    root = path.rpartition("/")[0] if isinstance(path, str) else path.parent
    return table.source(path, name=Path(path).stem, root=root, reading=reading)


def listed_images(path: Path) -> Iterator[Record]:
    """The images of a manifest's rows, one at a time, labelled or not, also where a path is listed twice.

    ReinceptionError as `open_manifest`, when the row is reached.
    """
    rows = _Rows(path, ["path"], {"path"})
    for number, (value,) in rows:
        try:
            name = rows.paths.find(value)
        except BadValueError as error:
            raise ReinceptionError(f"{path}, line {number}: {error}") from None
        address = name if is_address(name) else None
        place = path.parent / name if address is None else Path(name.rpartition("/")[2])
        yield Record(path=place, name=address or str(place), target=0, address=address)


def other_columns(path: Path, names: frozenset[str]) -> Mapping[str, Mapping[str, str]]:
    """By column, then by an image's name, the values of `names` in the columns that `open_manifest` has no use for.

    Empty values are left out. ReinceptionError as `open_manifest`.
    """
    first = _Rows(path, [], {"path"})
    for _ in first:
        pass
    found = list(first.found)
    used = {_finder(found)(name) for name in COLUMNS}
    others = sorted(set(found) - used)
    columns: dict[str, dict[str, str]] = {}
    rows = _Rows(path, ["path", *others], {"path"})
    for _, (place, *values) in rows:
        if (name := rows.paths.find(place)) in names:
            for column, value in zip(others, values, strict=True):
                if value not in (_NONE, None):
                    columns.setdefault(column, {})[name] = str(value)
    return columns


def _add_row(table: TableBuilder, seen: set[str], name: str, values: Sequence[Any]) -> str:
    """Add the row of the image `name` to the table; its label. BadValueError for what is wrong with it."""
    _, value, split, group, stratum, probability = values
    try:
        label = label_of(value)
    except BadValueError as error:
        raise BadValueError(f"the label {error}") from None
    if not label.isascii() and label not in name.split("/") and (why := not_utf8(label)):
        raise BadValueError(f"the label {why}")
    key = posixpath.normpath(name) if "/." in name or "//" in name or name.startswith("./") else name
    if key in seen:
        raise BadValueError(f"{shown(name)} is listed twice: keep one of the lines")
    code = NO_SPLIT if split in (_NONE, None) or not str(split).strip() else split_code(split)
    if code is None:
        raise BadValueError(f"the split {shown(str(split))} is none of {', '.join(SPLIT_WORDS)}: correct it")
    certainty = 1.0 if probability in (_NONE, None) else _probability(probability)
    seen.add(key)
    table.add(name, label, code, group=_text(group), stratum=_text(stratum), certainty=certainty)
    return label


def _require_no_missing(path: Path | str, doubtful: Mapping[str, tuple[int, str]], labels: set[str]) -> None:
    """ReinceptionError where all labels are numbers but for one that means "missing"; not for a folder's own name."""
    if doubtful and labels - set(doubtful) and are_numbers(labels - set(doubtful)):
        for label, (number, name) in doubtful.items():
            if label not in name.split("/"):
                raise ReinceptionError(
                    f"{path}, line {number}: the label {shown(label)} among numbers means that there is none: fill it "
                    "in or remove the line"
                )


def _text(value: object) -> str | None:
    return None if value is None else (value if isinstance(value, str) else label_of(value)).strip() or None


def _probability(value: object) -> float:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = -1.0
    if not 0 <= number <= 1:
        raise BadValueError(f"the probability {str(value)!r} is not a number from 0 to 1: correct it")
    return number


@dataclass(eq=False)
class _Rows:
    """(line, values in the order of `wanted`) of each row; `names` says what the columns are called in the file."""

    path: Path | str
    wanted: Sequence[str]
    required: set[str]
    names: dict[str, str] = field(default_factory=lambda: {"path": "path", "label": "label"})
    remarks: list[str] = field(default_factory=list)
    found: dict[str, None] = field(default_factory=dict)
    """every column that occurs, in order"""

    def __post_init__(self) -> None:
        self.paths = ListedPaths(None if isinstance(self.path, str) else self.path.parent)

    def __iter__(self) -> Iterator[tuple[int, Sequence[Any]]]:
        with _opened(self.path) as file:
            if str(self.path).lower().endswith(".jsonl"):
                yield from self._json(file)
            else:
                yield from self._csv(file)
        self.remarks += self.paths.remarks()

    def _json(self, file: TextIO) -> Iterator[tuple[int, Sequence[Any]]]:
        find = _finder(())
        known: object = None
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                item = json.loads(line)
            except (json.JSONDecodeError, RecursionError) as error:
                raise ReinceptionError(
                    f"{self.path}, line {number}: is not one JSON object per line ({error}): correct it"
                ) from None
            if not isinstance(item, Mapping):
                raise ReinceptionError(f"{self.path}, line {number}: is not a JSON object: correct it")
            if (keys := tuple(item)) != known:
                known, find = keys, self._require_columns(keys)
            yield number, [item.get(find(name), _NONE) for name in self.wanted]

    def _csv(self, file: TextIO) -> Iterator[tuple[int, Sequence[Any]]]:
        first, before = file.readline(), 0
        delimiter = None
        if first.lstrip('"').lower().startswith("sep="):
            delimiter, before, first = first.lstrip('"')[4:5], 1, file.readline()
        delimiters = delimiter if delimiter and delimiter not in "\r\n" else _DELIMITERS
        headers = {one: [cell.strip() for cell in next(csv.reader([first], delimiter=one), [])] for one in delimiters}
        delimiter = next((one for one in headers if not self._missing(headers[one])), delimiters[0])
        reader = csv.reader(itertools.chain([first], file), delimiter=delimiter, strict=True)
        header = [name.strip() for name in next(reader, [])]
        find = self._require_columns(header)
        places = [header.index(find(name)) if find(name) in header else None for name in self.wanted]
        for row in reader:
            if len(row) != len(header):
                if row:
                    line = reader.line_num + before
                    raise ReinceptionError(f"{self.path}, line {line}: has {len(row)} fields, not {len(header)}")
                continue
            yield reader.line_num + before, [_NONE if place is None else row[place] for place in places]

    def _missing(self, found: Sequence[str]) -> list[str]:
        find = _finder(found)
        return sorted(name for name in self.required if find(name) not in found)

    def _require_columns(self, found: Sequence[str]) -> Callable[[str], str]:
        """What each of our columns is called among those found."""
        self.found |= dict.fromkeys(found)
        if missing := self._missing(found):
            raise UsageError(f"{self.path}: lacks {listed(missing)}; it has {listed(list(found))}")
        find = _finder(found)
        self.names = {name: find(name) for name in ("path", "label")}
        return find


def _finder(found: Sequence[str]) -> Callable[[str], str]:
    """Our name of a column -> its name among those found: the same in any case, or else the only usual other name."""
    lower = {name.lower(): name for name in reversed(found)}

    def find(name: str) -> str:
        if name in found or name.lower() in lower:
            return name if name in found else lower[name.lower()]
        others = [lower[alias] for alias in _ALIASES.get(name, ()) if alias in lower]
        return others[0] if len(others) == 1 else name

    return find


@contextmanager
def _opened(path: Path | str) -> Iterator[TextIO]:
    try:
        with io.BytesIO(read_whole(path)) if isinstance(path, str) else path.open("rb") as raw:
            start = raw.read(2)
            raw.seek(0)
            encoding = "utf-16" if start in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
            errors = "surrogateescape" if encoding == "utf-8-sig" else "strict"
            yield io.TextIOWrapper(raw, encoding=encoding, errors=errors, newline="")
    except OSError as error:
        raise ReinceptionError(f"{path}: cannot be read ({os.strerror(error.errno or 0)}): check the path") from error
    except (csv.Error, UnicodeError) as error:
        raise ReinceptionError(f"{path}: is not CSV with a header ({error}): correct it") from error
