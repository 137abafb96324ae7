"""How to train, as frozen values: optimizer, rate schedule, regularisation and averaging, every number with its source.

A recipe decides nothing about the network or the data. `paper_2015` is one named value among several: what section 8 of
the paper says, and, where the paper is silent, what its authors' published TensorFlow trainer does.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

from reinception.errors import UsageError

Augmentation = Literal["inception", "gentle", "none"]
Resize = Literal["central_crop", "shorter_side", "whole"]
Scaling = Literal["fixed", "per_image"]


class RecipeError(UsageError):
    """A recipe that cannot be followed: an unknown name, a number out of range, or JSON that does not fit."""


@dataclass(frozen=True, kw_only=True)
class RMSPropTF:
    """TensorFlow's RMSProp: accumulator from one, epsilon inside the root, rate inside the momentum buffer."""

    decay: Annotated[float, "share of the mean square kept at each step"]
    momentum: Annotated[float, "share of the last update repeated"]
    epsilon: Annotated[float, "added to the mean square, inside the root"]
    weight_decay: Annotated[float, "L2 on convolution and classifier weights, added to their gradient"]

    def __post_init__(self) -> None:
        _check_share("decay", self.decay)
        _check_share("momentum", self.momentum)
        _require(self.epsilon > 0, f"epsilon must be positive, got {self.epsilon}")
        _require(self.weight_decay >= 0, f"weight_decay must not be negative, got {self.weight_decay}")


@dataclass(frozen=True, kw_only=True)
class SGD:
    """Stochastic gradient descent with momentum: the paper's earlier experiments."""

    momentum: Annotated[float, "share of the last update repeated"]
    weight_decay: Annotated[float, "L2 on convolution and classifier weights, added to their gradient"]

    def __post_init__(self) -> None:
        _check_share("momentum", self.momentum)
        _require(self.weight_decay >= 0, f"weight_decay must not be negative, got {self.weight_decay}")


@dataclass(frozen=True, kw_only=True)
class AdamW:
    """Adam with decoupled weight decay."""

    beta1: Annotated[float, "share of the mean gradient kept at each step"]
    beta2: Annotated[float, "share of the mean square kept at each step"]
    epsilon: Annotated[float, "added to the root of the mean square"]
    weight_decay: Annotated[float, "share of rate x weight taken off convolution and classifier weights"]

    def __post_init__(self) -> None:
        _check_share("beta1", self.beta1)
        _check_share("beta2", self.beta2)
        _require(self.epsilon > 0, f"epsilon must be positive, got {self.epsilon}")
        _require(self.weight_decay >= 0, f"weight_decay must not be negative, got {self.weight_decay}")


@dataclass(frozen=True, kw_only=True)
class Exponential:
    """`base_rate` times `factor` for every `every_epochs` epochs done; with `staircase` only at whole multiples."""

    base_rate: Annotated[float, "learning rate after warm-up"]
    factor: Annotated[float, "what the rate is multiplied by"]
    every_epochs: Annotated[float, "how often, in epochs"]
    staircase: Annotated[bool, "in steps (true) or smoothly (false)"]
    warm_up_fraction: Annotated[float, "share of the run in which the rate rises to base_rate, linearly from zero"]

    def __post_init__(self) -> None:
        _check_schedule(self.base_rate, self.warm_up_fraction)
        _require(0 < self.factor <= 1, f"factor must be above 0 and at most 1, got {self.factor}")
        _require(self.every_epochs > 0, f"every_epochs must be positive, got {self.every_epochs}")


@dataclass(frozen=True, kw_only=True)
class OneCycle:
    """Up along half a cosine to `base_rate`, then down along another half."""

    base_rate: Annotated[float, "highest learning rate"]
    start_fraction: Annotated[float, "first rate, as a share of base_rate"]
    final_fraction: Annotated[float, "last rate, as a share of base_rate"]
    warm_up_fraction: Annotated[float, "share of the run in which the rate rises"]

    def __post_init__(self) -> None:
        _check_schedule(self.base_rate, self.warm_up_fraction)
        _check_share("start_fraction", self.start_fraction)
        _check_share("final_fraction", self.final_fraction)


