"""What is wrong with the pictures, found before the first step, in processes that may crash or hang."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import PurePosixPath
from typing import Any

from reinception.data.images.decode import decode
from reinception.data.images.image_info import Details, details_of
from reinception.data.loading.read import bytes_of, pixels_of, under_the_name_of
from reinception.data.loading.workers import PATIENCE_SECONDS, in_order, turn_to
from reinception.data.prepare import duplicates
from reinception.data.sources.records import Record, Source
from reinception.errors import BadImage

Progress = Callable[[int, int], None]
_RECORDS_PER_TASK = 16

# A class with fewer pictures is hardly learned, and hardly measured: of ten test pictures one is ten per cent.
TINY_CLASS = 10
IMBALANCE = 10
"""The largest class has more than so many times the pictures of the smallest."""
ODD_SIDES = 8
"""A side that is so many times longer or shorter than the median side is odd."""
SMALLEST_SIDE = 32
MINORITY = 0.05
"""What is so of fewer than this share of the pictures is worth naming one by one; more, and the data are like that."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A remark on an image that can be decoded, or on a class: `kind` is one word for programs, `reason` for people."""

    name: str
    kind: str
    reason: str

    def to_json(self) -> dict[str, str]:
        return {"path": self.name, "kind": self.kind, "reason": self.reason}


@dataclass(frozen=True, kw_only=True)
class Twins:
    """Pictures that are the same, by name: `exact` to the byte, else to the eye."""

    names: tuple[str, ...]
    labels: tuple[str, ...]
    splits: tuple[str | None, ...]
    exact: bool

    @property
    def crosses_splits(self) -> bool:
        return len(set(self.splits)) > 1

    @property
    def conflicts(self) -> bool:
        return len(set(self.labels)) > 1

    def to_json(self) -> dict[str, Any]:
        return {
            "paths": list(self.names),
            "labels": list(self.labels),
            "splits": list(self.splits),
            "kind": "exact" if self.exact else "near",
            "crosses_splits": self.crosses_splits,
            "conflicting_labels": self.conflicts,
        }


@dataclass(frozen=True, kw_only=True)
class Audit:
    """The verdict. Errors make training wrong or impossible; warnings are worth a look."""

    source: Source
    num_decoded: int
    errors: tuple[BadImage | Finding, ...]
    warnings: tuple[Finding, ...]
    duplicates: tuple[Twins, ...]
    seconds: float
    near_duplicates_checked: bool
    notes: tuple[str, ...] = field(default=())

    @property
    def quarantine(self) -> tuple[str, ...]:
        """The pictures that cannot be used at all, by name."""
        return tuple(sorted({bad.name for bad in self.errors if isinstance(bad, BadImage)}))

    def to_json(self) -> dict[str, Any]:
        """What `data check` writes (`errors`, `warnings`: path, kind, reason)."""
        source = self.source
        counts = Counter(record.target for record in source.records)
        return {
            "data": source.name,
            "num_files": len(source.records),
            "num_images": self.num_decoded,
            "num_ignored": source.num_ignored,
            "errors": [problem.to_json() for problem in self.errors],
            "warnings": [problem.to_json() for problem in self.warnings],
            "duplicates": [group.to_json() for group in self.duplicates],
            "near_duplicates_checked": self.near_duplicates_checked,
            "classes": {name: counts[target] for target, name in enumerate(source.classes)},
            "quarantine": list(self.quarantine),
            "seconds": round(self.seconds, 3),
            "images_per_second": round(len(source.records) / self.seconds, 1) if self.seconds else None,
        }


ERROR_KINDS = frozenset({"leak", "conflicting_labels"})
"""Findings that count as errors; only the owner of the data can tell which of the images has to go."""


def check_images(records: Sequence[Record], *, workers: int = 0, patience: float = PATIENCE_SECONDS) -> list[BadImage]:
    """Every image decoded in full, in `workers` processes, at least one; those that cannot be used, in order.

    An image that makes the decoder crash or hang is among them, and the rest is checked.
    """
    tasks = _tasks(len(records))
    results = in_order(partial(_decode_all, records), tasks, max(workers, 1), patience=patience)
    return [bad for found in results for bad in found]


def _tasks(num: int) -> list[range]:
    return [range(start, min(start + _RECORDS_PER_TASK, num)) for start in range(0, num, _RECORDS_PER_TASK)]


def _decode_all(records: Sequence[Record], indices: range) -> list[BadImage]:
    refused = []
    for index in indices:
        try:
            with under_the_name_of(records[index]):
                turn_to(index)
                pixels_of(records[index])
        except BadImage as error:
            refused.append(error)
    return refused


def same_pictures(records: Sequence[Record], *, workers: int = 1, progress: Progress | None = None) -> list[list[int]]:
    """Groups of positions that show one picture, to the byte or (with imagehash) to the eye; unreadable ones alone."""
    seen = _see(records, workers, PATIENCE_SECONDS, progress)
    exact = duplicates.equal([one.content for one in seen])
    return duplicates.joined([*exact, *duplicates.alike([one.look for one in seen])])


def _see(records: Sequence[Record], workers: int, patience: float, progress: Progress | None) -> list[_Seen]:
    seen: list[_Seen] = []
    for some in in_order(partial(_look, records), _tasks(len(records)), max(workers, 1), patience=patience):
        seen += some
        if progress is not None:
            progress(len(seen), len(records))
    return seen


