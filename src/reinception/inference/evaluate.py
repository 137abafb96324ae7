"""How good a model or an ensemble is on labelled images: each image once, exact counts, bad images named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reinception import machine, metrics
from reinception.data.sources.records import Record
from reinception.distributed import Ranks, collect, shard
from reinception.errors import BadImage, ReinceptionError, UsageError
from reinception.inference.engine import Progress, prepare, score
from reinception.machine import Precision, choose_device
from reinception.metrics import PredictionTable, Probabilities, Rate, calibration, significance
from reinception.metrics.roc import one_vs_rest
from reinception.model.artifact import Manifest
from reinception.model.build import Network
from reinception.preprocess import Crops, Preprocessing, SingleCrop, many_crops, single_crop

SINGLE_CROP = "single crop"


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """An image that was listed but could not be scored."""

    path: str
    kind: str
    reason: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """`num_listed` images were asked for, `table` holds those that could be read, `refused` the others."""

    num_listed: int
    refused: tuple[Refusal, ...]
    table: PredictionTable
    protocol: Mapping[str, Any]

    @property
    def num_images(self) -> int:
        """Images that were scored; with the refused ones they are those listed."""
        return len(self.table)

    def summary(self) -> dict[str, Any]:
        """The JSON of `evaluate`: errors and their 95 % Wilson intervals in percent, shares of classes from 0 to 1.

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
            "confusion": metrics.confusion(table).tolist(),
            "refused": [{"path": bad.path, "kind": bad.kind, "reason": bad.reason} for bad in self.refused],
        }

    def save_csv(self, path: str | Path) -> Path:
        """One row per scored image: `path,label,predicted,p_<class>...`."""
        return self.table.save_csv(path)


def evaluate(
    models: Sequence[tuple[Network, Manifest]],
    records: Sequence[Record],
    classes: Sequence[str],
    *,
    crops: int = 1,
    scales: tuple[int, ...] | None = None,
    resize: SingleCrop | None = None,
    batch_size: int = 32,
    workers: int = 0,
    precision: Precision = "fp32",
    progress: Progress | None = None,
    ranks: Ranks | None = None,
) -> Evaluation:
    """Score `records` (whose targets index `classes`) with one model, or with the average of several.

    Labels are matched to the models' classes by name, so a data set that lacks a class of the model, or lists them in
    another order, is scored right; a class that no model knows is a ReinceptionError, and so are models that disagree
    about the classes. Each model prepares the pixels its own way, or with one crop by the named rule `resize`, or by
    many `crops` at `scales` (protocol.py). Probabilities are averaged in a fixed order, so the order of the models
    changes nothing. Float32 by default: a published error should not depend on the processor. With `ranks`, which all
    call this with the same arguments, each scores its shard, once, and all get the whole evaluation; `progress` counts
    this rank's shard.
    """
    if not models:
        raise ReinceptionError("evaluate: name at least one model")
    known = models[0][1].classes
    for _, manifest in models[1:]:
        _require_equal(manifest.classes, known)
    targets = _targets(records, classes, known)
    protocols = [_protocol(manifest.preprocessing, crops, scales, resize) for _, manifest in models]
    device = choose_device()
    dtype = machine.precision(precision, device)
    mine = shard(records, ranks, batch_size=batch_size)
    total = len(models) * len(mine)
    scored = []
    refused: dict[int, BadImage] = {}
    for index, ((network, _), (preprocessing, cut)) in enumerate(zip(models, protocols, strict=True)):
        offset = index * len(mine)
        one = score(
            prepare(network, device),
            preprocessing,
            mine,
            crops=cut,
            batch_size=batch_size,
            workers=workers,
            dtype=dtype,
            progress=None if progress is None else lambda done, _, before=offset: progress(before + done, total),
        )
        rows, bad = collect(one.probabilities, one.refused, ranks, batch_size=batch_size)
        scored.append(rows)
        refused |= bad
    kept = [index for index in range(len(records)) if index not in refused]
    if not kept:
        first = f": {refused[min(refused)]}" if refused else ""
        raise ReinceptionError(f"evaluate: none of the {len(records)} images could be scored{first}")
    return Evaluation(
        num_listed=len(records),
        refused=tuple(
            Refusal(path=records[index].name, kind=refused[index].kind, reason=refused[index].reason)
            for index in sorted(refused)
        ),
        table=PredictionTable(
            names=tuple(records[index].name for index in kept),
            targets=targets[kept],
            probabilities=average(scored)[kept],
            classes=known,
        ),
        protocol={
            "protocol": _in_words([cut for _, cut in protocols], resize),
            "crops": [None if cut is None else cut.to_json() for _, cut in protocols],
            "num_models": len(models),
            "precision": "bf16" if dtype.itemsize == 2 else "fp32",
            "preprocessing": [preprocessing.to_json() for preprocessing, _ in protocols],
        },
    )


def without(records: Sequence[Record], names: frozenset[str]) -> tuple[Record, ...]:
    """`records` less those on an exclusion list, by name or by file name; a name on it that is nobody's is an error."""
    known = {name for record in records for name in (record.name, record.path.name)}
    if unknown := sorted(names - known):
        raise ReinceptionError(f"the exclusion list names images that are not there: {_listed(unknown)}")
    return tuple(record for record in records if not {record.name, record.path.name} & names)


def _protocol(
    preprocessing: Preprocessing, crops: int, scales: tuple[int, ...] | None, resize: SingleCrop | None
) -> tuple[Preprocessing, Crops | None]:
    if crops == 1:
        if scales is not None:
            raise UsageError("scales are for 10, 12 or 144 crops; a single crop has its resize rule")
        return (preprocessing if resize is None else single_crop(resize, preprocessing)), None
    if resize is not None:
        raise UsageError(f"the resize rule {resize!r} is for a single crop; {crops} crops have their scales")
    return preprocessing, many_crops(crops, preprocessing.input_size, scales)


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
            f"evaluate: the model does not know {_listed(foreign)}; its classes are {_listed(known)}: "
            "evaluate it on data with the classes it was trained for"
        )
    return np.array([position[classes[record.target]] for record in records], dtype=np.int64)


def _require_equal(one: Sequence[str], other: Sequence[str]) -> None:
    if tuple(one) != tuple(other):
        raise ReinceptionError(
            f"evaluate: models of one ensemble must have the same classes in the same order; "
            f"got {_listed(other)} and {_listed(one)}"
        )


def _error(name: str, rate: Rate) -> dict[str, Any]:
    return {name: rate.percent, f"{name}_interval": list(rate.interval()), f"{name}_count": rate.count}


def _listed(names: Sequence[str], limit: int = 6) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(repr(name) for name in names[:limit]) + more
