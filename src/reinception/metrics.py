"""Scores computed from one table of predictions: exact counts, intervals, per-class figures; numpy only."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Self

import numpy as np
import numpy.typing as npt

from reinception.errors import ReinceptionError
from reinception.output import new_text_file

SUM_TOLERANCE = 1e-3
"""How far the probabilities of one image may be from one: room for rounding, not for logits."""

_RUNS_AS_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""First characters that make a spreadsheet run a cell instead of showing it."""

Counts = npt.NDArray[np.int64]
Probabilities = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class PredictionTable:
    """One row per scored image; every metric is a function of this.

    `names` (n) are the paths shown to people, `targets` (n) int64 index into `classes` (k), `probabilities` are (n, k)
    float32. Refused: shapes that disagree, targets outside the classes, NaN, and rows that do not sum to one.
    """

    names: tuple[str, ...]
    targets: Counts
    probabilities: Probabilities
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(self.names))
        object.__setattr__(self, "classes", tuple(self.classes))
        object.__setattr__(self, "targets", np.asarray(self.targets, dtype=np.int64).reshape(-1))
        object.__setattr__(self, "probabilities", np.asarray(self.probabilities, dtype=np.float32))
        n, k = len(self.names), len(self.classes)
        if k == 0 or len(set(self.classes)) != k:
            raise ReinceptionError(f"prediction table: the {k} class names must be distinct and at least one")
        if self.targets.shape != (n,) or self.probabilities.shape != (n, k):
            raise ReinceptionError(
                f"prediction table: {n} names and {k} classes need targets ({n},) and probabilities ({n}, {k}); "
                f"got {self.targets.shape} and {self.probabilities.shape}"
            )
        outside = (self.targets < 0) | (self.targets >= k)
        if outside.any():
            row = int(outside.argmax())
            raise ReinceptionError(
                f"prediction table: {self.names[row]!r} has target {self.targets[row]}, not in 0..{k - 1}"
            )
        wide = self.probabilities.astype(np.float64)
        # Written so that a NaN, for which every comparison is false, is bad.
        good = (wide >= 0).all(axis=1) & (np.abs(wide.sum(axis=1) - 1) <= SUM_TOLERANCE)
        if not good.all():
            row = int((~good).argmax())
            why = (
                "is not a number"
                if np.isnan(wide[row]).any()
                else f"sums to {wide[row].sum():.6g} with a smallest value of {wide[row].min():.6g}"
            )
            raise ReinceptionError(f"prediction table: {self.names[row]!r} does not hold probabilities: its row {why}")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def predicted(self) -> Counts:
        """(n,) the most probable class; of equal ones, the first in `classes`."""
        return self.probabilities.argmax(axis=1).astype(np.int64)

    @property
    def correct(self) -> npt.NDArray[np.bool_]:
        return self.predicted == self.targets

    def save_csv(self, path: str | Path) -> Path:
        """Write `path,label,predicted,p_<class>...`, one row per image, float32 exactly; never over a file."""
        with new_text_file(path) as file:
            file.write(csv_line(["path", "label", "predicted", *(f"p_{name}" for name in self.classes)]))
            rows = zip(self.names, self.targets, self.predicted, self.probabilities, strict=True)
            for name, target, predicted, probabilities in rows:
                labels = [self.classes[target], self.classes[predicted]]
                # str() of a numpy float32 is the shortest text that reads back as the same float32.
                file.write(csv_line([name, *labels, *(str(p) for p in probabilities)]))
        return Path(path)

    @classmethod
    def load_csv(cls, path: str | Path) -> Self:
        """Read what `save_csv` wrote; each defect is a `ReinceptionError` naming the file and the line."""
        try:
            with Path(path).open(encoding="utf-8", errors="surrogateescape", newline="") as file:
                reader = csv.reader(file, strict=True)
                header = [_unescape(cell) for cell in next(reader, [])]
                if header[:3] != ["path", "label", "predicted"] or not all(c.startswith("p_") for c in header[3:]):
                    raise ReinceptionError(
                        f"{path}: the header must be path,label,predicted,p_<class>...; got {','.join(header)[:80]!r}"
                    )
                classes = tuple(cell.removeprefix("p_") for cell in header[3:])
                position = {name: index for index, name in enumerate(classes)}
                names: list[str] = []
                targets: list[int] = []
                rows: list[list[np.float32]] = []
                for cells in reader:
                    if len(cells) != len(header):
                        raise ReinceptionError(
                            f"{path}, line {reader.line_num}: {len(cells)} cells, {len(header)} wanted"
                        )
                    label = _unescape(cells[1])
                    if label not in position:
                        raise ReinceptionError(
                            f"{path}, line {reader.line_num}: label {label!r} has no column p_{label}"
                        )
                    try:
                        rows.append([np.float32(cell) for cell in cells[3:]])
                    except ValueError as error:
                        raise ReinceptionError(f"{path}, line {reader.line_num}: {error}") from None
                    names.append(_unescape(cells[0]))
                    targets.append(position[label])
        except OSError as error:
            raise ReinceptionError(f"{path}: cannot read predictions: {error.strerror}") from None
        except csv.Error as error:
            raise ReinceptionError(f"{path}: not a CSV file: {error}") from None
        probabilities = np.array(rows, dtype=np.float32).reshape(len(rows), len(classes))
        try:
            return cls(
                names=tuple(names),
                targets=np.array(targets, dtype=np.int64),
                probabilities=probabilities,
                classes=classes,
            )
        except ReinceptionError as error:
            raise ReinceptionError(f"{path}: {error}") from None


