"""Reads two prediction tables to compare: of run folders, or CSV files that `evaluate --predictions` writes."""

from __future__ import annotations

from pathlib import Path

from reinception.errors import ReinceptionError
from reinception.metrics import PredictionTable

_SPLITS = ("test", "val")


def read_pair(a: str | Path, b: str | Path) -> tuple[PredictionTable, PredictionTable, str]:
    """The tables of A and B and which images they are of: of two runs the test split, or else the validation split."""
    one, other = Path(a), Path(b)
    split = next((split for split in _SPLITS if all(_file(path, split).is_file() for path in (one, other))), None)
    if split is None:
        missing = next((p for p in (one, other) if not any(_file(p, split).is_file() for split in _SPLITS)), None)
        if missing is not None:
            raise ReinceptionError(f"{missing}: neither a run folder with predictions nor a file of them")
        raise ReinceptionError(f"{a} and {b} hold predictions for different splits; evaluate both on the same images")
    tables = [PredictionTable.load_csv(_file(path, split)) for path in (one, other)]
    what = "the same images" if one.is_file() and other.is_file() else f"the {split} split"
    return tables[0], tables[1], what


def read_split(path: str | Path, split: str) -> PredictionTable:
    """The predictions of a run for `split`, or those in a file. ReinceptionError where there are none."""
    file = _file(Path(path), split)
    if not file.is_file():
        raise ReinceptionError(f"{path}: holds no predictions for the {split} split, and is no file of predictions")
    return PredictionTable.load_csv(file)


def _file(path: Path, split: str) -> Path:
    return path / "predictions" / f"{split}.csv" if path.is_dir() else path
