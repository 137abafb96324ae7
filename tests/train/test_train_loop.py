"""One step of the loop: replicas with statistics of their own, random numbers that depend on the step alone."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from reinception import recipe as values
from reinception.data.loading.loader import Batch, TrainingStream, normalise
from reinception.data.sources.open_source import open_source
from reinception.distributed import Ranks
from reinception.errors import ReinceptionError
from reinception.family import network
from reinception.model.artifact import Manifest
from reinception.model.build import Network, build
from reinception.preprocess import Preprocessing
from reinception.recipe import Recipe, named
from reinception.train.budget import StepBudget
from reinception.train.config import Reduction
from reinception.train.loop import Training, fit
from reinception.train.loss import training_loss
from reinception.train.optim import learning_rate_at
from reinception.train.reduction import FixedPointSum
from reinception.train.run.checkpoint import Checkpoint, Checkpointer, capture
from reinception.train.run.console import Console
from reinception.train.run.log import BestWeights, RunLogger
from reinception.train.run.run_folder import RunFolder
from reinception.train.run.signals import StopRequest
from reinception.train.step import StepRecord, TrainState, train_step
from reinception.train.waiting import ImageWait
from tensors import fingerprint

RECORDS = open_source("elpv").records[:64]
PREPROCESSING = Preprocessing(input_size=75, resize="whole")

pytestmark = pytest.mark.usefixtures("one_thread")


def plain_sgd(replicas: int, dropout: float = 0.0) -> Recipe:
    """A recipe whose step is rate x mean gradient, so that it can be calculated by hand."""
    document = named("from_scratch").to_json() | {
        "optimizer": {"type": "sgd", "momentum": 0.0, "weight_decay": 0.0},
        "schedule": {"type": "cosine", "base_rate": 0.1, "final_fraction": 0.5, "warm_up_fraction": 0.0},
        "clip_norm": None,
        "replicas": replicas,
        "batch_size": 4,
        "dropout": dropout,
        "sources": {},
    }
    return Recipe.from_json(document)


def training_of(
    recipe: Recipe,
    out: Path,
    *,
    num_steps: int = 4,
    kept: list[tuple[int, dict[str, Any] | None]] | None = None,
    reduction: Reduction = "exact",
) -> Training:
    """`kept` gets the step and the validation of every model that is saved."""
    arch = network("inception_v3", num_classes=2, width=0.1, input_size=75, aux="adaptive", dropout=recipe.dropout)
    state = TrainState(
        network=build(arch, seed=0).to(memory_format=torch.channels_last),
        recipe=recipe,
        ranks=Ranks(torch.device("cpu")),
        preprocessing=PREPROCESSING,
        reduction=reduction,
    )

    def manifest(training: Mapping[str, Any]) -> Manifest:
        if kept is not None:
            kept.append((training["step"], training["validation"]))
        return Manifest(arch=arch, classes=("a", "b"), preprocessing=PREPROCESSING)

    folder, console, waiting = RunFolder(out), Console(), ImageWait()
    images_per_step = recipe.batch_size * recipe.replicas
    steps_per_epoch = len(RECORDS) / images_per_step
    best = BestWeights(state.average.network, folder, describe=manifest, say=print)
    return Training(
        state=state,
        stream=TrainingStream(
            RECORDS, input_size=75, augmentation="gentle", batch_size=recipe.batch_size, seed=0, workers=0
        ),
        budget=StepBudget(num_steps=num_steps, steps_per_epoch=steps_per_epoch),
        logger=RunLogger(
            folder,
            console,
            images_per_step=images_per_step,
            steps_per_epoch=steps_per_epoch,
            best=best,
            waiting=waiting,
        ),
        best=best,
        checkpointer=Checkpointer(
            None,
            lambda step: Checkpoint(step=step, tensors={}, document={}),
            seconds=1,
            num_steps=1,
            say=print,
        ),
        stop=StopRequest(),
        waiting=waiting,
        predict_validation=None,
    )


def take_step(training: Training, batches: list[Batch], *, learning_rate: float, step: int) -> StepRecord:
    return train_step(training.state, batches, learning_rate=learning_rate, step=step, stop=training.stop)


def gradients(live: Network, batch: Batch, recipe: Recipe) -> dict[str, Tensor]:
    """Of one batch alone; running statistics of `live` move as they would in a step."""
    live.train()
    live.zero_grad(set_to_none=True)
    training_loss(live.outputs(normalise(batch.images, PREPROCESSING)), batch.targets, recipe).total.backward()
    return {name: parameter.grad.clone() for name, parameter in live.named_parameters() if parameter.grad is not None}


def test_a_step_of_two_replicas_is_the_mean_of_their_gradients_each_with_its_own_batch_statistics(
    tmp_path: Path,
) -> None:
    recipe = plain_sgd(replicas=2)
    training = training_of(recipe, tmp_path / "run")
    batches = list(islice(training.stream.batches(), 2))
    other = copy.deepcopy(training.state.network)
    before = {name: parameter.detach().clone() for name, parameter in other.named_parameters()}
    first, second = (gradients(other, batch, recipe) for batch in batches)
    record = take_step(training, batches, learning_rate=0.1, step=0)
    for name, parameter in training.state.network.named_parameters():
        expected = before[name] - 0.1 * (first[name] + second[name]) / 2
        torch.testing.assert_close(parameter, expected, rtol=1e-5, atol=1e-6)
    for name, statistic in training.state.network.named_buffers():  # combined in the order of the replicas
        torch.testing.assert_close(statistic, other.get_buffer(name), rtol=1e-6, atol=1e-6)
    assert not record.skipped
    assert record.learning_rate == 0.1
    assert not record.clipped
    norm = torch.stack([((first[n] + second[n]) / 2).norm() for n in first]).norm()
    assert record.gradient_norm == pytest.approx(norm.item(), rel=1e-4)


def state_of(training: Training) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in training.state.network.state_dict().items()}


def test_dropout_depends_on_seed_step_and_replica_and_on_nothing_drawn_before(tmp_path: Path) -> None:
    recipe = plain_sgd(replicas=1, dropout=0.5)
    states = []
    for name, disturbance, step in (("a", 1, 5), ("b", 99, 5), ("c", 1, 6)):
        training = training_of(recipe, tmp_path / name)
        batches = list(islice(training.stream.batches(), 1))
        torch.manual_seed(disturbance)
        take_step(training, batches, learning_rate=0.1, step=step)
        states.append(state_of(training))
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert any(not torch.equal(states[0][name], states[2][name]) for name in states[0])


def test_the_step_is_all_there_is_to_a_position(tmp_path: Path) -> None:
    """Two steps, then two more by another call of the loop, are four steps to the bit: nothing else is remembered."""
    recipe = plain_sgd(replicas=2, dropout=0.5)
    whole, halves = training_of(recipe, tmp_path / "whole"), training_of(recipe, tmp_path / "halves")
    assert fit(whole) == 4
    for step in (0, 1):
        rate = learning_rate_at(recipe.schedule, progress=step / 4, epochs=recipe.epochs)
        take_step(halves, list(islice(halves.stream.batches(start_step=2 * step), 2)), learning_rate=rate, step=step)
    torch.rand(3)
    assert fit(halves, first_step=2) == 4
    one, other = state_of(whole), state_of(halves)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_last_step_is_always_validated_and_kept(tmp_path: Path) -> None:
    kept: list[tuple[int, dict[str, Any] | None]] = []
    training = training_of(plain_sgd(replicas=1), tmp_path / "run", num_steps=3, kept=kept)
    fit(training)
    assert kept == [(3, None)]


def test_a_rate_of_the_schedule_reaches_the_optimizer(tmp_path: Path) -> None:
    training = training_of(plain_sgd(replicas=1), tmp_path / "run", num_steps=2)
    fit(training)
    assert isinstance(training.state.recipe.schedule, values.Cosine)
    assert [group["lr"] for group in training.state.optimizer.param_groups] == [pytest.approx(0.075)] * 2


def test_a_batch_that_is_no_number_changes_nothing_at_all(tmp_path: Path) -> None:
    """Not even batch statistics, which move in the forward pass, before anyone has looked at the loss."""
    training = training_of(plain_sgd(replicas=2), tmp_path / "run")
    take_step(training, list(islice(training.stream.batches(), 2)), learning_rate=0.1, step=0)
    before = fingerprint(capture(training.state.network, training.state.average, training.state.optimizer))
    calls = 0

    def poison(module: Any, inputs: tuple[Tensor]) -> Tensor | None:
        nonlocal calls
        calls += 1
        return inputs[0] * float("nan") if calls == 2 else None

    first = training.state.network.get_submodule("stem.0")
    with_poison = first.register_forward_pre_hook(poison)
    record = take_step(training, list(islice(training.stream.batches(2), 2)), learning_rate=0.1, step=1)
    with_poison.remove()
    assert record.skipped
    assert fingerprint(capture(training.state.network, training.state.average, training.state.optimizer)) == before
    assert not take_step(training, list(islice(training.stream.batches(4), 2)), learning_rate=0.1, step=2).skipped
    assert fingerprint(capture(training.state.network, training.state.average, training.state.optimizer)) != before


def test_steps_that_are_never_a_number_end_with_a_diagnosis(tmp_path: Path) -> None:
    training = training_of(plain_sgd(replicas=1), tmp_path / "run", num_steps=50)
    training.state.network.get_submodule("stem.0").register_forward_pre_hook(
        lambda module, inputs: inputs[0] * float("nan")
    )
    with pytest.raises(ReinceptionError, match=r"diverged at step 10: 10 steps in a row.*lower learning rate"):
        fit(training)


def test_the_exact_sum_is_the_mean_gradient_to_the_last_bits_of_float32(tmp_path: Path) -> None:
    recipe = plain_sgd(replicas=2)  # the half of a float32 is exact; a third would differ before anything is added
    exact, fast = (training_of(recipe, tmp_path / name, reduction=name) for name in ("exact", "fast"))
    for training in (exact, fast):
        take_step(training, list(islice(training.stream.batches(), 2)), learning_rate=0.1, step=0)
    for one, other in zip(exact.state.network.parameters(), fast.state.network.parameters(), strict=True):
        assert one.grad is not None and other.grad is not None
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-5, atol=1e-6)


def test_the_exact_sum_hears_no_order(tmp_path: Path) -> None:
    """Gradients of wildly different sizes: added as float32 their sum depends on the order, added exactly not."""
    training = training_of(plain_sgd(replicas=3), tmp_path / "run")
    summation = training.state.reducer
    assert isinstance(summation, FixedPointSum)
    parameters = list(training.state.network.parameters())
    generator = torch.Generator().manual_seed(0)
    gradients = [[torch.randn(p.shape, generator=generator) * 10.0**power for p in parameters] for power in (9, -4, 2)]
    exact, plain = set(), set()
    for order in ((0, 1, 2), (2, 0, 1), (1, 2, 0)):
        summation.begin()
        for replica in order:
            for parameter, gradient in zip(parameters, gradients[replica], strict=True):
                parameter.grad = torch.empty_like(parameter).copy_(gradient)
            assert summation.add().isfinite()
        summation.finish()
        exact.add(fingerprint({str(i): p.grad for i, p in enumerate(parameters) if p.grad is not None}))
        total = [
            gradients[order[0]][i] + gradients[order[1]][i] + gradients[order[2]][i] for i in range(len(parameters))
        ]
        plain.add(fingerprint({str(i): t for i, t in enumerate(total)}))
    assert len(exact) == 1
    assert len(plain) > 1
