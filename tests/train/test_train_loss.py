"""Label smoothing and the auxiliary term against the paper's equations, torch and hand calculation."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from reinception.errors import UsageError
from reinception.model.build import Outputs
from reinception.recipe import named
from reinception.train.loss import smoothed_cross_entropy, training_loss


def random_case(seed: int, n: int, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Double-precision logits (n, k), class numbers (n,) and a prior (k,)."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(n, k, generator=generator, dtype=torch.float64)
    target = torch.randint(0, k, (n,), generator=generator)
    prior = torch.rand(k, generator=generator, dtype=torch.float64) ** 4 + 1e-9
    return logits, target, prior / prior.sum()


def one_hot(target: Tensor, k: int) -> Tensor:
    return torch.nn.functional.one_hot(target, k).double()


def any_case(test: Callable[..., None]) -> Callable[..., None]:
    """`test` on 50 random cases; the first one pays for torch's start, so none has a deadline."""
    sizes = {"seed": st.integers(0, 2**31), "n": st.integers(1, 6), "k": st.integers(2, 40)}
    return settings(deadline=None, max_examples=50)(given(**sizes, epsilon=st.floats(0, 1))(test))


@any_case
def test_the_gradient_is_p_minus_the_smoothed_target(seed: int, n: int, k: int, epsilon: float) -> None:
    logits, target, prior = random_case(seed, n, k)
    logits.requires_grad_(True)
    loss = smoothed_cross_entropy(logits, target, epsilon, prior) * n  # the sum over rows
    (gradient,) = torch.autograd.grad(loss, logits)
    smoothed = (1 - epsilon) * one_hot(target, k) + epsilon * prior
    torch.testing.assert_close(gradient, torch.softmax(logits, 1) - smoothed, rtol=1e-9, atol=1e-12)


@any_case
def test_smoothing_is_a_mixture_of_two_cross_entropies(seed: int, n: int, k: int, epsilon: float) -> None:
    logits, target, prior = random_case(seed, n, k)
    of_the_target = smoothed_cross_entropy(logits, target, 0.0)
    of_the_prior = -(torch.log_softmax(logits, 1) @ prior).mean()
    mixture = (1 - epsilon) * of_the_target + epsilon * of_the_prior
    torch.testing.assert_close(smoothed_cross_entropy(logits, target, epsilon, prior), mixture, rtol=1e-10, atol=1e-12)


@any_case
def test_class_numbers_are_probabilities_written_short(seed: int, n: int, k: int, epsilon: float) -> None:
    logits, target, prior = random_case(seed, n, k)
    written_out = smoothed_cross_entropy(logits, one_hot(target, k), epsilon, prior)
    torch.testing.assert_close(written_out, smoothed_cross_entropy(logits, target, epsilon, prior))


@any_case
def test_the_uniform_prior_is_torchs_label_smoothing(seed: int, n: int, k: int, epsilon: float) -> None:
    logits, target, _ = random_case(seed, n, k)
    theirs = torch.nn.CrossEntropyLoss(label_smoothing=epsilon)(logits, target)
    uniform = torch.full((k,), 1 / k, dtype=torch.float64)
    torch.testing.assert_close(smoothed_cross_entropy(logits, target, epsilon), theirs)
    torch.testing.assert_close(smoothed_cross_entropy(logits, target, epsilon, uniform), theirs)


@any_case
def test_weights_and_an_ignored_class_are_those_of_torch(seed: int, n: int, k: int, epsilon: float) -> None:
    logits, target, weight = random_case(seed, n, k)
    target[0], ignored = 0, int(target[-1]) if n > 1 and int(target[-1]) else -100
    torchs = torch.nn.functional.cross_entropy
    options = {"weight": weight, "ignore_index": ignored}
    wanted = torchs(logits, target, label_smoothing=epsilon, **options)
    torch.testing.assert_close(smoothed_cross_entropy(logits, target, epsilon, **options), wanted, rtol=1e-9, atol=1e-9)
    probable = torch.softmax(logits.flip(1), 1)
    wanted = torchs(logits, probable, label_smoothing=epsilon, weight=weight)
    got = smoothed_cross_entropy(logits, probable, epsilon, weight=weight)
    torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-9)


def test_ignored_rows_need_no_class_and_where_all_are_ignored_there_is_no_mean() -> None:
    logits, target, _ = random_case(0, 4, 3)
    kept = smoothed_cross_entropy(logits[:2], target[:2], 0.1)
    target[2:] = 255
    assert torch.equal(smoothed_cross_entropy(logits, target, 0.1, ignore_index=255), kept)
    assert smoothed_cross_entropy(logits, torch.full((4,), 255), 0.1, ignore_index=255).isnan()
    with pytest.raises(UsageError, match="ignore_index is for class numbers"):
        smoothed_cross_entropy(logits, torch.softmax(logits, 1), 0.1, ignore_index=1)
    with pytest.raises(UsageError, match="a factor for each of the 3 classes"):
        smoothed_cross_entropy(logits, target, 0.1, weight=torch.ones(2), ignore_index=255)


def test_the_lowest_loss_for_1000_classes_is_1_0148480() -> None:
    logits = torch.full((1, 1000), math.log(0.0001), dtype=torch.float64)
    logits[0, 7] = math.log(0.9001)
    logits.requires_grad_(True)
    loss = smoothed_cross_entropy(logits, torch.tensor([7]), 0.1)
    assert loss.item() == pytest.approx(1.0148480, abs=5e-8)
    assert torch.autograd.grad(loss, logits)[0].abs().max() < 1e-12  # and it is the lowest: nothing pulls any more
    assert (logits[0, 7] - logits[0, 8]).item() == pytest.approx(math.log(9001))


