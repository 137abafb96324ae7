"""How to train, as frozen values: optimizer, rate schedule, regularisation and averaging, every number with its source.

A recipe decides nothing about the network or the data. `paper_2015` is one named value among several: what section 8 of
the paper says, and, where the paper is silent, what its authors' published TensorFlow trainer does.
"""

from __future__ import annotations

from reinception.recipe.library import FINE_TUNE, FROM_SCRATCH, MODERN, PAPER_2015, RECIPES, named
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
)
from reinception.recipe.value import Augmentation, Recipe, RecipeRow

__all__ = [
    "FINE_TUNE",
    "FROM_SCRATCH",
    "MODERN",
    "PAPER_2015",
    "RECIPES",
    "SGD",
    "AdamW",
    "Augmentation",
    "Averaging",
    "Cosine",
    "Exponential",
    "Mixing",
    "OneCycle",
    "Optimizer",
    "RMSPropTF",
    "Recipe",
    "RecipeError",
    "RecipeRow",
    "Schedule",
    "named",
]
