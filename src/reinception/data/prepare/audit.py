"""Checks every image of a source before training: unreadable files, duplicates, leaks between splits, odd images."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import Any

from reinception.data.images.decode import decode
from reinception.data.images.image_info import ImageInfo, image_info
from reinception.data.loading.read import bytes_of, pixels_of, watched
from reinception.data.loading.watchdog import Progress, Watchdog
from reinception.data.loading.workers import PATIENCE_SECONDS, ordered_map
from reinception.data.prepare import duplicates
from reinception.data.sources.labels import shown
from reinception.data.sources.records import Record, Source
from reinception.data.sources.understanding import understand
from reinception.errors import BadImage

_RECORDS_PER_TASK = 16

# A class with fewer images is hardly learned, and hardly measured: of ten test images one is ten per cent.
TINY_CLASS = 10
IMBALANCE = 10
"""The ratio of the largest class to the smallest from which the classes count as imbalanced."""
ODD_SIDES = 8
"""A side that is so many times longer or shorter than the median side is odd."""
SMALLEST_SIDE = 32
MINORITY = 0.05
"""A property of at most this fraction of the images is reported image by image; a more common one is not."""


@dataclass(frozen=True, kw_only=True)
class AuditFinding:
    """A remark on an image that can be decoded, or on a class: `kind` is one word for programs, `reason` for people."""

    name: str
    kind: str
    reason: str

    def to_json(self) -> dict[str, str]:
        return {"path": self.name, "kind": self.kind, "reason": self.reason}


@dataclass(frozen=True, kw_only=True)
class DuplicateGroup:
    """The same image several times, by name: `exact` where the bytes are equal, else a near duplicate."""

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
    """The result of the check. Errors make training wrong or impossible; warnings are worth a look."""

    source: Source
    num_decoded: int
    errors: tuple[BadImage | AuditFinding, ...]
    warnings: tuple[AuditFinding, ...]
    duplicates: tuple[DuplicateGroup, ...]
    seconds: float
    near_duplicates_checked: bool

    @property
    def quarantine(self) -> tuple[str, ...]:
        """The images that cannot be used at all, by name."""
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
            **understand(source).to_json(),
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
    results = ordered_map(partial(_decode_all, records), tasks, max(workers, 1), patience=patience)
    return [bad for found in results for bad in found]


def _tasks(num: int) -> list[range]:
    return [range(start, min(start + _RECORDS_PER_TASK, num)) for start in range(0, num, _RECORDS_PER_TASK)]


def _decode_all(records: Sequence[Record], indices: range, watchdog: Watchdog) -> list[BadImage]:
    refused = []
    for index in indices:
        try:
            with watched(records[index], index, watchdog) as record:
                pixels_of(record, watchdog.pause)
        except BadImage as error:
            refused.append(error)
    return refused


def same_images(records: Sequence[Record], *, workers: int = 1, progress: Progress | None = None) -> list[list[int]]:
    """Groups of positions that show one image, exact and (with imagehash) near duplicates; unreadable ones in none."""
    inspections = _inspect_all(records, workers, PATIENCE_SECONDS, progress)
    exact = duplicates.exact_duplicates([one.content for one in inspections])
    near = duplicates.near_duplicates([one.thumbprint for one in inspections])
    return duplicates.connected_components([*exact, *near])


# -- the whole audit ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Inspection:
    """What a worker process found out about one image: why it cannot be used, or SHA-256, thumbprint and image info."""

    refused: BadImage | None = None
    content: bytes | None = None
    thumbprint: duplicates.Thumbprint | None = None
    info: ImageInfo | None = None


def _inspect_all(
    records: Sequence[Record], workers: int, patience: float, progress: Progress | None
) -> list[_Inspection]:
    inspections: list[_Inspection] = []
    for some in ordered_map(partial(_inspect, records), _tasks(len(records)), max(workers, 1), patience=patience):
        inspections += some
        if progress is not None:
            progress(len(inspections), len(records))
    return inspections


def _inspect(records: Sequence[Record], indices: range, watchdog: Watchdog) -> list[_Inspection]:
    found = []
    for index in indices:
        try:
            with watched(records[index], index, watchdog) as record:
                data = bytes_of(record, watchdog.pause)
                pixels = decode(data, keep_grey=True)
            content, thumbprint = hashlib.sha256(data).digest(), duplicates.thumbprint(pixels)
            found.append(_Inspection(content=content, thumbprint=thumbprint, info=image_info(data, pixels)))
        except BadImage as error:
            found.append(_Inspection(refused=error))
    return found


def audit(
    source: Source, *, workers: int = 1, patience: float = PATIENCE_SECONDS, progress: Progress | None = None
) -> Audit:
    """Every image read, decoded and compared. Nothing is modified."""
    start, records = time.perf_counter(), source.records
    inspections = _inspect_all(records, workers, patience, progress)
    groups = _duplicates(source, inspections)
    errors: list[BadImage | AuditFinding] = [one.refused for one in inspections if one.refused is not None]
    warnings = [*_about_images(records, inspections), *_about_classes(source)]
    known = [one.info for one in inspections if one.info is not None]
    for kind in ("blank", "narrow_range"):
        found = [info for info in known if kind in info.kinds]
        if 2 * len(found) > len(known):
            reason = f"{len(found):,} of {len(known):,} images are alike for the network: one {found[0].reason(kind)}"
            finding = AuditFinding(name=source.name, kind="all_alike" if kind == "blank" else kind, reason=reason)
            (errors if kind == "blank" else warnings).append(finding)
    for group in groups:
        finding = _about_duplicates(group)
        (errors if finding.kind in ERROR_KINDS else warnings).append(finding)
    if source.num_ignored:
        kinds = ", ".join(f"{one.count:,} {one.kind} ({shown(one.example)})" for one in source.reading.ignored)
        reason = f"{source.num_ignored:,} entries are left out: {kinds}"
        warnings.append(AuditFinding(name=source.name, kind="ignored", reason=reason))
    return Audit(
        source=source,
        num_decoded=sum(one.refused is None for one in inspections),
        errors=tuple(errors),
        warnings=tuple(warnings),
        duplicates=tuple(groups),
        seconds=time.perf_counter() - start,
        near_duplicates_checked=duplicates.imagehash is not None,
    )


def _duplicates(source: Source, inspections: Sequence[_Inspection]) -> list[DuplicateGroup]:
    exact = duplicates.exact_duplicates([one.content for one in inspections])
    later = {index for group in exact for index in group[1:]}  # one of each group stands for all
    thumbprints = [None if index in later else one.thumbprint for index, one in enumerate(inspections)]
    near = duplicates.near_duplicates(thumbprints)
    first = {group[0]: group for group in exact}
    groups = [_group(source, group, exact=True) for group in exact]
    for group in duplicates.connected_components(near):
        together = sorted(index for one in group for index in first.get(one, [one]))
        groups.append(_group(source, together, exact=False))
    return groups


def _group(source: Source, indices: Sequence[int], *, exact: bool) -> DuplicateGroup:
    members = [source.records[index] for index in indices]
    return DuplicateGroup(
        names=tuple(record.name for record in members),
        labels=tuple(source.classes[record.target] for record in members),
        splits=tuple(record.split for record in members),
        exact=exact,
    )


def _about_duplicates(group: DuplicateGroup) -> AuditFinding:
    first, others = group.names[0], ", ".join(group.names[1:4]) + (" ..." if len(group.names) > 4 else "")
    same = "is byte for byte" if group.exact else "shows the same image as"
    prefix = "" if group.exact else "near_"
    if group.conflicts:
        labels = " and ".join(sorted(set(group.labels)))
        reason = f"{same} {others}, labelled {labels}: decide which is right"
        return AuditFinding(name=first, kind=f"{prefix}conflicting_labels", reason=reason)
    if group.crosses_splits:
        splits = " and ".join(sorted(str(split) for split in set(group.splits)))
        reason = f"{same} {others}, in {splits}: training images are tested on; keep them in one split"
        return AuditFinding(name=first, kind=f"{prefix}leak", reason=reason)
    return AuditFinding(name=first, kind=f"{prefix}duplicate", reason=f"{same} {others}: it is counted more than once")


def _about_images(records: Sequence[Record], inspections: Sequence[_Inspection]) -> Iterator[AuditFinding]:
    known = [(record, one.info) for record, one in zip(records, inspections, strict=True) if one.info is not None]
    if not known:
        return
    sides = sorted(side for _, info in known for side in (info.width, info.height))
    median = sides[len(sides) // 2]
    common = Counter(kind for _, info in known for kind in info.kinds)
    for record, info in known:
        for kind in info.kinds:
            if common[kind] <= max(MINORITY * len(known), 1) or kind in ("sixteen_bit", "extra_bands"):
                yield AuditFinding(name=record.name, kind=kind, reason=info.reason(kind))
        short, long = sorted((info.width, info.height))
        if (short < SMALLEST_SIDE and 2 * short < median) or short * ODD_SIDES < median or long > ODD_SIDES * median:
            reason = f"has {info.width} x {info.height} pixels, where {median} a side is usual"
            yield AuditFinding(name=record.name, kind="odd_size", reason=reason)
        if info.expected_suffixes and PurePosixPath(record.name).suffix.lower() not in info.expected_suffixes:
            reason = f"is {info.format}, and its name says otherwise; it is read as {info.format}"
            yield AuditFinding(name=record.name, kind="misnamed", reason=reason)


def _about_classes(source: Source) -> Iterable[AuditFinding]:
    counts = Counter(record.target for record in source.records)
    by_size = sorted((counts[target], name) for target, name in enumerate(source.classes))
    for count, name in by_size:
        if count < TINY_CLASS:
            reason = f"has {count} images; even {TINY_CLASS} are few for training and evaluation"
            yield AuditFinding(name=name, kind="tiny_class", reason=reason)
    (least, smallest), (most, largest) = by_size[0], by_size[-1]
    if most > IMBALANCE * least:
        reason = f"has {most:,} images and {smallest} {least:,}: accuracy alone will say little"
        yield AuditFinding(name=largest, kind="imbalance", reason=reason)
