"""What a resumed run may do otherwise than it was begun: find its images elsewhere, and train for more epochs."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from reinception.data.sources.records import Source
from reinception.data.sources.remote import is_address
from reinception.errors import UsageError
from reinception.train.run.checkpoint import Checkpoint
from reinception.train.run.metadata import describe_data
from reinception.train.run.plan import Plan

# Below this fraction of the schedule's highest rate, weights hardly move any more.
LOW_RATE = 0.01


def with_found_data(plan: Plan, document: Mapping[str, Any]) -> Plan:
    """`plan` with the place where its images are now; as it is where they have not moved or are nowhere to be seen.

    Looked at in turn: the place they had, what the command that began the run called it, and the place they have if
    they were moved together with the run folder. Whether they are the same images is asked later.
    """
    data = str(plan.config.data)
    if data == "elpv" or is_address(data) or Path(data).exists():
        return plan
    for place in _places(data, document, Path(plan.config.out)):
        if place.exists():
            return dataclasses.replace(plan, config=dataclasses.replace(plan.config, data=str(place)))
    return plan


def _places(data: str, document: Mapping[str, Any], out: Path) -> Iterator[Path]:
    yield Path(str(document.get("data", data)))
    if (home := document.get("home")) is not None:
        yield Path(os.path.normpath(out.resolve() / os.path.relpath(data, home)))


def is_longer(plan: Plan, document: Mapping[str, Any]) -> bool:
    """Whether `plan` has other epochs than the run of config.json `document`, or epochs in place of its time."""
    had_time = document.get("time_budget_seconds") is not None
    has_time = plan.config.time_budget_seconds is not None
    return had_time != has_time or plan.recipe.epochs != document["recipe"]["epochs"]


def replanned(plan: Plan, checkpoint: Checkpoint | None, *, steps_per_epoch: float) -> tuple[Plan, str]:
    """`plan` with the schedule of its new epochs from the checkpoint on, and a line that says how it goes on.

    The rate never rises again: it stays as it was in the last step until the schedule of all the epochs is below it.
    UsageError where there is nothing left to train.
    """
    step = 0 if checkpoint is None else checkpoint.step
    epochs, num_steps = plan.recipe.epochs, max(1, round(plan.recipe.epochs * steps_per_epoch))
    done = step / steps_per_epoch
    if num_steps <= step:
        raise UsageError(
            f"--epochs {epochs} beside --resume: the run has trained {done:.4g} epochs already; give more than that"
        )
    said = f"planned anew: {epochs} epochs, {done:.4g} of them done, {num_steps - step:,} steps to go"
    last = None if checkpoint is None else _falling_rate(checkpoint.document["journal"], plan)
    if last is None:
        return plan, f"{said}; the learning rate follows the schedule of {epochs} epochs"
    ceiling = min(last, math.inf if plan.rate_ceiling is None else plan.rate_ceiling)
    said += f"; the learning rate goes on from {ceiling:.2g} and does not rise"
    if ceiling < LOW_RATE * plan.recipe.schedule.base_rate:
        said += (
            "; so low a rate hardly moves weights: `train DATA -o NEW --weights RUN` begins a new schedule from them"
        )
    return dataclasses.replace(plan, rate_ceiling=ceiling), said


def _falling_rate(journal: Mapping[str, Any], plan: Plan) -> float | None:
    """The rate of the last step, None where it was still rising."""
    if journal["progress"] < plan.recipe.schedule.warm_up_fraction:
        return None
    last = journal["records"][-1] if journal["records"] else journal["last_training"]
    return last.get("learning_rate", last.get("rate"))


def changed_config(
    plan: Plan, document: Mapping[str, Any], source: Source, say: Callable[[str], None]
) -> dict[str, Any]:
    """config.json as `plan` and its `source` have it now, each change said; equal to `document` where there is none."""
    config, chosen, changes = plan.config, plan.recipe, dict[str, Any]()
    request = dict(document["request"])
    if chosen.to_json() != document["recipe"]:
        if chosen.batch_size != document["recipe"]["batch_size"]:
            num, size = chosen.replicas, chosen.batch_size
            say(f"from here on a step is {num} x {size} images: the same ones, but not quite the same run")
        changes |= {"batch_size": chosen.batch_size, "replicas": chosen.replicas, "recipe": chosen.to_json()}
    if is_longer(plan, document):
        own = {"epochs": chosen.epochs, "time_budget_seconds": config.time_budget_seconds}
        changes |= own | {"rate_ceiling": plan.rate_ceiling}
        request |= own
    if str(config.data) != request["data"]:
        say(f"images: {config.data}, which were at {request['data']}")
        path = Path(config.data)
        request["data"] = str(path.resolve() if path.exists() else path)
        changes |= {"data": str(config.data), "root": describe_data(source)["root"]}
    return dict(document) | changes | {"request": request}
