"""Mixup and cutmix against hand calculation, torchvision's and timm's loss, and the distribution they promise."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from cells import class_folders
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from processes import ends, start, start_ranks
from reinception.data.images.random_stream import RandomStream
from reinception.data.loading.loader import TrainingStream, normalise
from reinception.data.sources.open_source import open_source
from reinception.model.build import Outputs
from reinception.preprocess import Preprocessing
from reinception.recipe import RECIPES, Mixing, RecipeError, library, named
from reinception.train.loss import smoothed_cross_entropy, training_loss
from reinception.train.mixing import beta, cutmix_box, mix
from reinception.train.run.checkpoint import Checkpoints

MIXUP = Mixing(mixup_alpha=0.2, cutmix_alpha=1.0, cutmix_share=0.0)
CUTMIX = replace(MIXUP, cutmix_share=1.0)


@pytest.fixture(scope="module")
def pictures() -> tuple[Tensor, Tensor]:
    """Six solar cells as the network reads them (6, 3, 75, 75), and their classes."""
    records = open_source("elpv").records[:64]
    stream = TrainingStream(records, input_size=75, augmentation="crop", batch_size=6, seed=0, workers=0)
    batch = next(stream.batches())
    return normalise(batch.images, Preprocessing(input_size=75)), batch.targets


def test_mixup_blends_each_picture_with_the_one_before_it(pictures: tuple[Tensor, Tensor]) -> None:
    images, _ = pictures
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    draws = RandomStream("test", 3)
    draws.uniform(0, 1)
    share = beta(0.2, draws)
    mixed, targets = mix(images.clone(), labels, MIXUP, num_classes=3, stream=RandomStream("test", 3))
    assert 0.001 < share < 0.999
    for i in range(6):
        torch.testing.assert_close(mixed[i], share * images[i] + (1 - share) * images[i - 1])
    by_hand = [[share, 0.0, 1 - share], [1 - share, share, 0.0], [0.0, 1 - share, share]] * 2
    torch.testing.assert_close(targets, torch.tensor(by_hand))


def test_cutmix_puts_one_box_of_the_neighbour_into_each_picture_and_counts_its_pixels(
    pictures: tuple[Tensor, Tensor],
) -> None:
    images, _ = pictures
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    cut = 0
    for seed in range(20):
        mixed, targets = mix(images.clone(), labels, CUTMIX, num_classes=3, stream=RandomStream("test", seed))
        draws = RandomStream("test", seed)
        draws.uniform(0, 1)
        top, bottom, left, right = cutmix_box(75, 75, beta(1.0, draws), draws)
        inside = torch.zeros(75, 75, dtype=torch.bool)
        inside[top:bottom, left:right] = True
        for i in range(6):
            assert torch.equal(mixed[i][:, inside], images[i - 1][:, inside])
            assert torch.equal(mixed[i][:, ~inside], images[i][:, ~inside])
        share = int((~inside).sum()) / inside.numel()
        torch.testing.assert_close(targets[1], torch.tensor([1 - share, share, 0.0]))
        cut += 0 < share < 1
    assert cut > 10


@given(seed=st.integers(0, 10**6), n=st.integers(2, 9), k=st.integers(2, 12), share=st.floats(0, 1), soft=st.booleans())
def test_labels_stay_probabilities(seed: int, n: int, k: int, share: float, soft: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(k, (n,), generator=generator)
    if soft:
        labels = torch.rand(n, k, generator=generator).softmax(1)
    mixing = Mixing(mixup_alpha=0.2, cutmix_alpha=1.0, cutmix_share=share)
    _, targets = mix(torch.rand(n, 3, 8, 9), labels, mixing, num_classes=k, stream=RandomStream("test", seed))
    assert targets.shape == (n, k)
    assert targets.dtype == torch.float32
    assert bool((targets >= 0).all())
    torch.testing.assert_close(targets.sum(1), torch.ones(n))
    hard = labels if soft else torch.nn.functional.one_hot(labels, k).float()
    torch.testing.assert_close(targets.mean(0), hard.mean(0))  # what there is of each class does not change


@given(height=st.integers(1, 400), width=st.integers(1, 400), share=st.floats(0, 1), seed=st.integers(0, 10**6))
def test_a_box_lies_inside_and_is_never_larger_than_its_share(height: int, width: int, share: float, seed: int) -> None:
    top, bottom, left, right = cutmix_box(height, width, share, RandomStream("test", seed))
    assert 0 <= top <= bottom <= height
    assert 0 <= left <= right <= width
    assert (bottom - top) * (right - left) <= (1 - share) * height * width + 1e-6


def arcsine(x: float) -> float:
    return 2 / math.pi * math.asin(math.sqrt(x))


@pytest.mark.parametrize(
    ("alpha", "cumulative"),
    [(0.5, arcsine), (1.0, lambda x: x), (2.0, lambda x: x * x * (3 - 2 * x))],
    ids=["arcsine", "uniform", "cubic"],
)
def test_shares_follow_the_beta_distribution_where_it_has_a_closed_form(
    alpha: float, cumulative: Callable[[float], float]
) -> None:
    n, draws = 20_000, RandomStream("test", "beta")
    shares = sorted(beta(alpha, draws) for _ in range(n))
    furthest = max(abs((i + 0.5) / n - cumulative(share)) for i, share in enumerate(shares))
    assert furthest < 1.63 / math.sqrt(n)  # Kolmogorov: one sample in a hundred is further away; the seed is fixed


@given(alpha=st.floats(1e-3, 2.0), seed=st.integers(0, 10**6))
def test_a_share_lies_between_0_and_1_for_any_alpha(alpha: float, seed: int) -> None:
    assert 0 <= beta(alpha, RandomStream("test", seed)) <= 1


def test_the_variance_of_a_share_is_that_of_the_distribution() -> None:
    draws, n = RandomStream("test", "variance"), 20_000
    shares = torch.tensor([beta(0.2, draws) for _ in range(n)], dtype=torch.float64)
    assert float(shares.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(shares.var()) == pytest.approx(1 / (4 * (2 * 0.2 + 1)), rel=0.02)


def test_half_of_the_batches_get_cutmix_where_the_share_is_a_half(pictures: tuple[Tensor, Tensor]) -> None:
    images, labels = pictures
    mixing = RECIPES["modern"].mixing
    assert mixing is not None
    cut = 0
    for step in range(400):
        small = images[:, :, :12, :12].clone()
        mixed, _ = mix(small.clone(), labels, mixing, num_classes=2, stream=RandomStream("mix", 0, step, 0))
        corner = (mixed == small) | (mixed == small.roll(1, 0))
        cut += bool(corner.all())  # every pixel is somebody's own
    assert 150 < cut < 280  # a blend that changes nothing in float32 looks like one, too


def test_smoothing_after_mixing_is_torchs_loss_and_smoothing_before_it_is_timms() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(8, 5, generator=generator), torch.randint(5, (8,), generator=generator)
    _, targets = mix(torch.rand(8, 3, 4, 4), labels, MIXUP, num_classes=5, stream=RandomStream("test", 1))
    draws = RandomStream("test", 1)
    draws.uniform(0, 1)
    share = beta(0.2, draws)
    ours = smoothed_cross_entropy(logits, targets, 0.1)
    torch.testing.assert_close(ours, torch.nn.CrossEntropyLoss(label_smoothing=0.1)(logits, targets))
    # timm mixes with the batch in reverse order; on a batch that is its own neighbour's reverse both are one thing.
    pair, pair_logits = labels[:2], logits[:2]
    _, ours_of_two = mix(torch.rand(2, 3, 4, 4), pair, MIXUP, num_classes=5, stream=RandomStream("test", 1))
    from timm.data.mixup import mixup_target

    theirs = mixup_target(pair, 5, share, 0.1)
    smoothed_first = -(theirs * pair_logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(smoothed_cross_entropy(pair_logits, ours_of_two, 0.1), smoothed_first)


def test_the_auxiliary_classifier_learns_the_same_mixed_labels() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, side = torch.randn(2, 3, generator=generator), torch.randn(2, 3, generator=generator)
    targets = torch.tensor([[0.7, 0.3, 0.0], [0.3, 0.0, 0.7]])
    losses = training_loss(Outputs(logits=logits, auxiliaries=(side,)), targets, named("modern"))
    smoothed = 0.9 * targets + 0.1 / 3
    for head, loss in ((logits, losses.main), (side, losses.auxiliary)):
        assert loss is not None
        torch.testing.assert_close(loss, -(smoothed * head.log_softmax(1)).sum(1).mean())


@pytest.mark.parametrize(
    ("name", "value"), [("mixup_alpha", 0.0), ("cutmix_alpha", 2.5), ("mixup_alpha", math.nan), ("cutmix_share", 1.1)]
)
def test_mixing_out_of_range_is_refused(name: str, value: float) -> None:
    with pytest.raises(RecipeError, match=name):
        named("modern").changed(f"mixing.{name}", value, source="test")


# -- the same bits on any number of processes, and after an interruption ----------------------------------------------


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two class folders of 12 real solar cells each."""
    return class_folders(tmp_path_factory.mktemp("cells"), per_class=12)


