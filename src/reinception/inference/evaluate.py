"""How good a model or an ensemble is on labelled images: each image once, exact counts, bad images named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from reinception import metrics
from reinception.data.sources.labels import listed
from reinception.data.sources.open_source import open_source
from reinception.data.sources.records import Record, Source
from reinception.distributed import collect, shard
from reinception.errors import BadImage, ReinceptionError, UsageError
from reinception.inference.compute import HERE, Compute
from reinception.inference.engine import score
from reinception.inference.evaluation_split import select
from reinception.metrics import PredictionTable, Probabilities, Rate, calibration, significance
from reinception.metrics.roc import one_vs_rest
from reinception.model.artifact import Model, load
from reinception.preprocess import Crops, Preprocessing, SingleCrop, many_crops, single_crop

SINGLE_CROP = "single crop"


MOST_CLASSES_IN_A_MATRIX = 1000
"""With 4,000 classes a matrix takes 138 MB of JSON."""


@dataclass(frozen=True, kw_only=True)
class CropProtocol:
    """Which pixels of each image are scored: the model's own single crop, another rule for it, or many crops.

    Args: each is a field, explained below.

    Raises:
        UsageError: `scales` for a single crop, or `resize` for many.

    Source: 10 crops are Krizhevsky et al. 2012's, 144 are GoogLeNet's (arXiv 1409.4842, section 7).

    Example:
        >>> import reinception as ri
        >>> ten = ri.CropProtocol(crops=10)
        >>> ri.evaluate("model.safetensors", "images", protocol=ten).protocol["protocol"]
        '10 crops (scale 86)'
    """

    crops: int = 1
    """1, or 10, 12 or 144 crops whose probabilities are averaged"""

    scales: tuple[int, ...] | None = None
    """pixels of the shorter side, one for 10 and 12 crops and four for 144 (default: GoogLeNet's, in proportion)"""

    resize: SingleCrop | None = None
    """the resize rule of a well-known evaluation in place of the model's own, for a single crop"""

    def __post_init__(self) -> None:
        if self.crops == 1 and self.scales is not None:
            raise UsageError("scales are for 10, 12 or 144 crops; a single crop has its resize rule")
        if self.crops != 1 and self.resize is not None:
            raise UsageError(
                f"the resize rule {self.resize!r} is for a single crop; {self.crops} crops have their scales"
            )

    def apply(self, preprocessing: Preprocessing) -> tuple[Preprocessing, Crops | None]:
        """What a model with this preprocessing is scored on; None for a single crop."""
        if self.crops != 1:
            return preprocessing, many_crops(self.crops, preprocessing.input_size, self.scales)
        return (preprocessing if self.resize is None else single_crop(self.resize, preprocessing)), None


OWN_CROP = CropProtocol()
"""The single crop that each model was made for."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """`num_listed` images were asked for, `table` holds those that could be read, `bad` the others."""

    num_listed: int
    bad: tuple[BadImage, ...]
    table: PredictionTable
    protocol: Mapping[str, Any]

    @property
    def num_images(self) -> int:
        """Images that were scored; with the bad ones they are those listed."""
        return len(self.table)

    def summary(self) -> dict[str, Any]:
        """The JSON of `evaluate`: errors and their 95 % Wilson intervals in percent, fractions from 0 to 1.

        `top5_error` is 0 by definition with five classes or fewer.
        """
        table = self.table
        majority, baseline = metrics.majority(table)
        ranked = one_vs_rest(table)
        return {
            "num_listed": self.num_listed,
            "num_images": self.num_images,
            **self.protocol,
            **_error("top1_error", metrics.top_k_error(table, 1)),
            **_error("top5_error", metrics.top_k_error(table, 5)),
            "confidence": 0.95,
            "balanced_accuracy": metrics.balanced_accuracy(table),
            "macro_f1": metrics.macro_f1(table),
            "negative_log_likelihood": calibration.negative_log_likelihood(table),
            "brier_score": calibration.brier_score(table),
            "calibration_error": calibration.calibration_error(table),
            "reliability": [
                {"low": one.low, "high": one.high, "n": one.n, "confidence": one.confidence, "accuracy": one.accuracy}
                for one in calibration.reliability(table)
            ],
            "bootstrap_intervals": {name: list(ends) for name, ends in significance.bootstrap(table).items()},
            "majority_class": majority,
            "majority_class_error": 100 - baseline.percent,
            "classes": list(table.classes),
            "per_class": [
                {
                    "label": one.name,
                    "support": one.support,
                    "predicted": one.predicted,
                    "correct": one.correct,
                    "precision": one.precision,
                    "recall": one.recall,
                    "recall_interval": list(metrics.wilson(one.correct, one.support)) if one.support else None,
                    "f1": one.f1,
                    "average_precision": rank.average_precision,
                    "auroc": rank.auroc,
                }
                for one, rank in zip(metrics.per_class(table), ranked, strict=True)
            ],
            **_confusion(metrics.confusion(table)),
            "refused": [bad.to_json() for bad in self.bad],
        }

    def save_csv(self, path: str | Path) -> Path:
        """One row per scored image: `path,label,predicted,p_<class>...`."""
        return self.table.save_csv(path)


def evaluate(
    model: Model | str | Path | Sequence[Model | str | Path],
    data: str | Path | Source,
    *,
    split: str | None = None,
    protocol: CropProtocol = OWN_CROP,
    compute: Compute = HERE,
) -> Evaluation:
    """How often a model, or the average of several, is right on labelled images.

    The split that the model's own training held out is found again where the data are the same.

    Args:
        model: a `Model`, the path of one, or a list of these, whose probabilities are averaged.
        data: a folder of class folders, a manifest, tar shards or their address, the word `elpv`, or a `Source`.
        split: the split to judge on; by default test, or every image where the data are not split.
        protocol: which crops of an image are scored.
        compute: device, precision, batches. The networks given are not changed.

    Returns:
        The `Evaluation`: its `summary()` is a JSON object with errors in percent, its `table` one row per image.

    Raises:
        ReinceptionError: where no image can be read, labels do not match the model's classes, or there is no such
            split. Images that cannot be read are in `bad`.

    Source: Szegedy et al. 2015 (arXiv 1512.00567), section 8, for the error rates and the many crops.

    Example:
        >>> import reinception as ri
        >>> evaluation = ri.evaluate("model.safetensors", "images")
        >>> evaluation.num_images
        4
    """
    models = [as_model(one) for one in ([model] if isinstance(model, Model | str | Path) else model)]
    source = data if isinstance(data, Source) else open_source(data)
    records = select(source, [one.manifest for one in models], split).records
    return evaluate_records(models, records, source.classes, protocol=protocol, compute=compute)


def as_model(model: Model | str | Path) -> Model:
    """The model itself, or the one at a path, without auxiliary classifiers."""
    return model if isinstance(model, Model) else load(model, with_aux=False)


def evaluate_records(
    models: Sequence[Model],
    records: Sequence[Record],
    classes: Sequence[str],
    *,
    protocol: CropProtocol = OWN_CROP,
    compute: Compute = HERE,
) -> Evaluation:
    """Score `records` (whose targets index `classes`) with one model, or with the average of several.

    Labels are matched to the models' classes by name, so a data set that lacks a class of the model, or lists them in
    another order, is scored right; a class that no model knows is a ReinceptionError, and so are models that disagree
    about the classes. Probabilities are averaged in a fixed order, so the order of the models changes nothing. Float32
    by default: a published error should not depend on the processor. With ranks, which all call this with the same
    arguments, each scores its shard, once, and all get the whole evaluation; `progress` counts this one's shard.
    """
    if not models:
        raise ReinceptionError("evaluate: name at least one model")
    known = models[0].classes
    for model in models:
        model.manifest.require_classifier()
        _require_equal(model.classes, known)
    targets = _targets(records, classes, known)
    protocols = [protocol.apply(model.preprocessing) for model in models]
    mine = shard(records, compute.ranks, batch_size=compute.batch_size)
    scored = []
    precision = ""
    bad: dict[int, BadImage] = {}
    for index, (model, (preprocessing, crops)) in enumerate(zip(models, protocols, strict=True)):
        counted = _counted(compute, before=index * len(mine), total=len(models) * len(mine))
        own = score(model.network, preprocessing, mine, crops=crops, compute=counted, num_images=len(records))
        rows, found = collect(own.probabilities, own.bad, compute.ranks, batch_size=compute.batch_size)
        scored.append(rows)
        precision = own.precision
        bad |= found
    kept = [index for index in range(len(records)) if index not in bad]
    if not kept:
        first = f": {bad[min(bad)]}" if bad else ""
        raise ReinceptionError(f"evaluate: none of the {len(records)} images could be scored{first}")
    return Evaluation(
        num_listed=len(records),
        bad=tuple(bad[index].named(records[index].name) for index in sorted(bad)),
        table=PredictionTable(
            names=tuple(records[index].name for index in kept),
            targets=targets[kept],
            probabilities=average(scored)[kept],
            classes=known,
        ),
        protocol={
            "protocol": _in_words([crops for _, crops in protocols], protocol.resize),
            "crops": [None if crops is None else crops.to_json() for _, crops in protocols],
            "num_models": len(models),
            "precision": precision,
            "preprocessing": [preprocessing.to_json() for preprocessing, _ in protocols],
        },
    )


def _counted(compute: Compute, *, before: int, total: int) -> Compute:
    """`compute` whose progress counts the images of all models, `before` of which are done."""
    progress = compute.progress
    if progress is None:
        return compute
    return replace(compute, progress=lambda done, _: progress(before + done, total))


def _in_words(crops: Sequence[Crops | None], resize: SingleCrop | None) -> str:
    """One phrase for all models where they agree, else each one's; in a fixed order, as the average is."""
    rule = SINGLE_CROP if resize is None else f"{SINGLE_CROP} ({resize} rule)"
    return " and ".join(sorted({rule if cut is None else cut.words for cut in crops}))


def average(tables: Sequence[Probabilities]) -> Probabilities:
    """Mean of equally shaped (n, k) probabilities, the same bits in whatever order they come."""
    if len(tables) == 1:
        return tables[0]
    # Addition rounds differently in another order; sorted, the order is always the same.
    return np.sort(np.stack(tables), axis=0).mean(axis=0, dtype=np.float64).astype(np.float32)


def _targets(records: Sequence[Record], classes: Sequence[str], known: Sequence[str]) -> metrics.Counts:
    position = {name: index for index, name in enumerate(known)}
    foreign = sorted({classes[record.target] for record in records} - set(known))
    if foreign:
        raise ReinceptionError(
            f"evaluate: the model does not know {listed(foreign)}; its classes are {listed(known)}: "
            "evaluate it on data with the classes it was trained for"
        )
    return np.array([position[classes[record.target]] for record in records], dtype=np.int64)


def _require_equal(one: Sequence[str], other: Sequence[str]) -> None:
    if tuple(one) != tuple(other):
        raise ReinceptionError(
            f"evaluate: models of one ensemble must have the same classes in the same order; "
            f"got {listed(other)} and {listed(one)}"
        )


def _confusion(counts: metrics.Counts) -> dict[str, Any]:
    """The confusion matrix; of very many classes only its cells that are not 0: [true, predicted, images]."""
    if len(counts) <= MOST_CLASSES_IN_A_MATRIX:
        return {"confusion": counts.tolist()}
    cells = np.argwhere(counts)
    return {"confusion_cells": [[*cell, int(counts[tuple(cell)])] for cell in cells.tolist()]}


def _error(name: str, rate: Rate) -> dict[str, Any]:
    return {name: rate.percent, f"{name}_interval": list(rate.interval()), f"{name}_count": rate.count}
