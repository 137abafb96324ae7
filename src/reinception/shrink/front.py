"""The front: accuracy against speed and cost, teacher and students side by side, and which one is recommended."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from reinception.errors import ReinceptionError
from reinception.metrics import PredictionTable, accuracy
from reinception.metrics.significance import Interval, compare
from reinception.report import curves
from reinception.report.charts import Line, chart


@dataclass(frozen=True, kw_only=True, eq=False)
class FrontRow:
    """A network of the front, judged on images that neither trained nor chose it. Accuracies are in percent."""

    model: str
    """the run folder or model file, relative to the front's folder where it lies in it"""

    what: str
    """teacher, student, from labels alone, or cascade"""

    validation: PredictionTable
    test: PredictionTable
    images_per_second: float
    multiply_adds: int
    """for one image; of a cascade the mean over the validation images"""

    def gain(self, teacher: FrontRow, split: str = "test") -> tuple[float, Interval]:
        """Points of accuracy against the teacher on the same images, and its 95 % interval, paired."""
        own, whole = (getattr(one, split) for one in (self, teacher))
        found = compare(own, whole)
        return found.difference, found.interval


def recommended(rows: Sequence[FrontRow], tolerance: float) -> FrontRow | None:
    """The fastest student that loses at most `tolerance` points against the teacher on the validation images.

    With 95 % confidence: the paired interval lies above -tolerance. None where no student does. The test images have no
    part in it. ReinceptionError where there is no teacher among the rows.
    """
    teacher = teacher_of(rows)
    students = sorted((row for row in rows if row.what == "student"), key=lambda row: -row.images_per_second)
    return next((row for row in students if row.gain(teacher, "validation")[1][0] >= -tolerance), None)


def teacher_of(rows: Sequence[FrontRow]) -> FrontRow:
    """The row of the teacher; ReinceptionError where there is none."""
    for row in rows:
        if row.what == "teacher":
            return row
    raise ReinceptionError("a front has a teacher that the others are compared with")


def to_json(rows: Sequence[FrontRow], choice: FrontRow | None) -> list[dict[str, Any]]:
    """front.json: for each network its accuracy and interval in percent, speed, cost, and whether it is recommended."""
    teacher = teacher_of(rows)
    found = []
    for row in rows:
        rate, (gain, interval) = accuracy(row.test), row.gain(teacher)
        found.append(
            {
                "model": row.model,
                "what": row.what,
                "num_images": rate.n,
                "accuracy": rate.percent,
                "accuracy_interval": list(rate.interval()),
                "validation_accuracy": accuracy(row.validation).percent,
                "gain": gain,
                "gain_interval": list(interval),
                "images_per_second": row.images_per_second,
                "speed_up": row.images_per_second / teacher.images_per_second,
                "multiply_adds": row.multiply_adds,
                "recommended": row is choice,
            }
        )
    return found


def markdown(rows: Sequence[FrontRow], choice: FrontRow | None) -> Iterator[str]:
    """The lines of the table, the recommended network in bold."""
    teacher = teacher_of(rows)
    yield "| network | accuracy | 95 % interval | against the teacher (paired) | images/s | speed-up | multiply-adds |"
    yield "|---|---|---|---|---|---|---|"
    for row in rows:
        rate, (gain, (low, high)) = accuracy(row.test), row.gain(teacher)
        start, end = rate.interval()
        name = f"**{row.model}**" if row is choice else row.model
        against = "" if row is teacher else f"{gain:+.1f} ({low:+.1f} to {high:+.1f})"
        yield (
            f"| {name} ({row.what}) | {rate.percent:.1f} % | {start:.1f} to {end:.1f} | {against} | "
            f"{row.images_per_second:.1f} | {row.images_per_second / teacher.images_per_second:.1f}x | "
            f"{row.multiply_adds / 1e6:,.0f} M |"
        )


_STYLES = {"teacher": "line-a", "student": "line-b", "from labels alone": "line-faint", "cascade": "line-a"}


def drawing(rows: Sequence[FrontRow]) -> str:
    """front.svg: a dot with a tooltip for each network, accuracy in percent against images per second."""
    lines: list[Line] = []
    for row in rows:
        name = "" if row.what in [line.name for line in lines] else row.what  # once in the legend
        point = (row.images_per_second, accuracy(row.test).percent)
        lines.append(Line(name=name, style=_STYLES[row.what], points=(point,), dots=True))
    return curves.drawing([chart("Accuracy in percent", lines, x_label="images per second")]) + "\n"
