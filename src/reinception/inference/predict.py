"""From image files to ranked labels, in the order given; a bad file gets its reason and the rest go on."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reinception import machine
from reinception.data.sources.class_folders import image_files
from reinception.data.sources.records import Record
from reinception.distributed import Ranks, collect, shard
from reinception.errors import UsageError
from reinception.files import new_text_file, write_json
from reinception.inference import engine
from reinception.inference.engine import Progress, prepare, score
from reinception.machine import Precision, choose_device
from reinception.metrics import Probabilities, csv_line
from reinception.model.artifact import Manifest
from reinception.model.build import Network


@dataclass(frozen=True, kw_only=True)
class Label:
    """One class with its probability."""

    label: str
    probability: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Prediction:
    """One file: its labels, the most probable first, or the reason why there are none."""

    path: str
    labels: tuple[Label, ...]
    error: str | None
    probabilities: Probabilities | None
    """(k,) float32 over all classes of the model, in its order; None with an error."""

    def to_json(self) -> dict[str, Any]:
        labels = [{"label": one.label, "probability": one.probability} for one in self.labels]
        return {"path": self.path, "labels": labels, "error": self.error}


def predict(
    network: Network,
    manifest: Manifest,
    paths: Sequence[str | Path],
    *,
    top: int = 5,
    batch_size: int = 32,
    workers: int = 0,
    precision: Precision = "fp32",
    progress: Progress | None = None,
    ranks: Ranks | None = None,
) -> list[Prediction]:
    """The `top` labels of every file that `paths` (files, folders, globs) mean, in the order given.

    A folder means the pictures in it at any depth, by name; a glob its matches, by name. A path that means nothing, and
    a file that is no readable picture, is a `Prediction` with an `error`. Equal probabilities keep the classes' order.
    Fewer files than a block of the network's (engine.block_size) are computed one by one: sooner done, and the same
    but for the rounding of float32. With `ranks`, which all call this with the same arguments, each computes its shard,
    and all get the whole.
    """
    if top < 1:
        raise UsageError(f"predict: top must be at least 1, got {top}")
    found = list(expand(paths))
    files = [item for item in found if isinstance(item, Path)]
    records = [Record(path=path, name=str(path), target=0) for path in files]
    device = choose_device()
    dtype = machine.precision(precision, device)
    is_full = len(files) >= engine.block_size(device)
    scored = score(
        prepare(network, device),
        manifest.preprocessing,
        shard(records, ranks, batch_size=batch_size),
        batch_size=batch_size,
        workers=workers,
        dtype=dtype,
        block=None if is_full else 1,
        progress=progress,
    )
    probabilities, refusals = collect(scored.probabilities, scored.refused, ranks, batch_size=batch_size)
    predictions = []
    index = 0
    for item in found:
        if not isinstance(item, Path):
            predictions.append(Prediction(path=item.path, labels=(), error=item.reason, probabilities=None))
            continue
        if (refused := refusals.get(index)) is not None:
            predictions.append(Prediction(path=str(item), labels=(), error=refused.reason, probabilities=None))
        else:
            row = probabilities[index]
            labels = _ranked(row, manifest.classes, top)
            predictions.append(Prediction(path=str(item), labels=labels, error=None, probabilities=row))
        index += 1
    return predictions


@dataclass(frozen=True, kw_only=True)
class Nothing:
    """A path that leads to no picture, and why."""

    path: str
    reason: str


def expand(paths: Sequence[str | Path]) -> Iterator[Path | Nothing]:
    """The files that `paths` mean: a file is itself, whatever its name; folders and globs give their pictures."""
    for given in paths:
        path = Path(given)
        if path.is_dir():
            found = image_files(path)
            yield from found or [Nothing(path=str(given), reason="there is no picture in this folder: name another")]
        elif os.path.lexists(path) or not glob.has_magic(str(given)):
            yield path  # when it is missing, reading it says so
        else:
            matches = sorted(Path(match) for match in glob.glob(str(given), recursive=True))
            found = [file for match in matches for file in (image_files(match) if match.is_dir() else [match])]
            yield from found or [Nothing(path=str(given), reason="nothing matches this pattern: check it")]


def write_predictions_json(predictions: Sequence[Prediction], path: str | Path) -> None:
    """A list of `{"path", "labels": [{"label", "probability"}], "error"}` in the order given."""
    write_json([prediction.to_json() for prediction in predictions], path)


def write_predictions_csv(predictions: Sequence[Prediction], classes: Sequence[str], path: str | Path) -> None:
    """`path,label,predicted,p_<class>...,error`: an evaluation's table with an empty label, and the reasons last."""
    with new_text_file(path) as file:
        file.write(csv_line(["path", "label", "predicted", *(f"p_{name}" for name in classes), "error"]))
        for one in predictions:
            predicted = one.labels[0].label if one.labels else ""
            shares = [""] * len(classes) if one.probabilities is None else [str(p) for p in one.probabilities]
            file.write(csv_line([one.path, "", predicted, *shares, one.error or ""]))


def _ranked(row: Probabilities, classes: Sequence[str], top: int) -> tuple[Label, ...]:
    order = np.argsort(-row, kind="stable")[:top]
    # float() of the float32's shortest text: 0.7 stays 0.7 in JSON instead of 0.699999988079071.
    return tuple(Label(label=classes[index], probability=float(str(row[index]))) for index in order)
