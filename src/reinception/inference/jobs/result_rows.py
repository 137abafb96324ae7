"""What a job's rows hold, whatever the file: their columns, and how a prediction or features become cells of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from reinception.inference.engine import Row
from reinception.inference.features import ImageFeatures
from reinception.inference.predict import Prediction
from reinception.model.artifact import Manifest

Result = TypeVar("Result", Prediction, ImageFeatures)
Cell = str | float | None


@dataclass(frozen=True, kw_only=True)
class Rows(Generic[Result]):
    """How results become rows: cells in `columns`, a JSON object, and a vector of `width` numbers under `vector`.

    `constants` are arrays of an .npz file that do not depend on the images.
    """

    columns: tuple[tuple[str, Literal["text", "number"]], ...]
    cells: Callable[[Result], Sequence[Cell]]
    document: Callable[[Result], Mapping[str, Any]]
    vector: str
    width: int
    values: Callable[[Result], Row | None]
    has_vector_column: bool
    """whether the vector is part of a row, or of an .npz file only"""
    constants: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)


def prediction_rows(manifest: Manifest, top: int) -> Rows[Prediction]:
    """`path, label, probability, label_2, probability_2, ..., error`: up to `top` labels, the most probable first."""
    num = min(top, len(manifest.classes))
    suffixes = ["", *(f"_{place}" for place in range(2, num + 1))]
    labels = [pair for suffix in suffixes for pair in ((f"label{suffix}", "text"), (f"probability{suffix}", "number"))]

    def cells(one: Prediction) -> list[Cell]:
        known: list[Cell] = [value for label in one.labels for value in (label.label, label.probability)]
        return [one.path, *known, *[None] * (2 * num - len(known)), one.error]

    return Rows(
        columns=(("path", "text"), *labels, ("error", "text")),  # pyrefly: ignore[bad-argument-type]
        cells=cells,
        document=Prediction.to_json,
        vector="probabilities",
        width=len(manifest.classes),
        values=lambda one: one.probabilities,
        has_vector_column=False,
        constants={"classes": manifest.classes} | _network(manifest),
    )


def feature_rows(manifest: Manifest, width: int) -> Rows[ImageFeatures]:
    """`path, error` and the `width` pooled features."""
    return Rows(
        columns=(("path", "text"), ("error", "text")),
        cells=lambda one: [one.path, one.error],
        document=lambda one: {"path": one.path, "features": _numbers(one.values), "error": one.error},
        vector="features",
        width=width,
        values=lambda one: one.values,
        has_vector_column=True,
        constants=_network(manifest),
    )


def _numbers(values: Row | None) -> list[float] | None:
    """Each float32 by its shortest text: 0.7 stays 0.7."""
    return None if values is None else [float(str(value)) for value in values]


def _network(manifest: Manifest) -> dict[str, str]:
    return {"network": manifest.arch.name, "preprocessing": json.dumps(manifest.preprocessing.to_json())}
