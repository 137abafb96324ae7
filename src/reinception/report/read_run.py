"""What a RUN folder holds, read into one value: configuration, machine, log, predictions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from reinception.data.sources.records import Record
from reinception.errors import ReinceptionError
from reinception.inference.speed import SPEED_NAME
from reinception.metrics import PredictionTable
from reinception.report.image_lookup import originals
from reinception.report.image_statistics import Look, looks

_SPLITS = {"test": "test", "val": "validation"}
"""Splits whose predictions a run may hold, the most honest first, and their names in a sentence."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run. `log` are the lines of metrics.jsonl; `table` is None while nothing has been evaluated; `speed` is what
    the run measured of its network when it was judged, empty where it did not.

    `validation` are the predictions for the images that chose the weights, where `table` is of others; what is fitted
    (a temperature, a threshold) is fitted on them.
    """

    folder: Path
    config: Mapping[str, Any]
    environment: Mapping[str, Any]
    log: tuple[Mapping[str, Any], ...]
    split: str | None
    table: PredictionTable | None
    validation: PredictionTable | None
    speed: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    @property
    def split_in_words(self) -> str:
        return _SPLITS[self.split] if self.split else ""

    @cached_property
    def originals(self) -> Mapping[str, Record]:
        """By name the images that `table` is about, as far as they are still listed."""
        return originals(self.config, self.table.names) if self.table is not None else {}

    @cached_property
    def looks(self) -> Mapping[int, Look]:
        """By row of `table` what its images are like, of as many as are worth decoding for that."""
        return looks([self.originals.get(name) for name in self.table.names]) if self.table is not None else {}

    def curve(self, split: str, value: str) -> list[tuple[float, float]]:
        """(epoch, value) of every log line of `split` that holds `value`."""
        lines = (line for line in self.log if line.get("split") == split)
        return [(float(line["epoch"]), float(line[value])) for line in lines if line.get(value) is not None]

    @property
    def seconds(self) -> float:
        """Training time by the log."""
        return max((float(line.get("seconds", 0)) for line in self.log), default=0.0)


def read_run(folder: str | Path) -> Run:
    """Read a RUN folder. ReinceptionError names the first file that is missing (config.json) or does not parse."""
    folder = Path(folder)
    if not folder.is_dir():
        raise ReinceptionError(f"{folder}: no such run folder")
    if not (folder / "config.json").is_file():
        raise ReinceptionError(f"{folder}: no config.json in this folder; is it a run that `train` made?")
    split = next((name for name in _SPLITS if (folder / "predictions" / f"{name}.csv").is_file()), None)
    validation = folder / "predictions" / "val.csv"
    environment, speed = folder / "environment.json", folder / SPEED_NAME
    return Run(
        folder=folder,
        config=_read_object(folder / "config.json"),
        environment=_read_object(environment) if environment.is_file() else {},
        log=_read_log(folder / "metrics.jsonl"),
        split=split,
        table=PredictionTable.load_csv(folder / "predictions" / f"{split}.csv") if split else None,
        validation=PredictionTable.load_csv(validation) if split == "test" and validation.is_file() else None,
        speed=_read_object(speed) if speed.is_file() else {},
    )


def _read_object(path: Path) -> Mapping[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ReinceptionError(f"{path}: cannot be read as JSON: {error}") from None
    if not isinstance(value, dict):
        raise ReinceptionError(f"{path}: holds no JSON object")
    return value


def _read_log(path: Path) -> tuple[Mapping[str, Any], ...]:
    if not path.is_file():
        return ()
    lines = []
    text = path.read_text(encoding="utf-8")
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            lines.append(json.loads(line))
        except ValueError:
            # A run that was killed while writing leaves half a last line; anywhere else it is damage.
            if number == text.count("\n") + 1:
                break
            raise ReinceptionError(f"{path}, line {number}: is not JSON") from None
    return tuple(lines)
