"""Kinds of images on which the network is right less often, with what so many comparisons can and cannot show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from reinception.metrics import PredictionTable, wilson
from reinception.metrics.significance import fisher, holm
from reinception.report import charts
from reinception.report.formatting import count, interval, joined, percent
from reinception.report.read_run import Run
from reinception.report.slice_features import Trait, traits

LEAST_IMAGES = 30
"""A slice with fewer, or that leaves fewer, is not shown: its interval would be wider than anything it could say."""

MOST_SHOWN, MOST_FOLDED = 12, 48
LEVEL = 0.05


@dataclass(frozen=True, kw_only=True)
class Slice:
    """The images with one value of a trait against those with another; `expected` is how many would be right if each
    class were as hard as among the others, None where they lack one of its classes. `p` is corrected for all slices."""

    trait: str
    value: str
    n: int
    right: int
    rest_n: int
    rest_right: int
    expected: float | None
    p: float

    @property
    def behind(self) -> float:
        """How far it falls below the rest, as a share; negative where it is ahead."""
        return self.rest_right / self.rest_n - self.right / self.n

    @property
    def is_its_classes(self) -> bool:
        """Whether its mix of classes is enough to explain how weak it is."""
        return self.expected is not None and self.expected <= wilson(self.right, self.n)[1]


@dataclass(frozen=True, kw_only=True)
class SliceRow:
    """One slice, ready to print."""

    trait: str
    value: str
    n: int
    right: str
    interval: str
    bar: Markup
    rest: str
    expected: str | None
    p: str
    stands_out: bool


@dataclass(frozen=True, kw_only=True)
class Slices:
    """The weakest slices first, and what may be said of them; `behind` are those that chance does not explain."""

    looked_at: str
    sentence: str
    caution: str
    rows: tuple[SliceRow, ...]
    behind: tuple[SliceRow, ...]


def sliced(run: Run, table: PredictionTable) -> Slices | None:
    """None where no trait parts the images into slices that are large enough."""
    found = slices(traits(run, table), table)
    if not found:
        return None
    behind = [one for one in found if one.p < LEVEL and one.behind > 0]
    ahead = [one for one in found if one.p < LEVEL and one.behind < 0]
    looked = f"{count(len(found), 'slice')} of at least {LEAST_IMAGES} images"
    if behind:
        more = [f"{len(behind) - 3} more"] if len(behind) > 3 else []
        worst = joined([*(f"{one.trait} “{one.value}”" for one in behind[:3]), *more])
        sentence = f"Of {looked}, {len(behind)} {'falls' if len(behind) == 1 else 'fall'} behind the rest: {worst}."
    else:
        sentence = f"Of {looked}, none falls behind the rest by more than so many comparisons bring about by chance."
    if explained := sum(one.is_its_classes for one in behind):
        which = "That one is" if len(behind) == 1 else f"{explained} of them {'is' if explained == 1 else 'are'}"
        sentence += f" {which} no weaker than the classes in it make expect."
    if ahead:
        sentence += f" {len(ahead)} {'is' if len(ahead) == 1 else 'are'} ahead of it."
    return Slices(
        looked_at=looked,
        sentence=sentence,
        caution=f"The more slices one looks at, the more look bad by chance: of {len(found)} about "
        f"{max(1, round(LEVEL * len(found)))} at 5 %. So p, of Fisher's exact test, is corrected for all of them by "
        f"Holm's method; it is bold below {LEVEL:g}. A slice can also fall behind because its classes are the hard "
        "ones; “expected” is what it would reach with each class as easy as among the rest. Slices are found in the "
        "same images that judge the network, so check one on new images before you act on it.",
        behind=tuple(_row(one) for one in behind),
        rows=tuple(_row(one) for one in found[: MOST_SHOWN + MOST_FOLDED]),
    )


def slices(found: Sequence[Trait], table: PredictionTable) -> tuple[Slice, ...]:
    """Every slice that is large enough, the one that falls farthest below its rest first."""
    right = table.correct
    halves = [
        (trait.name, value, trait.rows[inside], trait.rows[~inside])
        for trait in found
        for value, inside in _parts(trait, right)
        if min(int(inside.sum()), int((~inside).sum())) >= LEAST_IMAGES
    ]
    counted = [(int(right[a].sum()), len(a), int(right[b].sum()), len(b)) for _, _, a, b in halves]
    corrected = holm([fisher(*counts) for counts in counted])
    made = [
        Slice(
            trait=trait,
            value=value,
            n=n,
            right=hits,
            rest_n=rest_n,
            rest_right=rest_hits,
            expected=_expected(table, a, b),
            p=p,
        )
        for (trait, value, a, b), (hits, n, rest_hits, rest_n), p in zip(halves, counted, corrected, strict=True)
    ]
    return tuple(sorted(made, key=lambda one: -one.behind))


def _parts(trait: Trait, right: npt.NDArray[np.bool_]) -> list[tuple[str, npt.NDArray[np.bool_]]]:
    """The values of a trait and where each is; of two only the weaker, since each is the other's rest."""
    names, codes = np.unique(np.array(trait.values), return_inverse=True)
    parts = [(str(name), codes == code) for code, name in enumerate(names)]
    return parts if len(parts) != 2 else [min(parts, key=lambda part: float(right[trait.rows[part[1]]].mean()))]


def _expected(table: PredictionTable, inside: npt.NDArray[np.int64], rest: npt.NDArray[np.int64]) -> float | None:
    """The share that would be right with the slice's classes and the rest's recall of each."""
    k = len(table.classes)
    wanted = np.bincount(table.targets[inside], minlength=k)
    there = np.bincount(table.targets[rest], minlength=k)
    right = np.bincount(table.targets[rest], weights=table.correct[rest], minlength=k)
    if (there[wanted > 0] == 0).any():
        return None
    return float((wanted * right / np.maximum(there, 1)).sum() / len(inside))


def _row(one: Slice) -> SliceRow:
    low, high = wilson(one.right, one.n)
    return SliceRow(
        trait=one.trait,
        value=one.value,
        n=one.n,
        right=percent(100 * one.right / one.n),
        interval=interval(100 * low, 100 * high),
        bar=charts.range_bar(low, one.right / one.n, high),
        rest=percent(100 * one.rest_right / one.rest_n),
        expected=None if one.expected is None else percent(100 * one.expected),
        p="1" if one.p > 0.995 else "< 0.001" if one.p < 0.001 else f"{one.p:.2g}",
        stands_out=one.p < LEVEL,
    )
