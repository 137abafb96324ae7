"""What every source of pictures becomes: a list of labelled files with a fingerprint."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from reinception.errors import ReinceptionError

SPLITS = ("train", "val", "test")


@dataclass(frozen=True, kw_only=True)
class Record:
    """One picture: where it lies, what people call it, and what it shows.

    `name` is relative to its source, with forward slashes. `target` is the class index. `split` is None until somebody
    has decided; `group` names what must not be torn apart by a split (a patient, a solar module); `stratum` names a
    difference inside a class that every split should share (a material, a degree of certainty).
    """

    path: Path
    name: str
    target: int
    split: str | None = None
    group: str | None = None
    stratum: str | None = None


@dataclass(frozen=True, kw_only=True)
class Source:
    """A named list of records; `num_ignored` counts entries that were left out because they are no pictures."""

    name: str
    root: Path
    classes: tuple[str, ...]
    records: tuple[Record, ...]
    num_ignored: int = 0

    @cached_property
    def fingerprint(self) -> str:
        """sha256 (hex) over class names and, in the order of names, each record's name, size in bytes and target.

        It says whether two runs saw the same data; it does not depend on the splits, on dates or on where the files
        lie. Reads every file's size, not its content.
        """
        digest = hashlib.sha256()
        for name in self.classes:
            digest.update(b"class\0" + os.fsencode(name) + b"\0")
        for record in sorted(self.records, key=lambda record: record.name):
            try:
                size = record.path.stat().st_size
            except OSError as error:
                raise ReinceptionError(
                    f"{record.path}: vanished or unreadable ({error.strerror}): restore it"
                ) from error
            digest.update(os.fsencode(record.name) + f"\0{size}\0{record.target}\0".encode())
        return digest.hexdigest()

    @cached_property
    def splits(self) -> tuple[str, ...]:
        """The splits that occur, in the order train, val, test."""
        present = {record.split for record in self.records}
        return tuple(split for split in SPLITS if split in present)

    def split(self, name: str) -> tuple[Record, ...]:
        """The records of one split, in the source's order. A `ReinceptionError` says which splits there are."""
        if name not in self.splits:
            there = f"it has {', '.join(self.splits)}" if self.splits else "it is not split"
            raise ReinceptionError(f"{self.name} has no split {name!r}: {there}")
        return tuple(record for record in self.records if record.split == name)