def learn_gently() -> None:
    """`modern` as it is, but for a rate that two images at a time can bear."""
    gentle = named("modern").changed("schedule.base_rate", 1e-3, source="test").changed("clip_norm", 1.0, source="test")
    library.RECIPES = {**library.RECIPES, "modern": gentle}


def last_sha256(run: Path) -> str:
    return hashlib.sha256(max((run / "state").glob("step-*.safetensors")).read_bytes()).hexdigest()


def test_mixed_batches_are_the_same_bits_on_three_processes_and_after_a_kill(cells: Path, tmp_path: Path) -> None:
    flags = ["--recipe", "modern", "--replicas", 3, "--batch-size", 2, "--epochs", 3, "--width", 0.1]
    flags += ["--input-size", 75, "--precision", "fp32", "--checkpoint-steps", 1, "--test-fraction", 0.25]
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    process = start(["train", cells, "-o", alone, *flags], tmp_path / "log", before=learn_gently)
    assert ends(process) == [0], (tmp_path / "log").read_text()
    words = ["train", cells, "-o", shared, *flags]
    processes = start_ranks(words, tmp_path / "ranks", world=3, before=learn_gently)
    deadline = time.monotonic() + 120
    while max(Checkpoints(shared / "state").steps(), default=-1) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    for process in processes:
        process.kill()
    ends(*processes)
    assert not (shared / "report.html").exists()
    assert ends(start(["train", "--resume", shared], tmp_path / "again")) == [0]
    assert last_sha256(shared) == last_sha256(alone)
