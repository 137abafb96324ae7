"""Splits that do not leak: groups and pictures that are the same stay together, classes are shared out evenly."""

from __future__ import annotations

import csv
import os
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from reinception.data.images.random_stream import RandomStream
from reinception.data.prepare.audit import Progress, same_pictures
from reinception.data.prepare.duplicates import joined
from reinception.data.sources.records import RecordTable, Source
from reinception.data.sources.split import with_splits
from reinception.errors import ReinceptionError, UsageError
from reinception.files import new_text_file

Kind = tuple[int, str | None]
"""What every split should have its share of: the class, and the stratum in it."""


@dataclass(frozen=True, kw_only=True)
class Division:
    """A source with splits, and what was kept together: groups of more than one picture, and pictures in twins.

    `num_twins` is None where nobody looked for them.
    """

    source: Source
    num_groups: int
    num_twins: int | None

    def in_words(self) -> str:
        """One line per split: pictures, groups, and each class."""
        lines = []
        for split in self.source.splits:
            records = self.source.split(split)
            counts = Counter(record.target for record in records)
            shares = ", ".join(f"{name} {counts[target]:,}" for target, name in enumerate(self.source.classes))
            lines.append(f"{split}: {len(records):,} pictures ({shares})")
        groups = f"{self.num_groups:,} groups kept whole" if self.num_groups else "no groups"
        if self.num_twins is None:
            lines.append(f"{groups}; pictures that are the same were not looked for, and may be in two splits")
        else:
            lines.append(f"{groups}; {self.num_twins:,} pictures that occur more than once kept together")
        return "\n".join(lines)


def divide(
    source: Source,
    *,
    seed: int = 0,
    val_fraction: float = 0.1,
    test_fraction: float = 0.25,
    folds: int | None = None,
    compare: bool = True,
    workers: int = 1,
    progress: Progress | None = None,
) -> list[Division]:
    """Train, val and test anew, whatever splits there were; with `folds` that many divisions, each testing on another.

    Nothing with one `group` is torn apart, and neither are pictures that are the same, to the byte or to the eye
    (audit.same_pictures); without `compare` those are not looked for, and no picture is read. Every class, and every
    stratum in it, is shared out as evenly as that allows. Who goes where depends on the seed, the names and the groups
    alone.
    """
    if folds is not None and folds < 2:
        raise UsageError(f"--folds {folds}: at least 2 make a cross-validation")
    if not (test_fraction >= 0 and val_fraction >= 0 and test_fraction + val_fraction < 1):
        raise UsageError("--val-fraction and --test-fraction leave nothing to train on")
    records = source.records
    same = same_pictures(records, workers=workers, progress=progress) if compare else None
    by_group: dict[str, list[int]] = defaultdict(list)
    names, kinds, known = list[str](), list[Kind](), dict[Kind, Kind]()
    for index, record in enumerate(records):
        kind = (record.target, record.stratum)
        names.append(record.name)
        kinds.append(known.setdefault(kind, kind))  # one object each: there are millions of pictures and few kinds
        if record.group is not None:
            by_group[record.group].append(index)
    together = joined([*by_group.values(), *(same or ())])
    placed = {index for unit in together for index in unit}
    units = sorted([*together, *([index] for index in range(len(records)) if index not in placed)])
    if len(units) < 3:
        raise ReinceptionError(f"{source.name}: its pictures hang together in {len(units)} groups: too few to split")
    every = range(len(records))
    if folds is None:
        shares = {"train": 1 - test_fraction - val_fraction, "val": val_fraction, "test": test_fraction}
        plans = [_share_out(kinds, units, every, shares, ("split", seed))]
    else:
        of_fold = _share_out(kinds, units, every, {str(fold): 1 / folds for fold in range(folds)}, ("folds", seed))
        plans = []
        for fold in range(folds):
            rest = [index for index in every if of_fold[index] != str(fold)]
            left = _share_out(
                kinds, units, rest, {"train": 1 - val_fraction, "val": val_fraction}, ("fold", seed, fold)
            )
            plans.append({index: left.get(index, "test") for index in every})
    num_twins = None if same is None else sum(map(len, same))
    num_groups = sum(len(members) > 1 for members in by_group.values())
    divisions = []
    for plan in plans:
        splits = {names[index]: split for index, split in plan.items()}
        divided = Source(
            name=source.name,
            root=source.root,
            classes=source.classes,
            records=with_splits(records, splits),
            num_ignored=source.num_ignored,
        )
        divisions.append(Division(source=divided, num_groups=num_groups, num_twins=num_twins))
    return divisions


def _share_out(
    kinds: Sequence[Kind],
    units: Sequence[Sequence[int]],
    members: Sequence[int],
    shares: Mapping[str, float],
    key: tuple[str | int, ...],
) -> dict[int, str]:
    """The part of each member: large units first, each where its classes are wanted most; then single pictures fill up.

    Single pictures of one kind are all the same to the parts, so they meet what is wanted to within one picture.
    """
    chosen = set(members)
    total = Counter(kinds[index] for index in members)
    wanted = {part: {kind: share * count for kind, count in total.items()} for part, share in shares.items()}
    parts = [part for part in shares if shares[part] > 0]
    remaining = [unit for unit in ([index for index in unit if index in chosen] for unit in units) if unit]
    order = RandomStream(*key).permutation(len(remaining)).tolist()
    sizes = [-len(unit) for unit in remaining]
    order.sort(key=sizes.__getitem__)  # stable: equal sizes stay in their random order
    found: dict[int, str] = {}
    for place in order:
        unit = remaining[place]
        counts = Counter(kinds[index] for index in unit) if len(unit) > 1 else {kinds[unit[0]]: 1}

        def need(part: str, counts: Mapping[Kind, int] = counts) -> float:
            return sum(num * wanted[part][kind] / total[kind] for kind, num in counts.items())

        part = max(parts, key=need)
        for index in unit:
            found[index] = part
            wanted[part][kinds[index]] -= 1
    return found


# -- groups and files --------------------------------------------------------------------------------------------------


def grouped(source: Source, by: str | None) -> Source:
    """The source with the groups that `by` names: `group` (its own), `folder` (the one a picture lies in), or
    `regex:PATTERN` (what its first bracket, or all of it, matches in the name; a picture without a match stands alone).

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
        raise UsageError(f"--group-by {by!r} matches no picture's name, such as {source.records[0].name!r}")
    if isinstance(source.records, RecordTable):
        return replace(source, records=source.records.with_groups(groups))
    records = tuple(replace(record, group=group) for record, group in zip(source.records, groups, strict=True))
    return replace(source, records=records)


def write_manifest(source: Source, path: Path) -> None:
    """A CSV manifest of the source, its paths relative to the manifest's folder. Never over another file."""
    if any(record.offset is not None for record in source.records):
        raise UsageError(f"{source.name}: its pictures lie in tar files, which no manifest can name: split, then pack")
    folder, prefixes = path.parent.resolve(), dict[Path, str]()
    with new_text_file(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("path", "label", "split", "group", "stratum", "probability"))
        for record in source.records:
            parent = record.path.parent
            if record.address is None and parent not in prefixes:  # a folder's way is found once for all that is in it
                prefixes[parent] = Path(os.path.relpath(parent.absolute(), folder)).as_posix()
            place = record.address or (PurePosixPath(prefixes[parent]) / record.path.name).as_posix()
            certainty = "" if record.certainty == 1 else repr(record.certainty)
            label = source.classes[record.target]
            writer.writerow((place, label, record.split, record.group, record.stratum, certainty))
