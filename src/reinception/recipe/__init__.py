"""How to train, as frozen values, every number with its source: optimizer, schedule, regularisation, averaging.

A recipe decides nothing about the network or the data. `paper_2015` is one named value among several: section 8 of the
paper, and, where that gives no number, its authors' published TensorFlow trainer.
"""

from reinception.recipe.distortions import distortions as distortions
from reinception.recipe.library import FINE_TUNE as FINE_TUNE
from reinception.recipe.library import FROM_SCRATCH as FROM_SCRATCH
from reinception.recipe.library import MODERN as MODERN
from reinception.recipe.library import PAPER_2015 as PAPER_2015
from reinception.recipe.library import RECIPES as RECIPES
from reinception.recipe.library import SMALL_IMAGES as SMALL_IMAGES
from reinception.recipe.library import named as named
from reinception.recipe.parts import SGD as SGD
from reinception.recipe.parts import AdamW as AdamW
from reinception.recipe.parts import Averaging as Averaging
from reinception.recipe.parts import Cosine as Cosine
from reinception.recipe.parts import Exponential as Exponential
from reinception.recipe.parts import Growth as Growth
from reinception.recipe.parts import Mixing as Mixing
from reinception.recipe.parts import OneCycle as OneCycle
from reinception.recipe.parts import Optimizer as Optimizer
from reinception.recipe.parts import RecipeError as RecipeError
from reinception.recipe.parts import RMSPropTF as RMSPropTF
from reinception.recipe.parts import Schedule as Schedule
from reinception.recipe.value import Augmentation as Augmentation
from reinception.recipe.value import Balance as Balance
from reinception.recipe.value import BatchNormMode as BatchNormMode
from reinception.recipe.value import Recipe as Recipe
from reinception.recipe.value import RecipeRow as RecipeRow
from reinception.recipe.value import SmoothingPrior as SmoothingPrior
