"""Slices section: groups of images with lower accuracy than the rest, tested and corrected for their number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reinception.metrics import PredictionTable, Rate
from reinception.metrics.significance import fisher, holm
from reinception.report.formatting import count, first_three
from reinception.report.read_run import Run
from reinception.report.slice_features import SliceFeature, slice_features

LEAST_IMAGES = 30
"""A slice with fewer images, or that leaves fewer, is not shown: its interval would be too wide to say anything."""

MOST_SHOWN, MOST_FOLDED = 12, 48
LEVEL = 0.05


@dataclass(frozen=True, kw_only=True)
class Slice:
    """The images with one value of a feature against those with another value.

    `expected` is the accuracy if each class were as hard as in the rest, None where the rest lacks one of its classes.
    `p` is Fisher's, corrected for all slices.
    """

    feature: str
    value: str
    accuracy: Rate
    rest: Rate
    expected: float | None
    p: float

    @property
    def n(self) -> int:
        return self.accuracy.n

    @property
    def deficit(self) -> float:
        """Accuracy of the rest less its own, as a fraction; negative where the slice is better."""
        return self.rest.count / self.rest.n - self.accuracy.count / self.accuracy.n

    @property
    def significant(self) -> bool:
        return self.p < LEVEL

    @property
    def explained_by_classes(self) -> bool:
        """Whether its mix of classes is enough to explain its accuracy."""
        return self.expected is not None and 100 * self.expected <= self.accuracy.interval()[1]


@dataclass(frozen=True, kw_only=True)
class SliceSection:
    """The slices, largest deficit first, and what may be said of them; `worse` are significantly below the rest."""

    counted: str
    sentence: str
    caution: str
    rows: tuple[Slice, ...]
    worse: tuple[Slice, ...]


def slice_section(run: Run, table: PredictionTable) -> SliceSection | None:
    """None where no feature divides the images into slices that are large enough."""
    found = slices(slice_features(run, table), table)
    if not found:
        return None
    worse = [one for one in found if one.significant and one.deficit > 0]
    better = sum(one.significant and one.deficit < 0 for one in found)
    counted = f"{count(len(found), 'slice')} of at least {LEAST_IMAGES} images"
    if worse:
        names = first_three([f"{one.feature} “{one.value}”" for one in worse], quoted=False)
        have = "has" if len(worse) == 1 else "have"
        sentence = f"Of {counted}, {len(worse)} {have} significantly lower accuracy than the rest: {names}."
    else:
        sentence = f"Of {counted}, none has significantly lower accuracy than the rest."
    if explained := sum(one.explained_by_classes for one in worse):
        sentence += f" The classes in {'it' if len(worse) == 1 else f'{explained} of them'} are enough to explain that."
    if better:
        sentence += f" {better} {'has' if better == 1 else 'have'} significantly higher accuracy."
    return SliceSection(
        counted=counted,
        sentence=sentence,
        caution=f"The more slices are tested, the more look bad by chance: of {len(found)} about "
        f"{max(1, round(LEVEL * len(found)))} at 5 %. So p, of Fisher's exact test, is corrected for all of them by "
        f"Holm's method; it is bold below {LEVEL:g}. A slice can also have low accuracy because its classes are the "
        "hard ones; “expected” is its accuracy if each class were as easy as in the rest. Slices are found in the same "
        "images that the network is evaluated on, so check one on new images before you act on it.",
        worse=tuple(worse),
        rows=found[: MOST_SHOWN + MOST_FOLDED],
    )


def slices(features: Sequence[SliceFeature], table: PredictionTable) -> tuple[Slice, ...]:
    """Every slice that is large enough, the largest deficit first."""
    right = table.correct
    halves = [
        (feature.name, value, feature.rows[inside], feature.rows[~inside])
        for feature in features
        for value, inside in _parts(feature, right)
        if min(int(inside.sum()), int((~inside).sum())) >= LEAST_IMAGES
    ]
    rates = [tuple(Rate(count=int(right[rows].sum()), n=len(rows)) for rows in (a, b)) for _, _, a, b in halves]
    corrected = holm([fisher(one.count, one.n, rest.count, rest.n) for one, rest in rates])
    found = [
        Slice(feature=feature, value=value, accuracy=one, rest=rest, expected=_expected(table, a, b), p=p)
        for (feature, value, a, b), (one, rest), p in zip(halves, rates, corrected, strict=True)
    ]
    return tuple(sorted(found, key=lambda one: -one.deficit))


def _parts(feature: SliceFeature, right: npt.NDArray[np.bool_]) -> list[tuple[str, npt.NDArray[np.bool_]]]:
    """The values of a feature and where each is; of two only the weaker, since each is the other's rest."""
    names, codes = np.unique(np.array(feature.values), return_inverse=True)
    parts = [(str(name), codes == code) for code, name in enumerate(names)]
    return parts if len(parts) != 2 else [min(parts, key=lambda part: float(right[feature.rows[part[1]]].mean()))]


def _expected(table: PredictionTable, inside: npt.NDArray[np.int64], rest: npt.NDArray[np.int64]) -> float | None:
    """The accuracy of the slice's classes at the rest's recall of each."""
    k = len(table.classes)
    wanted = np.bincount(table.targets[inside], minlength=k)
    there = np.bincount(table.targets[rest], minlength=k)
    right = np.bincount(table.targets[rest], weights=table.correct[rest], minlength=k)
    if (there[wanted > 0] == 0).any():
        return None
    return float((wanted * right / np.maximum(there, 1)).sum() / len(inside))
