"""`--step auto`: a few steps of each kind, timed on random images, and a run that is as if they had not been."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

import torch

from reinception.data.loading.loader import Batch
from reinception.distributed import Ranks
from reinception.model.build import Network
from reinception.train.config import StepKind
from reinception.train.finetune import training_mode
from reinception.train.run.open_run import OpenRun, config_of
from reinception.train.run.out_of_memory import is_out_of_memory, out_of_memory
from reinception.train.run.signals import StopRequest
from reinception.train.step import TrainState, accumulate

MEASURED = 3
"""Steps of each kind that are timed, in turn, after one each that is not."""

LEAST_GAIN = 1.03
"""Another kind than plain has to be so many times as fast: what is hardly faster is not worth other bits."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepChoice:
    """A measured choice: the kind of step, and the median seconds of each kind that was tried."""

    kind: StepKind
    seconds: dict[StepKind, float]

    @property
    def gain(self) -> float:
        """How many times as fast as plain."""
        return self.seconds["plain"] / self.seconds[self.kind]

    def __str__(self) -> str:
        tried = ", ".join(f"{kind} {seconds:.3g} s" for kind, seconds in self.seconds.items())
        return f"step: {self.kind}, {self.gain:.2f} times as fast as plain (medians of {MEASURED} steps: {tried})"

    def to_json(self) -> dict[str, Any]:
        return {"seconds": self.seconds, "gain": self.gain}

    @staticmethod
    def of(seconds: dict[StepKind, float]) -> StepChoice:
        """The fastest kind, or plain where that is not clearly faster."""
        fastest = min(seconds, key=lambda kind: seconds[kind])
        is_clear = seconds["plain"] >= LEAST_GAIN * seconds[fastest]
        return StepChoice(kind=fastest if is_clear else "plain", seconds=seconds)


def with_chosen_step(run: OpenRun) -> OpenRun:
    """The run with `auto` resolved, printed and stored in its config.json, which a resume goes by.

    All ranks take the choice of the first.
    """
    if run.plan.config.step != "auto":
        return run
    kinds: tuple[StepKind, ...] = ("plain", "fused")
    if run.ranks.device.type == "cuda":  # on a processor compiling takes minutes
        kinds = (*kinds, "compiled")
    own = measure(run, kinds)
    seconds: dict[StepKind, float] = {kind: run.ranks.from_first(own[kind]) for kind in kinds}
    choice = StepChoice.of(seconds)
    run.console.say(str(choice))
    if run.folder is not None:
        document = config_of(run.folder.path)
        run.folder.change_config(document | {"step": choice.kind, "step_choice": choice.to_json()})
    config = dataclasses.replace(run.plan.config, step=choice.kind)
    return dataclasses.replace(run, plan=dataclasses.replace(run.plan, config=config))


def measure(run: OpenRun, kinds: tuple[StepKind, ...]) -> dict[StepKind, float]:
    """Median seconds of forward and backward passes of each kind. Nothing of the run is changed by it."""
    recipe, arch = run.plan.recipe, run.plan.arch
    network = run.network.to(run.ranks.device).to(memory_format=torch.channels_last)
    size = (recipe.batch_size, arch.input_size, arch.input_size, arch.input_channels)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, size, dtype=torch.uint8, generator=generator).permute(0, 3, 1, 2)
    order = torch.arange(recipe.batch_size)
    batch = Batch(images=images, targets=order % arch.num_classes, indices=order, epochs=order * 0, epoch=0, step=0)
    seconds: dict[StepKind, list[float]] = {kind: [] for kind in kinds}
    with unchanged(network):
        states = {kind: _state(run, network, kind) for kind in kinds}
        for _ in range(1 + MEASURED):
            for kind, state in states.items():
                seconds[kind].append(_timed(state, [batch] * len(state.shard), run.stop, run.ranks))
    return {kind: median(each[1:]) for kind, each in seconds.items()}


def _state(run: OpenRun, network: Network, kind: StepKind) -> TrainState:
    config = run.plan.config
    return TrainState(
        network=network,
        recipe=run.plan.recipe,
        ranks=run.ranks,
        preprocessing=run.plan.preprocessing,
        reduction=config.reduction,
        freeze=config.freeze,
        seed=config.seed,
        dtype=run.dtype,
        step=kind,
        frequencies=run.frequencies,
    )


def _timed(state: TrainState, batches: list[Batch], stop: StopRequest, ranks: Ranks) -> float:
    state.unfreeze(1.0)  # what most steps of the run are
    training_mode(state.network, state.learning, state.recipe.batch_norm)
    began = time.perf_counter()
    try:
        rows = accumulate(state, batches, step=0, stop=stop)
        float(rows.sum())  # the device is waited for
        return time.perf_counter() - began
    except (RuntimeError, MemoryError, OSError) as error:
        if not is_out_of_memory(error):
            raise
    raise out_of_memory(state.recipe, ranks.device)


@contextmanager
def unchanged(network: Network) -> Iterator[None]:
    """Afterwards the network, its gradients and torch's generators are what they were before."""
    modes = {module: module.training for module in network.modules()}
    learning = {parameter: parameter.requires_grad for parameter in network.parameters()}
    buffers = {buffer: buffer.clone() for buffer in network.buffers()}
    device = next(network.parameters()).device
    states = torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    try:
        yield
    finally:
        network.zero_grad(set_to_none=True)
        for buffer, before in buffers.items():
            buffer.copy_(before)
        for module, training in modes.items():
            module.training = training
        for parameter, requires in learning.items():
            parameter.requires_grad_(requires)
        torch.set_rng_state(states[0])
        if states[1] is not None:
            torch.cuda.set_rng_state(states[1], device)
