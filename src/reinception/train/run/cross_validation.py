"""Cross-validation: one run for each fold, resumable, and the mean of their accuracies with its interval."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from reinception import metrics
from reinception.documents import Documents
from reinception.errors import Interrupted, ReinceptionError, UsageError
from reinception.files import write_json
from reinception.metrics import PredictionTable
from reinception.metrics.significance import student_interval
from reinception.recipe import Recipe
from reinception.train.config import TrainConfig
from reinception.train.run.console import Console
from reinception.train.run.plan import make_plan
from reinception.train.run.run_folder import refuse_unusable

REQUEST_NAME, RESULT_NAME = "folds_request.json", "folds.json"
_REQUESTS = Documents(has_defaults=True)


def is_cross_validation(out: Path) -> bool:
    """Whether the folder `out` is that of a cross-validation that was begun."""
    return (out / REQUEST_NAME).is_file()


def cross_validate(
    begun: TrainConfig | Path, *, train: Callable[[TrainConfig], Path], resume: Callable[[Path], Path]
) -> Path:
    """A run for each fold of `begun`, a configuration with `folds` or the folder of one that was interrupted.

    Each fold is the run that `--fold` alone would give: it builds its own network, and its test images are not read
    before it is judged. Folds that are finished stay as they are. `train` and `resume` do one run.

    Returns:
        The folder: `fold-1`, `fold-2`, ..., `predictions/test.csv` with every image as the fold predicted it that had
        not seen it, and `folds.json` with the mean accuracy and its interval.

    Raises:
        ReinceptionError: what one run raises; under torchrun, where folds are trained one at a time.
    """
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise UsageError("--folds under torchrun: train one fold at a time, with --fold 1, --fold 2 and so on")
    config = _begin(begun) if isinstance(begun, TrainConfig) else _read(begun)
    out, num = Path(config.out), config.folds or 0
    console = Console()
    for fold in range(1, num + 1):
        console.say(f"fold {fold} of {num}")
        folder = out / f"fold-{fold}"
        try:
            if (folder / "config.json").is_file():
                resume(folder)
            else:
                train(dataclasses.replace(config, out=folder, fold=fold))
        except Interrupted as interruption:
            how = f"to go on: {shlex.join(['reinception', 'train', '--resume', str(out)])}"
            raise Interrupted(how, number=interruption.number) from None
    tables = [PredictionTable.load_csv(out / f"fold-{fold}" / "predictions" / "test.csv") for fold in range(1, num + 1)]
    result = summary(tables)
    (out / "predictions").mkdir(exist_ok=True)
    (out / "predictions" / "test.csv").unlink(missing_ok=True)
    _pooled(tables).save_csv(out / "predictions" / "test.csv")
    write_json(result, out / RESULT_NAME, replace=True)
    (low, high), (pooled_low, pooled_high) = result["interval"], result["pooled_interval"]
    console.say(
        f"{num} folds: mean accuracy {result['mean']:.2f} % (95 % interval over the folds {low:.1f} to {high:.1f}); "
        f"all {result['num_images']:,} images together {result['pooled']:.2f} % ({pooled_low:.1f} to {pooled_high:.1f})"
    )
    return out


def summary(tables: Sequence[PredictionTable]) -> dict[str, Any]:
    """What folds.json holds, of the test predictions of each fold; accuracies and intervals in percent.

    `interval` is Student's, of the folds' accuracies around their `mean`. Folds share training images, so it is a
    little narrow. `pooled` counts every image once, `pooled_interval` is Wilson's.
    """
    rates = [metrics.accuracy(table) for table in tables]
    accuracies = [rate.percent for rate in rates]
    pooled = metrics.accuracy(_pooled(tables))
    return {
        "folds": [
            {"fold": number, "num_images": len(table), "accuracy": rate.percent}
            for number, (table, rate) in enumerate(zip(tables, rates, strict=True), start=1)
        ],
        "mean": fmean(accuracies),
        "interval": list(student_interval(accuracies)),
        "num_images": sum(map(len, tables)),
        "pooled": pooled.percent,
        "pooled_interval": list(pooled.interval()),
    }


def _pooled(tables: Sequence[PredictionTable]) -> PredictionTable:
    return PredictionTable(
        names=tuple(name for table in tables for name in table.names),
        targets=np.concatenate([table.targets for table in tables]),
        probabilities=np.concatenate([table.probabilities for table in tables]),
        classes=tables[0].classes,
    )


def _begin(config: TrainConfig) -> TrainConfig:
    """Makes the folder and notes there what was asked for; what can be known to fail is refused before."""
    out = Path(config.out)
    make_plan(config)
    if config.folds is not None and config.folds < 2:
        raise UsageError(f"--folds must be at least 2, got {config.folds}")
    refuse_unusable(out)
    paths = {name: getattr(config, name) for name in ("data", "weights", "exclude", "teacher", "cache")}
    found = {
        name: str(Path(path).resolve()) if Path(path).exists() else str(path)
        for name, path in paths.items()
        if path is not None
    }
    recipe = config.recipe.to_json() if isinstance(config.recipe, Recipe) else config.recipe
    out.mkdir(parents=True, exist_ok=True)
    asked = dataclasses.asdict(config) | found | {"out": str(out), "recipe": recipe}
    write_json({"command": config.command(), "request": asked}, out / REQUEST_NAME)
    return config


def _read(out: Path) -> TrainConfig:
    try:
        document = json.loads((out / REQUEST_NAME).read_text(encoding="utf-8"))
        request = dict(document["request"]) | {"out": str(out)}
        recipe = request.pop("recipe")
        config = _REQUESTS.decode(request, TrainConfig, "request")
        return dataclasses.replace(config, recipe=recipe if isinstance(recipe, str) else Recipe.from_json(recipe))
    except (OSError, ValueError, KeyError, TypeError, ReinceptionError) as error:
        raise ReinceptionError(f"{out / REQUEST_NAME}: cannot be read ({error}); start the folds anew") from None
