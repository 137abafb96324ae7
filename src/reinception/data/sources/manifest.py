"""CSV and JSON-lines manifests: one row per picture, read in one pass into columns."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from reinception.data.sources.records import (
    NO_SPLIT,
    SPLIT_WORDS,
    SPLITS,
    Columns,
    Record,
    RecordTable,
    Source,
    listed,
)
from reinception.data.sources.remote import is_address, read_whole
from reinception.errors import ReinceptionError, UsageError

SUFFIXES = (".csv", ".jsonl")
COLUMNS = ("path", "label", "split", "group", "stratum", "probability")
_NONE = ""


def open_manifest(path: Path | str, *, group_column: str = "group") -> Source:
    """The pictures of a manifest, a path or an address (remote.py), none of which is looked at yet.

    Columns (CSV, with a header) or keys (JSON lines): `path`, relative to the manifest or an address, and `label`;
    perhaps `split` (train, val, valid, validation or test, or nothing), `group`, `stratum`, and `probability`, how
    certain the label is (0 to 1); the rest belongs to the other classes in equal parts. `group_column` names another
    column as the group; what else there is is left alone. Classes are the sorted labels of all splits.

    `ReinceptionError` with the line for: no such file or column, an empty path or label, a path listed twice, an
    unknown split, a probability that is none; and where the labels are no classification task.
    """
    rows = _Rows()
    with _opened(path) as file:
        number = 1
        wanted = [group_column if name == "group" else name for name in COLUMNS]
        for number, values in _values(path, file, wanted, {"path", "label", *({group_column} - {"group"})}):
            fault = rows.add(values)
            if fault:
                raise ReinceptionError(f"{path}, line {number}: {fault}")
    return rows.source(path)


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
        raise ReinceptionError(f"{path}: can not be read ({error.strerror}): check the path") from error
    except (csv.Error, json.JSONDecodeError, RecursionError) as error:
        what = "CSV with a header" if _is_csv(path) else "one JSON object per line"
        raise ReinceptionError(f"{path}: is not {what} ({error}): mend it") from error


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
                    raise ReinceptionError(f"{path}, line {number}: is not a JSON object: mend it")
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


@dataclass
class _Rows:
    """What has been read so far; texts that repeat are kept once."""

    names: dict[str, None] = field(default_factory=dict)
    labels: list[str] = field(default_factory=list)
    splits: bytearray = field(default_factory=bytearray)
    groups: list[str | None] = field(default_factory=list)
    strata: list[str | None] = field(default_factory=list)
    certainties: dict[int, float] = field(default_factory=dict)
    known: dict[str, str] = field(default_factory=dict)

    def add(self, values: Sequence[Any]) -> str | None:
        """One row; or what is wrong with it."""
        name, label, split, group, stratum, probability = values
        name, label = str(name), str(label)
        if not name or not label:
            return f"the {'label' if name else 'path'} is empty: fill it in or remove the line"
        if "\0" in name:
            return "the path holds a zero byte: mend it"
        if name in self.names:
            return f"{name!r} is listed twice: keep one of the lines"
        code = NO_SPLIT if split in (_NONE, None) else SPLIT_WORDS.get(str(split).strip().lower())
        if code is None:
            return f"the split {str(split)!r} is none of {', '.join(SPLIT_WORDS)}: mend it"
        if probability not in (_NONE, None):
            certainty = _probability(probability)
            if certainty is None:
                return f"the probability {str(probability)!r} is no number from 0 to 1: mend it"
            if certainty != 1:
                self.certainties[len(self.labels)] = certainty
        self.names[name] = None
        self.labels.append(self._once(label))
        self.splits.append(code)
        self.groups.append(None if group in (_NONE, None) else self._once(str(group)))
        self.strata.append(None if stratum in (_NONE, None) else self._once(str(stratum)))
        return None

    def _once(self, text: str) -> str:
        return self.known.setdefault(text, text)

    def source(self, path: Path | str) -> Source:
        if not self.names:
            raise ReinceptionError(f"{path}: lists no pictures: give it one row for each")
        classes = sorted(set(self.labels))
        index = {label: target for target, label in enumerate(classes)}
        targets = np.fromiter((index[label] for label in self.labels), dtype=np.int32, count=len(self.labels))
        splits = np.frombuffer(bytes(self.splits), dtype=np.uint8).astype(np.int8)
        splits[splits == NO_SPLIT] = -1
        require_sound_labels(path, classes, targets, splits)
        certainties = None
        if self.certainties:
            certainties = np.ones(len(targets))
            certainties[list(self.certainties)] = list(self.certainties.values())
        root = Path() if isinstance(path, str) else path.parent
        columns = Columns(
            root=root,
            names=list(self.names),
            targets=targets,
            splits=splits,
            groups=self.groups if any(self.groups) else None,
            strata=self.strata if any(self.strata) else None,
            certainties=certainties,
            base=path.rpartition("/")[0] if isinstance(path, str) else None,
        )
        return Source(
            name=Path(path).stem,
            root=root,
            classes=tuple(classes),
            records=RecordTable(columns),
            address=path if isinstance(path, str) else None,
        )


def require_sound_labels(path: Path | str, classes: Sequence[str], targets: np.ndarray, splits: np.ndarray) -> None:
    """At least two classes, and none in val or test that training never sees."""
    if len(classes) < 2:
        raise ReinceptionError(f"{path}: only one class ({classes[0]!r}): telling things apart takes at least two")
    in_train = set(np.unique(targets[(splits == SPLITS.index("train")) | (splits < 0)]).tolist())
    if in_train and (foreign := sorted(set(np.unique(targets).tolist()) - in_train)):
        raise ReinceptionError(
            f"{path}: class {listed([classes[target] for target in foreign])} occurs in val or test but not in train: "
            "add training pictures or remove the rows"
        )


def _probability(value: object) -> float | None:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return number if 0 <= number <= 1 else None
