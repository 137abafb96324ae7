"""The verbs that work on images: `train`, `evaluate`, `predict` and `report`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from reinception.cli.arguments import parser
from reinception.cli.counter import counter
from reinception.cli.ranks import connected
from reinception.cli.table import aligned, count
from reinception.data.sources.open_source import Source, open_source
from reinception.errors import ReinceptionError, UsageError
from reinception.files import refuse_existing, write_json
from reinception.inference.evaluate import Evaluation
from reinception.inference.evaluate import evaluate as score
from reinception.inference.evaluation_split import Selection, select
from reinception.inference.predict import Prediction, write_predictions_csv, write_predictions_json
from reinception.inference.predict import predict as name_images
from reinception.metrics import ClassScore, accuracy, majority, per_class, top_k_error, wilson
from reinception.metrics.calibration import brier_score, calibration_error, negative_log_likelihood
from reinception.model.artifact import load
from reinception.preprocess import read_exclusions

# What a run may go on with otherwise than it was begun: processes that read, and how a step's images make batches.
CHANGED_BY_RESUME = ("workers", "batch_size", "replicas")


def train(arguments: argparse.Namespace) -> None:
    """Trains, and prints the run folder."""
    from reinception.train.run.start import TrainConfig, resume
    from reinception.train.run.start import train as run

    asked = vars(arguments).copy()
    for word in ("call", "debug"):
        del asked[word]
    run_to_resume, dry_run = asked.pop("resume"), asked.pop("dry_run")
    if run_to_resume is not None:
        _refuse_beside_resume(asked)
        changes = {word: asked[word] or None for word in CHANGED_BY_RESUME}
        print(resume(run_to_resume, **changes))
        return
    if asked["data"] is None or asked["out"] is None:
        raise UsageError("train needs DATA and -o RUN, or --resume RUN")
    config = TrainConfig(
        time_budget_seconds=asked.pop("time_budget"), checkpoint_seconds=asked.pop("checkpoint_time"), **asked
    )
    if dry_run:
        from reinception.train.run.dry_run import rehearse

        print(rehearse(config))
        return
    print(run(config))


def _refuse_beside_resume(asked: dict[str, object]) -> None:
    """UsageError for what a resumed run cannot change: it goes on as it was begun."""
    defaults = vars(parser().parse_args(["train"]))
    for word, value in asked.items():
        if word not in CHANGED_BY_RESUME and value != defaults[word]:
            flag = "DATA" if word == "data" else f"--{word.replace('_', '-')}"
            raise UsageError(f"{flag} beside --resume: a run goes on as it was begun; leave {flag} out")


def evaluate(arguments: argparse.Namespace) -> None:
    """Errors with their intervals, and per class."""
    _refuse_existing(arguments.json, arguments.predictions)
    models = [load(path, with_aux=False) for path in arguments.models]
    source = open_source(arguments.data)
    selection = select(source, [manifest for _, manifest in models], arguments.split)
    records = selection.records
    if arguments.exclude is not None:
        # The list may be one for all splits; the split was made before anything was left out.
        kept = {record.name for record in source.without(read_exclusions(arguments.exclude)).records}
        records = tuple(record for record in records if record.name in kept)
    with connected() as ranks:
        evaluation = score(
            models,
            records,
            source.classes,
            crops=arguments.crops,
            scales=arguments.scales,
            resize=arguments.resize,
            batch_size=arguments.batch_size,
            workers=arguments.workers,
            precision=arguments.precision,
            progress=None if ranks is not None and ranks.rank else counter("images"),
            ranks=ranks,
        )
    if ranks is not None and ranks.rank:
        return  # the first writes and speaks for all
    for refusal in evaluation.refused:
        print(f"reinception: {refusal.path}: {refusal.reason}", file=sys.stderr)
    if arguments.predictions is not None:
        evaluation.save_csv(arguments.predictions)
    if arguments.json is not None:
        asked = {
            "models": arguments.models,
            "data": arguments.data,
            "split": selection.split,
            "num_excluded": len(selection.records) - len(records),
        }
        write_json(evaluation.summary() | asked, arguments.json)
    if arguments.json != "-":
        if arguments.exclude is not None:
            print(f"{len(records):,} used of {len(selection.records):,} listed, without those of {arguments.exclude}")
        print(_judgement(evaluation, source, selection))


def _judgement(evaluation: Evaluation, source: Source, selection: Selection) -> str:
    table = evaluation.table
    split = "every image" if selection.split is None else f"the {selection.split} split"
    where = f"{split} of {source.name}{', as in training' if selection.as_in_training else ''}"
    refused = f", {len(evaluation.refused)} refused" if evaluation.refused else ""
    lines = [f"{where}: {count(evaluation.num_images)} images{refused}; {evaluation.protocol['protocol']}"]
    errors = [("top-1 error", top_k_error(table, 1))]
    if len(table.classes) > 5:
        errors.append(("top-5 error", top_k_error(table, 5)))
    for name, rate in errors:
        low, high = rate.interval()
        lines.append(f"{name} {rate.percent:.2f} % ({rate.count} of {rate.n}; 95 % interval {low:.2f} to {high:.2f})")
    right, (common, baseline) = accuracy(table), majority(table)
    low, high = right.interval()
    lines.append(f"accuracy {right.percent:.2f} % ({low:.2f} to {high:.2f}); always {common}: {baseline.percent:.2f} %")
    lines.append(
        f"negative log-likelihood {negative_log_likelihood(table):.3f}, Brier score {brier_score(table):.3f}, "
        f"calibration error {100 * calibration_error(table):.1f} %"
    )
    header = ("CLASS", "IMAGES", "RIGHT", "PRECISION", "RECALL", "95 % INTERVAL", "F1")
    rows = [_class_cells(one) for one in per_class(table)]
    return "\n".join([*lines, "", aligned(header, rows, right=range(1, len(header)))])


def _class_cells(one: ClassScore) -> tuple[str, ...]:
    interval = "-"
    if one.support:
        low, high = wilson(one.correct, one.support)
        interval = f"{low:.3f} to {high:.3f}"
    quotients = [("-" if value is None else f"{value:.3f}") for value in (one.precision, one.recall, one.f1)]
    precision, recall, f1 = quotients
    return (one.name, count(one.support), count(one.correct), precision, recall, interval, f1)


def predict(arguments: argparse.Namespace) -> None:
    """Ranked labels, one line an image; what cannot be read is named on the standard error stream."""
    _refuse_existing(arguments.json, arguments.csv)
    if arguments.json == arguments.csv == "-":
        raise UsageError("--json and --csv cannot both go to the standard output; name a file for one of them")
    network, manifest = load(arguments.model, with_aux=False)
    with connected() as ranks:
        predictions = name_images(
            network,
            manifest,
            arguments.paths,
            top=arguments.top,
            batch_size=arguments.batch_size,
            workers=arguments.workers,
            precision=arguments.precision,
            progress=None if ranks is not None and ranks.rank else counter("images"),
            ranks=ranks,
        )
    if ranks is not None and ranks.rank:
        return
    if arguments.json is not None:
        write_predictions_json(predictions, arguments.json)
    if arguments.csv is not None:
        write_predictions_csv(predictions, manifest.classes, arguments.csv)
    failed = [prediction for prediction in predictions if prediction.error is not None]
    if "-" not in (arguments.json, arguments.csv):
        for prediction in predictions:
            if prediction.error is None:
                print(_ranking(prediction))
    for prediction in failed:
        print(f"reinception: {prediction.path}: {prediction.error}", file=sys.stderr)
    if failed:
        raise ReinceptionError(f"{len(failed)} of {len(predictions)} could not be read; the others are done")


def _ranking(prediction: Prediction) -> str:
    ranked = ", ".join(f"{one.label} {100 * one.probability:.1f} %" for one in prediction.labels)
    return f"{prediction.path}: {ranked}"


def report(arguments: argparse.Namespace) -> None:
    """Writes the report and prints its path."""
    from reinception.report import write_report

    print(write_report(arguments.run, arguments.out, baseline=arguments.baseline))


def _refuse_existing(*files: str | None) -> None:
    """Before the work, not after it: a result that has nowhere to go is lost."""
    for file in files:
        if file not in (None, "-"):
            refuse_existing(Path(file))
