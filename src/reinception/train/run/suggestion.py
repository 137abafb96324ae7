"""What to train here: small from scratch or fine-tuning, how large, by what a few measured steps cost."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

import torch

from reinception import family
from reinception.data.loading.read import pixels_of
from reinception.data.sources.records import Record
from reinception.machine import num_processors
from reinception.recipe import Recipe
from reinception.report.formatting import count, duration
from reinception.spec.cost import multiply_adds
from reinception.train.config import TrainConfig
from reinception.train.run.metadata import precision_name
from reinception.train.run.open_run import OpenRun, rehearse
from reinception.train.run.rehearsal import measured_steps

USUAL_SECONDS = 600.0
"""The time that is planned for where none is given."""
USABLE_FRACTION = 0.85
"""Of a time budget, for training steps; the rest is for start, validation, judging and the report."""
ENOUGH_PASSES = 40
"""Passes over the images from which on a network from scratch is about done (docs/results.md)."""
ENOUGH_FINE_TUNING = 4
"""Passes from which on fine-tuning beats a small network from scratch; fewer leave it behind."""
LEAST_SIDE = 0.7
"""Learned weights are not fine-tuned below this fraction of the input size they were trained at."""
FORWARD_FRACTION = 0.35
"""Of the time of a training step, what the features of its images take."""

_LADDER = ((0.1, 96), (0.25, 96), (0.25, 128), (0.35, 160), (0.5, 160), (0.5, 224), (1.0, 299))
_PROBE = (0.25, 128)
# The fewest training images for which a network of more than that width is worth its time.
_IMAGES_FOR_WIDTH = {0.35: 5_000, 0.5: 20_000, 1.0: 100_000}
_PROBED_BATCH, _MEASURED_STEPS, _SAMPLE = 8, 3, 32
_WAITING = 0.15
_POINTS = 100


@dataclass(frozen=True, kw_only=True)
class TrainingCandidate:
    """One way to train: the options of TrainConfig it stands for, and how many passes fit into the time."""

    what: str
    changes: dict[str, Any]
    seconds_per_image: float
    passes: float
    enough: float
    """passes from which on it is worth choosing"""
    multiply_adds: int

    @property
    def is_enough(self) -> bool:
        return self.passes >= self.enough

    @property
    def is_frozen(self) -> bool:
        """Whether only a classifier is solved for."""
        return self.changes.get("freeze") == "trunk"


@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """What to train, why, and what else was looked at."""

    chosen: TrainingCandidate
    why: str
    candidates: tuple[TrainingCandidate, ...]
    config: TrainConfig
    """the request with the choice made, every option of it explicit"""
    changes: dict[str, Any]
    """what that changes in the request"""
    about: str
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values: `recipe`, `width`, `input_size`, `batch_size`, `workers`, `freeze`, `seconds`, `passes`,
        `why`, `command` and all `candidates`."""
        names = ("width", "input_size", "batch_size", "workers", "freeze")
        return {
            "recipe": str(self.config.recipe),
            **{name: getattr(self.config, name) for name in names},
            "seconds": self.seconds,
            "passes": self.chosen.passes,
            "why": self.why,
            "command": self.config.command(),
            "candidates": [dataclasses.asdict(one) | {"is_enough": one.is_enough} for one in self.candidates],
        }

    def line(self) -> str:
        """The choice in one line."""
        return f"chosen for {duration(self.seconds)}: {self.chosen.what}, {self.why}; explicit flags win"

    def lines(self) -> Sequence[str]:
        """For people."""
        rows = [
            f"  {one.what}: {one.passes:.1f} passes over the images, {1 / one.seconds_per_image:.0f} images/s"
            f"{'' if one.is_enough else f' (fewer than {one.enough:g})'}"
            for one in self.candidates
        ]
        return (self.about, f"in {duration(self.seconds)}:", *rows, self.line(), self.config.command())


def suggest(config: TrainConfig, *, keep_weights: bool = False) -> Suggestion:
    """What `train(config)` should train in its time budget, which counts from now; ten minutes where it has none.

    A few steps are measured on networks of their own; nothing is written, and torch's generator is put back.

    Args:
        config: the request; `recipe`, `model`, `width` and `input_size` play no part.
        keep_weights: choose something that uses `config.weights`, where there are any.

    Returns:
        The `Suggestion`. It depends on how fast the machine was just now.

    Raises:
        ReinceptionError: the data or the weights cannot be used.
    """
    seconds = config.time_budget_seconds or USUAL_SECONDS
    bare = dataclasses.replace(config, recipe="small_images", model=None, width=1.0, input_size=None, freeze="none")
    bare = dataclasses.replace(bare, step="plain")
    with torch.random.fork_rng(enabled=True):
        small = dataclasses.replace(bare, weights=None, width=_PROBE[0], input_size=_PROBE[1])
        run = rehearse(small)
        took, waiting, _ = measured_steps(run, steps=_MEASURED_STEPS)
        per_image = median(took) / run.plan.images_per_step
        side = _typical_side(run.records["train"])
        usable = USABLE_FRACTION * seconds
        candidates = _from_scratch(run, per_image, usable, side)
        tuned = _fine_tuning(bare, usable, run) if config.weights is not None else []
    chosen, why = choose(candidates, tuned, keep_weights=keep_weights)
    workers = config.workers or (min(2, num_processors() - 1) if (waiting or 0) > _WAITING else 0)
    changes: dict[str, Any] = {"width": 1.0, "input_size": None, "freeze": "none", "workers": workers, **chosen.changes}
    num, classes = len(run.records["train"]), len(run.source.classes)
    about = (
        f"{run.source.name}: {count(num, 'training image')} of {count(classes, 'class', 'classes')}, "
        f"about {side} pixels a side; {run.ranks.device}, {count(num_processors(), 'core')}, "
        f"{precision_name(run.dtype)}"
    )
    return Suggestion(
        chosen=chosen,
        why=why,
        candidates=(*candidates, *tuned),
        config=dataclasses.replace(config, **changes),
        changes=changes,
        about=about,
        seconds=seconds,
    )


