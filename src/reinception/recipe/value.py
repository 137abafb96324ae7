"""Recipe: how to train, as one frozen value with rows to print and JSON to store."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

from reinception.documents import Documents
from reinception.preprocess import ResizeRule, Scaling
from reinception.recipe.parts import (
    SGD,
    AdamW,
    Averaging,
    Cosine,
    Exponential,
    Mixing,
    OneCycle,
    Optimizer,
    RecipeError,
    RMSPropTF,
    Schedule,
    check_numbers,
    require,
)

Augmentation = Literal["inception", "crop", "gentle", "none"]


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
    label_smoothing: Annotated[float, "epsilon of q' = (1 - epsilon) q + epsilon u"]
    auxiliary_weight: Annotated[float, "weight of each auxiliary classifier's loss"]
    dropout: Annotated[float, "fraction of the features dropped before the classifier"]
    parameter_average: Averaging
    """the running average of the parameters that is evaluated and kept"""
    batch_norm_decay: Annotated[float, "fraction of the running batch-norm statistics kept at each batch"]
    augmentation: Annotated[Augmentation, "how training images are distorted"]
    mixing: Annotated[Mixing | None, "how the images of a batch are mixed with each other, and their labels"]
    resize: Annotated[ResizeRule, "how an image becomes a square at evaluation"]
    crop_fraction: Annotated[float, "fraction of each side that evaluation keeps, where its resize rule crops"]
    scaling: Annotated[Scaling, "values to numbers: by a fixed mean and deviation, or by each image's own"]
    sources: Mapping[str, str] = field(default_factory=dict, hash=False, repr=False)

    def __post_init__(self) -> None:
        check_numbers(self)
        require(self.augmentation in get_args(Augmentation), f"unknown augmentation {self.augmentation!r}")
        require(self.resize in get_args(ResizeRule), f"unknown resize rule {self.resize!r}")
        require(self.scaling in get_args(Scaling), f"unknown scaling {self.scaling!r}")
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
        return _DOCUMENTS.decode(document, Recipe, "recipe")


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
