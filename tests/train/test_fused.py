"""The fused step: values and statistics of the plain one, its gradients up to rounding, about half of its memory."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from reinception import family
from reinception.model.build import Network, Outputs, build
from reinception.model.layers import ConvNorm
from reinception.recipe import named
from reinception.spec import BatchNorm, Conv
from reinception.train.config import Freeze
from reinception.train.finetune import fix, learning_stages, training_mode
from reinception.train.fused.kept_tensors import KeptNormalised, KeptTensor
from reinception.train.fused.units import ConvHead, SideBySide, average_pool_backward, same_size_average_backward
from reinception.train.fused.walk import first_unit, fused_outputs
from reinception.train.loss import training_loss
from tensors import fingerprint, peak_bytes

CLASSES = 3
SEEDS = (0, 1, 2)

pytestmark = pytest.mark.usefixtures("one_thread")


def batch(size: int, num: int, seed: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(num, 3, size, size, generator=generator).to(dtype)
    labels = torch.randint(0, CLASSES, (num,), generator=generator)
    return images.contiguous(memory_format=torch.channels_last), labels


def network(name: str = "inception_v3", *, size: int = 96, width: float = 0.1, seed: int = 0) -> Network:
    has_aux = bool(family.network(name).aux)
    aux = {"aux": "adaptive"} if has_aux else {}
    arch = family.network(name, width=width, input_size=size, num_classes=CLASSES, **aux)  # pyrefly: ignore
    return build(arch, seed=seed).to(memory_format=torch.channels_last).train()


def passes(net: Network, forward: Callable[[Tensor], Outputs], images: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Outputs, gradients and buffers after one forward and backward pass."""
    torch.manual_seed(7)  # dropout
    outputs = forward(images)
    training_loss(outputs, labels, named("from_scratch")).total.backward()
    found = {"logits": outputs.logits.detach()}
    found |= {f"auxiliary {place}": one.detach() for place, one in enumerate(outputs.auxiliaries)}
    found |= {name: buffer.clone() for name, buffer in net.named_buffers()}
    return found | {f"gradient {name}": p.grad for name, p in net.named_parameters() if p.grad is not None}


