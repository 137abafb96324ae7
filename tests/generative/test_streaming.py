"""Batch by batch: update, compute, reset, merge."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch

from reinception.errors import ReinceptionError, UsageError
from reinception.generative import FrechetResult, GenerativeMetrics, fid, kid, precision_recall


def _sets() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(80, 5)).astype(np.float32), rng.normal(0.3, 1.1, size=(70, 5)).astype(np.float32)


def _fed(metric: GenerativeMetrics, size: int) -> GenerativeMetrics:
    for real, rows in zip((True, False), _sets(), strict=True):
        for start in range(0, len(rows), size):
            metric.update(torch.from_numpy(rows[start : start + size]), real=real)
    return metric


def test_batches_of_any_size_give_what_the_whole_gives() -> None:
    real, generated = _sets()
    expected: dict[str, Any] = {
        "fid": fid(real=real, generated=generated),
        "kid": kid(real=real, generated=generated),
        "prdc": precision_recall(real=real, generated=generated),
    }
    for size in (1, 7, 64, 100):
        assert _fed(GenerativeMetrics(metrics=("fid", "kid", "prdc")), size).compute() == expected


def test_sums_alone_give_the_same_value_without_an_interval() -> None:
    real, generated = _sets()
    metric = _fed(GenerativeMetrics(interval=False), 9)
    found = metric.compute()["fid"]
    assert isinstance(found, FrechetResult)
    assert found.value == pytest.approx(fid(real=real, generated=generated).value, rel=1e-9)
    assert found.interval is None and (found.num_real, found.num_generated) == (80, 70)
    assert metric.compute()["fid"] == found


def test_parts_are_merged_to_the_same_bits() -> None:
    real, generated = _sets()
    for interval in (True, False):
        parts = [GenerativeMetrics(interval=interval) for _ in range(3)]
        for index, part in enumerate(parts):
            part.update(real[index::3], real=True)
            part.update(generated[index::3], real=False)
        first, *others = reversed([pickle.loads(pickle.dumps(part)) for part in parts])
        for other in others:
            first.merge(other)
        assert first.compute() == _fed(GenerativeMetrics(interval=interval), 80).compute()


def test_reset_keeps_the_real_images_when_told_to() -> None:
    metric = _fed(GenerativeMetrics(), 80)
    expected = metric.compute()
    metric.reset(real=False)
    with pytest.raises(ReinceptionError, match="no generated images yet"):
        metric.compute()
    metric.update(_sets()[1], real=False)
    assert metric.compute() == expected
    metric.reset()
    with pytest.raises(ReinceptionError, match="no real images yet"):
        metric.compute()


def test_any_function_may_be_the_extractor() -> None:
    images = torch.arange(4 * 3 * 2 * 2, dtype=torch.uint8).view(4, 3, 2, 2)
    metric = GenerativeMetrics(lambda batch: batch.float().mean(dim=(2, 3)), interval=False)
    metric.update(images, real=True)
    metric.update(images, real=False)
    assert metric.compute()["fid"].value == pytest.approx(0, abs=1e-9)  # type: ignore[union-attr]


def test_what_does_not_fit_is_one_line() -> None:
    metric = GenerativeMetrics()
    metric.update(np.zeros((3, 5)), real=True)
    with pytest.raises(ReinceptionError, match="different widths: 4 beside 5"):
        metric.update(np.zeros((3, 4)), real=False)
    with pytest.raises(ReinceptionError, match="row 1, column 0 is nan"):
        metric.update(np.array([[0.0] * 5, [np.nan] * 5]), real=False)
    with pytest.raises(UsageError, match="they are fid, kid, is, prdc"):
        GenerativeMetrics(metrics=("sfid",))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="needs a classifier"):
        GenerativeMetrics(metrics=("is",))
