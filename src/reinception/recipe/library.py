"""The named recipes, every number with its source; a number without one is called our choice."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from typing import Any

from reinception.recipe.parts import (
    SGD,
    AdamW,
    Averaging,
    Cosine,
    Exponential,
    Growth,
    Mixing,
    OneCycle,
    RMSPropTF,
    require,
)
from reinception.recipe.value import Recipe

_PAPER = "paper, section 8"
_TF_TRAIN = "TF inception_distributed_train.py"
_TF_MODEL = "TF inception_model.py"
_TF_IMAGES = "TF image_processing.py"
_PLAIN: Mapping[str, tuple[Any, str]] = {
    "layer_decay": (1.0, "one learning rate for every layer"),
    "unfreeze_fraction": (0.0, "every layer learns from the first step"),
    "patience": (None, "no early stopping: the schedule has its length"),
    "smoothing_prior": ("uniform", "paper, section 7"),
    "balance": ("none", "our choice: what is to be done about rare classes depends on what an error costs"),
    "batch_norm": ("train", "the paper's networks learn with the statistics of the batch"),
    "growth": (None, "every step sees the input size"),
}


def _recipe(name: str, about: str, values: Mapping[str, tuple[Any, str]], **kinds: type) -> Recipe:
    """The recipe of these values, each with its source, by path; `kinds` are the classes of its parts."""
    parted = {path.partition(".")[0] for path in values}
    values = {**{path: value for path, value in _PLAIN.items() if path not in parted}, **values}
    fields: dict[str, Any] = {}
    parts: dict[str, dict[str, Any]] = {}
    for path, (value, _) in values.items():
        outer, _, inner = path.partition(".")
        (parts.setdefault(outer, {}) if inner else fields)[inner or outer] = value
    kinds["parameter_average"] = Averaging
    fields |= {outer: kinds[outer](**part) for outer, part in parts.items()}
    return Recipe(name=name, about=about, **fields, sources={path: source for path, (_, source) in values.items()})


PAPER_2015 = _recipe(
    "paper_2015",
    "Section 8 of arXiv 1512.00567, 50 replicas of 32 images for 100 epochs of ImageNet (about 80,000 steps); "
    "what the paper leaves out is taken from its authors' TensorFlow trainer. Reported: 21.2 % top-1 error.",
    {
        "epochs": (100, _PAPER),
        "batch_size": (32, _PAPER),
        "replicas": (50, _PAPER),
        "optimizer.decay": (0.9, _PAPER),
        "optimizer.momentum": (
            0.9,
            f"{_TF_TRAIN} (the paper gives 0.9 for its earlier experiments with plain momentum)",
        ),
        "optimizer.epsilon": (1.0, _PAPER),
        "optimizer.weight_decay": (4e-5, f"{_TF_MODEL} (not in the paper)"),
        "schedule.base_rate": (0.045, _PAPER),
        "schedule.factor": (0.94, _PAPER),
        "schedule.every_epochs": (2, _PAPER),
        "schedule.staircase": (True, f"{_TF_TRAIN} (the paper says 'every two epochs')"),
        "schedule.warm_up_fraction": (0.0, "paper, section 8: none mentioned"),
        "clip_norm": (
            2.0,
            f"{_PAPER}; by global norm, as in the work it cites (Pascanu et al.); absent from the TF trainer",
        ),
        "label_smoothing": (0.1, "paper, section 7"),
        "auxiliary_weight": (0.4, f"{_TF_MODEL} (not in the paper)"),
        "dropout": (0.2, f"{_TF_MODEL}: keep 0.8 (not in the paper)"),
        "parameter_average.decay": (0.9999, f"{_TF_TRAIN} (the paper says 'a running average')"),
        "parameter_average.warm_up": (True, f"{_TF_TRAIN}: num_updates given"),
        "batch_norm_decay": (0.9997, f"{_TF_MODEL} (not in the paper)"),
        "augmentation": ("inception", _TF_IMAGES),
        "mixing": (None, "none: mixup and cutmix are younger than the paper"),
        "resize": ("central_crop", _TF_IMAGES),
        "crop_fraction": (0.875, _TF_IMAGES),
        "scaling": ("fixed", f"{_TF_IMAGES}: (x - 0.5) * 2"),
    },
    optimizer=RMSPropTF,
    schedule=Exponential,
)

_ADAM = "Adam paper (arXiv 1412.6980), its default"

FROM_SCRATCH = _recipe(
    "from_scratch",
    "For a few thousand images and no pretrained weights: as many small steps as the time allows, a high rate that "
    "comes all the way down, strong regularisation, averages with a short horizon.",
    {
        "epochs": (40, "our choice: about where a few thousand images stop gaining; a time budget replaces it"),
        "batch_size": (32, _PAPER),
        "replicas": (1, "our choice: small data wants many steps, not large ones"),
        "optimizer.beta1": (0.9, _ADAM),
        "optimizer.beta2": (0.99, "our choice: a memory of 100 steps, as runs have a few thousand"),
        "optimizer.epsilon": (1e-8, _ADAM),
        "optimizer.weight_decay": (0.05, "our choice: strong, because the images are few"),
        "schedule.base_rate": (
            3e-3,
            "our choice: about the same from 2e-3 to 4e-3 where it was tried (docs/results.md)",
        ),
        "schedule.start_fraction": (0.04, "torch OneCycleLR, its default (div_factor 25)"),
        "schedule.final_fraction": (0.001, "our choice: the last steps should hardly move"),
        "schedule.warm_up_fraction": (0.3, "torch OneCycleLR, its default"),
        "clip_norm": (5.0, "our choice: only the first steps are longer"),
        "label_smoothing": (0.1, "paper, section 7"),
        "auxiliary_weight": (0.3, "GoogLeNet paper (arXiv 1409.4842), section 5"),
        "dropout": (0.2, f"{_TF_MODEL}: keep 0.8"),
        "parameter_average.decay": (0.99, "our choice: a horizon of 100 steps, as runs have a few thousand"),
        "parameter_average.warm_up": (True, f"{_TF_TRAIN}: num_updates given"),
        "batch_norm_decay": (0.9, "our choice: torch's default; TF's 0.9997 needs ten thousand steps to settle"),
        "augmentation": ("gentle", "our choice: inspection and medical images have no scene to crop"),
        "mixing": (None, "our choice: none, as it was not tried here"),
        "resize": ("whole", "our choice: a defect may sit at the border"),
        "crop_fraction": (1.0, "our choice: nothing is cropped"),
        "scaling": (
            "per_image",
            "our choice, measured (docs/results.md): exposure differs between cameras, not between classes",
        ),
    },
    optimizer=AdamW,
    schedule=OneCycle,
)

_TORCHVISION = "torchvision's recipe of 2021"

MODERN = _recipe(
    "modern",
    "What ten years added to ImageNet training: momentum with a warmed-up cosine, three times the epochs, a "
    "smaller global batch, mixup and cutmix, an average with a long horizon. Its main source is torchvision's "
    "recipe of 2021 (pytorch.org/blog/how-to-train-state-of-the-art-models-using-torchvision-latest-primitives), "
    "which trains longer and distorts more. Not run on ImageNet here, so no accuracy is claimed.",
    {
        "epochs": (300, "'ResNet strikes back' (arXiv 2110.00476), its A2; torchvision's recipe has 600"),
        "batch_size": (32, "paper, section 8: batch statistics over 32 images"),
        "replicas": (32, f"{_TORCHVISION}: 8 x 128 images per step"),
        "optimizer.momentum": (0.9, _TORCHVISION),
        "optimizer.weight_decay": (2e-5, f"{_TORCHVISION}: 2e-5, none on batch norm"),
        "schedule.base_rate": (0.5, f"{_TORCHVISION}: 0.5 for 1,024 images"),
        "schedule.final_fraction": (0.0, f"{_TORCHVISION}: cosine to zero"),
        "schedule.warm_up_fraction": (
            5 / 300,
            f"{_TORCHVISION}: five epochs, there from a hundredth of the rate, here from zero",
        ),
        "clip_norm": (None, f"{_TORCHVISION}: none listed"),
        "label_smoothing": (0.1, "paper, section 7"),
        "auxiliary_weight": (0.4, f"{_TF_MODEL} (not in the paper)"),
        "dropout": (0.2, f"{_TF_MODEL}: keep 0.8 (not in the paper)"),
        "parameter_average.decay": (0.9998, "our choice: a horizon of 5,000 steps, four epochs of ImageNet"),
        "parameter_average.warm_up": (True, f"{_TF_TRAIN}: num_updates given"),
        "batch_norm_decay": (0.99, "our choice: a horizon of 100 batches, three steps of 32 replicas"),
        "augmentation": (
            "inception",
            f"{_TF_IMAGES}; torchvision's recipe has TrivialAugment and random erasing instead",
        ),
        "mixing.mixup_alpha": (0.2, f"{_TORCHVISION}; the mixup paper (arXiv 1710.09412) has 0.1 to 0.4 for ImageNet"),
        "mixing.cutmix_alpha": (1.0, f"{_TORCHVISION}; --beta 1.0 in the README of CutMix (arXiv 1905.04899)"),
        "mixing.cutmix_share": (
            0.5,
            "torchvision's trainer: each batch gets one or the other at random; timm's default",
        ),
        "resize": ("shorter_side", f"{_TORCHVISION}: shorter side, then the centre"),
        "crop_fraction": (0.875, _TF_IMAGES),
        "scaling": ("fixed", f"{_TF_IMAGES}: (x - 0.5) * 2"),
    },
    optimizer=SGD,
    schedule=Cosine,
    mixing=Mixing,
)

_SIMCLR = "SimCLR (arXiv 2002.05709), appendix B.8, its fine-tuning"

FINE_TUNE = _recipe(
    "fine_tune",
    "For --weights: the classifiers begin anew, the learned layers adapt, the lower the less; first on small images, "
    "where a step costs a quarter, at last on those of the input size.",
    {
        "epochs": (20, "our choice: a time budget replaces it"),
        "batch_size": (16, "our choice: on a processor as fast as 32, with twice the steps"),
        "replicas": (1, "our choice: small data wants many steps, not large ones"),
        "optimizer.beta1": (0.9, _ADAM),
        "optimizer.beta2": (0.99, "our choice: a memory of 100 steps, as runs have a thousand"),
        "optimizer.epsilon": (1e-8, _ADAM),
        "optimizer.weight_decay": (0.05, "our choice: strong, because the images are few"),
        "schedule.base_rate": (1e-3, "our choice, tried on validation images (docs/results.md)"),
        "schedule.final_fraction": (0.0, "our choice: the last steps should hardly move"),
        "schedule.warm_up_fraction": (0.1, "our choice: Adam's averages and the new classifiers settle first"),
        "layer_decay": (0.7, "our choice, as in ULMFiT (arXiv 1801.06146): lower layers are more general"),
        "unfreeze_fraction": (0.1, "our choice, after ULMFiT: the trunk moves once the classifiers make sense"),
        "patience": (6, "our choice"),
        "clip_norm": (2.0, _PAPER),
        "label_smoothing": (0.1, "paper, section 7"),
        "auxiliary_weight": (0.0, "our choice: a new auxiliary head costs time and teaches a learned trunk little"),
        "dropout": (0.2, f"{_TF_MODEL}: keep 0.8 (not in the paper)"),
        "parameter_average.decay": (0.99, "our choice: a horizon of 100 steps, as runs have a thousand"),
        "parameter_average.warm_up": (True, f"{_TF_TRAIN}: num_updates given"),
        "batch_norm_decay": (0.9, "our choice: torch's default, as runs have a thousand steps"),
        "batch_norm": ("auto", "our choice: batches of 16 or more have statistics worth learning from"),
        "growth.first_side": (0.5, "our choice: a step costs a quarter, and the last grid is still 3x3 at 151"),
        "growth.full_from": (0.6, "our choice: most steps are cheap ones, the last fit the size that is evaluated"),
        "growth.num_sides": (2, "our choice"),
        "augmentation": ("flips+shifts+light", "our choice: inspection and medical images have no scene to crop"),
        "mixing": (None, f"{_SIMCLR}: none"),
        "resize": ("whole", "our choice: a defect may sit at the border"),
        "crop_fraction": (1.0, "our choice: nothing is cropped"),
        "scaling": ("fixed", "the weights: a model file holds the preprocessing it expects"),
    },
    optimizer=AdamW,
    schedule=Cosine,
    growth=Growth,
)

SMALL_IMAGES = dataclasses.replace(
    FROM_SCRATCH.changed(
        "auxiliary_weight", 0.0, source="our choice: at a quarter of the width the main classifier reaches every layer"
    ).changed(
        "augmentation",
        "flips+shifts+light",
        source="our choice: solar cells keep the direction of their wires, so no quarter turns",
    ),
    name="small_images",
    about="For a few thousand images, no pretrained weights and minutes: from_scratch without auxiliary classifier and "
    "with flips and shifts only; meant for --width 0.25 --input-size 128.",
)

RECIPES: Mapping[str, Recipe] = types.MappingProxyType(
    {recipe.name: recipe for recipe in (PAPER_2015, FROM_SCRATCH, SMALL_IMAGES, FINE_TUNE, MODERN)}
)


def named(name: str) -> Recipe:
    """The recipe called `name`; RecipeError lists the names there are."""
    require(name in RECIPES, f"unknown recipe {name!r}: choose one of {', '.join(RECIPES)}")
    return RECIPES[name]
