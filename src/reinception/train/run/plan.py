"""The plan of a run: every choice resolved, weights loaded, the impossible refused, nothing written."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from reinception import family, recipe
from reinception.documents import Documents
from reinception.errors import ReinceptionError, UsageError
from reinception.machine import TrainingPrecision
from reinception.model.artifact import NO_CLASSIFIER, load
from reinception.model.build import Network, build
from reinception.preprocess import Preprocessing
from reinception.recipe import Recipe
from reinception.report.formatting import count
from reinception.spec import Arch, Conv, minimum_input_size, trace
from reinception.train.config import AUTO, DEFAULT_MODEL, AuxMode, Freeze, Reduction, StepKind, TrainConfig
from reinception.train.finetune import frozen_stages, matching_outputs, start_from, training_side
from reinception.train.run.out_of_memory import divided
from reinception.train.run.tensorboard import require_tensorboard
from reinception.weights.convert import Conversion, convert

LEAST_STATISTICS = 16
"""Images of a batch from which on a fine-tuned network learns from the statistics of the batch."""
_OF_THE_RECIPE = (
    *("epochs", "batch_size", "replicas", "augmentation", "balance", "batch_norm", "smoothing_prior", "scaling"),
    "patience",
)
"""Options that replace a value of the recipe."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """A configuration with its choices made. `arch` has the classes of the data once they are known; `learned` is the
    model that training starts from, None for random weights, and `outputs` says which of its outputs each class has
    where its classifier is kept; `notes` are for the log; `asked` is the command where
    some of `config` was chosen by measuring; `rate_ceiling` bounds a run that was given more epochs."""

    config: TrainConfig
    recipe: Recipe
    arch: Arch
    preprocessing: Preprocessing
    learned: Conversion | None = None
    outputs: tuple[int, ...] | None = None
    notes: tuple[str, ...] = ()
    asked: str | None = None
    rate_ceiling: float | None = None

    @property
    def images_per_step(self) -> int:
        """Images of all replicas together."""
        return self.recipe.batch_size * self.recipe.replicas

    def network(self) -> Network:
        """The network as the first step finds it."""
        if self.learned is None:
            return build(self.arch, seed=self.config.seed)
        return start_from(self.learned.network, self.arch, seed=self.config.seed, outputs=self.outputs)

    def for_classes(self, classes: Sequence[str]) -> Plan:
        """The plan for data of these classes: a learned classifier of the same ones is kept."""
        plan = dataclasses.replace(self, arch=dataclasses.replace(self.arch, num_classes=len(classes)))
        if self.learned is None:
            return plan
        learned = self.learned.manifest.classes
        outputs = matching_outputs(learned, classes)
        if outputs is not None:
            order = "" if outputs == sorted(outputs) else ", put into their order"
            note = f"classifier: kept, its {len(classes)} classes are those of the data{order}"
        else:
            why = "has none" if learned == NO_CLASSIFIER else f"has {len(learned):,} classes and not these"
            note = f"classifier: new for the {len(classes)} classes of the data; {self.config.weights} {why}"
        kept = None if outputs is None else tuple(outputs)
        return dataclasses.replace(plan, outputs=kept, notes=(*self.notes, note))

    def changed(self, changes: Mapping[str, Any]) -> Plan:
        """The plan with what a resumed run may change: fields of TrainConfig by name, of which None changes nothing.

        UsageError for a field that is not `resumable`, and where the images of a step would not stay the same.
        """
        changes = {name: value for name, value in changes.items() if value is not None}
        for one in dataclasses.fields(self.config):
            if one.name in changes and not one.metadata.get("resumable"):
                flag = one.name.replace("_", "-")
                raise UsageError(f"--{flag} beside --resume: a run goes on as it was begun; leave --{flag} out")
        chosen = divided(self.recipe, batch_size=changes.get("batch_size"), replicas=changes.get("replicas"))
        if "epochs" in changes:
            if changes["epochs"] != chosen.epochs:
                chosen = chosen.changed("epochs", changes["epochs"], source="--epochs beside --resume")
            changes["time_budget_seconds"] = None
        return dataclasses.replace(self, recipe=chosen, config=dataclasses.replace(self.config, **changes))

    def to_json(self) -> dict[str, Any]:
        """Its part of config.json: every choice as it was made, and as `request` the configuration, for `from_json`,
        with paths that can be found from anywhere."""
        names = ("data", "out", "weights", "exclude", "teacher", "cache")
        paths = {name: getattr(self.config, name) for name in names}
        given = {name: path if path is None else str(path) for name, path in paths.items()}
        asked = dataclasses.asdict(self.config) | given | {"recipe": self.recipe.name}
        absolute = {
            name: str(Path(path).resolve())
            for name, path in given.items()
            if name != "out" and path is not None and Path(path).exists()
        }
        return {
            "command": self.config.command(),
            **({} if self.asked is None else {"asked": self.asked}),
            **asked,
            "home": str(Path(self.config.out).resolve()),
            "model": self.arch.name,
            "input_size": self.arch.input_size,
            "epochs": None if self.config.time_budget_seconds is not None else self.recipe.epochs,
            "batch_size": self.recipe.batch_size,
            "replicas": self.recipe.replicas,
            "recipe": self.recipe.to_json(),
            "arch": self.arch.to_json(),
            "preprocessing": self.preprocessing.to_json(),
            "request": asked | absolute,
        }

    @staticmethod
    def from_json(document: Mapping[str, Any], *, out: Path) -> Plan:
        """The plan of a run's config.json, the run now standing at `out`. ReinceptionError where it is none."""
        try:
            chosen = Recipe.from_json(document["recipe"])
            config = _REQUESTS.decode(document["request"] | {"out": str(out)}, TrainConfig, "request")
            config = dataclasses.replace(config, recipe=chosen, precision=document["precision"])
            config = dataclasses.replace(config, step=document.get("step", "plain"))
            arch, preprocessing = Arch.from_json(document["arch"]), Preprocessing.from_json(document["preprocessing"])
        except (KeyError, TypeError, ReinceptionError) as error:
            raise ReinceptionError(f"{out}: its config.json is not that of a run to resume ({error})") from None
        return Plan(
            config=config,
            recipe=chosen,
            arch=arch,
            preprocessing=preprocessing,
            learned=_learned(config),
            rate_ceiling=document.get("rate_ceiling"),
        )


