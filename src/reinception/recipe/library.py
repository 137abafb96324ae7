"""The named recipes, every number with its source; a number without one is called our choice."""

from __future__ import annotations

import types
from collections.abc import Mapping

from reinception.recipe.parts import SGD, AdamW, Averaging, Cosine, Exponential, Mixing, OneCycle, RMSPropTF, require
from reinception.recipe.value import Recipe

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
    mixing=None,
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
        "mixing": "none: mixup and cutmix are younger than the paper",
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
    mixing=None,
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
        "mixing": "our choice: none, as it was not tried here",
        "resize": "our choice: a defect may sit at the border",
        "crop_fraction": "our choice: nothing is cropped",
        "scaling": "our choice, measured (docs/results.md): exposure differs between cameras, not between classes",
    },
)

_TORCHVISION = "torchvision's recipe of 2021"

MODERN = Recipe(
    name="modern",
    about=(
        "What ten years added to ImageNet training: momentum with a warmed-up cosine, three times the epochs, a "
        "smaller global batch, mixup and cutmix, an average with a long horizon. Its main source is torchvision's "
        "recipe of 2021 (pytorch.org/blog/how-to-train-state-of-the-art-models-using-torchvision-latest-primitives), "
        "which trains longer and distorts more. Not run on ImageNet here, so no accuracy is claimed."
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
    mixing=Mixing(mixup_alpha=0.2, cutmix_alpha=1.0, cutmix_share=0.5),
    resize="shorter_side",
    crop_fraction=0.875,
    scaling="fixed",
    sources={
        "epochs": "'ResNet strikes back' (arXiv 2110.00476), its A2; torchvision's recipe has 600",
        "batch_size": "paper, section 8: batch statistics over 32 images",
        "replicas": f"{_TORCHVISION}: 8 x 128 images per step",
        "optimizer.momentum": _TORCHVISION,
        "optimizer.weight_decay": f"{_TORCHVISION}: 2e-5, none on batch norm",
        "schedule.base_rate": f"{_TORCHVISION}: 0.5 for 1,024 images",
        "schedule.final_fraction": f"{_TORCHVISION}: cosine to zero",
        "schedule.warm_up_fraction": f"{_TORCHVISION}: five epochs, there from a hundredth of the rate, here from zero",
        "clip_norm": f"{_TORCHVISION}: none listed",
        "label_smoothing": "paper, section 7",
        "auxiliary_weight": f"{_TF_MODEL} (not in the paper)",
        "dropout": f"{_TF_MODEL}: keep 0.8 (not in the paper)",
        "parameter_average.decay": "our choice: a horizon of 5,000 steps, four epochs of ImageNet",
        "parameter_average.warm_up": f"{_TF_TRAIN}: num_updates given",
        "batch_norm_decay": "our choice: a horizon of 100 batches, three steps of 32 replicas",
        "augmentation": f"{_TF_IMAGES}; torchvision's recipe has TrivialAugment and random erasing instead",
        "mixing.mixup_alpha": f"{_TORCHVISION}; the mixup paper (arXiv 1710.09412) has 0.1 to 0.4 for ImageNet",
        "mixing.cutmix_alpha": f"{_TORCHVISION}; --beta 1.0 in the README of CutMix (arXiv 1905.04899)",
        "mixing.cutmix_share": "torchvision's trainer: each batch gets one or the other at random; timm's default",
        "resize": f"{_TORCHVISION}: shorter side, then the centre",
        "crop_fraction": _TF_IMAGES,
        "scaling": f"{_TF_IMAGES}: (x - 0.5) * 2",
    },
)

_SIMCLR = "SimCLR (arXiv 2002.05709), appendix B.8, its fine-tuning"

FINE_TUNE = Recipe(
    name="fine_tune",
    about=(
        "For --weights: few epochs at a learning rate that adapts the learned features and keeps them. The flowers of "
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
    mixing=None,
    resize="central_crop",
    crop_fraction=0.875,
    scaling="fixed",
    sources={
        "epochs": "our choice: a few thousand images and 32 per step make about the 2,000 steps of TF's flowers",
        "batch_size": _PAPER,
        "replicas": "our choice: small data wants many steps, not large ones",
        "optimizer.momentum": f"{_SIMCLR}: Nesterov there, plain here",
        "optimizer.weight_decay": f"{_TF_MODEL}: as in the training the weights come from",
        "schedule.base_rate": f"our choice, within the rates of {_SIMCLR}: 0.0001 to 0.1 at 256 images per step",
        "schedule.final_fraction": "our choice: the last steps should hardly move",
        "schedule.warm_up_fraction": "our choice: the new classifier settles before the trunk moves",
        "clip_norm": _PAPER,
        "label_smoothing": "paper, section 7",
        "auxiliary_weight": f"{_TF_MODEL} (not in the paper)",
        "dropout": f"{_TF_MODEL}: keep 0.8 (not in the paper)",
        "parameter_average.decay": "our choice: a horizon of 100 steps, as runs have a thousand",
        "parameter_average.warm_up": f"{_TF_TRAIN}: num_updates given",
        "batch_norm_decay": f"our choice: 100 batches; {_SIMCLR} has max(1 - 10 / steps per epoch, 0.9)",
        "augmentation": "our choice: inspection and medical images have no scene to crop",
        "mixing": f"{_SIMCLR}: none; crops and flips only",
        "resize": _TF_IMAGES,
        "crop_fraction": _TF_IMAGES,
        "scaling": "the weights': a model file holds the preprocessing it expects",
    },
)

RECIPES: Mapping[str, Recipe] = types.MappingProxyType(
    {recipe.name: recipe for recipe in (PAPER_2015, FROM_SCRATCH, FINE_TUNE, MODERN)}
)


def named(name: str) -> Recipe:
    """The recipe called `name`; RecipeError lists the names there are."""
    require(name in RECIPES, f"unknown recipe {name!r}: choose one of {', '.join(RECIPES)}")
    return RECIPES[name]