@dataclass(frozen=True, kw_only=True)
class Cosine:
    """Linear warm-up to `base_rate`, then down along half a cosine."""

    base_rate: Annotated[float, "learning rate after warm-up"]
    final_fraction: Annotated[float, "last rate, as a share of base_rate"]
    warm_up_fraction: Annotated[float, "share of the run in which the rate rises, linearly from zero"]

    def __post_init__(self) -> None:
        _check_schedule(self.base_rate, self.warm_up_fraction)
        _check_share("final_fraction", self.final_fraction)


@dataclass(frozen=True, kw_only=True)
class Averaging:
    """The running average of parameters and batch-norm statistics that is evaluated and kept."""

    decay: Annotated[float, "share of the average kept at each step"]
    warm_up: Annotated[bool, "use min(decay, (1 + n) / (10 + n)) at step n, so that early steps are forgotten"]

    def __post_init__(self) -> None:
        _check_share("decay", self.decay)


Optimizer = RMSPropTF | SGD | AdamW
Schedule = Exponential | OneCycle | Cosine


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
    resize: Annotated[Resize, "how an image becomes a square at evaluation"]
    crop_fraction: Annotated[float, "share of each side that evaluation keeps, where its resize rule crops"]
    scaling: Annotated[Scaling, "values to numbers: by a fixed mean and deviation, or by each image's own"]
    sources: Mapping[str, str] = field(default_factory=dict, hash=False, repr=False)

    def __post_init__(self) -> None:
        _require(self.epochs > 0, f"epochs must be positive, got {self.epochs}")
        _require(self.batch_size > 0, f"batch_size must be positive, got {self.batch_size}")
        _require(self.replicas > 0, f"replicas must be positive, got {self.replicas}")
        _require(self.clip_norm is None or self.clip_norm > 0, f"clip_norm must be positive, got {self.clip_norm}")
        _require(self.auxiliary_weight >= 0, f"auxiliary_weight must not be negative, got {self.auxiliary_weight}")
        _check_share("label_smoothing", self.label_smoothing)
        _check_share("dropout", self.dropout)
        _check_share("batch_norm_decay", self.batch_norm_decay)
        _require(self.augmentation in get_args(Augmentation), f"unknown augmentation {self.augmentation!r}")
        _require(self.resize in get_args(Resize), f"unknown resize rule {self.resize!r}")
        _require(self.scaling in get_args(Scaling), f"unknown scaling {self.scaling!r}")
        _require(0 < self.crop_fraction <= 1, f"crop_fraction must be above 0 and at most 1, got {self.crop_fraction}")
        unknown = set(self.sources) - {path for path, _, _ in _leaves(self)}
        _require(not unknown, f"sources for values that do not exist: {sorted(unknown)}")

    def rows(self) -> Iterator[Row]:
        """Every value with its meaning and source, in the order of the fields."""
        for path, value, meaning in _leaves(self):
            yield Row(path, value, meaning, self.sources.get(path, ""))

    def changed(self, path: str, value: float | bool | str | None, *, source: str) -> Recipe:
        """This recipe with one value replaced; `path` is one of `rows`, `source` says who asked for it."""
        _require(path in {leaf for leaf, _, _ in _leaves(self)}, f"a recipe has no value {path!r}")
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
        _require(document in get_args(expected), f"{where}: {document!r} is none of {list(get_args(expected))}")
        return document
    if get_origin(expected) is Mapping:
        fits = isinstance(document, Mapping) and all(type(item) is str for pair in document.items() for item in pair)
        _require(fits, f"{where}: expected texts by path, found {document!r}")
        return dict(document)
    if any(dataclasses.is_dataclass(option) for option in options):
        return _decode_part(document, options, where)
    if document is None and type(None) in options:
        return None
    if float in options and type(document) in (int, float):
        return float(document)
    _require(type(document) in options, f"{where}: expected {expected.__name__}, found {document!r}")
    return document


