"""Data section: images per class and split, and examples that the network classifies correctly."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from reinception.metrics import PredictionTable
from reinception.report import charts
from reinception.report.formatting import count
from reinception.report.read_run import Run
from reinception.report.report_image import ReportImage, report_image
from reinception.report.sections.confusion_matrix import MOST_CLASSES_IN_A_TABLE

MOST_SAMPLES = 40
SAMPLES_PER_CLASS = 8
SPLITS = ("train", "val", "test")


@dataclass(frozen=True, kw_only=True)
class ClassCounts:
    """Images of one class: in each split, in all, and as a fraction of the largest class."""

    name: str
    counts: tuple[int, ...]
    total: int
    bar: Markup


@dataclass(frozen=True, kw_only=True)
class DatasetSection:
    """What the run was trained and evaluated on; `folded` closes a long table behind its sentence."""

    sentence: str
    splits: tuple[str, ...]
    rows: tuple[ClassCounts, ...]
    folded: bool
    totals: tuple[int, ...]
    samples: tuple[tuple[str, tuple[ReportImage, ...]], ...]


def dataset(run: Run, table: PredictionTable | None) -> DatasetSection | None:
    """None where the run neither counted its images nor predicted any."""
    counted: Mapping[str, Mapping[str, int]] = run.config.get("splits", {})
    splits = tuple(name for name in SPLITS if counted.get(name))
    if not splits and table is None:
        return None
    names = run.config.get("classes", ()) if splits else ()
    totals = [sum(counted[split].get(name, 0) for split in splits) for name in names]
    sentence = ""
    if splits:
        sizes = (
            f"from {min(totals):,} to {count(max(totals), 'image')} each" if len(set(totals)) > 1 else "equally many"
        )
        sentence = f"{count(sum(totals), 'image')} in {count(len(names), 'class', 'classes')}, {sizes}."
        sentence += "".join(f" Note: {note}." for note in run.config.get("notes", ()))
        sentence += _in_training(run.config.get("recipe"))
    return DatasetSection(
        sentence=sentence,
        splits=splits,
        rows=tuple(
            ClassCounts(
                name=name,
                counts=tuple(counted[split].get(name, 0) for split in splits),
                total=total,
                bar=charts.bar(total / max(totals)),
            )
            for name, total in zip(names, totals, strict=True)
        ),
        folded=len(names) > MOST_CLASSES_IN_A_TABLE,
        totals=tuple(sum(counted[split].values()) for split in splits),
        samples=tuple(_samples(run, table)) if table is not None else (),
    )


def _samples(run: Run, table: PredictionTable) -> Iterator[tuple[str, tuple[ReportImage, ...]]]:
    """Correct images, evenly spaced: a row for each of few classes, or one unnamed row with one of each of many."""
    each = SAMPLES_PER_CLASS if len(table.classes) <= 4 else 1
    rows: list[tuple[str, tuple[ReportImage, ...]]] = []
    for target, name in enumerate(table.classes[:MOST_SAMPLES]):
        correct = np.flatnonzero((table.targets == target) & table.correct)
        chosen = correct[np.linspace(0, len(correct) - 1, min(each, len(correct))).astype(int)]
        images = tuple(shown for row in chosen if (shown := report_image(run, table, int(row))).uri)
        if images:
            rows.append((name, images))
    if each == 1 and rows:
        yield "", tuple(one for _, images in rows for one in images)
    else:
        yield from rows


def _in_training(recipe: object) -> str:
    """How the training images were changed and drawn, as the run's recipe says; nothing where it does not."""
    if not isinstance(recipe, Mapping) or "augmentation" not in recipe:
        return ""
    said = f" Distorted in training: {recipe['augmentation']}."
    balance = recipe.get("balance", "none")
    return said if balance == "none" else f"{said} For rare classes: {balance.replace('_', ' ')}."
