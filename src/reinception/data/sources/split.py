"""Seeded, stratified random split of a source into train, val and test."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

from reinception.data.images.random_stream import RandomStream
from reinception.data.sources.records import Record, RecordTable, Source
from reinception.errors import UsageError


def assign_splits(source: Source, *, seed: int = 0, val_fraction: float = 0.1, test_fraction: float = 0.25) -> Source:
    """The source with every record in `train`, `val` or `test`.

    Records without a split are divided: each class gives `test_fraction` of its records to test, `val_fraction` to val
    (rounded to the nearest; halves and always at least one record stay in train), spread over its strata as evenly as
    whole images allow. The result depends on `seed` and the records' names only, and test does not depend on
    `val_fraction`: models that were selected differently are evaluated on the same images.

    Splits that exist are kept, and a split that exists is complete: records without one are divided among the others.
    One exception: where every record has a split and none is val, `val_fraction` of train becomes val. Nothing is ever
    taken from test, and no test split is made out of records that are train already.

    Raises `UsageError` unless both fractions are at least 0 and leave something to train on.
    """
    require_fractions(val_fraction, test_fraction)
    test = Fraction(0) if "test" in source.splits else Fraction(str(test_fraction))
    val = Fraction(0) if "val" in source.splits else Fraction(str(val_fraction))
    splits = {record.name: record.split for record in source.records if record.split is not None}
    undecided = [record for record in source.records if record.split is None]
    if not undecided and "val" not in source.splits:
        undecided, test = [record for record in source.records if record.split == "train"], Fraction(0)
    for records in _by(undecided, "target").values():
        splits |= _split_class(records, seed, test, val)
    return replace(source, records=with_splits(source.records, splits))


def assign_fold(source: Source, *, folds: int, fold: int, seed: int = 0, val_fraction: float = 0.1) -> Source:
    """The source with the records of fold number `fold`, from 1 to `folds`, in test and the others in train and val.

    Every record is in one fold. Each class, and in it each stratum, is dealt out to the folds in an order of `seed` and
    the records' names, so folds differ by no more than an image of each class. Of the records that are not in test,
    `val_fraction` of each class is val. A test split that exists is left out altogether: it stays unseen; other splits
    are dissolved.

    Raises `UsageError` for a fold that does not exist, and where a class has fewer records than there are folds.
    """
    require_fractions(val_fraction, 0.0)
    if folds < 2 or not 1 <= fold <= folds:
        raise UsageError(f"fold {fold} of {folds}: there must be at least 2 folds, numbered from 1")
    unseen = frozenset(record.name for record in source.records if record.split == "test")
    source = source.without(unseen) if unseen else source
    splits: dict[str, str] = {}
    for target, records in sorted(_by(list(source.records), "target").items(), key=lambda item: str(item[0])):
        if len(records) < folds:
            name = source.classes[records[0].target]
            raise UsageError(f"--folds {folds}: class {name!r} has only {len(records)} images; use fewer folds")
        place, rest = records[0].target, list[Record]()  # classes begin at different folds
        for stratum, members in sorted(_by(records, "stratum").items(), key=lambda item: str(item[0])):
            members.sort(key=lambda record: record.name)
            for index in RandomStream("fold", seed, str(target), str(stratum)).permutation(len(members)):
                if place % folds == fold - 1:
                    splits[members[index].name] = "test"
                else:
                    rest.append(members[index])
                place += 1
        splits |= _split_class(rest, seed, Fraction(0), Fraction(str(val_fraction)))
    return replace(source, records=with_splits(source.records, splits))


def require_fractions(val_fraction: float, test_fraction: float) -> None:
    """`UsageError` unless both fractions are at least 0 and leave something to train on."""
    if not (test_fraction >= 0 and val_fraction >= 0 and test_fraction + val_fraction < 1):
        raise UsageError(
            f"val_fraction {val_fraction} and test_fraction {test_fraction} must be at least 0 and together below 1"
        )


def with_splits(records: Sequence[Record], splits: Mapping[str, str]) -> Sequence[Record]:
    """The same records, each in the split that `splits` has for its name."""
    if isinstance(records, RecordTable):
        return records.with_splits(splits)
    return tuple(replace(record, split=splits[record.name]) for record in records)


def _split_class(records: list[Record], seed: int, test_fraction: Fraction, val_fraction: Fraction) -> dict[str, str]:
    """The split of each record (by name) of one class."""
    num_test = _rounded(len(records), test_fraction, at_most=len(records) - 1)
    num_val = _rounded(len(records), val_fraction, at_most=len(records) - 1 - num_test)
    splits: dict[str, str] = {}
    num_seen = num_rest = 0
    for stratum, members in sorted(_by(records, "stratum").items(), key=lambda item: str(item[0])):
        members.sort(key=lambda record: record.name)
        order = RandomStream("split", seed, members[0].target, str(stratum)).permutation(len(members))
        test = _portion(num_test, len(records), num_seen, len(members))
        num_seen += len(members)
        val = _portion(num_val, len(records) - num_test, num_rest, len(members) - test)
        num_rest += len(members) - test
        for position, member in enumerate(order):
            splits[members[member].name] = "test" if position < test else "val" if position < test + val else "train"
    return splits


def _rounded(num: int, fraction: Fraction, at_most: int) -> int:
    """`fraction` of `num`, rounded to the nearest, halves down: the largest remainder of two parts."""
    return min(-((-2 * num * fraction + 1) // 2), at_most)


def _portion(total: int, num: int, before: int, here: int) -> int:
    """How many of `total`, spread evenly over `num` records, belong to the `here` records after the first `before`.

    Differences of one rounded-down running sum: each is within one of its exact value and together they are `total`.
    """
    return total * (before + here) // num - total * before // num if num else 0


def _by(records: list[Record], attribute: str) -> dict[object, list[Record]]:
    groups: dict[object, list[Record]] = defaultdict(list)
    for record in records:
        groups[getattr(record, attribute)].append(record)
    return groups
