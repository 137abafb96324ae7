"""Ablation: the rows of Table 2 or 3, or of an experiment, trained on given data with equal budgets and seeds."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reinception import family
from reinception.errors import ReinceptionError, UsageError
from reinception.family import Entry, Reported
from reinception.files import new_text_file, write_json
from reinception.metrics import PredictionTable, Rate, top_k_error
from reinception.metrics.significance import compare, student_interval
from reinception.recipe import FROM_SCRATCH, OneCycle, Recipe
from reinception.report.formatting import count
from reinception.report.page import write_report
from reinception.train.config import AblateConfig, TrainConfig
from reinception.train.run.start import train

TABLE_2_SIZES = (79, 151, 299)
STUDY_NAME, TABLE_NAME = "study.json", "table.md"
_UNFINISHED = "unfinished"


@dataclass(frozen=True, kw_only=True)
class StudyRow:
    """A network by name, its input size, how it is trained, and what the paper reports of it on ImageNet."""

    name: str
    network: str
    input_size: int
    recipe: Recipe
    reported: Reported | None


def rows(study: str, *, input_size: int | None = None) -> tuple[StudyRow, ...]:
    """The rows of a study. Table 3's take optimizer and label smoothing from the paper's rows, one change at a time."""
    if study == "table_3":
        return tuple(
            _row(entry.arch.name, entry, input_size or entry.arch.input_size, small_data(entry.recipe))
            for entry in family.TABLE_3
        )
    if study == "table_2":
        if input_size is not None:
            raise UsageError("--input-size: the sizes of Table 2 are its subject; leave it out")
        names = {299: "inception_v3", 151: "inception_v3_151", 79: "inception_v3_79"}
        entries = [(size, family.NETWORKS[names[size]]) for size in TABLE_2_SIZES]
        # Table 3's figures stand beside inception_v3 there; Table 2 reports 76.6 % correct for its 299.
        largest = Reported(top1_error=23.4, source="Table 2")
        return tuple(
            dataclasses.replace(
                _row(f"{size} x {size}", entry, size, small_data(entry.recipe)),
                reported=largest if size == TABLE_2_SIZES[-1] else entry.reported,
            )
            for size, entry in entries
        )
    if study in family.EXPERIMENTS:
        recipe = small_data(family.TABLE_3[-1].recipe)
        return tuple(
            _row(name, Entry(arch=arch, summary=""), input_size or arch.input_size, recipe)
            for name, arch in family.EXPERIMENTS[study].items()
        )
    raise UsageError(f"unknown study {study!r}; known: table_2, table_3, {', '.join(family.EXPERIMENTS)}")


def small_data(recipe: Recipe) -> Recipe:
    """What a row of the paper changes, its optimizer and label smoothing, in a recipe that suits a few thousand images.

    Everything else is the recipe `from_scratch`, the same for all rows, with the paper's learning rate as its highest:
    100 epochs of ImageNet, with averages over ten thousand steps, cannot be scaled down to minutes.
    """
    ours = {path: source for path, source in FROM_SCRATCH.sources.items() if not path.startswith("optimizer.")}
    theirs = {path: source for path, source in recipe.sources.items() if path.startswith("optimizer.")}
    schedule = FROM_SCRATCH.schedule
    assert isinstance(schedule, OneCycle)
    changed = {"schedule.base_rate": "paper, section 8", "label_smoothing": recipe.sources.get("label_smoothing", "")}
    return dataclasses.replace(
        FROM_SCRATCH,
        name=f"{recipe.name}_small_data",
        about=f"from_scratch with the optimizer and label smoothing of {recipe.name}.",
        optimizer=recipe.optimizer,
        label_smoothing=recipe.label_smoothing,
        schedule=dataclasses.replace(schedule, base_rate=0.045),
        sources={**ours, **theirs, **changed},
    )


def ablate(config: AblateConfig) -> str:
    """Trains the rows and seeds that are missing, and returns the table, which is also written to OUT/table.md.

    A finished row and seed is a run folder OUT/<row>/seed-<n>; an interrupted one is deleted and trained anew.
    ReinceptionError where OUT holds another study.
    """
    if config.num_seeds < 1:
        raise UsageError(f"--seeds must be at least 1, got {config.num_seeds}")
    chosen = rows(config.study, input_size=config.input_size)
    out = Path(config.out)
    _claim(out, config)
    for seed in range(config.num_seeds):
        for row in chosen:
            if not _run_of(out, row, seed).exists():
                _train(config, out, row, seed)
    text = table(config, chosen)
    with new_text_file(out / TABLE_NAME, replace=True) as file:
        file.write(text + "\n")
    return text


def _claim(out: Path, config: AblateConfig) -> None:
    """Creates the folder with its study.json, or checks that it holds the same study; seeds and workers may differ."""
    wanted = dataclasses.asdict(config) | {"num_seeds": None, "workers": None, "out": None}
    path = out / STUDY_NAME
    if path.is_file():
        found = json.loads(path.read_text(encoding="utf-8"))
        if different := sorted(key for key in wanted if found.get(key) != wanted[key]):
            raise ReinceptionError(
                f"{out}: holds a study with another {', '.join(different)}; use its own values or another folder"
            )
    elif out.exists() and any(out.iterdir()):
        raise ReinceptionError(f"{out}: exists already and is no study; name another folder")
    else:
        out.mkdir(parents=True, exist_ok=True)
        write_json(wanted, path)


def _run_of(out: Path, row: StudyRow, seed: int) -> Path:
    return out / row.name.replace(" ", "") / f"seed-{seed}"


def _train(config: AblateConfig, out: Path, row: StudyRow, seed: int) -> None:
    unfinished, finished = out / _UNFINISHED, _run_of(out, row, seed)
    if unfinished.exists():
        shutil.rmtree(unfinished)
    train(
        TrainConfig(
            data=config.data,
            out=unfinished,
            model=row.network,
            recipe=row.recipe,
            epochs=config.epochs,
            time_budget_seconds=None if config.epochs is not None else config.budget_seconds,
            batch_size=config.batch_size,
            input_size=row.input_size,
            width=config.width,
            seed=seed,
            workers=config.workers,
        )
    )
    # A run folder that has its final name is whole.
    finished.parent.mkdir(exist_ok=True)
    unfinished.rename(finished)
    write_report(finished)


# -- the table ---------------------------------------------------------------------------------------------------------


def table(config: AblateConfig, chosen: tuple[StudyRow, ...]) -> str:
    """Markdown: each row's error beside the paper's, what it gains over the row above, and what it was done with.

    The error is the mean over seeds, its Wilson interval that of the test images of one seed. The gain is paired by
    image and seed; its interval is the wider of two: a bootstrap of the images, and Student's t over the seeds, which
    holds the chance of a single training.
    """
    out = Path(config.out)
    judged = [[_predictions(_run_of(out, row, seed)) for seed in range(config.num_seeds)] for row in chosen]
    lines = [
        "| row | top-1 error | 95 % interval | seeds | accuracy gained on the row above | paper, on ImageNet |",
        "|---|---|---|---|---|---|",
    ]
    above: list[PredictionTable] | None = None
    for row, tables in zip(chosen, judged, strict=True):
        rates = [top_k_error(one) for one in tables]
        mean = sum(rate.percent for rate in rates) / len(rates)
        low, high = Rate(count=round(mean / 100 * rates[0].n), n=rates[0].n).interval()
        spread = f"{min(r.percent for r in rates):.1f} to {max(r.percent for r in rates):.1f}" if rates[1:] else "one"
        gain = "" if above is None else _gain(tables, above)
        reported = "–" if row.reported is None or row.reported.top1_error is None else f"{row.reported.top1_error:g} %"
        lines.append(f"| {row.name} | {mean:.1f} % | {low:.1f} to {high:.1f} | {spread} | {gain} | {reported} |")
        above = tables
    return "\n".join([*lines, "", *_with(config, chosen, judged)])


def _gain(tables: list[PredictionTable], above: list[PredictionTable]) -> str:
    pooled = compare(_pooled(tables), _pooled(above))
    low, high = pooled.interval
    if len(tables) > 1:
        by_seed = student_interval([compare(*pair).difference for pair in zip(tables, above, strict=True)])
        low, high = min(low, by_seed[0]), max(high, by_seed[1])
    words = f"{pooled.difference:+.1f} ({low:+.1f} to {high:+.1f})"
    return words if low > 0 or high < 0 else f"{words}, no evidence"


def _pooled(tables: list[PredictionTable]) -> PredictionTable:
    """The tables of all seeds as one, names told apart: each seed divides the data anew."""
    import numpy as np

    return PredictionTable(
        names=tuple(f"{seed}/{name}" for seed, one in enumerate(tables) for name in one.names),
        targets=np.concatenate([one.targets for one in tables]),
        probabilities=np.concatenate([one.probabilities for one in tables]),
        classes=tables[0].classes,
    )


def _with(config: AblateConfig, chosen: tuple[StudyRow, ...], judged: list[list[PredictionTable]]) -> Iterator[str]:
    environment = _read(_run_of(Path(config.out), chosen[0], 0) / "environment.json")
    steps = [
        max((json.loads(line).get("step", 0) for line in log.read_text(encoding="utf-8").splitlines()), default=0)
        for row in chosen
        for seed in range(config.num_seeds)
        if (log := _run_of(Path(config.out), row, seed) / "metrics.jsonl").is_file()
    ]
    budget = (
        f"{config.budget_seconds:g} s, judging included," if config.epochs is None else count(config.epochs, "epoch")
    )
    each = f"test images for each of {count(config.num_seeds, 'seed')}"
    yield f"- data {Path(config.data).name}: n = {len(judged[0][0]):,} {each}"
    if config.num_seeds == 1:
        yield "- one seed: how much a second training of the same row would differ is not in the intervals"
    yield f"- budget {budget} for each row and seed ({min(steps):,} to {max(steps):,} steps)"
    yield f"- width {config.width:g}; inputs {', '.join(str(row.input_size) for row in chosen)} pixels; random weights"
    yield (
        f"- {environment.get('processor', 'unknown processor')}, {environment.get('threads')} threads, "
        f"{environment.get('device')}, {environment.get('precision')}, torch {environment.get('torch')}"
    )
    yield f"- `{config.command()}`"


def _predictions(run: Path) -> PredictionTable:
    return PredictionTable.load_csv(run / "predictions" / "test.csv")


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _row(name: str, entry: Entry, input_size: int, recipe: Recipe) -> StudyRow:
    return StudyRow(name=name, network=entry.arch.name, input_size=input_size, recipe=recipe, reported=entry.reported)
