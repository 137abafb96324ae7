"""Cascade: a small network answers for what it is sure of, a large one for the rest."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from reinception.data.sources.labels import listed
from reinception.errors import BadImage, ReinceptionError, UsageError
from reinception.inference.engine import Row
from reinception.metrics import PredictionTable
from reinception.model.artifact import Manifest

T = TypeVar("T")
CASCADE_NAME = "cascade.json"
Answer = Row | BadImage
ITEMS_AT_ONCE = 256
"""Items whose small answers are collected before the large network is asked: it then works in whole blocks."""


@dataclass(frozen=True, kw_only=True)
class Cascade:
    """When the small network's answer stands: where its highest probability is at least `threshold`.

    With 0 the small network answers for everything; with more than 1 the large one does. An answer that is not a number
    goes to the large one. `columns` are the places of the small network's classes among the large one's.
    """

    threshold: float
    columns: tuple[int, ...]

    @classmethod
    def of(cls, small: Manifest, large: Manifest, threshold: float) -> Cascade:
        """The cascade of two models of the same classes, in any order. UsageError for others."""
        for manifest in (small, large):
            manifest.require_classifier()
        if set(small.classes) != set(large.classes):
            raise UsageError(
                f"a cascade needs two models of the same classes; they know {listed(small.classes)} and "
                f"{listed(large.classes)}"
            )
        if not threshold >= 0:
            raise UsageError(f"the threshold of a cascade must be 0 or more, got {threshold}")
        return cls(threshold=threshold, columns=tuple(large.classes.index(name) for name in small.classes))

    def is_sure(self, row: Answer) -> bool:
        """Whether a small network's answer stands; also where the image cannot be read: nobody could."""
        return isinstance(row, BadImage) or bool(row.max() >= self.threshold)

    def reordered(self, row: Row) -> Row:
        """The large network's probabilities (k,) in the small one's order of classes."""
        return row[list(self.columns)]

    def answers(
        self,
        items: Iterable[T],
        small: Callable[[Sequence[T]], Iterable[Answer]],
        large: Callable[[Sequence[T]], Iterable[Answer]],
    ) -> Iterator[Answer]:
        """The answer for each item in order, with the small network's order of classes.

        `small` and `large` give one for each of their items. The large one sees only the items that are passed on.
        """
        source = iter(items)
        while part := list(islice(source, ITEMS_AT_ONCE)):
            found = list(small(part))
            passed = [index for index, row in enumerate(found) if not self.is_sure(row)]
            for index, row in zip(passed, large([part[index] for index in passed]), strict=True):
                found[index] = row if isinstance(row, BadImage) else self.reordered(row)
            yield from found


def kept_threshold(small: str | Path) -> float:
    """The threshold in the cascade.json that `shrink` wrote beside this run. ReinceptionError where there is none."""
    path = Path(small).resolve().parent / CASCADE_NAME
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if (path.parent / document["small"]).resolve() == Path(small).resolve():
            return float(document["threshold"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise ReinceptionError(f"{small}: no threshold is known for it; give --threshold, or let `shrink` choose one")


@dataclass(frozen=True, kw_only=True)
class Passing:
    """What a threshold does on given images: the fraction passed on, how often the small answers that stand agree with
    the large network's (None where none stands), and the accuracy of the whole."""

    threshold: float
    passed_on: float
    agreement: float | None
    accuracy: float


def passing(small: PredictionTable, large: PredictionTable, threshold: float) -> Passing:
    """What the cascade does with images that both networks have answered for, in the same order of names."""
    stands = small.probabilities.max(axis=1) >= threshold
    agrees = small.predicted == _aligned(small, large).argmax(axis=1)
    return Passing(
        threshold=threshold,
        passed_on=float(1 - stands.mean()),
        agreement=float(agrees[stands].mean()) if stands.any() else None,
        accuracy=float(joined(small, large, threshold).correct.mean()),
    )


def joined(small: PredictionTable, large: PredictionTable, threshold: float) -> PredictionTable:
    """The cascade's own table: the small network's rows where they stand, the large one's where not."""
    stands = small.probabilities.max(axis=1) >= threshold
    chosen = np.where(stands[:, None], small.probabilities, _aligned(small, large))
    return dataclasses.replace(small, probabilities=chosen)


def choose_threshold(small: PredictionTable, large: PredictionTable, agreement: float) -> float:
    """The lowest threshold above which small answers agree with the large network's at least so often.

    Every answer at or above the threshold counts, so a lucky one of low confidence cannot set it. More than 1 where no
    threshold does: then the large network answers for everything. The images must be ones that the final figures are
    not reported on.
    """
    confidence = small.probabilities.max(axis=1)
    order = np.argsort(-confidence, kind="stable")
    agrees = (small.predicted == _aligned(small, large).argmax(axis=1))[order]
    rates = np.cumsum(agrees) / np.arange(1, len(order) + 1)
    sorted_confidence = confidence[order]
    # Answers of equal confidence stand or fall together: only the last of them is a threshold.
    is_last = np.append(sorted_confidence[1:] != sorted_confidence[:-1], True)
    enough = np.flatnonzero((rates >= agreement) & is_last)
    return float(sorted_confidence[enough[-1]]) if len(enough) else 2.0


def _aligned(small: PredictionTable, large: PredictionTable) -> npt.NDArray[np.float32]:
    """The large network's probabilities for the small one's images, in the small one's order of images and classes."""
    place = {name: row for row, name in enumerate(large.names)}
    columns = [large.classes.index(name) for name in small.classes]
    return large.probabilities[[place[name] for name in small.names]][:, columns]
