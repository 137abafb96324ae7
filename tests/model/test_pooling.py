"""Gradients of pools: right for every pool of every network, and in another layout where torch's kernel is not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from reinception import family
from reinception.model import pooling
from reinception.model.layers import module_of
from reinception.model.pooling import AveragePool, gradient_is_wrong
from reinception.spec import Pool, trace


def pools_of_the_family() -> list[Pool]:
    """Every different pool of every network, its auxiliary classifiers included."""
    steps = [step for name in family.NETWORKS for step in trace(family.network(name))]
    return list(dict.fromkeys(step.layer for step in steps if isinstance(step.layer, Pool)))


def gradient(pool: nn.Module, images: Tensor, layout: torch.memory_format) -> tuple[Tensor, Tensor]:
    """Output and input gradient for output gradients that tell every place from every other."""
    images = images.contiguous(memory_format=layout).requires_grad_()
    outputs = pool(images)
    (outputs * torch.linspace(1, 2, outputs.numel(), dtype=outputs.dtype).reshape(outputs.shape)).sum().backward()
    assert images.grad is not None
    return outputs.detach(), images.grad


@pytest.mark.parametrize("pool", pools_of_the_family(), ids=str)
@pytest.mark.parametrize("size", [(8, 8), (9, 12)])
def test_every_pool_of_the_family_agrees_with_float64(pool: Pool, size: tuple[int, int]) -> None:
    images = torch.randn(2, 16, *size, generator=torch.Generator().manual_seed(0))
    module, _ = module_of(pool, 16)
    right = gradient(module, images.double(), torch.contiguous_format)
    for layout in (torch.contiguous_format, torch.channels_last):
        for one, other in zip(gradient(module, images.clone(), layout), right, strict=True):
            torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("counts_border", "corner", "edge", "inside"),
    [(True, 0.44444, 0.66667, 1.0), (False, 0.69444, 0.97222, 1.36111)],
)
def test_a_small_pool_has_the_gradient_worked_out_by_hand(
    counts_border: bool, corner: float, edge: float, inside: float
) -> None:
    pool = AveragePool(3, 1, 1, count_include_pad=counts_border)
    images = torch.zeros(1, 8, 4, 4).contiguous(memory_format=torch.channels_last).requires_grad_()
    pool(images).sum().backward()
    assert images.grad is not None
    row = torch.tensor([corner, edge, edge, corner])
    middle = torch.tensor([edge, inside, inside, edge])
    torch.testing.assert_close(images.grad[0, 0], torch.stack([row, middle, middle, row]), rtol=0, atol=1e-5)


def test_on_a_processor_torchs_gradient_is_right() -> None:
    assert not gradient_is_wrong(torch.device("cpu"))


def test_where_it_is_wrong_the_other_layout_computes_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """The device is what is replaced: a torch with the fault needs a GPU."""
    asked: list[torch.device] = []
    monkeypatch.setattr(pooling, "gradient_is_wrong", lambda device: not asked.append(device))
    images = torch.randn(2, 8, 5, 6)
    safe = gradient(AveragePool(3, 1, 1), images.clone(), torch.channels_last)
    assert len(asked) == 1
    for one, other in zip(safe, gradient(nn.AvgPool2d(3, 1, 1), images, torch.channels_last), strict=True):
        assert one.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(one, other)
    gradient(AveragePool(3, 2), images.clone(), torch.channels_last)  # without a border nothing is asked
    assert len(asked) == 1
