"""A compiled step: the plain one's gradients, one compilation for each shape, and never silently none."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
import torch
from torch._dynamo.exc import FailOnRecompileLimitHit
from torch._dynamo.utils import counters

from reinception.model.build import Network, build
from reinception.spec import Arch, Chain, Concat, Conv, Pool
from reinception.train.forward import forward_of
from tensors import fingerprint

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a processor"),
]


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    torch.compiler.reset()
    counters.clear()
    yield
    torch.compiler.reset()


def small(*, dropout: float = 0.0) -> Network:
    """A network with every kind of layer that a compiled step treats in a way of its own."""
    branches = (
        ("single", Chain((Conv(channels=8),))),
        ("pool", Chain((Pool(kind="average", padding=(1, 1)), Conv(channels=8)))),
        ("overhanging", Chain((Pool(kind="average", kernel=(3, 3), padding=(1, 1), ceil_mode=True), Conv(channels=8)))),
    )
    stem = Chain((Conv(channels=8, kernel=(3, 3)), Pool(kind="max", stride=(2, 2), ceil_mode=True), Concat(branches)))
    arch = Arch(name="small", stages=(("stem", stem),), num_classes=3, dropout=dropout, input_size=32)
    return build(arch, seed=0).double().train()


def gradients(net: Network, images: torch.Tensor, *, compiled: bool) -> dict[str, torch.Tensor]:
    net.zero_grad()
    torch.manual_seed(0)
    outputs = forward_of("compiled" if compiled else "plain", net)(images)
    outputs.logits.square().sum().backward()
    return {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}


def test_a_compiled_step_has_the_gradients_of_the_plain_one() -> None:
    images = torch.randn(4, 3, 33, 32, dtype=torch.float64)
    plain, compiled = (gradients(small(), images, compiled=kind) for kind in (False, True))
    for name, gradient in plain.items():
        torch.testing.assert_close(compiled[name], gradient, rtol=1e-8, atol=1e-10)


def test_a_compiled_step_is_deterministic() -> None:
    net, images = small(dropout=0.5), torch.randn(4, 3, 32, 32, dtype=torch.float64)
    assert len({fingerprint(gradients(net, images, compiled=True)) for _ in range(2)}) == 1


def test_a_shape_is_compiled_once_and_one_too_many_is_an_error() -> None:
    net = small()
    forward = forward_of("compiled", net)
    for _ in range(3):
        for size in (32, 36):
            forward(torch.randn(2, 3, size, size, dtype=torch.float64)).logits.sum().backward()
            net.eval()
            net(torch.randn(2, 3, size, size, dtype=torch.float64))  # a validation, which is not compiled
            net.train()
    assert counters["stats"]["unique_graphs"] == 2
    with pytest.raises(FailOnRecompileLimitHit):
        for size in range(40, 80, 4):
            forward(torch.randn(2, 3, size, size, dtype=torch.float64))
