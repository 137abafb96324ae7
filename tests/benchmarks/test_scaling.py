"""How pixel values become numbers: by fixed constants, or by each picture's own mean and deviation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from reinception.data.loading.loader import normalise
from reinception.errors import ReinceptionError
from reinception.preprocess import Preprocessing
from reinception.recipe import RECIPES

PER_IMAGE = Preprocessing(scaling="per_image")
PICTURES = torch.from_numpy(np.random.default_rng(0).integers(40, 120, (3, 3, 20, 30), dtype=np.uint8))


def test_per_image_scaling_gives_each_picture_mean_zero_and_deviation_one() -> None:
    numbers = normalise(PICTURES, PER_IMAGE)
    assert numbers.mean(dim=(1, 2, 3)).abs().max() < 1e-5
    assert torch.allclose(numbers.std(dim=(1, 2, 3), correction=0), torch.ones(3), atol=1e-5)


def test_exposure_disappears_under_per_image_scaling() -> None:
    brighter = PICTURES * 2 + 10
    assert torch.allclose(normalise(brighter, PER_IMAGE), normalise(PICTURES, PER_IMAGE), atol=1e-5)
    fixed = Preprocessing()
    assert not torch.allclose(normalise(brighter, fixed), normalise(PICTURES, fixed), atol=0.1)


def test_a_picture_of_one_colour_becomes_zero_and_not_a_division_by_zero() -> None:
    flat = torch.full((1, 3, 8, 8), 200, dtype=torch.uint8)
    assert torch.equal(normalise(flat, PER_IMAGE), torch.zeros(1, 3, 8, 8))


def test_what_else_is_in_the_batch_changes_nothing() -> None:
    together = normalise(PICTURES, PER_IMAGE)
    alone = torch.cat([normalise(PICTURES[i : i + 1], PER_IMAGE) for i in range(3)])
    assert torch.allclose(together, alone, atol=1e-6)


def test_the_rule_travels_as_json_and_an_unknown_one_is_refused() -> None:
    assert Preprocessing.from_json(PER_IMAGE.to_json()) == PER_IMAGE
    with pytest.raises(ReinceptionError, match="scaling"):
        Preprocessing.from_json(PER_IMAGE.to_json() | {"scaling": "by eye"})


def test_the_paper_scales_by_fixed_numbers_and_small_data_by_each_picture() -> None:
    assert RECIPES["paper_2015"].scaling == "fixed"
    assert RECIPES["from_scratch"].scaling == "per_image"
