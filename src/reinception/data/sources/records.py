"""Record and Source: a named list of labelled images with splits and a fingerprint."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

from reinception.data.sources.labels import SPLITS, listed, shown
from reinception.data.sources.reading import Reading
from reinception.data.sources.remote import Pause, is_address, size_and_version
from reinception.errors import ReinceptionError


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One image: where it is, its name and its label.

    `name` is relative to its source, with forward slashes. `target` is the class index. `split` is None until it is
    assigned; `group` names what must stay in one split (a patient, a solar module); `stratum` names a difference inside
    a class that every split should reflect (a material, a degree of certainty). `certainty` is the probability that the
    label is right; the rest belongs to the other classes in equal parts. An image inside a tar file is the `size` bytes
    at `offset` of `path`. A remote one has an `address` (remote.py); its `path` is then only the last part of that.
    """

    path: Path
    name: str
    target: int
    split: str | None = None
    group: str | None = None
    stratum: str | None = None
    certainty: float = 1.0
    offset: int | None = None
    size: int | None = None
    address: str | None = None

    def num_bytes(self, pause: Pause = contextlib.nullcontext) -> int:
        """The size of the image's file, or of its part of a tar file. OSError where the file cannot be found."""
        if self.size is not None:
            return self.size
        return self.path.stat().st_size if self.address is None else size_and_version(self.address, pause)[0]

    @property
    def place(self) -> str:
        """Path or address of the file."""
        return str(self.path) if self.address is None else self.address


@dataclass(frozen=True, kw_only=True, eq=False)
class Columns:
    """The fields of many records, one column each: `files` index `paths`; without them `root` / name is the path.

    `splits` holds positions in SPLITS, -1 for none; texts that repeat are one object each. With a `base` all is remote:
    the addresses are `base` and the name, or those of `addresses` where `files` are given.
    """

    root: Path
    names: list[str]
    targets: NDArray[np.int32]
    splits: NDArray[np.int8]
    groups: list[str | None] | None = None
    strata: list[str | None] | None = None
    certainties: NDArray[np.float64] | None = None
    paths: tuple[Path, ...] = ()
    files: NDArray[np.int32] | None = None
    offsets: NDArray[np.int64] | None = None
    sizes: NDArray[np.int64] | None = None
    base: str | None = None
    addresses: tuple[str, ...] = ()


