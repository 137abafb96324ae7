"""Precision, recall, density and coverage: which set is which, ties, copies and blocks."""

from __future__ import annotations

import numpy as np
import pytest

from reinception.errors import ReinceptionError
from reinception.generative import neighbours as module
from reinception.generative import precision_recall


def test_a_collapsed_generator_is_precise_and_recalls_little() -> None:
    rng = np.random.default_rng(0)
    real, generated = 3 * rng.normal(size=(200, 16)), 0.1 * rng.normal(size=(200, 16))
    found = precision_recall(real=real, generated=generated)
    assert found.precision > 0.8 and found.recall < 0.3
    exchanged = precision_recall(real=generated, generated=real)
    assert (exchanged.precision, exchanged.recall) == (found.recall, found.precision)


@pytest.mark.parametrize("block", [1, 7, 512])
def test_blocks_change_nothing(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    real, generated = rng.normal(size=(61, 4)), rng.normal(0.3, 1, size=(50, 4))
    whole = precision_recall(real=real, generated=generated)
    monkeypatch.setattr(module, "_BLOCK_ROWS", block)
    assert precision_recall(real=real, generated=generated) == whole


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_identical_sets_are_precise_and_recalled_entirely(offset: float) -> None:
    distinct = np.random.default_rng(0).normal(size=(40, 12)).astype(np.float32) + np.float32(offset)
    for rows in (distinct, np.full((40, 12), 0.3 + offset), np.repeat(distinct[:10], 4, axis=0)):
        found = precision_recall(real=rows, generated=rows[::-1])
        assert (found.precision, found.recall, found.coverage) == (1.0, 1.0, 1.0)


def test_copies_of_an_image_are_its_neighbours() -> None:
    # Four copies: the third neighbour of each is a copy at distance 0, so nothing else is within reach.
    real = np.repeat([[0.0, 0.0], [5.0, 5.0]], 4, axis=0)
    found = precision_recall(real=real, generated=real + 0.01, k=3)
    assert found.precision == 0.0
    assert precision_recall(real=real, generated=real + 0.01, k=4).precision == 1.0


def test_any_order_gives_the_same() -> None:
    rng = np.random.default_rng(0)
    real, generated = rng.normal(size=(61, 4)), rng.normal(0.3, 1, size=(50, 4))
    expected = precision_recall(real=real, generated=generated)
    assert precision_recall(real=rng.permutation(real), generated=rng.permutation(generated)) == expected


@pytest.mark.parametrize("k", [1, 3, 5])
def test_the_definitions_written_out(k: int) -> None:
    rng = np.random.default_rng(k)
    real, generated = rng.normal(size=(70, 3)), rng.normal(0.5, 1.2, size=(55, 3))

    def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.sqrt(np.square(a[:, None] - b[None]).sum(2))

    reach = [np.sort(distances(rows, rows), axis=1)[:, k] for rows in (real, generated)]
    between = distances(real, generated)
    found = precision_recall(real=real, generated=generated, k=k)
    assert found.precision == (between <= reach[0][:, None]).any(0).mean()
    assert found.recall == (between <= reach[1]).any(1).mean()
    assert found.density == pytest.approx((between <= reach[0][:, None]).sum() / k / 55)
    assert found.coverage == (between.min(1) <= reach[0]).mean()


def test_fractions_have_wilsons_interval_and_the_density_none() -> None:
    rows = np.random.default_rng(0).normal(size=(50, 3))
    found = precision_recall(real=rows, generated=rows)
    low, high = found.interval("precision") or (0, 0)
    assert 0.9 < low < 1.0 and high == 1.0
    assert found.interval("density") is None


def test_more_neighbours_than_images_is_one_line() -> None:
    with pytest.raises(ReinceptionError, match="k = 3 neighbours of 3 generated images; k is 1 to 2"):
        precision_recall(real=np.zeros((5, 2)), generated=np.zeros((3, 2)))
    with pytest.raises(ReinceptionError, match="different widths"):
        precision_recall(real=np.zeros((5, 2)), generated=np.zeros((5, 3)))
