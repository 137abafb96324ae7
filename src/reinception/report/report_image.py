"""Images of a run as the page shows them: a thumbnail with names, labels and probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

from reinception.data.images.thumbnail import THUMBNAIL_SIDE, thumbnail
from reinception.data.loading.read import pixels_of
from reinception.data.sources.records import Record
from reinception.errors import BadImage
from reinception.metrics import PredictionTable
from reinception.report.formatting import percent
from reinception.report.read_run import Run


@dataclass(frozen=True, kw_only=True)
class ReportImage:
    """One image of a gallery; `uri` is None where the file can no longer be read, `overlay` where none was drawn."""

    name: str
    file: str
    uri: str | None
    overlay: str | None
    actual: str
    predicted: str
    p_actual: str
    p_predicted: str


def report_image(
    run: Run, table: PredictionTable, row: int, *, side: int = THUMBNAIL_SIDE, overlay: str | None = None
) -> ReportImage:
    """The image of one row of the table, its longest side at most `side` pixels."""
    target, predicted = int(table.targets[row]), int(table.predicted[row])
    name = table.names[row]
    return ReportImage(
        name=name,
        file=PurePosixPath(name).name,
        uri=_thumbnail(run.records.get(name), side),
        overlay=overlay,
        actual=table.classes[target],
        predicted=table.classes[predicted],
        p_actual=percent(100 * float(table.probabilities[row, target])),
        p_predicted=percent(100 * float(table.probabilities[row, predicted])),
    )


def _thumbnail(record: Record | None, side: int) -> str | None:
    try:
        return None if record is None else thumbnail(pixels_of(record), side=side)
    except BadImage:
        return None
