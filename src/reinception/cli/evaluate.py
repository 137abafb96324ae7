"""`reinception evaluate`: the errors of a model or an ensemble, with their intervals."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from reinception.cli.counter import counter
from reinception.cli.flags import STDOUT, refuse_results
from reinception.cli.ranks import connected, is_first
from reinception.cli.table import aligned, count
from reinception.data.sources.exclusions import read_exclusions
from reinception.errors import ReinceptionError
from reinception.files import write_json
from reinception.inference.compute import Compute
from reinception.preprocess import NumCrops, SingleCrop

if TYPE_CHECKING:
    from reinception.data.sources.records import Source
    from reinception.inference.evaluate import Evaluation
    from reinception.inference.evaluation_split import EvaluationSplit
    from reinception.metrics import ClassScore


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    models: tuple[str, ...]
    """a model file or a run folder; the probabilities of several are averaged"""

    data: str
    split: str | None = None
    """train, val or test, as in the model's training (default: test, else val; every image of data without splits)"""

    crops: Literal[1, NumCrops] = 1
    """crops per image whose probabilities are averaged; the paper's Tables 4 and 5 have 12 and 144"""

    scales: tuple[int, ...] | None = None
    """pixels of the image's shorter side, four for 144 crops, one for 10 or 12: the paper names none (default:
    342,384,427,470 for an input of 299, in proportion for others)"""

    resize: SingleCrop | None = None
    """cut the single crop as that library's evaluation does, to compare with its figures (default: as the model was
    trained)"""

    exclude: Path | None = None
    """leave out the images it names, one a line, as the paper did with 1,762 of ImageNet's"""

    predictions: Path | None = None
    """write each image's probabilities as CSV, never over a file"""

    json: Path | None = None


def run(options: EvaluateOptions, compute: Compute) -> None:
    """Measure a model's errors, with their intervals.

    Several models are evaluated as an ensemble. Under torchrun each process takes a shard of the images, and the
    figures are the same.

    Example: reinception evaluate runs/first photos --crops 12
    """
    refuse_results(options.json, options.predictions)
    from reinception.data.sources.open_source import open_source
    from reinception.data.sources.understanding import understand
    from reinception.inference.evaluate import CropProtocol, evaluate_records
    from reinception.inference.evaluation_split import select
    from reinception.model.artifact import load

    models = [load(path, with_aux=False) for path in options.models]
    source = open_source(options.data)
    selection = select(source, [model.manifest for model in models], options.split)
    records = selection.records
    if options.exclude is not None:
        # The list may be one for all splits; the split was made before anything was left out.
        kept = {record.name for record in source.without(read_exclusions(options.exclude)).records}
        records = tuple(record for record in records if record.name in kept)
    protocol = CropProtocol(crops=options.crops, scales=options.scales, resize=options.resize)
    with connected(compute, progress=counter("images")) as connection:
        evaluation = evaluate_records(models, records, source.classes, protocol=protocol, compute=connection)
    if not is_first(connection):
        return  # the first writes and speaks for all
    for bad in evaluation.bad:
        print(f"reinception: {bad}", file=sys.stderr)
    if options.predictions is not None:
        evaluation.save_csv(options.predictions)
    if options.json is not None:
        asked = {
            "models": list(options.models),
            "data": options.data,
            "split": selection.split,
            "num_excluded": len(selection.records) - len(records),
        }
        write_json(evaluation.summary() | asked, options.json)
    if options.json != STDOUT:
        print(f"{understand(source)}\n")
        if options.exclude is not None:
            print(f"{len(records):,} used of {len(selection.records):,} listed, without those of {options.exclude}")
        print(_judgement(evaluation, source, selection))
    if evaluation.bad:
        bad = f"{count(len(evaluation.bad))} of {count(len(records))} images cannot be used"
        raise ReinceptionError(f"{options.data}: {bad}; --exclude leaves them out")


def _judgement(evaluation: Evaluation, source: Source, selection: EvaluationSplit) -> str:
    from reinception.metrics import accuracy, balanced_accuracy, majority, per_class, top_k_error
    from reinception.metrics.calibration import brier_score, calibration_error, negative_log_likelihood

    table = evaluation.table
    split = "every image" if selection.split is None else f"the {selection.split} split"
    where = f"{split} of {source.name}{', as in training' if selection.as_in_training else ''} ({selection.reason})"
    bad = f", {len(evaluation.bad)} refused" if evaluation.bad else ""
    lines = [f"{where}: {count(evaluation.num_images)} images{bad}; {evaluation.protocol['protocol']}"]
    errors = [("top-1 error", top_k_error(table, 1))]
    if len(table.classes) > 5:
        errors.append(("top-5 error", top_k_error(table, 5)))
    for name, rate in errors:
        low, high = rate.interval()
        lines.append(f"{name} {rate.percent:.2f} % ({rate.count} of {rate.n}; 95 % interval {low:.2f} to {high:.2f})")
    right, (common, baseline) = accuracy(table), majority(table)
    low, high = right.interval()
    balanced = 100 * balanced_accuracy(table)
    lines.append(
        f"accuracy {right.percent:.2f} % ({low:.2f} to {high:.2f}), balanced {balanced:.2f} %; "
        f"always {common}: {baseline.percent:.2f} %"
    )
    lines.append(
        f"negative log-likelihood {negative_log_likelihood(table):.3f}, Brier score {brier_score(table):.3f}, "
        f"calibration error {100 * calibration_error(table):.1f} %"
    )
    header = ("CLASS", "IMAGES", "RIGHT", "PRECISION", "RECALL", "95 % INTERVAL", "F1")
    rows = [_class_cells(one) for one in per_class(table)]
    return "\n".join([*lines, "", aligned(header, rows, right=range(1, len(header)))])


def _class_cells(one: ClassScore) -> tuple[str, ...]:
    from reinception.metrics import wilson

    interval = "-"
    if one.support:
        low, high = wilson(one.correct, one.support)
        interval = f"{low:.3f} to {high:.3f}"
    quotients = [("-" if value is None else f"{value:.3f}") for value in (one.precision, one.recall, one.f1)]
    precision, recall, f1 = quotients
    return (one.name, count(one.support), count(one.correct), precision, recall, interval, f1)