# -- candidates --------------------------------------------------------------------------------------------------------


def _from_scratch(run: OpenRun, per_image: float, usable: float, side: int) -> list[TrainingCandidate]:
    """The ladder, as far as the images are large and many enough; the time is that of the probe by multiply-adds."""
    num = len(run.records["train"])
    probe = multiply_adds(run.plan.arch)
    found: list[TrainingCandidate] = []
    for width, size in _LADDER:
        needed = max((least for above, least in _IMAGES_FOR_WIDTH.items() if width >= above), default=0)
        if found and (num < needed or size > 1.1 * side):
            continue
        arch = family.network("inception_v3", width=width, input_size=size)
        work = multiply_adds(arch)
        seconds = per_image * work / probe
        found.append(
            TrainingCandidate(
                what=f"from scratch, width {width:g} at {size} px",
                changes={"recipe": "small_images", "weights": None, "width": width, "input_size": size},
                seconds_per_image=seconds,
                passes=usable / (seconds * num),
                enough=ENOUGH_PASSES,
                multiply_adds=work,
            )
        )
    return found


def _fine_tuning(bare: TrainConfig, usable: float, probe: OpenRun) -> list[TrainingCandidate]:
    """The learned weights at their input size and below, and their frozen trunk under a new classifier."""
    batch = bare.batch_size or _PROBED_BATCH
    run = rehearse(dataclasses.replace(bare, recipe="fine_tune", batch_size=min(batch, _PROBED_BATCH)))
    (took,), _, _ = measured_steps(run, steps=1)
    per_image = took / run.plan.images_per_step
    native, num = run.plan.arch.input_size, len(run.records["train"])
    work = multiply_adds(run.plan.arch)
    found: list[TrainingCandidate] = []
    for size in dict.fromkeys((native, round(0.85 * native), round(LEAST_SIDE * native) + 1)):
        seconds = per_image * (size / native) ** 2 * _mean_area(run.plan.recipe)
        found.append(
            TrainingCandidate(
                what=f"fine-tuning {run.plan.arch.name} at {size} px",
                changes={"recipe": "fine_tune", "input_size": size, "batch_size": bare.batch_size},
                seconds_per_image=seconds,
                passes=usable / (seconds * num),
                enough=ENOUGH_FINE_TUNING,
                multiply_adds=round(work * (size / native) ** 2),
            )
        )
    if bare.balance not in (None, "none") or bare.precision == "fp16":
        return found  # a classifier is solved for from the labels as they are, in fp32 or bf16
    everything = sum(len(records) for records in probe.records.values())
    seconds = FORWARD_FRACTION * per_image
    found.append(
        TrainingCandidate(
            what=f"the frozen trunk of {run.plan.arch.name} at {native} px under a new classifier",
            changes={"recipe": "fine_tune", "freeze": "trunk", "batch_size": bare.batch_size},
            seconds_per_image=seconds,
            passes=usable / (seconds * everything),
            enough=1,
            multiply_adds=work,
        )
    )
    return found


def choose(
    scratch: Sequence[TrainingCandidate], tuned: Sequence[TrainingCandidate], *, keep_weights: bool
) -> tuple[TrainingCandidate, str]:
    """Which of them, and why. `keep_weights` leaves those from scratch out, where there are others."""
    trained = [one for one in tuned if not one.is_frozen]
    frozen = [one for one in tuned if one.is_frozen]
    if fits := [one for one in trained if one.is_enough]:
        best = max(fits, key=lambda one: one.multiply_adds)
        return best, f"because {best.passes:.0f} passes fit, and from {best.enough:g} on learned weights win"
    late = f"fine-tuning would not get through {ENOUGH_FINE_TUNING} passes" if tuned else ""
    if not (tuned and keep_weights) and (fits := [one for one in scratch if one.is_enough]):
        best = max(fits, key=lambda one: one.multiply_adds)
        also = f"{late}, and " if late else ""
        return best, f"because {also}it is the largest that gets through {ENOUGH_PASSES} passes ({best.passes:.0f})"
    if frozen and (frozen[0].is_enough or keep_weights):
        return frozen[0], f"because {late}, and the learned trunk needs one"
    best = min(trained if tuned and keep_weights else scratch, key=lambda one: one.seconds_per_image)
    return best, f"because even the smallest gets through only {best.passes:.1f} passes: give it more time"


def _mean_area(recipe: Recipe) -> float:
    """Pixels of a training image in the mean over a run, as a fraction of those at the input size."""
    if recipe.growth is None:
        return 1.0
    points = [(index + 0.5) / _POINTS for index in range(_POINTS)]
    return fmean((recipe.growth.side(_POINTS, point) / _POINTS) ** 2 for point in points)


# -- the images --------------------------------------------------------------------------------------------------------


def _typical_side(records: Sequence[Record]) -> int:
    """The median of the shorter sides of a few training images, spread over the list."""
    step = max(1, len(records) // _SAMPLE)
    sides = [min(pixels_of(record).shape[:2]) for record in list(records)[::step][:_SAMPLE]]
    return int(median(sides))