_REQUESTS = Documents(has_defaults=True)  # a run that was begun before an option existed has its default


def make_plan(config: TrainConfig) -> Plan:
    """Resolves `config` without looking at the data. UsageError or ReinceptionError, one line, for what cannot be."""
    _check_numbers(config)
    chosen = _resolve_recipe(config)
    learned = _learned(config)
    base, preprocessing = _base(config, learned)
    arch, note = _with_aux(config, dataclasses.replace(base, dropout=chosen.dropout), chosen)
    if config.teacher is not None:
        _check_teacher(config, config.teacher, chosen)
    if (
        chosen.batch_size == 1
        and chosen.batch_norm == "train"
        and any(isinstance(s.layer, Conv) and s.layer.batch_norm for s in trace(arch))
    ):
        raise UsageError(
            f"batch size 1: {arch.name} normalises over the batch and needs at least 2 images in it; "
            "use --batch-size 2 or more"
        )
    preprocessing = dataclasses.replace(
        preprocessing, input_size=arch.input_size, resize=chosen.resize, crop_fraction=chosen.crop_fraction
    )
    asked = {name: getattr(config, name) for name in ("background", "deep_range")}
    asked = {name: value for name, value in asked.items() if value is not None}
    preprocessing = dataclasses.replace(preprocessing, **asked)
    if config.weights is None or config.scaling:  # weights that exist expect the numbers they were trained on
        preprocessing = dataclasses.replace(preprocessing, scaling=chosen.scaling)
    converted = () if learned is None or learned.found is None else learned.report.lines()
    return Plan(
        config=config,
        recipe=chosen,
        arch=arch,
        preprocessing=preprocessing,
        learned=learned,
        notes=(note, *converted),
    )


