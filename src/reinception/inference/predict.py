"""From image files to ranked labels, in the order given; a bad file gets its reason and the rest go on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from reinception.data.sources.records import Record
from reinception.errors import BadImage, UsageError
from reinception.files import json_text, new_text_file
from reinception.inference.backends.choice import FEW_IMAGES
from reinception.inference.cascade import Cascade
from reinception.inference.compute import HERE, Compute
from reinception.inference.engine import Engine, Row
from reinception.inference.evaluate import as_model
from reinception.inference.stream import Item, expand, peeked, rows_in_order
from reinception.metrics import Probabilities, csv_line
from reinception.model.artifact import Model


@dataclass(frozen=True, kw_only=True)
class Label:
    """One class with its probability, from 0 to 1."""

    label: str
    probability: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Prediction:
    """One image: its labels, the most probable first, or the reason why there are none."""

    path: str
    """the file, or `image N` for an image that has no name"""

    labels: tuple[Label, ...]
    """the most probable classes, the first first; empty with an error"""

    error: str | None
    """why the image could not be used, in one line"""

    probabilities: Probabilities | None
    """(k,) float32 over all classes of the model, in its order; None with an error"""

    @property
    def label(self) -> str | None:
        """The name of the most probable class."""
        return self.labels[0].label if self.labels else None

    @property
    def probability(self) -> float | None:
        """The probability of `label`."""
        return self.labels[0].probability if self.labels else None

    def to_json(self) -> dict[str, Any]:
        """`{"path", "labels": [{"label", "probability"}], "error"}`."""
        labels = [{"label": one.label, "probability": one.probability} for one in self.labels]
        return {"path": self.path, "labels": labels, "error": self.error}


def predict(
    model: Model | str | Path,
    paths: str | Path | Sequence[str | Path],
    *,
    top: int = 5,
    compute: Compute = HERE,
) -> list[Prediction]:
    """What is in images: the `top` labels of each, in the order given.

    Args:
        model: a `Model` or the path of one. Its network is not changed.
        paths: one or several files, folders (the images in them at any depth, by name), globs (their matches, by name)
            or manifests (`.csv`, `.jsonl`: the images of their column `path`, relative to the manifest).
        top: labels for each image. Equal probabilities keep the classes' order.
        compute: device, precision, batches.

    Returns:
        One `Prediction` for each image; one that cannot be read, and a path that leads to none, has an `error`. Fewer
        than a block of images (`Engine.block_size`) are computed one by one: sooner done, and the same but for the
        rounding of float32.

    Raises:
        UsageError: `top` is less than 1, or there is no such device or precision.
        ReinceptionError: a damaged model or manifest.

    Example:
        >>> import reinception as ri
        >>> [one.label is not None for one in ri.predict("model.safetensors", "images")]
        [True, True, True, True]
    """
    return list(predict_stream(model, paths, top=top, compute=compute))


def predict_stream(
    model: Model | str | Path,
    paths: str | Path | Sequence[str | Path],
    *,
    top: int = 5,
    compute: Compute = HERE,
    larger: Model | str | Path | None = None,
    threshold: float = 0.0,
) -> Iterator[Prediction]:
    """`predict`, one at a time: a million images need no more memory than a thousand.

    With ranks, which all call this with the same arguments, each computes its shard, and all get every prediction.
    With a `larger` model of the same classes that one answers where the highest probability is below `threshold`.
    """
    if top < 1:
        raise UsageError(f"predict: top must be at least 1, got {top}")
    model = as_model(model)
    model.manifest.require_classifier()
    num, items = peeked(expand([paths] if isinstance(paths, str | Path) else paths), FEW_IMAGES)
    engine = Engine(model.network, model.preprocessing, compute.with_default("auto"), num_images=num)
    if larger is None:
        return predictions(engine, model.classes, items, top=top, is_full=num >= engine.block_size)
    large = as_model(larger)
    cascade = Cascade.of(model.manifest, large.manifest, threshold)
    engines = (engine, Engine(large.network, large.preprocessing, engine.compute, num_images=num))
    small_rows, large_rows = (partial(_rows, one, is_full=num >= one.block_size) for one in engines)
    named = rows_in_order(
        items, lambda records: cascade.answers(records, small_rows, large_rows), len(model.classes), engine.compute
    )
    return (prediction(name, row, model.classes, top) for name, row in named)


def _rows(engine: Engine, records: Iterable[Record], *, is_full: bool) -> Iterator[Row | BadImage]:
    return engine.probabilities(engine.batches(records), block=None if is_full else 1)


def predictions(
    engine: Engine, classes: Sequence[str], items: Iterator[Item], *, top: int, is_full: bool
) -> Iterator[Prediction]:
    """The prediction of each item, in order; computed in blocks where `is_full`, else one by one."""
    named = rows_in_order(items, partial(_rows, engine, is_full=is_full), len(classes), engine.compute)
    return (prediction(name, row, classes, top) for name, row in named)


def prediction(name: str, row: Row | BadImage, classes: Sequence[str], top: int) -> Prediction:
    """The prediction that a row of probabilities (k,), or its lack, stands for."""
    if isinstance(row, BadImage):
        return Prediction(path=name, labels=(), error=row.reason, probabilities=None)
    order = np.argsort(-row, kind="stable")[:top]
    # float() of the float32's shortest text: 0.7 stays 0.7 in JSON instead of 0.699999988079071.
    labels = tuple(Label(label=classes[index], probability=float(str(row[index]))) for index in order)
    return Prediction(path=name, labels=labels, error=None, probabilities=row)


Write = Callable[[Prediction], None]


@contextmanager
def json_writer(path: str | Path) -> Iterator[Write]:
    """Writes predictions as they come: a list of `{"path", "labels": [{"label", "probability"}], "error"}`.

    The file appears, whole, when the block ends; `-` is the standard output. An existing file is refused.
    """
    with new_text_file(path) as file:
        num = 0

        def write(one: Prediction) -> None:
            nonlocal num
            text = json_text(one.to_json(), indent=2).replace("\n", "\n  ")
            file.write(("[\n" if num == 0 else ",\n") + "  " + text)
            num += 1

        yield write
        file.write("\n]\n" if num else "[]\n")


@contextmanager
def csv_writer(path: str | Path, classes: Sequence[str]) -> Iterator[Write]:
    """Writes predictions as they come: `path,label,predicted,p_<class>...,error`, an evaluation's table with an empty
    label, and the reasons last. The file appears, whole, when the block ends; `-` is the standard output."""
    with new_text_file(path) as file:
        file.write(csv_line(["path", "label", "predicted", *(f"p_{name}" for name in classes), "error"]))

        def write(one: Prediction) -> None:
            cells = [""] * len(classes) if one.probabilities is None else map(str, one.probabilities)
            file.write(csv_line([one.path, "", one.label or "", *cells, one.error or ""]))

        yield write
