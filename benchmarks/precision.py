"""What bf16 and int8 do to a trained model's answers: agreement with float32, accuracy, calibration of the scores."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reinception.cli.table import aligned
from reinception.data.prepare.group_split import write_manifest
from reinception.data.sources.open_source import open_source
from reinception.data.sources.records import Record, Source
from reinception.errors import ReinceptionError
from reinception.files import write_json
from reinception.inference.calibration_images import records_in, spread
from reinception.inference.compute import Compute, InferencePrecision
from reinception.inference.engine import score
from reinception.inference.evaluate import evaluate_records
from reinception.inference.evaluation_split import select, split_as_in_training
from reinception.machine import examine
from reinception.metrics import PredictionTable, Probabilities, Rate, accuracy
from reinception.metrics.calibration import calibration_error
from reinception.metrics.significance import compare
from reinception.model.artifact import Model, load

PRECISIONS: tuple[InferencePrecision, ...] = ("fp32", "bf16", "int8")

Answers = tuple[PredictionTable, Probabilities]
"""Of the labelled images, and one row for each of the others that can be read."""


def answers(
    model: Model, source: Source, tested: Sequence[Record], others: Sequence[Record], least_agreement: float
) -> tuple[dict[str, Answers], list[str]]:
    """By precision what OpenVINO answers, and what it said of int8, which is left out where it is refused."""
    train = (split_as_in_training(source, model.manifest) or source).split("train")
    found, said = dict[str, Answers](), list[str]()
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder) / "training_images.csv"
        write_manifest(replace(source, records=tuple(train)), listed)
        for precision in PRECISIONS:
            compute = Compute(
                precision=precision,
                backend="openvino",
                calibrate=str(listed) if precision == "int8" else None,
                least_agreement=least_agreement,
                notice=lambda line: said.append(line.replace(str(listed), "the training split")),
            )
            try:
                table = evaluate_records([model], tested, source.classes, compute=compute).table
            except ReinceptionError as error:
                if precision != "int8":
                    raise
                said.append(str(error))
                continue
            rows: Probabilities = np.empty((0, len(model.classes)), dtype=np.float32)
            if others:
                # What was quantized a moment ago is kept, so that int8 needs no images again.
                again = replace(compute, calibrate=None, notice=None)
                scored = score(model.network, model.preprocessing, others, compute=again)
                rows = np.delete(scored.probabilities, list(scored.bad), axis=0)
            found[precision] = table, rows
    return found, said


def judged(found: Mapping[str, Answers]) -> list[dict[str, Any]]:
    """One row for each precision; the agreement in percent and the difference in points are those with fp32."""
    exact, exact_others = found["fp32"]
    rows = []
    for precision, (table, others) in found.items():
        versus = compare(table, exact)
        rows.append(
            {
                "precision": precision,
                "accuracy": _rate(accuracy(table)),
                "difference": {"points": versus.difference, "interval": versus.interval, "p_value": versus.p_value},
                "test_agreement": _agreement(table.probabilities, exact.probabilities),
                "others_agreement": _agreement(others, exact_others) if len(others) else None,
                "calibration_error": 100 * calibration_error(table),
                "largest_difference": float(np.abs(table.probabilities - exact.probabilities).max()),
            }
        )
    return rows


def _agreement(rows: Probabilities, exact: Probabilities) -> dict[str, Any]:
    return _rate(Rate(count=int((rows.argmax(1) == exact.argmax(1)).sum()), n=len(rows)))


def _rate(rate: Rate) -> dict[str, Any]:
    return {**asdict(rate), "percent": rate.percent, "interval": rate.interval()}


def _in_words(row: Mapping[str, Any]) -> list[str]:
    """The cells of the table: percent and points with their 95 % intervals."""

    def rate(value: Mapping[str, Any] | None) -> str:
        if value is None:
            return "-"
        low, high = value["interval"]
        return f"{value['percent']:.2f} ({low:.2f} to {high:.2f})"

    low, high = row["difference"]["interval"]
    return [
        row["precision"],
        rate(row["accuracy"]),
        f"{row['difference']['points']:+.2f} ({low:+.2f} to {high:+.2f})",
        rate(row["test_agreement"]),
        rate(row["others_agreement"]),
        f"{row['calibration_error']:.2f}",
        f"{row['largest_difference']:.4f}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--data", default="elpv", help="what the model was trained on (default: %(default)s)")
    parser.add_argument("--others", help="further images, without labels: agreement with float32 only")
    parser.add_argument("--most", type=int, default=1000, help="of them, evenly spread (default: %(default)s)")
    parser.add_argument("--least-agreement", type=float, default=0.97, help="refuse int8 below (default: %(default)s)")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    model, source = load(asked.model, with_aux=False), open_source(asked.data)
    selection = select(source, [model.manifest], "test")
    others = spread(records_in(asked.others), asked.most) if asked.others else []
    found, said = answers(model, source, selection.records, others, asked.least_agreement)
    rows, facts = judged(found), examine()
    print(f"{facts['processor']['model']}, {torch.get_num_threads()} threads; versions: {facts['versions']}")
    print("\n".join([*said, "percent (95 % interval); the difference, in points, and the agreement are with fp32\n"]))
    header = ("PRECISION", "ACCURACY", "DIFFERENCE", "SAME LABEL, TEST", "SAME LABEL, OTHERS", "CALIBRATION", "SCORES")
    print(aligned(header, map(_in_words, rows)))
    if asked.json is not None:
        write_json({"machine": facts, "model": asked.model, "data": asked.data, "said": said, "rows": rows}, asked.json)


if __name__ == "__main__":
    main()
