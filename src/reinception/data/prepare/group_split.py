"""Leak-free split: groups and duplicate images stay in one split, classes are balanced as evenly as that allows."""

from __future__ import annotations

import csv
import os
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from reinception.data.images.random_stream import RandomStream
from reinception.data.prepare.duplicates import connected_components
from reinception.data.sources.manifest import COLUMNS
from reinception.data.sources.records import RecordTable, Source
from reinception.data.sources.split import require_fractions, with_splits
from reinception.errors import ReinceptionError, UsageError
from reinception.files import new_text_file

Stratum = tuple[int, str | None]
"""What every split should have its fraction of: a class, and a stratum in it."""


@dataclass(frozen=True, kw_only=True)
class GroupSplit:
    """A source with splits, the number of groups of more than one image, and of images that occur more than once.

    `num_duplicates` is None where duplicates were not looked for.
    """

    source: Source
    num_groups: int
    num_duplicates: int | None

    def summary(self) -> str:
        """One line per split: images, groups, and each class."""
        lines = []
        for split in self.source.splits:
            records = self.source.split(split)
            counts = Counter(record.target for record in records)
            per_class = ", ".join(f"{name} {counts[target]:,}" for target, name in enumerate(self.source.classes))
            lines.append(f"{split}: {len(records):,} images ({per_class})")
        groups = f"{self.num_groups:,} groups kept whole" if self.num_groups else "no groups"
        if self.num_duplicates is None:
            lines.append(f"{groups}; duplicates were not looked for, and may be in two splits")
        else:
            lines.append(f"{groups}; {self.num_duplicates:,} images that occur more than once kept together")
        return "\n".join(lines)


def group_split(
    source: Source,
    duplicates: Sequence[Sequence[int]] | None,
    *,
    seed: int = 0,
    val_fraction: float = 0.1,
    test_fraction: float = 0.25,
    folds: int | None = None,
) -> list[GroupSplit]:
    """Train, val and test anew, whatever splits there were; with `folds` that many, each testing on another part.

    Images of one `group` stay together, and so do `duplicates`: groups of positions that show one image
    (audit.same_images), or None where they were not looked for. Every class, and every stratum in it, is divided as
    evenly as that allows. The result depends on the seed, the names and the groups alone.
    """
    if folds is not None and folds < 2:
        raise UsageError(f"--folds {folds}: at least 2 make a cross-validation")
    require_fractions(val_fraction, test_fraction)
    records = source.records
    by_group: dict[str, list[int]] = defaultdict(list)
    names, strata, known = list[str](), list[Stratum](), dict[Stratum, Stratum]()
    for index, record in enumerate(records):
        stratum = (record.target, record.stratum)
        names.append(record.name)
        strata.append(known.setdefault(stratum, stratum))  # one object each: millions of images have few strata
        if record.group is not None:
            by_group[record.group].append(index)
    units = _units(len(records), [*by_group.values(), *(duplicates or ())])
    if len(units) < 3:
        raise ReinceptionError(f"{source.name}: its images belong to {len(units)} groups: too few to split")
    if folds is None:
        fractions = {"train": 1 - test_fraction - val_fraction, "val": val_fraction, "test": test_fraction}
        plans = [_assign(strata, units, range(len(records)), fractions, ("split", seed))]
    else:
        plans = _fold_plans(strata, units, folds, val_fraction, seed)
    num_duplicates = None if duplicates is None else sum(map(len, duplicates))
    num_groups = sum(len(members) > 1 for members in by_group.values())
    splits = []
    for plan in plans:
        _learn_every_class(plan, units, [target for target, _ in strata])
        if folds is not None and "test" not in plan.values():
            raise ReinceptionError(
                f"{source.name}: --folds {folds} leaves a fold without test images, because every class needs an image "
                "or a group to train on: ask for fewer folds, or add images"
            )
        by_name = {names[index]: split for index, split in plan.items()}
        divided = replace(source, records=with_splits(records, by_name), address=None, listed_fingerprint=None)
        splits.append(GroupSplit(source=divided, num_groups=num_groups, num_duplicates=num_duplicates))
    return splits


def _learn_every_class(plan: dict[int, str], units: Sequence[Sequence[int]], targets: Sequence[int]) -> None:
    """Move the units of classes that train lacks there, from val first: a class that is only tested cannot be right."""
    for split in ("val", "test"):
        missing = set(targets) - {targets[index] for index, part in plan.items() if part == "train"}
        for unit in units if missing else ():
            if plan[unit[0]] == split and missing & (found := {targets[index] for index in unit}):
                plan.update(dict.fromkeys(unit, "train"))
                missing -= found


def _units(num: int, groups: Sequence[Sequence[int]]) -> list[list[int]]:
    """The positions 0 ... num - 1 in units that are not torn apart: merged groups, and single images."""
    together = connected_components(groups)
    placed = {index for unit in together for index in unit}
    return sorted([*together, *([index] for index in range(num) if index not in placed)])


