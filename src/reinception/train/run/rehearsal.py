"""A few measured steps of a run that is begun in memory only: their time, the wait for images, and memory."""

from __future__ import annotations

import time
from itertools import islice

from reinception.train.loop import guarded_step
from reinception.train.optim import learning_rate_at
from reinception.train.run.open_run import OpenRun
from reinception.train.run.start import wire
from reinception.train.run.step_memory import StepMemory, halved, peak_bytes


def measured_steps(run: OpenRun, *, steps: int) -> tuple[list[float], float | None, StepMemory]:
    """Seconds of each of `steps` steps after one more, the fraction of them spent waiting, and memory."""
    training, recipe = wire(run), run.plan.recipe
    training.state.unfreeze(1.0)
    batches = training.waiting.batches(training.stream.batches())
    learning_rate = learning_rate_at(recipe.schedule, progress=0.0, epochs=recipe.epochs)
    seconds: list[float] = []
    # A step of half the images first: what a whole one takes beyond it is what its other images take.
    first = list(islice(batches, recipe.replicas))
    smaller = halved(first)
    if smaller is not None:
        guarded_step(training, smaller, learning_rate=0.0, step=0)
    before = peak_bytes(run.ranks.device)
    for step in range(1 + steps):
        began = time.perf_counter()
        guarded_step(training, islice(batches, recipe.replicas), learning_rate=learning_rate, step=step)
        seconds.append(time.perf_counter() - began)
    half = None if smaller is None else (len(smaller[0].images), before)
    memory = StepMemory.measured(run.ranks.device, half=half, batch_size=recipe.batch_size)
    return seconds[1:], training.waiting.fraction, memory
