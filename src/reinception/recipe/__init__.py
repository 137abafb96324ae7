"""How to train, as frozen values, every number with its source: optimizer, schedule, regularisation, averaging.

A recipe decides nothing about the network or the data. `paper_2015` is one named value among several: section 8 of the
paper, and, where that gives no number, its authors' published TensorFlow trainer.
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
