"""Students: smaller networks derived from the teacher's by named changes, chosen by cost and by measured speed."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from reinception import family
from reinception.data.loading.evaluation_stream import EvaluationBatch
from reinception.errors import ReinceptionError, UsageError
from reinception.family.catalog import models
from reinception.inference.backends.choice import sample
from reinception.inference.engine import Engine
from reinception.shrink.shrink_config import ShrinkConfig
from reinception.spec import Arch, cost, minimum_input_size

WIDTHS = (0.75, 0.5, 0.35, 0.25, 0.18, 0.125)
DEPTHS = (1.0, 0.5)
"""Fractions of the modules of each grid."""
SIDES = (1.0, 0.64, 0.43, 0.32, 0.25)
"""Fractions of the teacher's input size: 299, 192, 128, 96 and 75 pixels for 299."""
_BATCH = 32
_SECONDS = 0.4


@dataclass(frozen=True, kw_only=True)
class Student:
    """A network by the changes that make it of a published one."""

    network: str
    width: float
    depth: float
    input_size: int

    @property
    def name(self) -> str:
        """A name for its folder: what was changed."""
        parts = [f"w{self.width:g}", f"{self.input_size}px", *([f"d{self.depth:g}"] if self.depth != 1 else [])]
        return "-".join([self.network, *parts])

    def arch(self, num_classes: int) -> Arch:
        """The network as a value, without auxiliary classifiers."""
        changes = {"width": self.width, "depth": self.depth, "input_size": self.input_size}
        return family.network(self.network, num_classes=num_classes, aux="none", **changes)


def candidates(teacher: Arch) -> dict[Student, int]:
    """Every student that is cheaper than `teacher`, with its multiply-adds, the most first.

    Narrower, shallower and with smaller inputs; networks of Table 2, whose first layers keep more of a small image,
    where the teacher is of that family.
    """
    name = teacher.name if teacher.name in models() else "inception_v3"
    names = (name, "inception_v3_151", "inception_v3_79") if name == "inception_v3" else (name,)
    found = {}
    for network in names:
        own = family.network(network, aux="none")
        sides = {round(teacher.input_size * part) for part in SIDES} if network == name else {own.input_size}
        for width in WIDTHS:
            for depth in DEPTHS:
                for side in sides:
                    one = Student(network=network, width=width, depth=depth, input_size=side)
                    if side < minimum_input_size(own, with_aux=False):
                        continue
                    found[one] = cost.multiply_adds(one.arch(teacher.num_classes))
    limit = cost.multiply_adds(dataclasses.replace(teacher, aux=()))
    ordered = sorted(found.items(), key=lambda item: (-item[1], item[0].name))
    return {one: multiply_adds for one, multiply_adds in ordered if multiply_adds < limit}


def choose(
    config: ShrinkConfig, teacher: Arch, measure: Callable[[Sequence[Arch], int], Sequence[float]]
) -> tuple[Student, ...]:
    """The students to train: those of the most multiply-adds that reach the goal, of different input sizes first.

    `measure` gives images per second of networks at a batch size, side by side; the teacher's is measured with them.
    A student is measured only when its cost says that it could reach the goal, so few are. ReinceptionError where none
    of them reaches it.
    """
    k, teacher_cost = teacher.num_classes, cost.multiply_adds(dataclasses.replace(teacher, aux=()))
    one_at_a_time = config.latency_seconds is not None

    def is_fast_enough(student: Student) -> bool:
        if config.multiply_adds is not None:
            return costs[student] <= config.multiply_adds
        own, whole = measure([student.arch(k), teacher], 1 if one_at_a_time else _BATCH)
        wanted = 1 / config.latency_seconds if config.latency_seconds is not None else config.wanted_speed_up * whole
        return own >= wanted

    costs = candidates(teacher)
    chosen: list[Student] = []
    by_side: dict[tuple[str, int], list[Student]] = {}
    for one in costs:
        by_side.setdefault((one.network, one.input_size), []).append(one)
    # More multiply-adds than this were never so fast: layers lose efficiency when they shrink, and do not gain any.
    most = teacher_cost / config.wanted_speed_up if not one_at_a_time and config.multiply_adds is None else None
    for group in by_side.values():
        affordable = [one for one in group if most is None or costs[one] <= most]
        if (first := next(filter(is_fast_enough, affordable), None)) is not None:
            chosen.append(first)
    if not chosen:
        raise ReinceptionError(f"{config.model}: no network of its family is {config.goal} here; ask for less")
    return tuple(sorted(chosen, key=lambda one: (-costs[one], one.name))[: config.num_students])


def images_per_second(engines: Mapping[str, Engine], *, batch_size: int = _BATCH, rounds: int = 3) -> dict[str, float]:
    """The median over interleaved rounds, from decoded pixels to probabilities; other load on the machine counts.

    UsageError where `rounds` is less than 1.
    """
    if rounds < 1:
        raise UsageError(f"rounds must be at least 1, got {rounds}")
    took: dict[str, list[float]] = {name: [] for name in engines}
    for number in range(rounds + 1):
        for name, engine in engines.items():
            rate = _rate(engine, batch_size)
            if number:  # the first warms up
                took[name].append(rate)
    return {name: float(np.median(rates)) for name, rates in took.items()}


def cascade_images_per_second(small: Engine, large: Engine, *, passed_on: float, rounds: int = 3) -> float:
    """The median over rounds of the small network on a number of images and the large one on the fraction passed on."""
    num = 256
    rates = []
    for number in range(rounds + 1):
        began = time.perf_counter()
        for engine, images in ((small, num), (large, round(passed_on * num))):
            for start in range(0, images, _BATCH):
                for _ in engine.probabilities([_noise(engine, min(_BATCH, images - start))]):
                    pass
        if number:
            rates.append(num / (time.perf_counter() - began))
    return float(np.median(rates))


def _noise(engine: Engine, num: int) -> EvaluationBatch:
    """Images of noise: what they show changes no time."""
    side = engine.preprocessing.input_size
    return EvaluationBatch(images=sample(side, num), indices=np.arange(num), weights=np.ones(num))


def _rate(engine: Engine, batch_size: int) -> float:
    """Images per second of batches over at least `_SECONDS`."""
    batch, began, num = _noise(engine, batch_size), time.perf_counter(), 0
    while num == 0 or time.perf_counter() - began < _SECONDS:
        for _ in engine.probabilities([batch], block=min(batch_size, engine.block_size)):
            num += 1
    return num / (time.perf_counter() - began)
