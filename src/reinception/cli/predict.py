"""`reinception predict`: the most probable labels of images."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from reinception.cli.counter import counter
from reinception.cli.flags import STDOUT, refuse_results
from reinception.cli.ranks import connected
from reinception.errors import ReinceptionError, UsageError
from reinception.inference.compute import Compute

if TYPE_CHECKING:
    from reinception.inference.predict import Prediction


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    model: str
    """a model file or a run folder"""

    paths: tuple[str, ...]
    """image files, folders (searched through) or quoted globs"""

    top: int = 5
    """labels per image"""

    csv: Path | None = None
    """write one row per image with the probability of every class; - is the standard output"""

    json: Path | None = None


def run(options: PredictOptions, compute: Compute) -> None:
    """Classify images, the most probable label first.

    A file that cannot be read is named, and the rest go on; the exit code is then 1. Under torchrun each process takes
    a shard of the images.

    Example: reinception predict runs/first new/*.png --top 3
    """
    refuse_results(options.json, options.csv)
    if options.json == options.csv == STDOUT:
        raise UsageError("--json and --csv cannot both go to the standard output; name a file for one of them")
    from reinception.inference.predict import predict, write_predictions_csv, write_predictions_json
    from reinception.model.artifact import load

    network, manifest = load(options.model, with_aux=False)
    with connected() as peers:
        predictions = predict(
            network,
            manifest,
            options.paths,
            top=options.top,
            batch_size=compute.batch_size,
            workers=compute.workers,
            precision=compute.precision,
            progress=None if peers is not None and peers.rank else counter("images"),
            ranks=peers,
        )
    if peers is not None and peers.rank:
        return
    if options.json is not None:
        write_predictions_json(predictions, options.json)
    if options.csv is not None:
        write_predictions_csv(predictions, manifest.classes, options.csv)
    failed = [prediction for prediction in predictions if prediction.error is not None]
    if STDOUT not in (options.json, options.csv):
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
