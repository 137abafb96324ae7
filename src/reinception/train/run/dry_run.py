"""A dry run: the plan of a run, with time and memory from a few measured steps. Nothing is written."""

from __future__ import annotations

import math
import os
from statistics import median

import torch

from reinception.errors import UsageError
from reinception.report.formatting import duration
from reinception.train.budget import VALIDATION_IMAGE_COST
from reinception.train.config import AUTO, TrainConfig
from reinception.train.run.choose_step import with_chosen_step
from reinception.train.run.metadata import precision_name
from reinception.train.run.open_run import OpenRun, rehearse
from reinception.train.run.rehearsal import measured_steps
from reinception.train.run.run_folder import MODELS_AT_ONCE, ROOM_FOR_THE_REST
from reinception.train.run.suggestion import suggest
from reinception.train.waiting import describe_waiting

MEASURED_STEPS = 3


def dry_run(config: TrainConfig) -> str:
    """The plan of `train(config)` in lines for people; takes one step to warm up and three to measure."""
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise UsageError("--dry-run measures one process; start it without torchrun")
    config = suggest(config, keep_weights=True).config if config.recipe == AUTO else config
    run = with_chosen_step(rehearse(config))
    plan, source, ranks = run.plan, run.source, run.ranks
    seconds, waiting, memory = measured_steps(run, steps=MEASURED_STEPS)
    images = {split: len(records) for split, records in run.records.items()}
    splits = ", ".join(f"{split} {count:,}" for split, count in images.items() if count)
    parameters = sum(parameter.numel() for parameter in run.network.parameters())
    model_bytes = sum(tensor.nbytes for tensor in run.network.state_dict().values())
    per_step = f"{plan.recipe.replicas} x {plan.recipe.batch_size} images a step"
    pace = plan.images_per_step / median(seconds)
    kind = run.plan.config.step
    spread = f"median of {MEASURED_STEPS}, {min(seconds):.3g} to {max(seconds):.3g} s"
    rows = (
        ("data", f"{source.name}: {splits}"),
        ("network", f"{plan.arch.name}, {parameters:,} parameters, input {plan.arch.input_size}, {plan.notes[0]}"),
        ("recipe", f"{plan.recipe.name}: {per_step}, {config.reduction} reduction"),
        ("machine", f"{ranks.device}, {torch.get_num_threads()} threads, {precision_name(run.dtype)}, {kind} step"),
        ("one step", f"{median(seconds):.3g} s ({spread}), {pace:.1f} images/s"),
        ("loading", describe_waiting(waiting, workers=config.workers, input_size=plan.arch.input_size)),
        ("length", _length(run, median(seconds))),
        ("memory", memory.in_words(plan.recipe.batch_size)),
        ("disk", f"{(MODELS_AT_ONCE * model_bytes + ROOM_FOR_THE_REST) / 1e6:,.0f} MB in {config.out}"),
    )
    return "\n".join(f"{name:<9} {what}" for name, what in rows)


def _length(run: OpenRun, step_seconds: float) -> str:
    """Steps, epochs and time of the whole run, validations included."""
    recipe, budget_seconds = run.plan.recipe, run.plan.config.time_budget_seconds
    validation = step_seconds / run.plan.images_per_step * VALIDATION_IMAGE_COST * len(run.records["val"])
    if budget_seconds is not None:
        steps = max(1, math.floor((budget_seconds - validation) / step_seconds))
        return f"about {steps:,} steps ({steps / run.steps_per_epoch:.1f} epochs) in {duration(budget_seconds)}"
    steps = max(1, round(recipe.epochs * run.steps_per_epoch))
    whole = steps * step_seconds + recipe.epochs * validation
    return f"{steps:,} steps ({recipe.epochs} epochs) in about {duration(whole)}"
