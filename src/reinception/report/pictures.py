"""Images of a run as the page shows them: small, named, with what they were called."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

from reinception.metrics import PredictionTable
from reinception.report.formatting import percent
from reinception.report.read_run import Run
from reinception.report.thumbnails import SIDE, thumbnail


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One image of a gallery; `uri` is None where the file is no longer readable, `evidence` where none was drawn."""

    name: str
    file: str
    uri: str | None
    evidence: str | None
    actual: str
    predicted: str
    p_actual: str
    p_predicted: str


def picture(run: Run, table: PredictionTable, row: int, *, side: int = SIDE, evidence: str | None = None) -> Picture:
    """The image of one row of the table, at most `side` pixels per side."""
    target, predicted = int(table.targets[row]), int(table.predicted[row])
    name = table.names[row]
    record = run.originals.get(name)
    return Picture(
        name=name,
        file=PurePosixPath(name).name,
        uri=None if record is None else thumbnail(record, side=side),
        evidence=evidence,
        actual=table.classes[target],
        predicted=table.classes[predicted],
        p_actual=percent(100 * float(table.probabilities[row, target])),
        p_predicted=percent(100 * float(table.probabilities[row, predicted])),
    )