def both(
    name: str, *, size: int, num: int, seed: int, width: float = 0.1
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    images, labels = batch(size, num, seed)
    plain, fused = (network(name, size=size, width=width, seed=seed) for _ in range(2))
    one = passes(plain, plain.outputs, images, labels)
    return one, passes(fused, lambda images: fused_outputs(fused, images), images, labels)


def agree(plain: dict[str, Tensor], fused: dict[str, Tensor]) -> None:
    """The same values and statistics to the bit; gradients to 1e-4 of each tensor's norm.

    That of a bias before batch norm is zero but for rounding; its weight's says how much rounding there is.
    """
    assert plain.keys() == fused.keys()
    for name, tensor in plain.items():
        if name.startswith("gradient"):
            is_zero = name.endswith("conv.bias") and name.replace("conv.bias", "bn.bias") in plain
            like = plain[name.replace(".bias", ".weight")] if is_zero else tensor
            assert (tensor - fused[name]).norm() <= 1e-4 * like.norm(), name
        else:
            assert torch.equal(tensor, fused[name]), name


@pytest.mark.parametrize("name", family.NETWORKS)
def test_every_network_has_the_values_of_the_plain_step_and_its_gradients_to_rounding(name: str) -> None:
    for seed in SEEDS:
        agree(*both(name, size=96, num=6, seed=seed))


@pytest.mark.slow
@pytest.mark.parametrize("name", family.NETWORKS)
def test_every_network_at_full_width_agrees_with_the_plain_step(name: str) -> None:
    for seed in SEEDS:
        agree(*both(name, size=family.network(name).input_size, num=4, seed=seed, width=1.0))


def test_two_passes_have_the_same_bits() -> None:
    images, labels = batch(96, 6, 0)
    found = []
    for _ in range(2):
        net = network()
        found.append(fingerprint(passes(net, lambda images, net=net: fused_outputs(net, images), images, labels)))
    assert found[0] == found[1]


def test_bfloat16_is_no_further_from_float32_than_the_plain_step_is() -> None:
    images, labels = batch(96, 16, 0)
    errors = []
    exact = {}
    for dtype, forward in (
        (torch.float32, Network.outputs),
        (torch.bfloat16, Network.outputs),
        (torch.bfloat16, fused_outputs),
    ):
        net = network(width=0.25)

        def run(images: Tensor, net: Network = net, forward: Any = forward, dtype: torch.dtype = dtype) -> Outputs:
            with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
                return forward(net, images)

        found = passes(net, run, images, labels)
        exact = exact or found
        differences = [(found[name] - exact[name]).square().sum() for name in exact if name.startswith("gradient")]
        errors.append(float(torch.stack(differences).sum().sqrt()))
    assert 0 < errors[2] <= 1.1 * errors[1]


@pytest.mark.parametrize("part", ["stem", "trunk"])
def test_a_part_that_does_not_learn_keeps_its_statistics(part: Freeze) -> None:
    images, labels = batch(96, 6, 0)
    found = []
    for forward in (Network.outputs, fused_outputs):
        net = network()
        fix(net, part, "train")
        training_mode(net, learning_stages(net, part, unfreeze_fraction=0.0, progress=0.0), "train")
        found.append(passes(net, lambda images, net=net, forward=forward: forward(net, images), images, labels))
        assert float(net.get_submodule("stem.0.bn").get_buffer("num_batches_tracked")) == 0
    agree(*found)


# -- the pool behind its convolution -----------------------------------------------------------------------------------


@pytest.mark.parametrize("counts_border", [True, False])
def test_an_average_pool_behind_its_convolution_has_the_gradients_of_one_before_it(counts_border: bool) -> None:
    layer = ConvNorm(Conv(channels=5, batch_norm=BatchNorm()), 16).double()
    pool = nn.AvgPool2d(3, 1, 1, count_include_pad=counts_border)
    images = torch.randn(4, 16, 7, 6, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    found = []
    for is_moved in (False, True):
        images.requires_grad_(True)
        images.grad = None
        layer.zero_grad()
        if is_moved:
            head = ConvHead(layer, pool)
            (out,) = SideBySide.apply(images, KeptTensor(images), [head], *head.parameters)
        else:
            out = layer(pool(images))
        (out * torch.linspace(-1, 1, out.numel(), dtype=torch.float64).reshape(out.shape)).sum().backward()
        assert images.grad is not None
        found.append([out.detach(), images.grad, *(p.grad for p in layer.parameters())])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_a_pool_stays_before_a_convolution_whose_bias_the_border_would_shrink() -> None:
    biased = ConvNorm(Conv(channels=5, bias=True, batch_norm=None), 16)
    images = torch.randn(2, 16, 6, 6).bfloat16().requires_grad_()
    for counts_border, is_moved in ((True, False), (False, True)):
        head, rest = first_unit([nn.AvgPool2d(3, 1, 1, count_include_pad=counts_border), biased], images)
        assert (head is not None) == is_moved
        assert len(rest) == (0 if is_moved else 2)


@pytest.mark.parametrize("counts_border", [True, False])
@pytest.mark.parametrize("size", [(4, 4), (5, 8), (1, 1)])
def test_the_pool_that_is_its_own_transpose_has_torchs_gradient(size: tuple[int, int], counts_border: bool) -> None:
    pool = nn.AvgPool2d(3, 1, 1, count_include_pad=counts_border)
    gradient = torch.randn(2, 3, *size, dtype=torch.float64)
    right = average_pool_backward(gradient, pool, gradient.shape)
    torch.testing.assert_close(same_size_average_backward(gradient, pool), right, rtol=1e-12, atol=1e-12)


# -- memory ------------------------------------------------------------------------------------------------------------


def test_at_its_highest_a_fused_pass_holds_less_than_six_tenths_of_the_plain_one() -> None:
    images, labels = batch(96, 32, 0)
    peaks = []
    for forward in (Network.outputs, fused_outputs):
        net = network(width=0.25)
        peaks.append(
            peak_bytes(lambda net=net, forward=forward: passes(net, lambda x: forward(net, x), images, labels))
        )
    assert peaks[1] < 0.6 * peaks[0]


def test_nothing_kept_outlives_the_backward_pass() -> None:
    net, (images, labels) = network(), batch(96, 6, 0)
    outputs = fused_outputs(net, images)
    loss = training_loss(outputs, labels, named("from_scratch")).total
    del outputs
    kept = [one for one in gc.get_objects() if type(one) is KeptNormalised]
    before = sum(one.inputs is not None for one in kept)
    loss.backward()
    assert before > 90
    assert not [one for one in kept if one.inputs is not None or one.is_held]


def test_what_is_computed_again_is_the_same_to_the_last_bit() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        for scale in (True, False):
            layer = ConvNorm(Conv(channels=999, batch_norm=BatchNorm(scale=scale)), 3)
            assert isinstance(layer.bn, nn.BatchNorm2d)
            nn.init.normal_(layer.bn.bias)
            kept = KeptNormalised(torch.randn(4, 999, 5, 5).to(dtype), layer.bn, is_rectified=True)
            kept.announce()
            with torch.no_grad():
                assert torch.equal(kept.forward(), kept.take())
