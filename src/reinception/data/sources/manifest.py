"""CSV and JSON-lines manifests: one row per image, read in one pass into columns."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from reinception.data.sources.records import NO_SPLIT, SPLIT_WORDS, Record, Source, listed
from reinception.data.sources.remote import is_address, read_whole
from reinception.data.sources.table_builder import TableBuilder
from reinception.errors import ReinceptionError, UsageError

SUFFIXES = (".csv", ".jsonl")
COLUMNS = ("path", "label", "split", "group", "stratum", "probability")
_NONE = ""


def open_manifest(path: Path | str, *, group_column: str = "group") -> Source:
    """The images of a manifest, a path or an address (remote.py); no image is looked at yet.

    Columns (CSV, with a header) or keys (JSON lines): `path`, relative to the manifest or an address, and `label`;
    perhaps `split` (train, val, valid, validation or test, or nothing), `group`, `stratum`, and `probability`, how
    certain the label is (0 to 1); the rest belongs to the other classes in equal parts. `group_column` names another
    column as the group; further columns are ignored. Classes are the sorted labels of all splits.

    `ReinceptionError` with the line for: no such file or column, an empty path or label, a path listed twice, an
    unknown split, a probability out of range; and where the labels are no classification task.
    """
    table, seen = TableBuilder(), set[str]()
    with _opened(path) as file:
        wanted = [group_column if name == "group" else name for name in COLUMNS]
        for number, values in _values(path, file, wanted, {"path", "label", *({group_column} - {"group"})}):
            if fault := _add_row(table, seen, values):
                raise ReinceptionError(f"{path}, line {number}: {fault}")
    if not seen:
        raise ReinceptionError(f"{path}: lists no images: give it one row for each")
    root = path.rpartition("/")[0] if isinstance(path, str) else path.parent
    return table.source(path, name=Path(path).stem, root=root)


def listed_images(path: Path) -> Iterator[Record]:
    """The images of a manifest's rows, one at a time, labelled or not, also where a path is listed twice.

    ReinceptionError as `open_manifest`, when the row is reached.
    """
    with _opened(path) as file:
        for number, (name,) in _values(path, file, ["path"], {"path"}):
            if not name or "\0" in (name := str(name)):
                raise ReinceptionError(f"{path}, line {number}: the path is empty or holds a zero byte: fix it")
            address = name if is_address(name) else None
            place = path.parent / name if address is None else Path(name.rpartition("/")[2])
            yield Record(path=place, name=address or str(place), target=0, address=address)


@contextmanager
def _opened(path: Path | str) -> Iterator[TextIO]:
    try:
        if isinstance(path, str):
            yield io.TextIOWrapper(
                io.BytesIO(read_whole(path)), encoding="utf-8-sig", errors="surrogateescape", newline=""
            )
        else:
            with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
                yield file
    except OSError as error:
        raise ReinceptionError(f"{path}: cannot be read ({error.strerror}): check the path") from error
    except (csv.Error, json.JSONDecodeError, RecursionError) as error:
        what = "CSV with a header" if _is_csv(path) else "one JSON object per line"
        raise ReinceptionError(f"{path}: is not {what} ({error}): correct it") from error


def _is_csv(path: Path | str) -> bool:
    return str(path).lower().endswith(".csv")


def _values(
    path: Path | str, file: TextIO, wanted: Sequence[str], required: set[str]
) -> Iterator[tuple[int, Sequence[Any]]]:
    """(line, values in the order of `wanted`) of each row."""
    if not _is_csv(path):
        for number, line in enumerate(file, start=1):
            if line.strip():
                item = json.loads(line)
                if not isinstance(item, Mapping):
                    raise ReinceptionError(f"{path}, line {number}: is not a JSON object: correct it")
                _require_columns(path, required, item)
                yield number, [item.get(name, _NONE) for name in wanted]
        return
    reader = csv.reader(file, strict=True)
    header = [name.strip() for name in next(reader, [])]
    _require_columns(path, required, header)
    places = [header.index(name) if name in header else None for name in wanted]
    for row in reader:
        if len(row) != len(header):
            if row:
                raise ReinceptionError(f"{path}, line {reader.line_num}: has {len(row)} fields, not {len(header)}")
            continue
        yield reader.line_num, [_NONE if place is None else row[place] for place in places]


def _require_columns(path: Path | str, required: set[str], found: Sequence[str] | Mapping[str, Any]) -> None:
    if missing := sorted(required - set(found)):
        raise UsageError(f"{path}: lacks {listed(missing)}; it has {listed(list(found))}")


def _add_row(table: TableBuilder, seen: set[str], values: Sequence[Any]) -> str | None:
    """Add one row to the table; or what is wrong with it."""
    name, label, split, group, stratum, probability = values
    name, label = str(name), str(label)
    if not name or not label:
        return f"the {'label' if name else 'path'} is empty: fill it in or remove the line"
    if "\0" in name:
        return "the path holds a zero byte: correct it"
    if name in seen:
        return f"{name!r} is listed twice: keep one of the lines"
    code = NO_SPLIT if split in (_NONE, None) else SPLIT_WORDS.get(str(split).strip().lower())
    if code is None:
        return f"the split {str(split)!r} is none of {', '.join(SPLIT_WORDS)}: correct it"
    certainty = 1.0 if probability in (_NONE, None) else _probability(probability)
    if certainty is None:
        return f"the probability {str(probability)!r} is not a number from 0 to 1: correct it"
    seen.add(name)
    group, stratum = (None if text is None else str(text) for text in (group, stratum))
    table.add(name, label, code, group=group, stratum=stratum, certainty=certainty)
    return None


def _probability(value: object) -> float | None:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return number if 0 <= number <= 1 else None
