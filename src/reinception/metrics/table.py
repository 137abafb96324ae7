"""The prediction table: one row of class probabilities per image, read from and written to CSV."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from reinception.errors import ReinceptionError
from reinception.files import new_text_file

SUM_TOLERANCE = 1e-3
"""How far the probabilities of one image may be from one: room for rounding, not for logits."""

_RUNS_AS_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""First characters that make a spreadsheet run a cell instead of showing it."""

Counts = npt.NDArray[np.int64]
Probabilities = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class PredictionTable:
    """One row per evaluated image; every metric is a function of this.

    `names` (n) are the paths shown to people, `targets` (n) int64 index into `classes` (k), `probabilities` are (n, k)
    float32. ReinceptionError: shapes that disagree, targets outside the classes, NaN, and rows that do not sum to one.
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