@dataclass(frozen=True, kw_only=True)
class Rate:
    """`count` of `n`, exactly; percent and interval are derived."""

    count: int
    n: int

    @property
    def percent(self) -> float:
        return 100 * self.count / self.n

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Wilson's interval in percent."""
        low, high = wilson(self.count, self.n, confidence=confidence)
        return 100 * low, 100 * high


@dataclass(frozen=True, kw_only=True)
class ClassScore:
    """One class against the rest. A quotient with nothing below the line is None, never zero and never NaN."""

    name: str
    support: int
    predicted: int
    correct: int

    @property
    def precision(self) -> float | None:
        """Of the images called so, the share that are; None where none was called so."""
        return self.correct / self.predicted if self.predicted else None

    @property
    def recall(self) -> float | None:
        """Of the images that are, the share called so; None where there is none."""
        return self.correct / self.support if self.support else None

    @property
    def f1(self) -> float | None:
        """2 correct / (support + predicted); None where the class is neither present nor predicted."""
        total = self.support + self.predicted
        return 2 * self.correct / total if total else None


def wilson(successes: int, n: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval for a share of `successes` in `n`, as fractions (Wilson 1927, uncorrected)."""
    if not (0 <= successes <= n and n > 0 and 0 < confidence < 1):
        raise ValueError(f"wilson: {successes} of {n} at confidence {confidence}")
    z2 = NormalDist().inv_cdf((1 + confidence) / 2) ** 2
    share = successes / n
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    # At the two ends the formula is exactly 0 or 1; rounding is not.
    return (0.0 if successes == 0 else centre - half), (1.0 if successes == n else centre + half)


def target_rank(table: PredictionTable) -> Counts:
    """(n,) how many classes come before the target: the more probable, and of equal ones the earlier in `classes`."""
    p = table.probabilities
    own = np.take_along_axis(p, table.targets[:, None], axis=1)
    earlier = np.arange(len(table.classes))[None, :] < table.targets[:, None]
    return ((p > own) | ((p == own) & earlier)).sum(axis=1).astype(np.int64)


def top_k_error(table: PredictionTable, k: int = 1) -> Rate:
    """Images whose target is not among the `k` most probable classes; 0 by definition with `k` classes or fewer."""
    _refuse_empty(table)
    return Rate(count=int((target_rank(table) >= k).sum()), n=len(table))


def accuracy(table: PredictionTable) -> Rate:
    """Images whose most probable class is the target."""
    _refuse_empty(table)
    return Rate(count=int(table.correct.sum()), n=len(table))


def majority(table: PredictionTable) -> tuple[str, Rate]:
    """The accuracy of always answering the most frequent class of this very table, and that class."""
    _refuse_empty(table)
    support = np.bincount(table.targets, minlength=len(table.classes))
    return table.classes[int(support.argmax())], Rate(count=int(support.max()), n=len(table))


def confusion(table: PredictionTable) -> Counts:
    """(k, k) image counts; row is the target, column the prediction."""
    k = len(table.classes)
    return np.bincount(table.targets * k + table.predicted, minlength=k * k).reshape(k, k).astype(np.int64)


def per_class(table: PredictionTable) -> tuple[ClassScore, ...]:
    """Support, precision, recall and F1 of each class, in the order of `classes`."""
    counts = confusion(table)
    columns = zip(table.classes, counts.sum(axis=1), counts.sum(axis=0), counts.diagonal(), strict=True)
    return tuple(
        ClassScore(name=name, support=int(support), predicted=int(predicted), correct=int(correct))
        for name, support, predicted, correct in columns
    )


def macro_f1(table: PredictionTable) -> float:
    """Mean F1 over the classes that are present or predicted (scikit-learn's convention)."""
    _refuse_empty(table)
    return _mean([score.f1 for score in per_class(table)])


def balanced_accuracy(table: PredictionTable) -> float:
    """Mean recall over the classes that are present."""
    _refuse_empty(table)
    return _mean([score.recall for score in per_class(table)])


def csv_line(cells: Sequence[str]) -> str:
    """One CSV line; a cell that a spreadsheet would run as a formula gets a leading apostrophe."""
    return ",".join(_quote(_escape(cell)) for cell in cells) + "\n"


def _quote(cell: str) -> str:
    # csv.writer leaves a carriage return unquoted before Python 3.13, and its own reader then takes it for a new line.
    return '"' + cell.replace('"', '""') + '"' if any(c in cell for c in ',"\r\n') else cell


def _escape(cell: str) -> str:
    # Apostrophes before such a character are escaped too, so that reading back is exact for every name.
    return f"'{cell}" if cell.lstrip("'").startswith(_RUNS_AS_FORMULA) else cell


def _unescape(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and cell.lstrip("'").startswith(_RUNS_AS_FORMULA) else cell


def _mean(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / len(known)


def _refuse_empty(table: PredictionTable) -> None:
    if not len(table):
        raise ReinceptionError("prediction table: there is no image to score")