def test_uniform_logits_cost_the_logarithm_of_the_number_of_classes() -> None:
    loss = smoothed_cross_entropy(torch.zeros(4, 1000), torch.arange(4), 0.1)
    assert loss.item() == pytest.approx(6.907755)


def test_bfloat16_logits_are_counted_in_float32() -> None:
    logits = torch.randn(8, 1000, generator=torch.Generator().manual_seed(0)).bfloat16()
    loss = smoothed_cross_entropy(logits, torch.arange(8), 0.1)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, smoothed_cross_entropy(logits.double(), torch.arange(8), 0.1).float())


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        ([0.5, 0.5, 0.5], "must sum to one"),
        ([0.5, 0.5], "each of the 3 classes"),
        ([[0.2, 0.3, 0.5]], "each of the 3 classes"),
        ([1.2, -0.2, 0.0], "not negative"),
        ([math.nan, 0.5, 0.5], "finite"),
        ([math.inf, 0.0, 0.0], "finite"),
    ],
)
def test_a_prior_that_is_no_distribution_is_refused(prior: list[float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        smoothed_cross_entropy(torch.zeros(2, 3), torch.tensor([0, 1]), 0.1, torch.tensor(prior))


@pytest.mark.parametrize("epsilon", [-0.1, 1.1, math.nan])
def test_an_epsilon_outside_zero_to_one_is_refused(epsilon: float) -> None:
    with pytest.raises(UsageError, match="between 0 and 1"):
        smoothed_cross_entropy(torch.zeros(2, 3), torch.tensor([0, 1]), epsilon)


@pytest.mark.parametrize("target", [torch.zeros(3, dtype=torch.int64), torch.zeros(2, 4), torch.zeros(2)])
def test_targets_of_another_shape_are_refused(target: Tensor) -> None:
    with pytest.raises(UsageError, match="targets for logits"):
        smoothed_cross_entropy(torch.zeros(2, 3), target, 0.1)


def by_hand(row: list[float], target: int, epsilon: float) -> float:
    """One image's smoothed cross-entropy, in plain arithmetic."""
    p = [math.exp(value) / sum(map(math.exp, row)) for value in row]
    q = [epsilon / len(row) + (1 - epsilon) * (index == target) for index in range(len(row))]
    return -sum(q_k * math.log(p_k) for q_k, p_k in zip(q, p, strict=True))


def test_the_training_loss_of_one_batch_equals_a_hand_calculation() -> None:
    recipe = named("paper_2015")
    rows, side, target = [[2.0, -1.0, 0.5], [0.0, 0.3, -0.2]], [[1.0, 1.0, 0.0], [-2.0, 0.0, 2.0]], [0, 2]
    losses = training_loss(
        Outputs(logits=torch.tensor(rows), auxiliaries=(torch.tensor(side),)), torch.tensor(target), recipe
    )
    main = (by_hand(rows[0], 0, 0.1) + by_hand(rows[1], 2, 0.1)) / 2
    auxiliary = (by_hand(side[0], 0, 0.1) + by_hand(side[1], 2, 0.1)) / 2
    assert losses.auxiliary is not None
    assert losses.main.item() == pytest.approx(main, rel=1e-6)
    assert losses.auxiliary.item() == pytest.approx(auxiliary, rel=1e-6)
    assert losses.total.item() == pytest.approx(main + 0.4 * auxiliary, rel=1e-6)


def test_a_network_with_two_auxiliary_heads_pays_for_both() -> None:
    logits, target = torch.zeros(2, 5), torch.tensor([1, 4])
    losses = training_loss(Outputs(logits=logits, auxiliaries=(logits, logits)), target, named("paper_2015"))
    assert losses.total.item() == pytest.approx(math.log(5) * (1 + 2 * 0.4), rel=1e-6)


def test_a_network_without_auxiliary_head_pays_for_the_main_one_only() -> None:
    losses = training_loss(Outputs(logits=torch.zeros(2, 5), auxiliaries=()), torch.tensor([1, 4]), named("paper_2015"))
    assert losses.auxiliary is None
    assert losses.total is losses.main


# -- targets that are none ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (torch.tensor([0, -100]), "class number -100 is not one of 0 to 2; ignore_index=-100 leaves its rows out"),
        (torch.tensor([3, 0]), "class number 3 is not one of 0 to 2"),
        (torch.tensor([[1.0, 0, 0], [9, 1, 0]]), "target row 1 must hold probabilities that sum to one, got 9, 1, 0"),
        (torch.tensor([[1.5, -0.5, 0], [1, 0, 0]]), "target row 0 must hold probabilities"),
        (torch.tensor([[1, 0, 0], [float("nan"), 0, 0]]), "target row 1 must hold probabilities"),
    ],
)
def test_targets_that_are_no_classes_and_no_probabilities_are_refused(target: Tensor, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        smoothed_cross_entropy(torch.zeros(2, 3), target, 0.1)


def test_rows_of_the_ignored_class_do_not_count() -> None:
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    target = torch.tensor([0, -100, 2, -100])
    loss = smoothed_cross_entropy(logits, target, 0.1, ignore_index=-100)
    torch.testing.assert_close(loss, smoothed_cross_entropy(logits[[0, 2]], target[[0, 2]], 0.1))
