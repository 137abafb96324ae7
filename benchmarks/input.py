"""The fraction of a training step spent waiting for images, ours beside torchvision's and timm's loaders.

Every loader feeds the same step of the same network: forward, loss, backward, update. A round runs each loader once, in
turn, so that a machine that slows down slows down all of them. A loader starts anew in each round with a few steps that
do not count, so no images are in stock from before. The loss is read after every step, so time that the network works
is never counted as waiting. All loaders take a random crop of 5 to 100 % of the area and mirror half of them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import timm.data
import torch
import torchvision
from PIL import Image
from sklearn.datasets import load_sample_images
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from reinception import create
from reinception.cli.table import aligned
from reinception.data.loading.loader import CACHE_BYTES, TrainingStream, normalise
from reinception.data.sources.open_source import open_source
from reinception.data.sources.records import Record
from reinception.machine import autocast, choose_device, examine, precision
from reinception.preprocess import Preprocessing
from reinception.train.loss import smoothed_cross_entropy

AREA = (0.05, 1.0)
HALVES = (0.5, 0.5, 0.5)
WARM_UP = 2
ENDLESS = 1_000_000
"""How many images a peer's loader believes there are: it is never restarted within a round."""

Images = torch.Tensor
Start = Callable[[], Iterator[tuple[Images, torch.Tensor]]]
"""A loader that starts: (uint8 or normalised images (n, 3, s, s), targets (n,)) without end."""

# name: height, width, number of images; None for the ELPV cells, 300x300 PNG in grey
SETS = {"ELPV": None, "500x375 JPEG": (375, 500, 64), "12-megapixel JPEG": (3000, 4000, 8)}


@dataclass(frozen=True, kw_only=True)
class Timing:
    """One loader in one round: seconds of all counted steps, and of these those spent waiting for images."""

    images: str
    workers: int
    loader: str
    seconds: float
    waiting: float
    steps: int


def main() -> None:
    options = parsed()
    torch.manual_seed(0)
    step = Step(options)
    facts = examine()
    fast = [name for name in ("simplejpeg", "pyspng") if find_spec(name)]
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "torchvision", "timm", "pillow", *fast))
    print(f"{facts['processor']['model']}, {torch.get_num_threads()} threads, {step.device}, {step.dtype}; {versions}")
    print(
        f"width {options.width:g}, {options.input_size} pixels, batches of {options.batch_size}; n = {options.rounds} "
        f"interleaved rounds of {options.steps} steps; load before: {os.getloadavg()[0]:.1f}\n"
    )
    timings: list[Timing] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in options.images:
            records = records_of(name, Path(folder))
            for workers in options.workers:
                starts = loaders(records, workers, options)
                for _ in range(options.rounds):
                    for loader, start in starts.items():
                        seconds, waiting = step.timed(start(), options.steps)
                        row = {"images": name, "workers": workers, "loader": loader, "steps": options.steps}
                        timings.append(Timing(seconds=seconds, waiting=waiting, **row))
    print(table(timings, options.batch_size))
    print("\ncached: the decoded images, or small scales of large ones, are in memory, as in later epochs")
    print(f"load after: {os.getloadavg()[0]:.1f}")
    if options.json:
        text = json.dumps({"machine": facts, "runs": [asdict(timing) for timing in timings]}, indent=2)
        Path(options.json).write_text(text + "\n", encoding="utf-8")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="times each loader is timed")
    parser.add_argument("--steps", type=int, default=5, help="counted steps in a round")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2], help="processes that load images")
    parser.add_argument("--images", nargs="+", default=list(SETS), choices=list(SETS), help="kinds of images")
    parser.add_argument("--batch-size", type=int, default=16, help="images in a step")
    parser.add_argument("--input-size", type=int, default=299, help="pixels per side that the network takes")
    parser.add_argument("--width", type=float, default=1.0, help="factor on the channels of the network")
    parser.add_argument("--json", metavar="FILE", help="write every timing as JSON too")
    return parser.parse_args()


