"""Optimizers, rates, clipping and the parameter average, against plain arithmetic."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from reinception import recipe as values
from reinception.family import network
from reinception.model.build import build
from reinception.recipe import Averaging, Cosine, Exponential, OneCycle, named
from reinception.train.optim import (
    ParameterAverage,
    RMSPropTFOptimizer,
    clip_by_global_norm,
    learning_rate_at,
    make_optimizer,
    set_learning_rate,
)


def tensorflow_rmsprop(
    w: np.ndarray, steps: list[tuple[np.ndarray, float]], *, decay: float, momentum: float, epsilon: float
) -> np.ndarray:
    """TensorFlow's ApplyRMSProp kernel (uncentred), written out in double precision."""
    mean_square, update = np.ones_like(w), np.zeros_like(w)
    for gradient, rate in steps:
        mean_square = mean_square + (1 - decay) * (gradient**2 - mean_square)
        update = momentum * update + rate * gradient / np.sqrt(mean_square + epsilon)
        w = w - update
    return w


@pytest.mark.parametrize(("decay", "momentum", "epsilon"), [(0.9, 0.9, 1.0), (0.9, 0.9, 1e-10), (0.99, 0.0, 1e-3)])
def test_rmsprop_equals_tensorflows_over_100_steps(decay: float, momentum: float, epsilon: float) -> None:
    rng = np.random.default_rng(0)
    start = rng.normal(size=(7, 5))
    gradients = [rng.normal(size=(7, 5)) * scale for scale in rng.lognormal(size=100)]
    rates = [0.045 * 0.94 ** (step // 20) for step in range(100)]  # the rate changes on the way: it is in the buffer
    w = nn.Parameter(torch.tensor(start))
    optimizer = RMSPropTFOptimizer([w], lr=0.0, decay=decay, momentum=momentum, epsilon=epsilon, weight_decay=0.0)
    steps = list(zip(gradients, rates, strict=True))
    for gradient, rate in steps:
        w.grad = torch.tensor(gradient)
        set_learning_rate(optimizer, rate)
        optimizer.step()
    expected = tensorflow_rmsprop(start, steps, decay=decay, momentum=momentum, epsilon=epsilon)
    np.testing.assert_allclose(w.detach().numpy(), expected, rtol=1e-10)


def test_the_first_step_with_epsilon_one_is_0_7255_of_the_gradient() -> None:
    w = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    recipe = named("paper_2015").changed("optimizer.weight_decay", 0.0, source="test")
    assert isinstance(recipe.optimizer, values.RMSPropTF)
    module = nn.Module()
    module.w = w
    optimizer = make_optimizer(module, recipe.optimizer)
    w.grad = torch.full((1,), 1e-4, dtype=torch.float64)
    set_learning_rate(optimizer, 0.045)
    optimizer.step()
    assert -w.item() / (0.045 * 1e-4) == pytest.approx(1 / math.sqrt(1.9), rel=1e-6)
    assert -w.item() / (0.045 * 1e-4) == pytest.approx(0.7255, abs=5e-5)


def test_rmsprop_is_not_torchs() -> None:
    ours, theirs = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    first = RMSPropTFOptimizer([ours], lr=0.045, decay=0.9, momentum=0.9, epsilon=1.0, weight_decay=0.0)
    second = torch.optim.RMSprop([theirs], lr=0.045, alpha=0.9, momentum=0.9, eps=1.0)
    ours.grad, theirs.grad = torch.ones(1), torch.ones(1)
    first.step()
    second.step()
    assert ours.item() == pytest.approx(-0.045 / math.sqrt(2))
    assert theirs.item() == pytest.approx(-0.045 / (1 + math.sqrt(0.1)))


@pytest.mark.parametrize(
    "optimizer",
    [
        values.RMSPropTF(decay=0.9, momentum=0.9, epsilon=1.0, weight_decay=0.1),
        values.SGD(momentum=0.9, weight_decay=0.1),
        values.AdamW(beta1=0.9, beta2=0.999, epsilon=1e-8, weight_decay=0.1),
    ],
    ids=lambda optimizer: type(optimizer).__name__,
)
def test_weight_decay_shrinks_weights_but_neither_batch_norm_nor_biases(optimizer: values.Optimizer) -> None:
    net = build(network("inception_v3", num_classes=3, width=0.1), seed=0)
    before = {name: parameter.detach().clone() for name, parameter in net.named_parameters()}
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)  # so that only weight decay moves anything
    rule = make_optimizer(net, optimizer)
    set_learning_rate(rule, 0.1)
    rule.step()
    moved = {name for name, parameter in net.named_parameters() if not torch.equal(parameter, before[name])}
    assert moved == {name for name in before if name.endswith(("conv.weight", "classifier.weight"))}
    assert all(net.get_parameter(name).norm() < before[name].norm() for name in moved)


def test_frozen_parameters_are_left_alone() -> None:
    net = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    net[0].requires_grad_(False)
    optimizer = make_optimizer(net, values.SGD(momentum=0.9, weight_decay=0.1))
    assert {id(p) for group in optimizer.param_groups for p in group["params"]} == {id(p) for p in net[1].parameters()}


def test_the_papers_rate_after_100_epochs_is_0_00204() -> None:
    paper = named("paper_2015")
    assert learning_rate_at(paper.schedule, progress=0.0, epochs=100) == 0.045
    assert learning_rate_at(paper.schedule, progress=1.0, epochs=100) == pytest.approx(0.00204, abs=5e-6)
    assert learning_rate_at(paper.schedule, progress=1.0, epochs=100) == pytest.approx(0.045 * 0.94**50)


def test_the_papers_staircase_steps_down_every_two_epochs_and_only_then() -> None:
    schedule = named("paper_2015").schedule
    steps_per_epoch = 801  # 1,281,167 images in steps of 50 x 32
    for step in range(0, 8 * steps_per_epoch):
        rate = learning_rate_at(schedule, progress=step / (100 * steps_per_epoch), epochs=100)
        assert rate == 0.045 * 0.94 ** (step // (2 * steps_per_epoch))


@given(progress=st.floats(0, 1), epochs=st.integers(1, 500))
def test_without_staircase_the_rate_falls_smoothly_below_the_stairs(progress: float, epochs: int) -> None:
    parts = {"base_rate": 0.045, "factor": 0.94, "every_epochs": 2.0, "warm_up_fraction": 0.0}
    smooth = learning_rate_at(Exponential(**parts, staircase=False), progress=progress, epochs=epochs)
    stairs = learning_rate_at(Exponential(**parts, staircase=True), progress=progress, epochs=epochs)
    assert 0.94 * stairs <= smooth * (1 + 1e-9)
    assert smooth <= stairs * (1 + 1e-6)


one_cycle = OneCycle(base_rate=0.01, start_fraction=0.04, final_fraction=0.001, warm_up_fraction=0.25)
cosine = Cosine(base_rate=0.01, final_fraction=0.1, warm_up_fraction=0.25)


@pytest.mark.parametrize(
    ("schedule", "first", "half_risen", "last"), [(one_cycle, 4e-4, 5.2e-3, 1e-5), (cosine, 0.0, 5e-3, 1e-3)]
)
def test_a_cycle_rises_to_the_base_rate_and_comes_all_the_way_down(
    schedule: OneCycle | Cosine, first: float, half_risen: float, last: float
) -> None:
    points = {0.0: first, 0.125: half_risen, 0.25: 0.01, 0.625: (0.01 + last) / 2, 1.0: last}
    for progress, rate in points.items():
        assert learning_rate_at(schedule, progress=progress, epochs=1) == pytest.approx(rate)
    rates = [learning_rate_at(schedule, progress=i / 100, epochs=1) for i in range(101)]
    assert max(rates) == rates[25]
    assert rates[:26] == sorted(rates[:26])
    assert rates[25:] == sorted(rates[25:], reverse=True)


def test_one_cycle_is_torchs() -> None:
    schedule = OneCycle(base_rate=0.01, start_fraction=1 / 25, final_fraction=1 / 25e4, warm_up_fraction=0.3)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.01, total_steps=101, pct_start=31 / 101)
    for step in range(101):
        ours = learning_rate_at(schedule, progress=step / 100, epochs=1)
        assert ours == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-6)
        optimizer.step()
        if step < 100:
            theirs.step()