class RecordTable(Sequence[Record]):
    """Records made from columns when they are asked for: a million take about 100 bytes each instead of a thousand."""

    def __init__(self, columns: Columns, chosen: NDArray[np.int64] | None = None) -> None:
        self._columns = columns
        self._chosen = np.arange(len(columns.names)) if chosen is None else chosen

    def __len__(self) -> int:
        return len(self._chosen)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> RecordTable: ...
    def __getitem__(self, index: int | slice) -> Record | RecordTable:
        if isinstance(index, slice):
            return RecordTable(self._columns, self._chosen[index])
        row, columns = int(self._chosen[index]), self._columns
        name, split, address = columns.names[row], int(columns.splits[row]), None
        if columns.base is not None or is_address(name):
            address = self._address(row)
            path = Path(address.rpartition("/")[2])
        else:
            path = columns.root / name if columns.files is None else columns.paths[columns.files[row]]
        return Record(
            path=path,
            name=name,
            target=int(columns.targets[row]),
            split=None if split < 0 else SPLITS[split],
            group=None if columns.groups is None else columns.groups[row],
            stratum=None if columns.strata is None else columns.strata[row],
            certainty=1.0 if columns.certainties is None else float(columns.certainties[row]),
            offset=None if columns.offsets is None else int(columns.offsets[row]),
            size=None if columns.sizes is None else int(columns.sizes[row]),
            address=address,
        )

    def _address(self, row: int) -> str:
        columns = self._columns
        if columns.files is not None:
            return columns.addresses[columns.files[row]]
        name = columns.names[row]
        return name if columns.base is None or is_address(name) else f"{columns.base}/{name}"

    def __iter__(self) -> Iterator[Record]:
        return (self[index] for index in range(len(self)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(Record.__eq__, self, other))

    __hash__ = None  # type: ignore[assignment]

    @property
    def splits_present(self) -> frozenset[str]:
        """The splits that occur."""
        return frozenset(SPLITS[code] for code in np.unique(self._columns.splits[self._chosen]) if code >= 0)

    def counts(self) -> Counter[tuple[int, str | None]]:
        """The number of records by (class index, split)."""
        pairs = np.stack([self._columns.targets[self._chosen], self._columns.splits[self._chosen]], axis=1)
        found, nums = np.unique(pairs, axis=0, return_counts=True)
        numbered = zip(found.tolist(), nums.tolist(), strict=True)
        return Counter({(target, None if split < 0 else SPLITS[split]): num for (target, split), num in numbered})

    def of_split(self, name: str) -> RecordTable:
        """The records of one split."""
        return RecordTable(self._columns, self._chosen[self._columns.splits[self._chosen] == SPLITS.index(name)])

    def with_groups(self, groups: Sequence[str | None]) -> RecordTable:
        """The same records, each in the group that `groups` has in its place."""
        column: list[str | None] = [None] * len(self._columns.names)
        for row, group in zip(self._chosen.tolist(), groups, strict=True):
            column[row] = group
        return RecordTable(replace(self._columns, groups=column), self._chosen)

    def with_splits(self, splits: Mapping[str, str]) -> RecordTable:
        """The same records, each in the split that `splits` has for its name."""
        codes = self._columns.splits.copy()
        for row in self._chosen:
            codes[row] = SPLITS.index(splits[self._columns.names[row]])
        return RecordTable(replace(self._columns, splits=codes), self._chosen)


@dataclass(frozen=True, kw_only=True)
class Source:
    """A named list of records; `reading` says how they were found and what was left out.

    With an `address` it is remote, and `root` is the current folder. Where records have been excluded,
    `listed_fingerprint` is the fingerprint of all that was listed.
    """

    name: str
    root: Path
    classes: tuple[str, ...]
    records: Sequence[Record]
    reading: Reading = field(default_factory=Reading)
    address: str | None = None
    listed_fingerprint: str | None = None

    @cached_property
    def fingerprint(self) -> str:
        """sha256 (hex) over class names and, in the order of names, each record's name, size in bytes and target.

        It tells whether two runs saw the same data; it does not depend on splits, dates or the place of the files.
        Reads every file's size, not its content; a file that is not there has the size -1.
        """
        if self.listed_fingerprint is not None:
            return self.listed_fingerprint
        digest = hashlib.sha256()
        for name in self.classes:
            digest.update(b"class\0" + os.fsencode(name) + b"\0")
        for record in sorted(self.records, key=lambda record: record.name):
            try:
                size = record.num_bytes()
            except OSError:  # the check of the images names it, and it can be excluded like any other
                size = -1
            digest.update(os.fsencode(record.name) + f"\0{size}\0{record.target}\0".encode())
        return digest.hexdigest()

    @property
    def num_ignored(self) -> int:
        """How many entries were left out."""
        return sum(one.count for one in self.reading.ignored)

    def row(self, record: Record) -> tuple[str, str | None, str | None, str | None, str]:
        """Label, split, group, stratum and probability of a record as a manifest holds them."""
        certainty = "" if record.certainty == 1 else repr(record.certainty)
        return self.classes[record.target], record.split, record.group, record.stratum, certainty

    def counts(self) -> Counter[tuple[int, str | None]]:
        """The number of images by (class index, split)."""
        if isinstance(self.records, RecordTable):
            return self.records.counts()
        return Counter((record.target, record.split) for record in self.records)

    def without(self, names: frozenset[str]) -> Source:
        """The source without the named images; the fingerprint stays that of all listed.

        So a model trained without them still recognises the data. An image is meant by its name in the source, or by
        its file name where only one image has that; `#` after a name starts a comment. ReinceptionError for others.
        """
        known = {record.name for record in self.records}
        by_file_name = dict[str, list[str]]()
        for record in self.records if names - known else ():
            by_file_name.setdefault(record.path.name, []).append(record.name)
        excluded, unknown = set[str](), list[str]()
        for name in sorted(names):
            for text in (name, name.partition("#")[0].strip()):
                if (found := [text] if text in known else by_file_name.get(text)) is not None:
                    break
            if found is None:
                unknown.append(name)
            elif len(found) > 1:
                raise ReinceptionError(
                    f"the exclusion list names {shown(name)}, as {len(found)} images are called ({listed(found, 2)}): "
                    "write the path of the one that is meant"
                )
            else:
                excluded.add(found[0])
        if unknown:
            raise ReinceptionError(f"the exclusion list names images that are not there: {listed(unknown)}")
        kept = tuple(record for record in self.records if record.name not in excluded)
        return replace(self, records=kept, listed_fingerprint=self.fingerprint)

    @cached_property
    def splits(self) -> tuple[str, ...]:
        """The splits that occur, in the order train, val, test."""
        if isinstance(self.records, RecordTable):
            present = self.records.splits_present
        else:
            present = frozenset(record.split for record in self.records if record.split is not None)
        return tuple(split for split in SPLITS if split in present)

    def split(self, name: str) -> Sequence[Record]:
        """The records of one split, in the source's order. A `ReinceptionError` says which splits there are."""
        if name not in self.splits:
            there = f"it has {', '.join(self.splits)}" if self.splits else "it is not split"
            raise ReinceptionError(f"{self.name} has no split {name!r}: {there}")
        if isinstance(self.records, RecordTable):
            return self.records.of_split(name)
        return tuple(record for record in self.records if record.split == name)


def require_sound_labels(
    place: Path | str, classes: Sequence[str], targets: NDArray[np.int32], splits: NDArray[np.int8]
) -> None:
    """ReinceptionError unless there are at least two classes and val and test have only classes that train has."""
    if len(classes) < 2:
        raise ReinceptionError(f"{place}: only one class ({shown(classes[0])}): classification takes at least two")
    in_train = set(np.unique(targets[(splits == SPLITS.index("train")) | (splits < 0)]).tolist())
    if in_train and (foreign := sorted(set(np.unique(targets).tolist()) - in_train)):
        where = sorted(SPLITS[split] for split in np.unique(splits[np.isin(targets, foreign)]))
        raise ReinceptionError(
            f"{place}: class {listed([classes[target] for target in foreign])} occurs in {' and '.join(where)} but not "
            "in train: add training images, or remove it there"
        )