def _decode_part(document: Any, options: tuple[Any, ...], where: str) -> Any:
    _require(isinstance(document, Mapping), f"{where}: expected an object, found {document!r}")
    fields_given = dict(document)
    kind = Recipe if options == (Recipe,) else _KINDS.get(str(fields_given.pop("type", None)))
    _require(kind in options, f"{where}: unknown type {document.get('type')!r}")
    assert kind is not None
    hints = get_type_hints(kind)
    _require(
        set(fields_given) == set(hints), f"{where}: fields {sorted(set(fields_given) ^ set(hints))} missing or new"
    )
    return kind(**{name: _decode(value, hints[name], f"{where}.{name}") for name, value in fields_given.items()})


def _require(condition: object, message: str) -> None:
    if not condition:
        raise RecipeError(message)


def _check_share(name: str, value: float) -> None:
    _require(0 <= value < 1, f"{name} must be at least 0 and below 1, got {value}")


def _check_schedule(base_rate: float, warm_up_fraction: float) -> None:
    _require(base_rate > 0, f"base_rate must be positive, got {base_rate}")
    _check_share("warm_up_fraction", warm_up_fraction)


# -- the recipes -------------------------------------------------------------------------------------------------------

_PAPER = "paper, section 8"
_TF_TRAIN = "TF inception_distributed_train.py"
_TF_MODEL = "TF inception_model.py"
_TF_IMAGES = "TF image_processing.py"

PAPER_2015 = Recipe(
    name="paper_2015",
    about=(
        "Section 8 of arXiv 1512.00567, 50 replicas of 32 images for 100 epochs of ImageNet (about 80,000 steps); "
        "what the paper leaves out is taken from its authors' TensorFlow trainer. Reported: 21.2 % top-1 error."
    ),
    epochs=100,
    batch_size=32,
    replicas=50,
    optimizer=RMSPropTF(decay=0.9, momentum=0.9, epsilon=1.0, weight_decay=4e-5),
    schedule=Exponential(base_rate=0.045, factor=0.94, every_epochs=2, staircase=True, warm_up_fraction=0.0),
    clip_norm=2.0,
    label_smoothing=0.1,
    auxiliary_weight=0.4,
    dropout=0.2,
    parameter_average=Averaging(decay=0.9999, warm_up=True),
    batch_norm_decay=0.9997,
    augmentation="inception",
    resize="central_crop",
    crop_fraction=0.875,
    scaling="fixed",
    sources={
        "epochs": _PAPER,
        "batch_size": _PAPER,
        "replicas": _PAPER,
        "optimizer.decay": _PAPER,
        "optimizer.momentum": f"{_TF_TRAIN} (the paper gives 0.9 for its earlier experiments with plain momentum)",
        "optimizer.epsilon": _PAPER,
        "optimizer.weight_decay": f"{_TF_MODEL} (not in the paper)",
        "schedule.base_rate": _PAPER,
        "schedule.factor": _PAPER,
        "schedule.every_epochs": _PAPER,
        "schedule.staircase": f"{_TF_TRAIN} (the paper says 'every two epochs')",
        "schedule.warm_up_fraction": "paper, section 8: none mentioned",
        "clip_norm": f"{_PAPER}; by global norm, as in the work it cites (Pascanu et al.); absent from the TF trainer",
        "label_smoothing": "paper, section 7",
        "auxiliary_weight": f"{_TF_MODEL} (not in the paper)",
        "dropout": f"{_TF_MODEL}: keep 0.8 (not in the paper)",
        "parameter_average.decay": f"{_TF_TRAIN} (the paper says 'a running average')",
        "parameter_average.warm_up": f"{_TF_TRAIN}: num_updates given",
        "batch_norm_decay": f"{_TF_MODEL} (not in the paper)",
        "augmentation": _TF_IMAGES,
        "resize": _TF_IMAGES,
        "crop_fraction": _TF_IMAGES,
        "scaling": f"{_TF_IMAGES}: (x - 0.5) * 2",
    },
)

