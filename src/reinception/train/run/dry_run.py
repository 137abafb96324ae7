"""What a run would be, before it is one: its plan, with time and memory from measured steps. Nothing is written."""

from __future__ import annotations

import dataclasses
import math
import os
import resource
import time
from itertools import islice
from statistics import median

import torch

from reinception.distributed import Ranks
from reinception.errors import UsageError
from reinception.machine import precision
from reinception.train.budget import VALIDATION_IMAGE_COST
from reinception.train.config import TrainConfig
from reinception.train.loop import careful_step
from reinception.train.optim import rate_at
from reinception.train.run.console import Console
from reinception.train.run.metadata import precision_name
from reinception.train.run.plan import make_plan
from reinception.train.run.run_folder import MODELS_AT_ONCE, ROOM_FOR_THE_REST
from reinception.train.run.session import Session
from reinception.train.run.signals import Stop
from reinception.train.run.start import choose, fresh_network, open_data

MEASURED_STEPS = 3


def rehearse(config: TrainConfig) -> str:
    """The plan of `train(config)` in lines for people; takes one step to warm up and three to measure."""
    if "WORLD_SIZE" in os.environ and os.environ["WORLD_SIZE"] != "1":
        raise UsageError("--dry-run measures one process; start it without torchrun")
    plan = make_plan(config)
    device = choose(config.device)
    dtype = precision(config.precision, device)
    console = Console(is_silent=True)
    source = open_data(plan, console)
    plan = dataclasses.replace(plan, arch=dataclasses.replace(plan.arch, num_classes=len(source.classes)))
    network = fresh_network(plan)
    model_bytes = sum(tensor.nbytes for tensor in network.state_dict().values())
    parameters = sum(parameter.numel() for parameter in network.parameters())
    ranks, recipe = Ranks(device), plan.recipe
    session = Session(plan, source, folder=None, console=console, ranks=ranks, stop=Stop(), device=device, dtype=dtype)
    training = session.prepare(network)
    batches = training.stream.batches()
    seconds: list[float] = []
    for step in range(1 + MEASURED_STEPS):
        began = time.perf_counter()
        rate = rate_at(recipe.schedule, progress=0.0, epochs=recipe.epochs)
        careful_step(training, islice(batches, recipe.replicas), rate=rate, step=step)
        seconds.append(time.perf_counter() - began)
    one = median(seconds[1:])
    images = {split: len(records) for split, records in session.records.items()}
    validation = one / session.images_per_step * VALIDATION_IMAGE_COST * images["val"]
    if config.time_budget_seconds is not None:
        steps = max(1, math.floor((config.time_budget_seconds - validation) / one))
        epochs = steps / session.steps_per_epoch
        length = f"about {steps:,} steps ({epochs:.1f} epochs) in {_time(config.time_budget_seconds)}"
    else:
        steps = max(1, round(recipe.epochs * session.steps_per_epoch))
        whole = steps * one + recipe.epochs * validation
        length = f"{steps:,} steps ({recipe.epochs} epochs) in about {_time(whole)}"
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 1024 * _resident_kib()
    disk = MODELS_AT_ONCE * model_bytes + ROOM_FOR_THE_REST
    spread = f"median of {MEASURED_STEPS}, {min(seconds[1:]):.3g} to {max(seconds[1:]):.3g} s"
    share = f"{recipe.replicas} x {recipe.batch_size} images a step"
    splits = ", ".join(f"{split} {count:,}" for split, count in images.items() if count)
    rows = (
        ("data", f"{source.name}: {splits}"),
        ("network", f"{plan.arch.name}, {parameters:,} parameters, input {plan.arch.input_size}, {plan.notes[0]}"),
        ("recipe", f"{recipe.name}: {share}, {config.reduction} reduction"),
        ("machine", f"{device}, {torch.get_num_threads()} threads, {precision_name(dtype)}"),
        ("one step", f"{one:.3g} s ({spread}), {session.images_per_step / one:.1f} images/s"),
        ("length", length),
        ("memory", f"{peak / 2**30:.2f} GiB at its highest in these steps, this whole process"),
        ("disk", f"{disk / 1e6:,.0f} MB in {config.out}"),
    )
    return "\n".join(f"{name:<9} {what}" for name, what in rows)


def _resident_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _time(seconds: float) -> str:
    for unit, length in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"
