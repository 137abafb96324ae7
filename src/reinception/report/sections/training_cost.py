"""Cost section: size and speed of the network as the run recorded them, and how the run departs from its recipe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from statistics import median
from typing import Any

from reinception.model.artifact import MODEL_NAME
from reinception.recipe import RECIPES
from reinception.report.formatting import count, duration
from reinception.report.read_run import Run, curve
from reinception.spec import Arch, cost

_ENOUGH_FOR_P95 = 20


def costs(run: Run) -> tuple[tuple[str, str], ...]:
    """(name, value) of what is known. Nothing is measured here, so the same run gives the same page."""
    return tuple(_costs(run))


def _costs(run: Run) -> Iterator[tuple[str, str]]:
    if "arch" in run.config:
        arch = Arch.from_json(run.config["arch"])
        parameters = cost.parameters(arch, with_aux=False)
        more = cost.parameters(arch, with_aux=True) - parameters
        yield (
            "parameters",
            f"{parameters:,}" + (f", and {more:,} while training (auxiliary classifier)" if more else ""),
        )
        yield "multiply-adds", f"{cost.multiply_adds(arch):,} for one image of {arch.input_size} × {arch.input_size}"
    model = run.folder / MODEL_NAME
    if model.is_file():
        yield "model file", f"{model.stat().st_size / 1e6:,.1f} MB"
    if run.seconds:
        yield "training", duration(run.seconds)
    if rates := [rate for _, rate in curve(run.log, "train", "images_per_second")]:
        machine = run.environment.get("processor") or run.environment.get("device")
        yield "training speed", f"{median(rates):,.0f} images a second" + (f" on {machine}" if machine else "")
    yield from _speeds(run)


def _speeds(run: Run) -> Iterator[tuple[str, str]]:
    """(name, value) of the speed that the run measured after training, with n and the machine."""
    for one in run.speed.get("runs", ()):
        size, n = one["batch_size"], one["n"]
        times = f"median of {n}" + (f", 95 % within {one['p95_milliseconds']:,.3g} ms" if n >= _ENOUGH_FOR_P95 else "")
        if size == 1:
            yield "one image", f"{one['median_milliseconds']:,.3g} ms ({times})"
        else:
            yield f"batches of {size}", f"{one['images_per_second']:,.0f} images a second ({times})"
    if run.speed:
        speed = run.speed
        threads = count(speed["threads"], "thread") if speed["device"] == "cpu" else speed["device"]
        yield "measured on", f"{speed['hardware']}, {threads}, {speed['precision']}, {speed['what']}"


def changes(run: Run) -> tuple[tuple[str, str, str], ...]:
    """(field, value in the named recipe, value in this run) wherever the two differ."""
    recipe = run.config.get("recipe")
    if not isinstance(recipe, Mapping) or recipe.get("name") not in RECIPES:
        return ()
    preset, here = dict(_leaves(RECIPES[recipe["name"]].to_json())), dict(_leaves(recipe))
    return tuple(
        (path, str(preset.get(path, "–")), str(here.get(path, "–")))
        for path in {**preset, **here}
        if preset.get(path) != here.get(path)
    )


def _leaves(document: Mapping[str, Any], outer: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in document.items():
        if name in ("sources", "about") and not outer:
            continue
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{outer}{name}.")
        else:
            yield f"{outer}{name}", value