FROM_SCRATCH = Recipe(
    name="from_scratch",
    about=(
        "For a few thousand images and no pretrained weights: as many small steps as the time allows, a high rate that "
        "comes all the way down, strong regularisation, averages with a short horizon."
    ),
    epochs=40,
    batch_size=32,
    replicas=1,
    optimizer=AdamW(beta1=0.9, beta2=0.99, epsilon=1e-8, weight_decay=0.05),
    schedule=OneCycle(base_rate=3e-3, start_fraction=0.04, final_fraction=0.001, warm_up_fraction=0.3),
    clip_norm=5.0,
    label_smoothing=0.1,
    auxiliary_weight=0.3,
    dropout=0.2,
    parameter_average=Averaging(decay=0.99, warm_up=True),
    batch_norm_decay=0.9,
    augmentation="gentle",
    resize="whole",
    crop_fraction=1.0,
    scaling="per_image",
    sources={
        "epochs": "our choice: about where a few thousand images stop gaining; a time budget replaces it",
        "batch_size": _PAPER,
        "replicas": "our choice: small data wants many steps, not large ones",
        "optimizer.beta1": "Adam paper (arXiv 1412.6980), its default",
        "optimizer.beta2": "our choice: a memory of 100 steps, as runs have a few thousand",
        "optimizer.epsilon": "Adam paper (arXiv 1412.6980), its default",
        "optimizer.weight_decay": "our choice: strong, because the images are few",
        "schedule.base_rate": "our choice: about the same from 2e-3 to 4e-3 where it was tried (docs/results.md)",
        "schedule.start_fraction": "torch OneCycleLR, its default (div_factor 25)",
        "schedule.final_fraction": "our choice: the last steps should hardly move",
        "schedule.warm_up_fraction": "torch OneCycleLR, its default",
        "clip_norm": "our choice: only the first steps are longer",
        "label_smoothing": "paper, section 7",
        "auxiliary_weight": "GoogLeNet paper (arXiv 1409.4842), section 5",
        "dropout": f"{_TF_MODEL}: keep 0.8",
        "parameter_average.decay": "our choice: a horizon of 100 steps, as runs have a few thousand",
        "parameter_average.warm_up": f"{_TF_TRAIN}: num_updates given",
        "batch_norm_decay": "our choice: torch's default; TF's 0.9997 needs ten thousand steps to settle",
        "augmentation": "our choice: inspection and medical images have no scene to crop",
        "resize": "our choice: a defect may sit at the border",
        "crop_fraction": "our choice: nothing is cropped",
        "scaling": "our choice, measured (docs/results.md): exposure differs between cameras and says nothing",
    },
)

_TORCHVISION = "torchvision's recipe of 2021 (pytorch.org/blog, 'How to train state-of-the-art models')"
_GOYAL = "Goyal et al. (arXiv 1706.02677)"

MODERN = Recipe(
    name="modern",
    about=(
        "What ten years added to ImageNet training and this library has: momentum with a warmed-up cosine, three times "
        "the epochs, a smaller global batch, an average with a long horizon. Mixup and cutmix, which the same sources "
        "use, are not in it. Not run on ImageNet here, so no accuracy is claimed."
    ),
    epochs=300,
    batch_size=32,
    replicas=32,
    optimizer=SGD(momentum=0.9, weight_decay=2e-5),
    schedule=Cosine(base_rate=0.5, final_fraction=0.0, warm_up_fraction=5 / 300),
    clip_norm=None,
    label_smoothing=0.1,
    auxiliary_weight=0.4,
    dropout=0.2,
    parameter_average=Averaging(decay=0.9998, warm_up=True),
    batch_norm_decay=0.99,
    augmentation="inception",
    resize="shorter_side",
    crop_fraction=0.875,
    scaling="fixed",
    sources={
        "epochs": "'ResNet strikes back' (arXiv 2110.00476), its A2",
        "batch_size": "paper, section 8: batch statistics over 32 images",
        "replicas": f"{_TORCHVISION}: 1,024 images per step",
        "optimizer.momentum": _GOYAL,
        "optimizer.weight_decay": f"{_TORCHVISION}: 2e-5, none on batch norm",
        "schedule.base_rate": f"{_TORCHVISION}: 0.5 for 1,024 images",
        "schedule.final_fraction": f"{_TORCHVISION}: cosine to zero",
        "schedule.warm_up_fraction": f"{_GOYAL}, section 2.2: five epochs",
        "clip_norm": f"{_TORCHVISION}: none",
        "label_smoothing": "paper, section 7",
        "auxiliary_weight": f"{_TF_MODEL} (not in the paper)",
        "dropout": f"{_TF_MODEL}: keep 0.8 (not in the paper)",
        "parameter_average.decay": "our choice: a horizon of 5,000 steps, four epochs",
        "parameter_average.warm_up": f"{_TF_TRAIN}: num_updates given",
        "batch_norm_decay": "our choice: a horizon of 100 batches, three steps of 32 replicas",
        "augmentation": _TF_IMAGES,
        "resize": f"{_TORCHVISION}: shorter side, then the centre",
        "crop_fraction": _TF_IMAGES,
        "scaling": f"{_TF_IMAGES}: (x - 0.5) * 2",
    },
)