# -- the whole audit ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a process says of one picture."""

    refused: BadImage | None = None
    content: bytes | None = None
    look: duplicates.Look | None = None
    details: Details | None = None


def audit(
    source: Source, *, workers: int = 1, patience: float = PATIENCE_SECONDS, progress: Progress | None = None
) -> Audit:
    """Every picture read, decoded and compared. Nothing is modified."""
    start, records = time.perf_counter(), source.records
    seen = _see(records, workers, patience, progress)
    groups = _duplicates(source, seen)
    errors: list[BadImage | Finding] = [one.refused for one in seen if one.refused is not None]
    warnings = [*_oddities(records, seen), *_about_classes(source)]
    for group in groups:
        problem = _about_twins(group)
        (errors if problem.kind in ERROR_KINDS else warnings).append(problem)
    if source.num_ignored:
        reason = f"{source.num_ignored} entries are hidden or no pictures and are left out"
        warnings.append(Finding(name=source.name, kind="ignored", reason=reason))
    return Audit(
        source=source,
        num_decoded=sum(one.refused is None for one in seen),
        errors=tuple(errors),
        warnings=tuple(warnings),
        duplicates=tuple(groups),
        seconds=time.perf_counter() - start,
        near_duplicates_checked=duplicates.imagehash is not None,
    )


def _look(records: Sequence[Record], indices: range) -> list[_Seen]:
    found = []
    for index in indices:
        record = records[index]
        try:
            with under_the_name_of(record):
                turn_to(index)
                data = bytes_of(record)
                pixels = decode(data, keep_grey=True)
            look, details = duplicates.look_of(pixels), details_of(data, pixels)
            found.append(_Seen(content=hashlib.sha256(data).digest(), look=look, details=details))
        except BadImage as error:
            found.append(_Seen(refused=error))
    return found


def _duplicates(source: Source, seen: Sequence[_Seen]) -> list[Twins]:
    exact = duplicates.equal([one.content for one in seen])
    later = {index for group in exact for index in group[1:]}  # one of each group stands for all
    looks = [None if index in later else one.look for index, one in enumerate(seen)]
    near = [list(pair) for pair in duplicates.alike(looks)]
    first = {group[0]: group for group in exact}
    groups = [_twins(source, group, exact=True) for group in exact]
    for group in duplicates.joined(near):
        together = sorted(index for one in group for index in first.get(one, [one]))
        groups.append(_twins(source, together, exact=False))
    return groups


def _twins(source: Source, indices: Sequence[int], *, exact: bool) -> Twins:
    members = [source.records[index] for index in indices]
    return Twins(
        names=tuple(record.name for record in members),
        labels=tuple(source.classes[record.target] for record in members),
        splits=tuple(record.split for record in members),
        exact=exact,
    )


def _about_twins(group: Twins) -> Finding:
    first, others = group.names[0], ", ".join(group.names[1:4]) + (" ..." if len(group.names) > 4 else "")
    same = "is byte for byte" if group.exact else "shows the same picture as"
    prefix = "" if group.exact else "near_"
    if group.conflicts:
        labels = " and ".join(sorted(set(group.labels)))
        reason = f"{same} {others}, labelled {labels}: decide which is right"
        return Finding(name=first, kind=f"{prefix}conflicting_labels", reason=reason)
    if group.crosses_splits:
        splits = " and ".join(sorted(str(split) for split in set(group.splits)))
        reason = f"{same} {others}, in {splits}: what is learned is tested; keep them in one split"
        return Finding(name=first, kind=f"{prefix}leak", reason=reason)
    return Finding(name=first, kind=f"{prefix}duplicate", reason=f"{same} {others}: it counts more than once")


def _oddities(records: Sequence[Record], seen: Sequence[_Seen]) -> Iterator[Finding]:
    known = [(record, one.details) for record, one in zip(records, seen, strict=True) if one.details is not None]
    if not known:
        return
    sides = sorted(side for _, details in known for side in (details.width, details.height))
    median = sides[len(sides) // 2]
    common = Counter(kind for _, details in known for kind in details.kinds)
    for record, details in known:
        for kind in details.kinds:
            if common[kind] <= max(MINORITY * len(known), 1) or kind == "sixteen_bit":
                yield Finding(name=record.name, kind=kind, reason=details.reason(kind))
        short, long = sorted((details.width, details.height))
        if short < SMALLEST_SIDE or short * ODD_SIDES < median or long > ODD_SIDES * median:
            reason = f"has {details.width} x {details.height} pixels, where {median} a side is usual"
            yield Finding(name=record.name, kind="odd_size", reason=reason)
        if details.expected_suffixes and PurePosixPath(record.name).suffix.lower() not in details.expected_suffixes:
            reason = f"is {details.format}, which its name does not say; it is read as what it is"
            yield Finding(name=record.name, kind="misnamed", reason=reason)


def _about_classes(source: Source) -> Iterable[Finding]:
    counts = Counter(record.target for record in source.records)
    by_size = sorted((counts[target], name) for target, name in enumerate(source.classes))
    for count, name in by_size:
        if count < TINY_CLASS:
            reason = f"has {count} pictures; {TINY_CLASS} are few to learn it and to measure it"
            yield Finding(name=name, kind="tiny_class", reason=reason)
    (least, smallest), (most, largest) = by_size[0], by_size[-1]
    if most > IMBALANCE * least:
        reason = f"has {most:,} pictures and {smallest} {least:,}: accuracy alone will say little"
        yield Finding(name=largest, kind="imbalance", reason=reason)
