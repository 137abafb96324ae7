"""A recipe as one frozen value: its rows for people, its JSON for files."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

from reinception.recipe.parts import (
    SGD,
    AdamW,
    Averaging,
    Cosine,
    Exponential,
    Mixing,
    OneCycle,
    Optimizer,
    RMSPropTF,
    Schedule,
    check_share,
    require,
)

Augmentation = Literal["inception", "crop", "gentle", "none"]
Resize = Literal["central_crop", "shorter_side", "whole"]
Scaling = Literal["fixed", "per_image"]


class Row(NamedTuple):
    """One line of a recipe: where the value stands, the value, what it means, and where it comes from."""

    path: str
    value: float | bool | str | None
    meaning: str
    source: str


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything training needs to know besides the network, the images and the machine.

    `sources` says for each path (`schedule.base_rate`) where its value comes from.
    """

    name: str
    about: str
    epochs: Annotated[int, "passes over the training images"]
    batch_size: Annotated[int, "images per replica and step, which share batch-norm statistics"]
    replicas: Annotated[int, "batches whose gradients are averaged in one step"]
    optimizer: Optimizer
    schedule: Schedule
    clip_norm: Annotated[float | None, "largest global norm of the gradient; longer ones are scaled to it"]
    label_smoothing: Annotated[float, "epsilon of q' = (1 - epsilon) q + epsilon u"]
    auxiliary_weight: Annotated[float, "weight of each auxiliary classifier's loss"]
    dropout: Annotated[float, "share of the features dropped before the classifier"]
    parameter_average: Averaging
    batch_norm_decay: Annotated[float, "share of the running batch-norm statistics kept at each batch"]
    augmentation: Annotated[Augmentation, "how training images are distorted"]
    mixing: Annotated[Mixing | None, "how the pictures of a batch are mixed with each other, and their labels"]
    resize: Annotated[Resize, "how an image becomes a square at evaluation"]
    crop_fraction: Annotated[float, "share of each side that evaluation keeps, where its resize rule crops"]
    scaling: Annotated[Scaling, "values to numbers: by a fixed mean and deviation, or by each image's own"]
    sources: Mapping[str, str] = field(default_factory=dict, hash=False, repr=False)

    def __post_init__(self) -> None:
        require(self.epochs > 0, f"epochs must be positive, got {self.epochs}")
        require(self.batch_size > 0, f"batch_size must be positive, got {self.batch_size}")
        require(self.replicas > 0, f"replicas must be positive, got {self.replicas}")
        require(self.clip_norm is None or self.clip_norm > 0, f"clip_norm must be positive, got {self.clip_norm}")
        require(self.auxiliary_weight >= 0, f"auxiliary_weight must not be negative, got {self.auxiliary_weight}")
        check_share("label_smoothing", self.label_smoothing)
        check_share("dropout", self.dropout)
        check_share("batch_norm_decay", self.batch_norm_decay)
        require(self.augmentation in get_args(Augmentation), f"unknown augmentation {self.augmentation!r}")
        require(self.resize in get_args(Resize), f"unknown resize rule {self.resize!r}")
        require(self.scaling in get_args(Scaling), f"unknown scaling {self.scaling!r}")
        require(0 < self.crop_fraction <= 1, f"crop_fraction must be above 0 and at most 1, got {self.crop_fraction}")
        unknown = set(self.sources) - {path for path, _, _ in _leaves(self)}
        require(not unknown, f"sources for values that do not exist: {sorted(unknown)}")

    def rows(self) -> Iterator[Row]:
        """Every value with its meaning and source, in the order of the fields."""
        for path, value, meaning in _leaves(self):
            yield Row(path, value, meaning, self.sources.get(path, ""))

    def changed(self, path: str, value: float | bool | str | None, *, source: str) -> Recipe:
        """This recipe with one value replaced; `path` is one of `rows`, `source` says who asked for it."""
        require(path in {leaf for leaf, _, _ in _leaves(self)}, f"a recipe has no value {path!r}")
        outer, _, inner = path.partition(".")
        new: Any = value if not inner else dataclasses.replace(getattr(self, outer), **{inner: value})
        changes: dict[str, Any] = {outer: new, "sources": {**self.sources, path: source}}
        return dataclasses.replace(self, **changes)

    def to_json(self) -> dict[str, Any]:
        """Every field as plain JSON values; parts carry their kind as `type`."""
        document = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        document["sources"] = dict(self.sources)
        for name, value in document.items():
            if type(value) in _KIND_OF:
                document[name] = {"type": _KIND_OF[type(value)], **dataclasses.asdict(value)}
        return document

    @staticmethod
    def from_json(document: Mapping[str, Any]) -> Recipe:
        """The recipe of `to_json`. RecipeError names the first field that does not fit."""
        recipe = _decode(document, Recipe, "recipe")
        assert isinstance(recipe, Recipe)
        return recipe


_KINDS: dict[str, type[Any]] = {
    "rmsprop_tf": RMSPropTF,
    "sgd": SGD,
    "adamw": AdamW,
    "exponential": Exponential,
    "one_cycle": OneCycle,
    "cosine": Cosine,
    "averaging": Averaging,
    "mixing": Mixing,
}
_KIND_OF = {kind: name for name, kind in _KINDS.items()}


def _leaves(recipe: Recipe) -> Iterator[tuple[str, Any, str]]:
    """(path, value, meaning) of every field that means something, parts opened; a part's kind is its own row."""
    for outer, annotation in get_type_hints(Recipe, include_extras=True).items():
        value = getattr(recipe, outer)
        if type(value) in _KIND_OF:
            for inner, part_annotation in get_type_hints(type(value), include_extras=True).items():
                yield f"{outer}.{inner}", getattr(value, inner), part_annotation.__metadata__[0]
        elif get_origin(annotation) is Annotated:
            yield outer, value, annotation.__metadata__[0]


def _decode(document: Any, expected: Any, where: str) -> Any:
    """`document` read as a value of the annotation `expected`: files come from anyone, so nothing is taken on trust."""
    options = get_args(expected) if get_origin(expected) is types.UnionType else (expected,)
    if get_origin(expected) is Literal:
        require(document in get_args(expected), f"{where}: {document!r} is none of {list(get_args(expected))}")
        return document
    if get_origin(expected) is Mapping:
        fits = isinstance(document, Mapping) and all(type(item) is str for pair in document.items() for item in pair)
        require(fits, f"{where}: expected texts by path, found {document!r}")
        return dict(document)
    if document is None and type(None) in options:
        return None
    if any(dataclasses.is_dataclass(option) for option in options):
        return _decode_part(document, options, where)
    if float in options and type(document) in (int, float):
        return float(document)
    require(type(document) in options, f"{where}: expected {expected.__name__}, found {document!r}")
    return document


def _decode_part(document: Any, options: tuple[Any, ...], where: str) -> Any:
    require(isinstance(document, Mapping), f"{where}: expected an object, found {document!r}")
    fields_given = dict(document)
    kind = Recipe if options == (Recipe,) else _KINDS.get(str(fields_given.pop("type", None)))
    require(kind in options, f"{where}: unknown type {document.get('type')!r}")
    assert kind is not None
    hints = get_type_hints(kind)
    require(set(fields_given) == set(hints), f"{where}: fields {sorted(set(fields_given) ^ set(hints))} missing or new")
    return kind(**{name: _decode(value, hints[name], f"{where}.{name}") for name, value in fields_given.items()})