def test_gradients_are_scaled_down_to_the_global_norm_and_never_up() -> None:
    parameters = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))]
    parameters[0].grad, parameters[1].grad = torch.tensor([3.0, 0.0]), torch.tensor([4.0])
    assert clip_by_global_norm(parameters, None).item() == 5.0
    assert clip_by_global_norm(parameters, 6.0).item() == 5.0
    assert parameters[1].grad.item() == 4.0
    assert clip_by_global_norm(parameters, 2.0).item() == 5.0
    torch.testing.assert_close(parameters[0].grad, torch.tensor([1.2, 0.0]))
    torch.testing.assert_close(parameters[1].grad, torch.tensor([1.6]))


def test_the_average_starts_with_a_short_memory_and_grows_to_its_decay() -> None:
    live = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(live.weight)
    average = ParameterAverage(live, Averaging(decay=0.5, warm_up=True))
    expected = 0.0
    for step in range(12):
        nn.init.constant_(live.weight, step + 1.0)
        keep = min(0.5, (1 + step) / (10 + step))
        expected = keep * expected + (1 - keep) * (step + 1.0)
        average.update()
        assert isinstance(average.network, nn.Linear)
        assert average.network.weight.item() == pytest.approx(expected, rel=1e-6)
    assert average.decay() == 0.5


def test_without_warm_up_the_average_keeps_its_decay_from_the_start() -> None:
    live = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(live.weight)
    average = ParameterAverage(live, Averaging(decay=0.75, warm_up=False))
    nn.init.ones_(live.weight)
    average.update()
    assert isinstance(average.network, nn.Linear)
    assert average.network.weight.item() == 0.25


def test_the_average_holds_batch_norm_statistics_too_and_leaves_the_live_network_alone() -> None:
    live = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    average = ParameterAverage(live, Averaging(decay=0.9, warm_up=False))
    live(torch.randn(8, 3, 5, 5, generator=torch.Generator().manual_seed(0)))
    before = {name: tensor.clone() for name, tensor in live.state_dict().items()}
    average.update()
    for name, tensor in live.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    statistics = average.network.state_dict()
    torch.testing.assert_close(statistics["1.running_mean"], 0.1 * before["1.running_mean"])
    torch.testing.assert_close(statistics["1.running_var"], 0.9 + 0.1 * before["1.running_var"])
    assert statistics["1.num_batches_tracked"].item() == 1
    assert not average.network.training
