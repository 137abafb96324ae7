"""Reads a RUN folder into one value: configuration, machine, metrics log and predictions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from reinception.data.sources.records import Record
from reinception.errors import ReinceptionError
from reinception.inference.speed import SPEED_NAME
from reinception.metrics import PredictionTable
from reinception.report.image_lookup import find_records
from reinception.report.image_statistics import ImageStatistics, image_statistics

_SPLITS = {"test": "test", "val": "validation"}
"""Splits whose predictions a run may hold, the preferred one first, and their names in a sentence."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run. `log` are the lines of metrics.jsonl; `table` is None where nothing was evaluated; `speed` is the speed
    that the run measured of its network, empty where it did not.

    `validation` are the predictions for the images that chose the weights, where `table` is of others; temperature and
    thresholds are fitted on them.
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

    @property
    def scored(self) -> PredictionTable | None:
        """`table` where it has at least one image."""
        return self.table if self.table is not None and len(self.table) else None

    @cached_property
    def records(self) -> Mapping[str, Record]:
        """By name the images that `table` is about, as far as they are still listed."""
        return find_records(self.config, self.table.names) if self.table is not None else {}

    @cached_property
    def image_statistics(self) -> Mapping[int, ImageStatistics]:
        """By row of `table`, of a sample of its images."""
        return image_statistics([self.records.get(name) for name in self.table.names]) if self.table is not None else {}

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
        log=read_log(folder / "metrics.jsonl"),
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


def read_log(path: Path) -> tuple[Mapping[str, Any], ...]:
    """The lines of a metrics.jsonl, none where there is no file; the old key `rate` is read as `learning_rate`."""
    if not path.is_file():
        return ()
    lines: list[Mapping[str, Any]] = []
    text = path.read_text(encoding="utf-8")
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            values = json.loads(line)
        except ValueError:
            # A run that was killed while writing leaves half a last line; anywhere else it is damage.
            if number == text.count("\n") + 1:
                break
            raise ReinceptionError(f"{path}, line {number}: is not JSON") from None
        if "rate" in values:
            values["learning_rate"] = values.pop("rate")
        lines.append(values)
    return tuple(lines)


def curve(log: Sequence[Mapping[str, Any]], split: str, value: str) -> list[tuple[float, float]]:
    """(epoch, value) of every log line of `split` that holds `value`."""
    lines = (line for line in log if line.get("split") == split)
    return [(float(line["epoch"]), float(line[value])) for line in lines if line.get(value) is not None]