def _check_numbers(config: TrainConfig) -> None:
    if config.epochs is not None and config.time_budget_seconds is not None:
        raise UsageError("--epochs and --time-budget exclude each other: one of them says how long to train")
    if config.time_budget_seconds is not None and not 0 < config.time_budget_seconds < math.inf:
        raise UsageError(f"--time-budget must be a positive time, got {config.time_budget_seconds} s")
    if config.checkpoint_seconds <= 0 or (config.checkpoint_steps is not None and config.checkpoint_steps <= 0):
        raise UsageError("--checkpoint-time and --checkpoint-steps must be positive")
    if config.tensorboard:
        require_tensorboard()
    if config.workers < 0:
        raise UsageError(f"--workers must not be negative, got {config.workers}")
    for name in ("val_fraction", "test_fraction"):
        if not 0 <= getattr(config, name) < 1:
            raise UsageError(f"--{name.replace('_', '-')} must be at least 0 and below 1, got {getattr(config, name)}")
    if config.val_fraction + config.test_fraction >= 1:
        raise UsageError("--val-fraction and --test-fraction leave nothing to train on")
    kinds = {"aux": AuxMode, "freeze": Freeze, "precision": TrainingPrecision, "reduction": Reduction, "step": StepKind}
    for name, kind in kinds.items():
        if getattr(config, name) not in get_args(kind):
            raise UsageError(f"--{name} {getattr(config, name)!r}: choose one of {', '.join(get_args(kind))}")
    _check_frozen(config)
    if config.fold is not None and (config.folds is None or not 1 <= config.fold <= config.folds):
        raise UsageError(f"--fold {config.fold}: give --folds K too, and a fold from 1 to K")


def _check_frozen(config: TrainConfig) -> None:
    if config.recipe == AUTO and (config.time_budget_seconds is None or config.folds is not None):
        raise UsageError("--recipe auto chooses for one run of --time-budget: give that, and leave --folds out")
    if config.freeze == "trunk" and config.precision == "fp16":
        raise UsageError("--freeze trunk computes features in fp32 or bf16: leave --precision fp16 out")
    if config.views < 1:
        raise UsageError(f"--views must be at least 1, got {config.views}")
    if config.views > 1 and config.freeze != "trunk":
        raise UsageError("--views is for --freeze trunk: elsewhere every epoch has distortions of its own")
    if config.freeze == "trunk" and (config.teacher is not None or config.balance not in (None, "none")):
        name = "balance" if config.teacher is None else "teacher"
        raise UsageError(f"--freeze trunk solves for the classifier from the labels as they are: leave --{name} out")
    if config.freeze != "none" and config.weights is None:
        raise UsageError("--freeze keeps what --weights brings; without --weights nothing has been learned yet")


def _check_teacher(config: TrainConfig, teacher: str | Path, chosen: Recipe) -> None:
    if not 0 <= config.teacher_weight <= 1:
        raise UsageError(f"--teacher-weight must lie between 0 and 1, got {config.teacher_weight:g}")
    if config.temperature <= 0 or config.teacher_views < 1:
        raise UsageError("--temperature must be greater than 0 and --teacher-views at least 1")
    if chosen.mixing is not None:
        raise UsageError(f"--teacher answers for single images, and the recipe {chosen.name} mixes them: use another")
    load(teacher, with_aux=False).manifest.require_classifier()