class Step:
    """The training step that all loaders feed."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.device = choose_device()
        self.dtype = precision("auto", self.device)
        self.preprocessing = Preprocessing(input_size=options.input_size)
        network = create("inception_v3", num_classes=2, width=options.width, input_size=options.input_size, seed=0)
        self.network = network.to(self.device, memory_format=torch.channels_last)  # pyrefly: ignore[no-matching-overload]
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=1e-4, momentum=0.9)

    def __call__(self, images: Images, targets: torch.Tensor) -> None:
        images, targets = images.to(self.device, non_blocking=True), targets.to(self.device, non_blocking=True)
        if images.dtype == torch.uint8:
            images = normalise(images, self.preprocessing)
        with autocast(self.dtype, self.device):
            logits = self.network(images.contiguous(memory_format=torch.channels_last))
        loss = smoothed_cross_entropy(logits, targets, 0.1)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        loss.item()  # waits for the device

    def timed(self, batches: Iterator[tuple[Images, torch.Tensor]], steps: int) -> tuple[float, float]:
        """(seconds of `steps` steps, those of them spent waiting for images), after WARM_UP steps."""
        for images, targets in islice(batches, WARM_UP):
            self(images, targets)
        waiting, start = 0.0, time.perf_counter()
        for _ in range(steps):
            asked = time.perf_counter()
            images, targets = next(batches)
            waiting += time.perf_counter() - asked
            self(images, targets)
        return time.perf_counter() - start, waiting


# -- images ------------------------------------------------------------------------------------------------------------


def records_of(name: str, folder: Path) -> Sequence[Record]:
    """The images of a set, written to `folder` where they have to be made."""
    if (size := SETS[name]) is None:
        return open_source("elpv").records[::10]
    height, width, num = size
    samples = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    random, records = np.random.default_rng(0), list[Record]()
    for index in range(num):
        sample = samples[index % len(samples)]
        # A random part of a real image, at least half as high, in the right proportion; enlarged, it gets new grain.
        high = random.uniform(0.5, 1.0) * min(sample.height, sample.width * height / width)
        wide = high * width / height
        left, top = random.uniform(0, sample.width - wide), random.uniform(0, sample.height - high)
        box = (left, top, left + wide, top + high)
        pixels = np.asarray(sample.resize((width, height), Image.Resampling.BICUBIC, box=box), dtype=np.float32)
        pixels = pixels + random.normal(0, 6, (height, width, 1)).astype(np.float32)
        path = folder / f"{width}x{height}_{index}.jpg"
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=90)
        records.append(Record(path=path, name=path.name, target=index % 2))
    bits = 8 * statistics.mean(record.path.stat().st_size for record in records) / (height * width)
    print(f"{name}: {num} images, {bits:.2f} bits per pixel")
    return records


# -- loaders -----------------------------------------------------------------------------------------------------------


def loaders(records: Sequence[Record], workers: int, options: argparse.Namespace) -> dict[str, Start]:
    return {
        "reinception": ours(records, workers, options, cache_bytes=0),
        "reinception, cached": ours(records, workers, options, cache_bytes=CACHE_BYTES),
        "torchvision v1": in_v1(records, workers, options),
        "torchvision v2": in_v2(records, workers, options),
        "timm": in_timm(records, workers, options),
    }


def ours(records: Sequence[Record], workers: int, options: argparse.Namespace, *, cache_bytes: int) -> Start:
    """Our stream; with a cache every image has been asked for several times, so that what is kept is in memory."""
    stream = TrainingStream(
        records,
        input_size=options.input_size,
        augmentation="crop",
        batch_size=options.batch_size,
        seed=0,
        workers=workers,
        cache_bytes=cache_bytes,
    )
    if cache_bytes:
        for _ in islice(stream.batches(), 4 * max(1, len(records) // options.batch_size)):
            pass
    return lambda: ((batch.images, batch.targets) for batch in stream.batches())


class Files(Dataset[tuple[torch.Tensor, int]]):
    """The images of records, over and over, each loaded by `load` from its path."""

    def __init__(self, records: Sequence[Record], load: Callable[[Path], torch.Tensor]) -> None:
        self.records, self.load = records, load

    def __len__(self) -> int:
        return ENDLESS

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        record = self.records[index % len(self.records)]
        return self.load(record.path), record.target


def in_v1(records: Sequence[Record], workers: int, options: argparse.Namespace) -> Start:
    """Pillow and torchvision's first transforms, to normalised floats: the pipeline of most training scripts."""
    transform = torchvision.transforms.Compose(
        [
            torchvision.transforms.RandomResizedCrop(options.input_size, scale=AREA),
            torchvision.transforms.RandomHorizontalFlip(),
            torchvision.transforms.ToTensor(),
            torchvision.transforms.Normalize(HALVES, HALVES),
        ]
    )
    return data_loader(Files(records, lambda path: transform(rgb(path))), workers, options.batch_size)


def in_v2(records: Sequence[Record], workers: int, options: argparse.Namespace) -> Start:
    """torchvision's own decoder and second transforms, uint8 to the end: torchvision at its fastest."""
    transform = v2.Compose(
        [v2.RandomResizedCrop(options.input_size, scale=AREA, antialias=True), v2.RandomHorizontalFlip()]
    )
    mode = torchvision.io.ImageReadMode.RGB
    files = Files(records, lambda path: transform(torchvision.io.decode_image(str(path), mode)))
    return data_loader(files, workers, options.batch_size)


def in_timm(records: Sequence[Record], workers: int, options: argparse.Namespace) -> Start:
    """Pillow and timm's transforms for training, to normalised floats, without its distortions of colours."""
    transform: Any = timm.data.create_transform(
        (3, options.input_size, options.input_size),
        is_training=True,
        scale=AREA,
        color_jitter=0.0,
        interpolation="bilinear",
        mean=HALVES,
        std=HALVES,
    )
    return data_loader(Files(records, lambda path: transform(rgb(path))), workers, options.batch_size)


def rgb(path: Path) -> Image.Image:
    with path.open("rb") as file:
        return Image.open(file).convert("RGB")


def data_loader(files: Files, workers: int, batch_size: int) -> Start:
    loader = DataLoader(files, batch_size, shuffle=True, num_workers=workers, drop_last=True)
    return lambda: iter(loader)


# -- the table ---------------------------------------------------------------------------------------------------------


def table(timings: Sequence[Timing], batch_size: int) -> str:
    """One row for each kind of images, number of workers and loader; medians over the rounds, and the range."""
    groups: dict[tuple[str, int, str], list[Timing]] = {}
    for timing in timings:
        groups.setdefault((timing.images, timing.workers, timing.loader), []).append(timing)
    rows = []
    for (images, workers, loader), runs in groups.items():
        percent = [100 * run.waiting / run.seconds for run in runs]
        seconds = statistics.median(run.seconds / run.steps for run in runs)
        spread = f"{min(percent):.1f} to {max(percent):.1f}"
        waiting = f"{statistics.median(percent):.1f}"
        rows.append((images, str(workers), loader, str(len(runs)), waiting, spread, f"{batch_size / seconds:.1f}"))
    header = ("IMAGES", "WORKERS", "LOADER", "N", "WAITING %", "RANGE", "IMAGES/S")
    return aligned(header, rows, right=(1, 3, 4, 5, 6))


if __name__ == "__main__":
    main()