_KORNBLITH = "Kornblith et al. (arXiv 1805.08974), appendix A"

FINE_TUNE = Recipe(
    name="fine_tune",
    about=(
        "For --weights: few epochs at a rate that mends the learned features instead of replacing them. The flowers of "
        "TensorFlow's trainer reach 93.4 % after 2,000 such steps of 32 at 0.001."
    ),
    epochs=20,
    batch_size=32,
    replicas=1,
    optimizer=SGD(momentum=0.9, weight_decay=4e-5),
    schedule=Cosine(base_rate=0.01, final_fraction=0.0, warm_up_fraction=0.05),
    clip_norm=2.0,
    label_smoothing=0.1,
    auxiliary_weight=0.4,
    dropout=0.2,
    parameter_average=Averaging(decay=0.99, warm_up=True),
    batch_norm_decay=0.99,
    augmentation="gentle",
    resize="central_crop",
    crop_fraction=0.875,
    scaling="fixed",
    sources={
        "epochs": "our choice: a few thousand images and 32 per step make about the 2,000 steps of TF's flowers",
        "batch_size": _PAPER,
        "replicas": "our choice: small data wants many steps, not large ones",
        "optimizer.momentum": f"{_KORNBLITH}: Nesterov there, plain here",
        "optimizer.weight_decay": f"{_TF_MODEL}: as in the training the weights come from",
        "schedule.base_rate": f"{_KORNBLITH}: within the rates it searches, 0.0001 to 0.1",
        "schedule.final_fraction": f"{_KORNBLITH}: cosine to zero",
        "schedule.warm_up_fraction": "our choice: the new classifier settles before the trunk moves",
        "clip_norm": _PAPER,
        "label_smoothing": "paper, section 7",
        "auxiliary_weight": f"{_TF_MODEL} (not in the paper)",
        "dropout": f"{_TF_MODEL}: keep 0.8 (not in the paper)",
        "parameter_average.decay": "our choice: a horizon of 100 steps, as runs have a thousand",
        "parameter_average.warm_up": f"{_TF_TRAIN}: num_updates given",
        "batch_norm_decay": f"{_KORNBLITH}: max(1 - 10 / steps per epoch, 0.9), which is 0.9 to 0.99 for few images",
        "augmentation": "our choice: inspection and medical images have no scene to crop",
        "resize": _TF_IMAGES,
        "crop_fraction": _TF_IMAGES,
        "scaling": "the weights': a model file says what numbers it expects",
    },
)

RECIPES: Mapping[str, Recipe] = types.MappingProxyType(
    {recipe.name: recipe for recipe in (PAPER_2015, FROM_SCRATCH, FINE_TUNE, MODERN)}
)


def named(name: str) -> Recipe:
    """The recipe called `name`; RecipeError lists the names there are."""
    _require(name in RECIPES, f"unknown recipe {name!r}: choose one of {', '.join(RECIPES)}")
    return RECIPES[name]
