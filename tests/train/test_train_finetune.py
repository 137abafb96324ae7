"""Fine-tuning: what learns, at which rate, with which statistics; each test is a mistake that another tool made."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from reinception.data.loading.loader import Batch, TrainingStream
from reinception.data.loading.order import Balanced
from reinception.data.sources.open_source import open_source
from reinception.data.sources.records import Record
from reinception.distributed import Ranks
from reinception.errors import UsageError
from reinception.family import network
from reinception.model.build import Network, Outputs, build
from reinception.preprocess import Preprocessing
from reinception.recipe import BatchNormMode, Cosine, Growth, Recipe, distortions, named
from reinception.train.budget import StepBudget, TimeBudget
from reinception.train.config import Freeze
from reinception.train.finetune import training_mode, training_side
from reinception.train.loss import smoothed_cross_entropy, training_loss
from reinception.train.optim import ParameterAverage, learning_rate_at, set_learning_rate
from reinception.train.run.log import BestWeights, Score
from reinception.train.run.signals import StopRequest
from reinception.train.step import TrainState, train_step

RECORDS = open_source("elpv").records[:32]

pytestmark = pytest.mark.usefixtures("one_thread")


def fine_tune(**changes: Any) -> Recipe:
    return dataclasses.replace(named("fine_tune"), batch_size=4, batch_norm="train", sources={}, **changes)


def state_of(recipe: Recipe, *, freeze: Freeze = "none", aux: bool = False) -> TrainState:
    arch = network("inception_v3", num_classes=2, width=0.1, input_size=75, aux="adaptive" if aux else "none")
    live = build(arch, seed=0)
    for name, buffer in live.named_buffers():  # as if it had learned: statistics that differ from those of a batch
        if name.endswith("running_mean"):
            buffer.normal_(0, 0.1, generator=torch.Generator().manual_seed(1))
    return TrainState(
        network=live,
        recipe=recipe,
        ranks=Ranks(torch.device("cpu")),
        preprocessing=Preprocessing(input_size=75, resize="whole"),
        freeze=freeze,
    )


def step(state: TrainState, number: int, *, learning_rate: float = 1e-3) -> None:
    stream = TrainingStream(RECORDS, input_size=75, augmentation="none", batch_size=4, seed=0, workers=0)
    batches: list[Batch] = [next(stream.batches(number))]
    train_step(state, batches, learning_rate=learning_rate, step=number, stop=StopRequest())


def buffers(live: Network) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in live.named_buffers()}


def moved(before: dict[str, Tensor], live: Network) -> set[str]:
    return {name for name, value in live.named_buffers() if not torch.equal(value, before[name])}


# -- batch norm --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "freeze"), [("frozen", "none"), ("eval_statistics", "none"), ("train", "trunk")])
def test_frozen_batch_norm_is_frozen(mode: BatchNormMode, freeze: Freeze) -> None:
    state = state_of(dataclasses.replace(fine_tune(unfreeze_fraction=0.0), batch_norm=mode), freeze=freeze)
    before = buffers(state.network)
    own = {name: value.detach().clone() for name, value in state.network.named_parameters()}
    step(state, 0)
    assert not moved(before, state.network)
    changed = {name for name, value in state.network.named_parameters() if not torch.equal(value, own[name])}
    assert "classifier.weight" in changed
    assert any(".bn." in name for name in changed) == (mode == "eval_statistics")
    assert any(".conv." in name for name in changed) == (freeze == "none")


def test_batch_norm_that_learns_moves_its_statistics() -> None:
    state = state_of(fine_tune(unfreeze_fraction=0.0))
    before = buffers(state.network)
    step(state, 0)
    assert moved(before, state.network) == set(before)


def test_a_frozen_trunk_answers_alike_in_training_and_evaluation_and_whatever_stands_beside_an_image() -> None:
    state = state_of(fine_tune(dropout=0.0), freeze="trunk")
    images = torch.randn(8, 3, 75, 75, generator=torch.Generator().manual_seed(0))
    live = training_mode(state.network, state.learning, "train")
    with torch.no_grad():
        in_training = live.features(images)
        one = torch.cat([live.features(image[None]) for image in images])
        assert torch.equal(in_training, live.eval().features(images))
    torch.testing.assert_close(one, in_training, atol=1e-5, rtol=0)


def test_the_default_for_batch_norm_depends_on_the_images_of_a_batch(tmp_path: Path, place: Path) -> None:
    from reinception.train.config import TrainConfig
    from reinception.train.run.plan import make_plan

    config = TrainConfig(data="elpv", out=tmp_path / "run", recipe="fine_tune", weights=place / "model.safetensors")
    modes = {size: make_plan(dataclasses.replace(config, batch_size=size)).recipe.batch_norm for size in (1, 8, 16)}
    assert modes == {1: "eval_statistics", 8: "eval_statistics", 16: "train"}
    assert make_plan(dataclasses.replace(config, weights=None, batch_size=8)).recipe.batch_norm == "train"
    with pytest.raises(UsageError, match="--batch-norm frozen keeps what --weights brings"):
        make_plan(dataclasses.replace(config, weights=None, batch_norm="frozen"))


# -- rates and decay ---------------------------------------------------------------------------------------------------


def test_the_ratio_of_learning_rates_holds_at_every_point_of_the_schedule() -> None:
    state = state_of(fine_tune(layer_decay=0.5))
    schedule = Cosine(base_rate=1e-2, final_fraction=0.1, warm_up_fraction=0.2)
    for progress in (0.001, 0.1, 0.2, 1.0):
        rate = learning_rate_at(schedule, progress=progress, epochs=1)
        set_learning_rate(state.optimizer, rate)
        rates = sorted({group["lr"] for group in state.optimizer.param_groups}, reverse=True)
        assert rates == pytest.approx([rate * 0.5**depth for depth in range(len(state.network.arch.stages) + 1)])
    stem = next(iter(state.network.get_submodule(state.network.arch.stages[0][0]).parameters()))
    (lowest,) = [g for g in state.optimizer.param_groups if any(one is stem for one in g["params"])]
    assert lowest["lr"] == min(group["lr"] for group in state.optimizer.param_groups)


@pytest.mark.parametrize("progress", [0.0, 0.05, 1.0])
def test_weight_decay_leaves_batch_norm_and_biases_alone_in_every_stage(progress: float) -> None:
    state = state_of(fine_tune(layer_decay=1.0), aux=True)
    state.network.reset_classifier(3)
    state = dataclasses.replace(state)
    state.unfreeze(progress)
    before = {name: value.detach().clone() for name, value in state.network.named_parameters()}
    for parameter in state.network.parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
    set_learning_rate(state.optimizer, 0.1)
    state.optimizer.step()
    for name, parameter in state.network.named_parameters():
        decays = parameter.ndim > 1 and parameter.requires_grad
        wanted = before[name] * (1 - 0.1 * 0.05) if decays else before[name]
        torch.testing.assert_close(parameter.detach(), wanted, rtol=1e-6, atol=0) if decays else None
        assert decays or torch.equal(parameter, wanted), name


def test_the_cosine_has_its_published_values() -> None:
    schedule = Cosine(base_rate=1e-3, final_fraction=0.0, warm_up_fraction=0.0)
    rates = [learning_rate_at(schedule, progress=epoch / 100, epochs=100) for epoch in range(101)]
    assert rates[45] == pytest.approx(5.782172e-4, abs=1e-10)
    assert rates[46] == pytest.approx(5.626666e-4, abs=1e-10)
    assert rates == sorted(rates, reverse=True)


# -- unfreezing and growth ---------------------------------------------------------------------------------------------


def test_stages_join_from_above_and_stay() -> None:
    state = state_of(fine_tune(unfreeze_fraction=0.4))
    names = [name for name, _ in state.network.arch.stages]
    assert state.learning == ()
    counts = [state.num_learning]
    for progress in (0.1, 0.2, 0.3, 0.4):
        assert state.unfreeze(progress)
        counts.append(state.num_learning)
    assert counts == sorted(set(counts))
    assert state.learning == tuple(names)
    assert not state.unfreeze(0.1)
    assert state.num_learning == sum(parameter.numel() for parameter in state.network.parameters())


def test_a_stage_that_waits_has_no_gradient_and_keeps_its_statistics() -> None:
    state = state_of(fine_tune(unfreeze_fraction=0.5))
    state.unfreeze(0.5 / len(state.network.arch.stages))
    last = state.network.arch.stages[-1][0]
    before = buffers(state.network)
    step(state, 0)
    assert {name.partition(".")[0] for name in moved(before, state.network)} == {last}
    with_gradient = {name.partition(".")[0] for name, one in state.network.named_parameters() if one.grad is not None}
    assert with_gradient == {last, "classifier"}


def test_images_grow_to_the_input_size() -> None:
    growth = Growth(first_side=0.5, full_from=0.6, num_sides=3)
    assert [growth.side(300, progress) for progress in (0.0, 0.29, 0.3, 0.59, 0.6, 1.0)] == [
        150, 150, 225, 225, 300, 300
    ]  # fmt: skip
    arch = network("inception_v3", num_classes=2, width=0.1, input_size=120, aux="none")
    assert [training_side(growth, arch, progress) for progress in (0.0, 0.3, 0.6)] == [75, 90, 120]  # 75 is the least
    assert training_side(None, arch, 0.0) == 120
    stream = TrainingStream(RECORDS, input_size=80, augmentation="flips", batch_size=4, seed=0, workers=0)
    small = next(stream.resized(40).batches(3))
    assert small.images.shape == (4, 3, 40, 40)
    assert torch.equal(small.indices, next(stream.batches(3)).indices)


# -- early stopping and the best ---------------------------------------------------------------------------------------


def test_an_early_stop_ends_on_a_finished_schedule() -> None:
    budget = StepBudget(num_steps=1000, steps_per_epoch=100)
    assert budget.progress(300) == 0.3
    assert budget.cool_down(300)
    progress = [budget.progress(step) for step in range(300, 401)]
    assert progress[0] == pytest.approx(0.3)
    assert progress[-1] == 1.0
    assert progress == sorted(progress)
    assert not budget.cool_down(310)
    assert not StepBudget(num_steps=1000, steps_per_epoch=100).cool_down(950)
    now = 0.0
    timed = TimeBudget(seconds=100, batches_per_validation=0, clock=lambda: now)
    timed.progress(0)
    now = 50.0
    timed.progress(50)
    assert timed.cool_down(50)
    now = 55.0
    assert timed.progress(55) == pytest.approx(0.75, abs=0.02)
    now = 60.0
    assert timed.progress(60) == 1.0


@pytest.mark.parametrize(
    ("losses", "best"),
    [
        ((math.nan, 0.7, 0.5, math.nan, 0.5, 0.6), 3),
        ((0.5, math.nan, 0.5), 1),
        ((math.nan, math.nan), 1),
        ((0.8, 0.9, 0.85, 0.84), 1),
    ],
)
def test_the_best_is_the_first_of_the_equals_and_never_one_that_is_not_a_number(
    losses: tuple[float, ...], best: int
) -> None:
    said: list[str] = []
    weights = BestWeights(state_of(fine_tune()).network, None, describe=lambda _: pytest.fail(), say=said.append)
    for number, loss in enumerate(losses, start=1):
        weights.offer(number, Score(top1_error=50.0, top5_error=0.0, loss=loss))
    assert weights.step == best
    assert weights.num_stale == len(losses) - best
    assert len(said) == sum(map(math.isnan, losses))


# -- the average -------------------------------------------------------------------------------------------------------


def test_the_average_follows_weights_and_statistics_by_one_rule_and_copies_the_count() -> None:
    state = state_of(fine_tune(unfreeze_fraction=0.0))
    wanted = {name: value.detach().clone().double() for name, value in state.network.state_dict().items()}
    for number in range(3):
        decay = state.average.decay()
        step(state, number)
        for name, value in state.network.state_dict().items():
            wanted[name] = wanted[name] * decay + value.double() * (1 - decay)
    for name, value in state.average.network.state_dict().items():
        if name.endswith("num_batches_tracked"):
            assert value == state.network.state_dict()[name] == 3
        else:
            torch.testing.assert_close(value.double(), wanted[name], atol=1e-6, rtol=1e-5)


def test_the_average_of_a_network_that_stands_still_is_the_network() -> None:
    live = state_of(fine_tune()).network
    average = ParameterAverage(live, named("fine_tune").parameter_average)
    for _ in range(5):
        average.update()
    assert all(torch.equal(value, live.state_dict()[name]) for name, value in average.network.state_dict().items())


# -- rare classes ------------------------------------------------------------------------------------------------------

LOGITS, LABELS = torch.tensor([[0.2, 0.3, 0.5], [0.5, 0.2, 0.3]]), torch.tensor([2, 1])


def test_example_weights_mean_the_same_for_class_numbers_and_probabilities() -> None:
    weights = torch.tensor([2.0, 4.0, 6.0])
    rows = torch.nn.functional.one_hot(LABELS, 3).float()
    for target in (LABELS, rows):
        loss = smoothed_cross_entropy(LOGITS, target, 0.0, example_weight=weights)
        assert float(loss) == pytest.approx(1.05983, abs=1e-5)
    rare, common = (
        smoothed_cross_entropy(LOGITS[:1], torch.tensor([label]), 0.0, example_weight=weights) for label in (0, 2)
    )
    assert [float(rare), float(common)] == pytest.approx(
        [float(smoothed_cross_entropy(LOGITS[:1], torch.tensor([label]), 0.0)) for label in (0, 2)]
    )
    with pytest.raises(UsageError, match="a factor for each of the 3 classes"):
        smoothed_cross_entropy(LOGITS, LABELS, 0.0, example_weight=torch.ones(2))


@pytest.mark.parametrize("prior", [None, torch.tensor([0.99, 0.01])])
def test_the_loss_of_a_weighted_example_is_smallest_at_its_smoothed_target(prior: Tensor | None) -> None:
    logits = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=100, tolerance_grad=1e-12)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = smoothed_cross_entropy(logits, torch.tensor([0]), 0.1, prior, example_weight=torch.tensor([0.01, 0.99]))
        loss.backward()
        return loss

    optimizer.step(closure)
    wanted = 0.95 if prior is None else 0.9 + 0.1 * 0.99
    assert float(logits.softmax(1)[0, 0].detach()) == pytest.approx(wanted, abs=1e-5)


def test_class_weights_that_are_equal_change_nothing_and_logits_are_adjusted_by_frequency() -> None:
    outputs = Outputs(logits=LOGITS, auxiliaries=())
    plain = training_loss(outputs, LABELS, fine_tune()).total
    even, uneven = torch.full((3,), 1 / 3), torch.tensor([0.5, 0.25, 0.25])
    torch.testing.assert_close(training_loss(outputs, LABELS, fine_tune(balance="class_weights"), even).total, plain)
    doubled = smoothed_cross_entropy(LOGITS, LABELS, 0.1, example_weight=torch.full((3,), 2.0))
    torch.testing.assert_close(doubled, smoothed_cross_entropy(LOGITS, LABELS, 0.1))
    adjusted = training_loss(outputs, LABELS, fine_tune(balance="logit_adjustment"), uneven).total
    torch.testing.assert_close(adjusted, smoothed_cross_entropy(LOGITS + uneven.log(), LABELS, 0.1))
    prior = training_loss(outputs, LABELS, fine_tune(smoothing_prior="class_frequencies"), uneven).total
    torch.testing.assert_close(prior, smoothed_cross_entropy(LOGITS, LABELS, 0.1, uneven))
    with pytest.raises(UsageError, match="how frequent each class is"):
        training_loss(outputs, LABELS, fine_tune(balance="class_weights"))


def unequal(counts: tuple[int, ...]) -> list[Record]:
    path = RECORDS[0].path
    return [
        Record(path=path, name=f"{target}/{number}", target=target)
        for target, count in enumerate(counts)
        for number in range(count)
    ]


def test_balanced_drawing_leaves_no_image_out_and_every_class_equally_often() -> None:
    records = unequal((990, 10))
    sequence = Balanced(records, seed=0)
    drawn = [sequence.at(position) for position in range(20 * len(records))]
    assert {index for _, index in drawn} == set(range(1000))
    assert len(set(drawn)) == len(drawn)  # the same image never comes back with the same distortion
    for epoch in range(20):
        shares = Counter(records[index].target for _, index in drawn[epoch * 1000 : (epoch + 1) * 1000])
        assert shares[0] == shares[1] == 500


@pytest.mark.parametrize("num_ranks", [1, 2, 3])
def test_ranks_draw_disjoint_positions_of_one_balanced_stream(num_ranks: int) -> None:
    options = {"input_size": 2, "augmentation": "none", "batch_size": 4, "seed": 0, "workers": 0}
    stream = TrainingStream(unequal((30, 2)), **options, is_balanced=True)
    assert stream.steps_per_epoch == 8
    whole = [batch.indices.tolist() for _, batch in zip(range(12), stream.batches(), strict=False)]
    parts = [
        [batch.indices.tolist() for batch in stream.numbered(range(rank, 12, num_ranks))] for rank in range(num_ranks)
    ]
    together = [parts[number % num_ranks][number // num_ranks] for number in range(12)]
    assert together == whole


# -- few images --------------------------------------------------------------------------------------------------------


def test_fewer_images_than_a_batch_and_a_last_batch_of_one_lose_no_image() -> None:
    for num, batch_size in ((20, 64), (17, 16)):
        options = {"input_size": 2, "augmentation": "none", "seed": 0, "workers": 0}
        stream = TrainingStream(RECORDS[:num], batch_size=batch_size, **options)
        seen = [index for _, batch in zip(range(4), stream.batches(), strict=False) for index in batch.indices.tolist()]
        assert len(seen) == 4 * batch_size
        assert set(seen) == set(range(num))


# -- distortions -------------------------------------------------------------------------------------------------------


def test_distortions_are_joined_by_name() -> None:
    assert distortions("flips+shifts+light") == ("flips", "shifts", "light")
    assert distortions("gentle") == ("gentle",)
    for wrong, said in (("flips+flips", "twice"), ("gentle+flips", "stands alone"), ("flip", "unknown augmentation")):
        with pytest.raises(UsageError, match=said):
            distortions(wrong)
