"""`reinception predict`: the most probable labels of images."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from reinception.cli.counter import counter, say
from reinception.cli.flags import STDOUT, refuse_results
from reinception.cli.job import JobOptions, do_job, require_all
from reinception.cli.ranks import connected, is_first
from reinception.errors import ReinceptionError, UsageError
from reinception.inference.compute import Compute

if TYPE_CHECKING:
    from reinception.inference.predict import Prediction


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    model: str
    """a model file or a run folder"""

    paths: tuple[str, ...]
    """image files, folders (searched through), quoted globs, or manifests (.csv, .jsonl: the images of column path)"""

    top: int = 5
    """labels per image"""

    cascade: bool = False
    """the first PATH is a second, larger model: it answers where MODEL is not sure enough"""

    threshold: float | None = None
    """with --cascade, the least probability at which MODEL's answer stands (default: what `shrink` chose for it)"""

    csv: Path | None = None
    """write one row per image with the probability of every class; - is the standard output"""

    json: Path | None = None


def run(options: PredictOptions, job: JobOptions, compute: Compute) -> None:
    """Classify images, the most probable label first.

    A file that cannot be read is named, and the rest go on; the exit code is then 1. Under torchrun each process takes
    a shard of the images. With -o the labels go into one file as they come, and --resume continues after any end.

    Example: reinception predict runs/first new/*.png --top 3
    """
    refuse_results(options.json, options.csv)
    if job.out is not None:
        _write(options, job, job.out, compute)
        return
    if job.resume or job.shard is not None:
        raise UsageError(f"{'--resume' if job.resume else '--shard'} needs -o, the file that the rows go to")
    larger, threshold = _cascade(options)
    paths = options.paths if larger is None else options.paths[1:]
    if options.json == options.csv == STDOUT:
        raise UsageError("--json and --csv cannot both go to the standard output; name a file for one of them")
    from reinception.inference.predict import csv_writer, json_writer, predict_stream
    from reinception.model.artifact import load

    model = load(options.model, with_aux=False)
    num = num_failed = 0
    prints = STDOUT not in (options.json, options.csv)
    progress = None if prints and sys.stdout.isatty() else counter("images")
    with connected(compute, progress=progress) as connection, ExitStack() as files:
        writers = []
        if is_first(connection):
            if options.json is not None:
                writers.append(files.enter_context(json_writer(options.json)))
            if options.csv is not None:
                writers.append(files.enter_context(csv_writer(options.csv, model.classes)))
            writers.append(_say if prints else _say_error)
        for one in predict_stream(
            model, paths, top=options.top, compute=connection, larger=larger, threshold=threshold
        ):
            num, num_failed = num + 1, num_failed + (one.error is not None)
            for write in writers:
                write(one)
    if num_failed and is_first(connection):
        raise ReinceptionError(f"{num_failed} of {num} could not be read; the others are done")


def _write(options: PredictOptions, asked: JobOptions, out: Path, compute: Compute) -> None:
    """Write predictions as a job."""
    if options.cascade:
        raise UsageError("-o and --cascade exclude each other: --csv and --json write what a cascade answers")
    if options.json is not None or options.csv is not None:
        raise UsageError("-o and --json or --csv exclude each other: the ending of -o says what is written")
    if asked.is_done():
        return
    from reinception.inference.backends.choice import FEW_IMAGES
    from reinception.inference.engine import Engine
    from reinception.inference.jobs.result_files import require_format
    from reinception.inference.jobs.result_rows import prediction_rows
    from reinception.inference.jobs.run_job import ImageJob, fingerprint
    from reinception.inference.predict import predictions
    from reinception.inference.stream import expand, peeked
    from reinception.model.artifact import load, resolve

    require_format(out)
    model = load(options.model, with_aux=False)
    model.manifest.require_classifier()
    with connected(compute, progress=asked.counter(options.paths)) as connection:
        num, _ = peeked(expand(options.paths), FEW_IMAGES)  # of the whole list, not of a shard
        compute = replace(connection.with_default("auto"), progress=None)
        engine = Engine(model.network, model.preprocessing, compute, num_images=num)
        is_full = num >= engine.block_size
        job = ImageJob(
            out=out,
            paths=options.paths,
            rows=prediction_rows(model.manifest, options.top),
            results=lambda items: predictions(engine, model.classes, items, top=options.top, is_full=is_full),
            asked={"verb": "predict", "model": fingerprint(resolve(options.model)), "top": str(options.top)},
            shard=asked.shard,
            resume=asked.resume,
        )
        done = do_job(job, engine, connection)
    require_all(done)


def _cascade(options: PredictOptions) -> tuple[str | None, float]:
    """The larger model and the threshold of the smaller one's answers; None without --cascade."""
    if not options.cascade:
        if options.threshold is not None:
            raise UsageError("--threshold is for --cascade, with a larger model before the images")
        return None, 0.0
    if len(options.paths) < 2:
        raise UsageError("--cascade needs two models and images: reinception predict SMALL LARGE PATH... --cascade")
    if options.threshold is not None:
        return options.paths[0], options.threshold
    from reinception.inference.cascade import kept_threshold

    return options.paths[0], kept_threshold(options.model)


def _say(one: Prediction) -> None:
    if one.error is None:
        print(_ranking(one))
    else:
        _say_error(one)


def _say_error(one: Prediction) -> None:
    if one.error is not None:
        say(f"{one.path}: {one.error}")


def _ranking(prediction: Prediction) -> str:
    ranked = ", ".join(f"{one.label} {100 * one.probability:.1f} %" for one in prediction.labels)
    return f"{prediction.path}: {ranked}"