def _resolve_recipe(config: TrainConfig) -> Recipe:
    begun = "from_scratch" if config.recipe == AUTO else config.recipe  # until it is chosen
    chosen = recipe.named(begun) if isinstance(begun, str) else begun
    for name in _OF_THE_RECIPE:
        if getattr(config, name) is not None:
            chosen = chosen.changed(name, getattr(config, name), source=f"--{name.replace('_', '-')}")
    if chosen.batch_norm == "auto":
        return _with_batch_norm(config, chosen)
    if config.weights is None and chosen.batch_norm != "train":
        raise UsageError(
            f"--batch-norm {chosen.batch_norm} keeps what --weights brings; without --weights it must learn"
        )
    return chosen


def _with_batch_norm(config: TrainConfig, chosen: Recipe) -> Recipe:
    """What `auto` means: statistics of few images are noise, those of random weights mean nothing."""
    if config.weights is None:
        return chosen.changed("batch_norm", "train", source="auto: random weights have no statistics to keep")
    mode = "train" if chosen.batch_size >= LEAST_STATISTICS else "eval_statistics"
    return chosen.changed("batch_norm", mode, source=f"auto: batches of {count(chosen.batch_size, 'image')}")


def _learned(config: TrainConfig) -> Conversion | None:
    """The network and manifest of a model file, a run, another library's Inception-v3 weights, or `torchvision:TAG`."""
    return None if config.weights is None else convert(str(config.weights))


def _base(config: TrainConfig, learned: Conversion | None) -> tuple[Arch, Preprocessing]:
    """The network to train, still with its own heads and classes, and the pixels it expects."""
    if learned is None:
        name = DEFAULT_MODEL if config.model is None else config.model
        arch = family.network(name, width=config.width, depth=config.depth, input_size=config.input_size)
        return arch, Preprocessing(input_size=arch.input_size)
    manifest = learned.manifest
    if config.model not in (None, manifest.arch.name):
        raise UsageError(f"--model {config.model}: but {config.weights} holds {manifest.arch.name}; leave --model out")
    for option in ("width", "depth"):
        if getattr(config, option) != 1.0:
            raise UsageError(f"--{option} has no meaning beside --weights: the file holds the network as it is")
    size = manifest.preprocessing.input_size if config.input_size is None else config.input_size
    arch = dataclasses.replace(manifest.arch, input_size=size)
    family.check_input_size(arch, with_aux=False)
    return arch, manifest.preprocessing


def _smallest(arch: Arch, chosen: Recipe) -> int:
    """Pixels of the side of the first training images, which are the smallest."""
    return training_side(chosen.growth, arch, 0.0)


def _with_aux(config: TrainConfig, arch: Arch, chosen: Recipe) -> tuple[Arch, str]:
    """`arch` with the auxiliary classifiers it is trained with, and a line that says which."""
    if not arch.aux and config.aux in ("strict", "adaptive"):
        raise UsageError(f"--aux {config.aux}: {arch.name} has no auxiliary classifier here")
    # What an auxiliary classifier would teach is frozen where it is attached.
    aux_is_frozen = any(head.at in frozen_stages(arch, config.freeze) for head in arch.aux)
    if not arch.aux or config.aux == "none" or chosen.auxiliary_weight == 0 or aux_is_frozen:
        return dataclasses.replace(arch, aux=()), "auxiliary classifier: none"
    weight = f"weight {chosen.auxiliary_weight:g}"
    if config.aux == "strict":
        family.check_input_size(dataclasses.replace(arch, input_size=_smallest(arch, chosen)), with_aux=True)
    least = minimum_input_size(arch, with_aux=True)
    if config.aux != "adaptive" and _smallest(arch, chosen) >= least:
        return arch, f"auxiliary classifier: as published, {weight}"
    heads = tuple(family.adaptive(head) for head in arch.aux)
    why = "asked for" if config.aux == "adaptive" else f"the published one needs an input of {least}"
    return dataclasses.replace(arch, aux=heads), f"auxiliary classifier: adaptive to the grid ({why}), {weight}"
