"""Recipe: how to train, as one frozen value with rows to print and JSON to store."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

from reinception.documents import Documents
from reinception.preprocess import ResizeRule, Scaling
from reinception.recipe.distortions import distortions
from reinception.recipe.parts import (
    SGD,
    AdamW,
    Averaging,
    Cosine,
    Exponential,
    Growth,
    Mixing,
    OneCycle,
    Optimizer,
    RecipeError,
    RMSPropTF,
    Schedule,
    check_numbers,
    require,
)

Augmentation = str
"""A name of distortions.SETS, or names of distortions.PARTS joined by plus signs."""
BatchNormMode = Literal["auto", "train", "eval_statistics", "frozen"]
Balance = Literal["none", "class_weights", "sampling", "logit_adjustment"]
SmoothingPrior = Literal["uniform", "class_frequencies"]

# What recipes did before these values existed: the JSON of older runs and models does not name them.
_BEFORE: Mapping[str, Any] = {
    "layer_decay": 1.0,
    "unfreeze_fraction": 0.0,
    "batch_norm": "train",
    "growth": None,
    "balance": "none",
    "smoothing_prior": "uniform",
    "patience": None,
}


_CHOICES: Mapping[str, Any] = {
    "resize": ResizeRule,
    "scaling": Scaling,
    "batch_norm": BatchNormMode,
    "balance": Balance,
    "smoothing_prior": SmoothingPrior,
}


class RecipeRow(NamedTuple):
    """One line of a recipe: the value's path, the value, its meaning and its source."""

    path: str
    value: float | bool | str | None
    meaning: str
    source: str


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything training needs to know besides the network, the images and the machine.

    `sources` gives for each path (`schedule.base_rate`) the source of its value.
    """

    name: str
    """what `train --recipe` calls it"""
    about: str
    """what it is for, in one line"""
    epochs: Annotated[int, "passes over the training images"]
    batch_size: Annotated[int, "images per replica and step, which share batch-norm statistics"]
    replicas: Annotated[int, "batches whose gradients are averaged in one step"]
    optimizer: Optimizer
    """how a gradient becomes a step: `type` names the kind, and its numbers stand beside"""
    schedule: Schedule
    """the learning rate over the steps, in the same form"""
    clip_norm: Annotated[float | None, "largest global norm of the gradient; longer ones are scaled to it"]
    layer_decay: Annotated[float, "learning rate of each stage of the trunk over that of what is above it"]
    unfreeze_fraction: Annotated[
        float, "fraction of the run in which the trunk's stages begin to learn, from the last to the first; 0: at once"
    ]
    patience: Annotated[int | None, "validations without a better one after which the schedule is brought to its end"]
    label_smoothing: Annotated[float, "epsilon of q' = (1 - epsilon) q + epsilon u"]
    smoothing_prior: Annotated[SmoothingPrior, "u: the same for every class, or the classes' part of the images"]
    balance: Annotated[Balance, "what is done where classes have unequal numbers of images"]
    auxiliary_weight: Annotated[float, "weight of each auxiliary classifier's loss"]
    dropout: Annotated[float, "fraction of the features dropped before the classifier"]
    parameter_average: Averaging
    """the running average of the parameters that is evaluated and kept"""
    batch_norm_decay: Annotated[float, "fraction of the running batch-norm statistics kept at each batch"]
    batch_norm: Annotated[
        BatchNormMode, "the trunk's: normalises with the batch, with what it came with, or is frozen altogether"
    ]
    growth: Annotated[Growth | None, "how the side of the training images grows to the input size"]
    augmentation: Annotated[Augmentation, "how training images are distorted; names may be joined by +"]
    mixing: Annotated[Mixing | None, "how the images of a batch are mixed with each other, and their labels"]
    resize: Annotated[ResizeRule, "how an image becomes a square at evaluation"]
    crop_fraction: Annotated[float, "fraction of each side that evaluation keeps, where its resize rule crops"]
    scaling: Annotated[Scaling, "values to numbers: by a fixed mean and deviation, or by each image's own"]
    sources: Mapping[str, str] = field(default_factory=dict, hash=False, repr=False)

    def __post_init__(self) -> None:
        check_numbers(self)
        distortions(self.augmentation)
        for name, kind in _CHOICES.items():
            require(getattr(self, name) in get_args(kind), f"unknown {name} {getattr(self, name)!r}")
        unknown = set(self.sources) - {path for path, _, _ in _leaves(self)}
        require(not unknown, f"sources for values that do not exist: {sorted(unknown)}")

    def rows(self) -> Iterator[RecipeRow]:
        """Every value with its meaning and source, in the order of the fields."""
        for path, value, meaning in _leaves(self):
            yield RecipeRow(path, value, meaning, self.sources.get(path, ""))

    def changed(self, path: str, value: float | bool | str | None, *, source: str) -> Recipe:
        """This recipe with one value replaced; `path` is one of `rows`, `source` is who asked for it."""
        require(path in {leaf for leaf, _, _ in _leaves(self)}, f"a recipe has no value {path!r}")
        outer, _, inner = path.partition(".")
        new: Any = value if not inner else dataclasses.replace(getattr(self, outer), **{inner: value})
        changes: dict[str, Any] = {outer: new, "sources": {**self.sources, path: source}}
        return dataclasses.replace(self, **changes)

    def to_json(self) -> dict[str, Any]:
        """Every field as plain JSON values; parts carry their kind as `type`."""
        return _DOCUMENTS.encode(self)

    @staticmethod
    def from_json(document: Mapping[str, Any]) -> Recipe:
        """The recipe of `to_json`. Raises RecipeError that names the first field that does not fit."""
        complete = {**_BEFORE, **document} if isinstance(document, Mapping) else document
        return _DOCUMENTS.decode(complete, Recipe, "recipe")


_DOCUMENTS = Documents(
    kinds={
        "rmsprop_tf": RMSPropTF,
        "sgd": SGD,
        "adamw": AdamW,
        "exponential": Exponential,
        "one_cycle": OneCycle,
        "cosine": Cosine,
        "averaging": Averaging,
        "mixing": Mixing,
        "growth": Growth,
    },
    error=RecipeError,
)


def _leaves(recipe: Recipe) -> Iterator[tuple[str, Any, str]]:
    """(path, value, meaning) of every field that means something, parts opened; a part's kind is its own row."""
    for outer, annotation in get_type_hints(Recipe, include_extras=True).items():
        value = getattr(recipe, outer)
        if dataclasses.is_dataclass(value):
            for inner, part_annotation in get_type_hints(type(value), include_extras=True).items():
                yield f"{outer}.{inner}", getattr(value, inner), part_annotation.__metadata__[0]
        elif get_origin(annotation) is Annotated:
            yield outer, value, annotation.__metadata__[0]