def _fold_plans(
    strata: Sequence[Stratum], units: Sequence[Sequence[int]], folds: int, val_fraction: float, seed: int
) -> list[dict[int, str]]:
    """The split of each image for every fold: the fold is test, the rest is divided into train and val."""
    every = range(len(strata))
    of_fold = _assign(strata, units, every, {str(fold): 1 / folds for fold in range(folds)}, ("folds", seed))
    fractions, plans = {"train": 1 - val_fraction, "val": val_fraction}, list[dict[int, str]]()
    for fold in range(folds):
        rest = [index for index in every if of_fold[index] != str(fold)]
        assigned = _assign(strata, units, rest, fractions, ("fold", seed, fold))
        plans.append({index: assigned.get(index, "test") for index in every})
    return plans


def _assign(
    strata: Sequence[Stratum],
    units: Sequence[Sequence[int]],
    members: Sequence[int],
    fractions: Mapping[str, float],
    key: tuple[str | int, ...],
) -> dict[int, str]:
    """The part of each member: large units first, each to the part that lacks its classes most, single images last.

    Single images of one stratum are interchangeable, so the fractions are met to within one image.
    """
    chosen = set(members)
    total = Counter(strata[index] for index in members)
    wanted = {
        part: {stratum: fraction * count for stratum, count in total.items()} for part, fraction in fractions.items()
    }
    parts = [part for part in fractions if fractions[part] > 0]
    remaining = [unit for unit in ([index for index in unit if index in chosen] for unit in units) if unit]
    order = RandomStream(*key).permutation(len(remaining)).tolist()
    sizes = [-len(unit) for unit in remaining]
    order.sort(key=sizes.__getitem__)  # stable: equal sizes stay in their random order
    found: dict[int, str] = {}
    for place in order:
        unit = remaining[place]
        counts = Counter(strata[index] for index in unit) if len(unit) > 1 else {strata[unit[0]]: 1}

        def need(part: str, counts: Mapping[Stratum, int] = counts) -> float:
            return sum(num * wanted[part][stratum] / total[stratum] for stratum, num in counts.items())

        part = max(parts, key=need)
        for index in unit:
            found[index] = part
            wanted[part][strata[index]] -= 1
    return found


# -- groups and files --------------------------------------------------------------------------------------------------


def grouped(source: Source, by: str | None) -> Source:
    """The source with the groups that `by` names: `group` (its own), `folder` (the one an image lies in), or
    `regex:PATTERN` (what its first bracket, or all of it, matches in the name; an image without a match has no group).

    None: no groups. The columns of a manifest are read when it is opened (`open_source(group_column=...)`).
    """
    if by == "group":
        if not any(record.group for record in source.records):
            raise UsageError(f"--group-by group: {source.name} has no groups; it can be folder or regex:PATTERN")
        return source
    pattern = None
    if by is not None and by.startswith("regex:"):
        try:
            pattern = re.compile(by.removeprefix("regex:"))
        except re.error as error:
            raise UsageError(f"--group-by {by!r} is no regular expression: {error}") from error
    elif by not in (None, "folder"):
        raise UsageError(f"--group-by {by!r}: it is group, folder, regex:PATTERN, or a column of a manifest")

    def group_of(name: str) -> str | None:
        if by == "folder":
            return PurePosixPath(name).parent.as_posix()
        found = None if pattern is None else pattern.search(name)
        return None if found is None else found[1 if found.re.groups else 0]

    known = dict[str | None, str | None]()
    groups = [known.setdefault(group, group) for group in (group_of(record.name) for record in source.records)]
    if pattern is not None and not any(groups):
        raise UsageError(f"--group-by {by!r} matches no image name, such as {source.records[0].name!r}")
    if isinstance(source.records, RecordTable):
        return replace(source, records=source.records.with_groups(groups))
    records = tuple(replace(record, group=group) for record, group in zip(source.records, groups, strict=True))
    return replace(source, records=records)


def write_manifest(source: Source, path: Path) -> None:
    """A CSV manifest of the source, its paths relative to the manifest's folder. Never over another file."""
    if any(record.offset is not None for record in source.records):
        raise UsageError(f"{source.name}: its images lie in tar files, which a manifest cannot name: split, then pack")
    folder, prefixes = path.parent.resolve(), dict[Path, str]()
    with new_text_file(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for record in source.records:
            parent = record.path.parent
            if record.address is None and parent not in prefixes:  # found once for all files of a folder
                prefixes[parent] = Path(os.path.relpath(parent.absolute(), folder)).as_posix()
            place = record.address or (PurePosixPath(prefixes[parent]) / record.path.name).as_posix()
            writer.writerow((place, *source.row(record)))
