"""Collects rows of labelled images, column by column, into a source."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from reinception.data.sources.labels import NO_SPLIT
from reinception.data.sources.reading import Reading
from reinception.data.sources.records import Columns, RecordTable, Source, require_sound_labels


@dataclass
class TableBuilder:
    """Rows so far; texts that repeat are kept once. `files`, `offsets` and `sizes` stay empty without tar files."""

    names: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    splits: bytearray = field(default_factory=bytearray)
    groups: list[str | None] = field(default_factory=list)
    strata: list[str | None] = field(default_factory=list)
    certainties: dict[int, float] = field(default_factory=dict)
    files: array[int] = field(default_factory=lambda: array("i"))
    offsets: array[int] = field(default_factory=lambda: array("q"))
    sizes: array[int] = field(default_factory=lambda: array("q"))
    paths: list[Path] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)
    _texts: dict[str, str] = field(default_factory=dict)

    def _once(self, text: str) -> str:
        return self._texts.setdefault(text, text)

    def add(
        self,
        name: str,
        label: str,
        split: int,
        *,
        group: str | None = None,
        stratum: str | None = None,
        certainty: float = 1.0,
    ) -> None:
        """One image; `split` is a position in SPLITS or NO_SPLIT."""
        if certainty != 1:
            self.certainties[len(self.names)] = certainty
        self.names.append(name)
        self.labels.append(self._once(label))
        self.splits.append(split)
        self.groups.append(self._once(group) if group else None)
        self.strata.append(self._once(stratum) if stratum else None)

    def locate(self, file: int, offset: int, size: int) -> None:
        """Where the image that was added last lies: `size` bytes at `offset` of a file that `add_file` numbered."""
        self.files.append(file)
        self.offsets.append(offset)
        self.sizes.append(size)

    def add_file(self, place: Path | str) -> int:
        """The number of a tar file, a path or an address."""
        self.paths.append(Path(place))
        if isinstance(place, str):
            self.addresses.append(place)
        return len(self.paths) - 1

    def source(
        self, place: Path | str, *, name: str, root: Path | str, reading: Reading, classes: Sequence[str] = ()
    ) -> Source:
        """The source at `place`, its classes the sorted labels unless given; `root` is a folder or its address.

        ReinceptionError where the labels are no classification task.
        """
        classes = classes or sorted(set(self.labels))
        index = {label: target for target, label in enumerate(classes)}
        targets = np.fromiter((index[label] for label in self.labels), dtype=np.int32, count=len(self.labels))
        splits = np.frombuffer(bytes(self.splits), dtype=np.uint8).astype(np.int8)
        splits[splits == NO_SPLIT] = -1
        require_sound_labels(place, classes, targets, splits)
        certainties = None
        if self.certainties:
            certainties = np.ones(len(targets))
            certainties[list(self.certainties)] = list(self.certainties.values())
        has_files = bool(self.files)
        columns = Columns(
            root=Path() if isinstance(root, str) else root,
            names=self.names,
            targets=targets,
            splits=splits,
            groups=self.groups if any(self.groups) else None,
            strata=self.strata if any(self.strata) else None,
            certainties=certainties,
            paths=tuple(self.paths),
            files=np.array(self.files, dtype=np.int32) if has_files else None,
            offsets=np.array(self.offsets, dtype=np.int64) if has_files else None,
            sizes=np.array(self.sizes, dtype=np.int64) if has_files else None,
            base=root if isinstance(root, str) else None,
            addresses=tuple(self.addresses),
        )
        return Source(
            name=name,
            root=columns.root,
            classes=tuple(classes),
            records=RecordTable(columns),
            reading=reading,
            address=place if isinstance(place, str) else None,
        )
