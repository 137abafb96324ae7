"""That batches are a function of seed and position, whatever loads them, and that bad files are named."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from reinception.data.images.crops import evaluation_pixels
from reinception.data.images.decode import Pixels, decode
from reinception.data.images.jpeg import TrainingImage
from reinception.data.loading.cache import PixelCache
from reinception.data.loading.evaluation_stream import evaluation_batches
from reinception.data.loading.loader import Batch, TrainingStream, normalise
from reinception.data.loading.read import training_image
from reinception.data.loading.watchdog import Watchdog
from reinception.data.loading.workers import ordered_map
from reinception.data.prepare.audit import check_images
from reinception.data.sources.open_source import open_source
from reinception.data.sources.records import Record
from reinception.errors import BadImage, ReinceptionError
from reinception.preprocess import Preprocessing


@pytest.fixture(scope="module")
def cells() -> Sequence[Record]:
    """Forty real solar cells of both classes."""
    return open_source("elpv").records[::66]


def pixels(image: TrainingImage) -> Pixels:
    assert isinstance(image, np.ndarray)
    return image


def stream(records: Iterable[Record], **changes: Any) -> TrainingStream:
    options: dict[str, Any] = {"input_size": 75, "augmentation": "gentle", "batch_size": 6, "seed": 3, "workers": 0}
    return TrainingStream(tuple(records), **(options | changes))


def digest(batches: Iterable[Batch]) -> list[str]:
    """One hash per batch over everything in it."""
    return [
        hashlib.sha256(
            b"".join(
                [
                    batch.images.contiguous().numpy().tobytes(),
                    batch.targets.numpy().tobytes(),
                    batch.indices.numpy().tobytes(),
                    f"{batch.epoch} {batch.step}".encode(),
                ]
            )
        ).hexdigest()
        for batch in batches
    ]


def test_a_batch_is_bytes_with_targets_and_indices(cells):
    training = stream(cells)
    batch = next(training.batches())
    assert batch.images.dtype == torch.uint8
    assert batch.images.shape == (6, 3, 75, 75)
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    assert batch.targets.dtype == batch.indices.dtype == torch.int64
    assert batch.targets.tolist() == [cells[index].target for index in batch.indices.tolist()]
    assert (batch.epoch, batch.step) == (0, 0)
    assert training.steps_per_epoch == len(cells) / 6


@pytest.mark.parametrize("augmentation", ["inception", "gentle", "none"])
def test_workers_and_cache_change_no_bit(cells, augmentation):
    expected = digest(islice(stream(cells, augmentation=augmentation, cache_bytes=0).batches(), 16))
    assert len(set(expected)) == 16
    for workers, cache_bytes in [(0, 1_000_000), (0, 1 << 30), (1, 1 << 30), (2, 0), (2, 1_000_000), (2, 1 << 30)]:
        training = stream(cells, augmentation=augmentation, workers=workers, cache_bytes=cache_bytes)
        assert digest(islice(training.batches(), 16)) == expected


def test_a_stream_that_starts_at_a_step_goes_on_exactly(cells):
    expected = digest(islice(stream(cells).batches(), 20))
    for start in (1, 6, 7, 13):
        for workers in (0, 2):
            assert digest(islice(stream(cells, workers=workers).batches(start), 20 - start)) == expected[start:]


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("workers", [0, 1, 2])
def test_any_number_of_ranks_and_workers_gives_the_same_sequence_from_any_step(cells, ranks, workers):
    expected = digest(islice(stream(cells).batches(), 12))
    for start in (0, 5):
        shares = [
            iter(digest(stream(cells, workers=workers).numbered(range(start + rank, 12, ranks))))
            for rank in range(ranks)
        ]
        assert [next(shares[place % ranks]) for place in range(12 - start)] == expected[start:]


def test_another_seed_gives_another_order_and_other_distortions(cells):
    one, other = (next(stream(cells, seed=seed, batch_size=40).batches()) for seed in (1, 2))
    assert one.indices.tolist() != other.indices.tolist()
    by_index = [batch.images[batch.indices.argsort()] for batch in (one, other)]
    assert not torch.equal(*by_index)


def test_the_second_epoch_has_another_order_and_other_distortions(cells):
    one, other = islice(stream(cells, batch_size=len(cells)).batches(), 2)
    assert (one.epoch, other.epoch) == (0, 1)
    assert one.indices.tolist() != other.indices.tolist()
    assert not torch.equal(one.images[one.indices.argsort()], other.images[other.indices.argsort()])


@settings(max_examples=20, deadline=None)
@given(
    num=st.integers(1, 30),
    batch_size=st.integers(1, 40),
    start=st.integers(0, 40),
    seed=st.integers(0, 9),
)
def test_every_image_comes_exactly_once_per_epoch(num, batch_size, start, seed, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "dot.png"
    if not path.exists():
        Image.new("L", (3, 3)).save(path)
    records = [Record(path=path, name=str(index), target=0) for index in range(num)]
    training = stream(records, batch_size=batch_size, seed=seed, input_size=2, augmentation="none")
    num_batches = 2 * num // batch_size + 2
    indices = [i for batch in islice(training.batches(), start + num_batches) for i in batch.indices.tolist()]
    for epoch in range(len(indices) // num):
        assert sorted(indices[epoch * num : (epoch + 1) * num]) == list(range(num))
    later = [i for batch in islice(training.batches(start), num_batches) for i in batch.indices.tolist()]
    assert later == indices[start * batch_size :]


def test_the_order_of_a_seed_is_golden(cells):
    assert next(stream(cells, seed=0).batches()).indices.tolist() == [29, 18, 11, 25, 33, 2]


def test_loading_leaves_every_global_random_state_alone(cells):
    torch.manual_seed(5)
    np.random.seed(5)
    expected = (torch.rand(3).tolist(), np.random.random(3).tolist())
    for workers in (0, 1):
        torch.manual_seed(5)
        np.random.seed(5)
        list(islice(stream(cells, workers=workers).batches(), 3))
        list(evaluation_batches(cells[:3], Preprocessing(input_size=75), batch_size=2, workers=workers))
        assert (torch.rand(3).tolist(), np.random.random(3).tolist()) == expected


def test_the_cache_keeps_what_fits_and_no_more(cells):
    images = [decode(record.path, keep_grey=True) for record in cells[:5]]
    cache, num_decoded = PixelCache(5, 4 * 90_000), Counter[int]()

    def fetch(index: int) -> np.ndarray:
        def decode_once() -> np.ndarray:
            num_decoded[index] += 1
            return images[index]

        return pixels(cache.get(index, decode_once))

    for _ in range(3):
        for index in range(5):
            assert np.array_equal(fetch(index), images[index])
    assert num_decoded == {0: 1, 1: 1, 2: 1, 3: 1, 4: 3}
    assert cache.num_bytes_used == 4 * 90_000
    with pytest.raises(ValueError, match="read-only"):
        fetch(0)[0, 0] = 1


def test_colour_images_come_out_of_the_cache_as_they_went_in():
    image = np.random.default_rng(0).integers(0, 256, (7, 5, 3), dtype=np.uint8)
    cache = PixelCache(1, 1000)
    first, second = (pixels(cache.get(0, read)) for read in (lambda: image, lambda: np.zeros(0, dtype=np.uint8)))
    assert np.array_equal(first, image)
    assert np.array_equal(second, image)


def test_of_large_jpegs_the_cache_keeps_the_small_scales(tmp_path):
    ramp = np.add.outer(np.arange(1203), np.arange(1001)).astype(np.uint8)
    Image.fromarray(ramp).save(tmp_path / "large.jpg", quality=90)
    record, num_read = Record(path=tmp_path / "large.jpg", name="large.jpg", target=0), 0

    def read() -> TrainingImage:
        nonlocal num_read
        num_read += 1
        return training_image(record)

    cache = PixelCache(1, 1 << 20)
    reference = training_image(record)
    for scale, times in ((8, 1), (8, 1), (4, 2), (4, 2), (2, 3), (2, 4), (1, 5), (8, 5)):
        image = cache.get(0, read)
        assert not isinstance(image, np.ndarray)
        assert not isinstance(reference, np.ndarray)
        assert (image.width, image.height) == (1001, 1203)
        assert np.array_equal(image.pixels(scale), reference.pixels(scale))
        assert num_read == times
    assert cache.num_bytes_used == 151 * 126 + 301 * 251


def test_of_a_small_jpeg_the_cache_keeps_all_or_without_room_nothing(tmp_path):
    noise = np.random.default_rng(4).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "small.jpg")
    record = Record(path=tmp_path / "small.jpg", name="small.jpg", target=0)
    roomy, full = PixelCache(1, 3 * 60 * 80), PixelCache(1, 3 * 60 * 80 - 1)
    for _ in range(2):
        kept, not_kept = (cache.get(0, lambda: training_image(record)) for cache in (roomy, full))
        assert isinstance(kept, np.ndarray)
        assert isinstance(not_kept, np.ndarray)
        assert np.array_equal(not_kept, kept)
    assert (roomy.num_bytes_used, full.num_bytes_used) == (kept.size, 0)


@pytest.mark.parametrize("size", [(1400, 900), (500, 375)])
@pytest.mark.parametrize(("workers", "cache_bytes"), [(0, 1 << 22), (2, 1 << 22), (2, 0)])
def test_neither_the_cache_nor_workers_change_a_bit_of_jpegs(tmp_path, size, workers, cache_bytes):
    random = np.random.default_rng(1)
    for number in range(3):
        soft = Image.fromarray(random.integers(0, 256, (9, 12, 3), dtype=np.uint8))
        soft.resize(size, Image.Resampling.BICUBIC).save(tmp_path / f"{number}.jpg")
    records = [Record(path=path, name=path.name, target=0) for path in sorted(tmp_path.iterdir())]

    def batches(workers: int, cache_bytes: int) -> list[torch.Tensor]:
        stream = TrainingStream(
            records, input_size=75, augmentation="crop", batch_size=4, seed=0, workers=workers, cache_bytes=cache_bytes
        )
        return [batch.images for batch in islice(stream.batches(), 6)]

    for ours, reference in zip(batches(workers, cache_bytes), batches(0, 0), strict=True):
        assert torch.equal(ours, reference)


def test_a_large_jpeg_that_is_exchanged_in_mid_run_is_refused_by_name(tmp_path):
    path = tmp_path / "large.jpg"
    Image.new("RGB", (1400, 900)).save(path)
    records = [Record(path=path, name="wells/large.jpg", target=0)]
    training = TrainingStream(records, input_size=299, augmentation="crop", batch_size=1, seed=0, workers=0).batches()
    next(training)
    Image.new("RGB", (140, 90)).save(path)
    with pytest.raises(BadImage, match=r"wells/large.jpg: has changed since it was first read"):
        for _ in range(200):
            next(training)


def test_what_one_worker_decodes_the_others_and_the_parent_find(cells):
    training = stream(cells, workers=2, batch_size=len(cells))
    next(training.batches())
    assert training._cache is not None
    assert training._cache.num_bytes_used >= len(cells) * 90_000


def spoil(cells: Sequence[Record], folder: Path) -> list[Record]:
    """Ten cells of which the fourth is cut in half and the last two are not there."""
    bad = folder / "bad.png"
    bad.write_bytes(cells[3].path.read_bytes()[:9000])
    records = list(cells[:10])
    records[3] = Record(path=bad, name="defective/bad.png", target=1)
    records[8] = Record(path=folder / "gone.png", name="gone.png", target=0)
    records[9] = Record(path=folder / "gone too.png", name="gone too.png", target=0)
    return records


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_file_stops_training_with_its_name(cells, tmp_path, workers, capfd):
    records = spoil(cells, tmp_path)[:8]
    with pytest.raises(BadImage, match=r"^defective/bad\.png: is truncated") as caught:
        list(islice(stream(records, workers=workers).batches(), 4))
    assert caught.value.kind == "truncated"
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_evaluation_gives_every_record_once_in_order_and_names_the_bad(cells, tmp_path, workers):
    records = spoil(cells, tmp_path)
    value = Preprocessing(input_size=75, resize="whole")
    batches = list(evaluation_batches(records, value, batch_size=4, workers=workers))
    assert [batch.indices.tolist() for batch in batches] == [[0, 1, 2], [4, 5, 6, 7], []]
    assert [[(index, error.kind) for index, error in batch.bad] for batch in batches] == [
        [(3, "truncated")],
        [],
        [(8, "missing"), (9, "missing")],
    ]
    assert str(batches[0].bad[0][1]).startswith("defective/bad.png: is truncated")
    assert [batch.images.shape[0] for batch in batches] == [3, 4, 0]
    assert batches[2].images.shape == (0, 3, 75, 75)
    for batch in batches:
        assert batch.weights.tolist() == [1.0] * len(batch)
        for image, index in zip(batch.images, batch.indices, strict=True):
            expected = evaluation_pixels(decode(records[int(index)].path), value)
            assert np.array_equal(image.permute(1, 2, 0).numpy(), expected)


def test_no_records_give_no_evaluation_batches_and_no_training():
    assert list(evaluation_batches(iter([]), Preprocessing(), batch_size=4, workers=0)) == []
    with pytest.raises(ReinceptionError, match="no images to train on"):
        stream([])


def test_normalised_pixels_are_value_less_mean_over_deviation():
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).repeat(2, 3, 1, 1)
    default = normalise(images, Preprocessing())
    assert default.dtype == torch.float32
    assert default.is_contiguous(memory_format=torch.channels_last)
    assert (default.min().item(), default.max().item()) == (-1.0, 1.0)
    value = Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    expected = (images / 255.0 - torch.tensor(value.mean).view(1, 3, 1, 1)) / torch.tensor(value.std).view(1, 3, 1, 1)
    assert torch.allclose(normalise(images, value), expected, atol=1e-6)
    low = normalise(images, value, dtype=torch.bfloat16, memory_format=torch.contiguous_format)
    assert low.dtype == torch.bfloat16
    assert low.is_contiguous()
    assert torch.equal(low, normalise(images, value).to(torch.bfloat16))
    assert images.dtype == torch.uint8


@pytest.mark.parametrize("workers", [0, 2])
def test_checking_names_every_image_that_can_not_be_used(cells, tmp_path, workers, capfd):
    problems = check_images(spoil(cells, tmp_path), workers=workers)
    assert [(problem.name, problem.kind) for problem in problems] == [
        ("defective/bad.png", "truncated"),
        ("gone.png", "missing"),
        ("gone too.png", "missing"),
    ]
    assert isinstance(problems[0], BadImage)
    assert "fresh copy" in problems[0].reason
    assert check_images(cells, workers=workers) == []
    assert capfd.readouterr() == ("", "")


def die(_: int, _watchdog: Watchdog) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


def test_a_worker_that_dies_is_one_clear_line():
    with pytest.raises(ReinceptionError, match="a loader process died") as caught:
        list(ordered_map(die, range(3), 1))
    assert "\n" not in str(caught.value)


def test_an_interrupt_ends_the_workers_without_their_tracebacks(tmp_path):
    program = """
import sys
from reinception.data.loading.loader import TrainingStream
from reinception.data.sources.open_source import open_source
records = open_source("elpv").records[:64]
stream = TrainingStream(records, input_size=75, augmentation="gentle", batch_size=8, seed=0, workers=2)
try:
    for batch in stream.batches():
        print(batch.step, flush=True)
except KeyboardInterrupt:
    sys.exit(130)
"""
    command = [sys.executable, "-W", "error", "-c", program]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for _ in range(20):
            process.stdout.readline()
        start = time.monotonic()
        os.killpg(process.pid, signal.SIGINT)
        process.stdout.read()
        assert process.stderr.read() == ""
        assert process.wait(20) == 130
        assert time.monotonic() - start < 20
