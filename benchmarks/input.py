"""Training images per second on one core, ours beside torchvision's pipelines, from the file to the tensor of a batch.

Every round times each contestant once, in turn, so that a machine that slows down slows down all of them; the median
of the rounds is printed with their range, and the median of the quotients within a round. Seconds are the processor's:
one thread, so what else runs on the machine takes its time and not theirs.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
import torchvision
from PIL import Image
from torchvision.transforms import v2

from reinception.cli.table import aligned
from reinception.data.images.augment import Augmentation
from reinception.data.images.crops import evaluation_pixels
from reinception.data.loading.loader import CACHE_BYTES, TrainingStream
from reinception.data.loading.read import pixels_of
from reinception.data.sources.records import Record
from reinception.machine import examine
from reinception.preprocess import Preprocessing

SIZE = 299
PER_BATCH = 8
HALVES = [0.5, 0.5, 0.5]
Run = Callable[[], object]

# name, height, width, format, options, pictures, batches a round
CASES = (
    ("500x375 JPEG", 375, 500, "JPEG", {"quality": 90}, 32, 8),
    ("12-megapixel JPEG", 3000, 4000, "JPEG", {"quality": 90}, 4, 1),
    ("500x375 PNG", 375, 500, "PNG", {}, 32, 8),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="times each contestant is timed (default: %(default)s)")
    parser.add_argument("--json", metavar="FILE", help="write the figures as JSON too")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    facts = examine()
    print(f"{facts['processor']['model']}, one core; load before: {os.getloadavg()[0]:.1f}")
    fast = [name for name in ("simplejpeg", "numba", "pyspng") if find_spec(name)]
    versions = [f"{name} {version(name)}" for name in ("torch", "torchvision", "pillow", *fast)]
    print(", ".join(versions))
    print(f"random crop to {SIZE} pixels and mirror; n = {arguments.rounds} interleaved rounds\n")
    rows, figures = [], []
    with tempfile.TemporaryDirectory() as folder:
        for name, height, width, form, options, num, batches in CASES:
            records = write_pictures(
                Path(folder) / name, num=num, height=height, width=width, form=form, options=options
            )
            runs = {
                "torchvision v1": v1([record.path for record in records], batches),
                "torchvision v2": in_v2([record.path for record in records], batches),
                "reinception crop": ours(records, "crop", batches),
                "reinception crop, later": ours(records, "crop", batches, cache_bytes=CACHE_BYTES),
                "torchvision v1, colours": v1([record.path for record in records], batches, colours=True),
                "reinception inception": ours(records, "inception", batches),
                "reinception evaluation": evaluated(records, batches),
            }
            rates = interleaved(runs, arguments.rounds, batches * PER_BATCH)
            for contestant, values in rates.items():
                times = [f"{quotient(values, rates[peer]):.2f}x" for peer in ("torchvision v1", "torchvision v2")]
                median, spread = statistics.median(values), f"{min(values):.0f} to {max(values):.0f}"
                if "colours" in contestant or contestant == "reinception inception":
                    times = [f"{quotient(values, rates['torchvision v1, colours']):.2f}x*", "-"]
                rows.append((name, contestant, f"{median:.0f}", spread, *times))
                figures.append({"case": name, "what": contestant, "n": arguments.rounds, "images_per_second": values})
    header = ("FILES", "PIPELINE", "IMAGES/S", "RANGE", "TO V1", "TO V2")
    print(aligned(header, rows, right=(2, 3, 4, 5)))
    print("\n* to torchvision v1 with colours: both distort brightness, contrast, saturation and hue")
    print(
        "later: epochs after the first few, while the decoded pictures, or their small scales, fit the cache of 1 GiB"
    )
    print(f"load after: {os.getloadavg()[0]:.1f}")
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def write_pictures(
    folder: Path, *, num: int, height: int, width: int, form: str, options: dict[str, int]
) -> list[Record]:
    """Pictures with the statistics of photographs: as much contrast at every scale, and the grain of a sensor."""
    folder.mkdir()
    random = np.random.default_rng(0)
    records = []
    for index in range(num):
        pixels = np.full((height, width, 3), 120, dtype=np.float32)
        for power in range(1, 10):
            step = 2**power
            grey = random.normal(0, 9, (height // step + 2, width // step + 2)).astype(np.float32)
            for channel, share in enumerate(random.uniform(0.6, 1.2, 3)):
                scaled = Image.fromarray(grey).resize((width, height), Image.Resampling.BICUBIC)
                pixels[:, :, channel] += share * power**0.7 * np.asarray(scaled)
        pixels += random.normal(0, 3, (height, width, 1))
        path = folder / f"{index}.{form.lower()}"
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, form, **options)
        records.append(Record(path=path, name=path.name, target=0))
    bits = 8 * statistics.mean(record.path.stat().st_size for record in records) / (height * width)
    print(f"{folder.name}: {num} pictures, {bits:.2f} bits per pixel")
    return records


def ours(records: Sequence[Record], kind: Augmentation, batches: int, *, cache_bytes: int = 0) -> Run:
    """Our stream; without its cache every picture is decoded each time, with it the tenth epoch is measured."""
    training = TrainingStream(
        records, input_size=SIZE, augmentation=kind, batch_size=PER_BATCH, seed=0, workers=0, cache_bytes=cache_bytes
    )
    stream = training.batches()
    if cache_bytes:
        for _ in range(10 * len(records) // PER_BATCH):
            next(stream)

    def run() -> None:
        for _ in range(batches):
            next(stream)  # and let it go, as training does and as the others do

    return run


def v1(paths: Sequence[Path], batches: int, *, colours: bool = False) -> Run:
    """Pillow and torchvision's first transforms, to normalised floats: the pipeline of most training scripts."""
    jitter = [torchvision.transforms.ColorJitter(32 / 255, 0.5, 0.5, 0.2)] if colours else []
    transform = torchvision.transforms.Compose(
        [
            torchvision.transforms.RandomResizedCrop(SIZE, scale=(0.05, 1.0)),
            torchvision.transforms.RandomHorizontalFlip(),
            *jitter,
            torchvision.transforms.ToTensor(),
            torchvision.transforms.Normalize(HALVES, HALVES),
        ]
    )

    def load(path: Path) -> torch.Tensor:
        with path.open("rb") as file:
            return transform(Image.open(file).convert("RGB"))

    return batched(load, paths, batches)


def in_v2(paths: Sequence[Path], batches: int) -> Run:
    """torchvision's own decoder and second transforms, uint8 to the end: torchvision at its fastest."""
    transform = v2.Compose([v2.RandomResizedCrop(SIZE, scale=(0.05, 1.0), antialias=True), v2.RandomHorizontalFlip()])
    mode = torchvision.io.ImageReadMode.RGB
    return batched(lambda path: transform(torchvision.io.decode_image(str(path), mode)), paths, batches)


def evaluated(records: Sequence[Record], batches: int) -> Run:
    """Evaluation's pixels, decoded whole: for comparison."""
    value = Preprocessing(input_size=SIZE)
    return batched(lambda r: torch.from_numpy(evaluation_pixels(pixels_of(r), value)), records, batches)


def batched(load: Callable[..., torch.Tensor], items: Sequence[object], batches: int) -> Run:
    """Batches of PER_BATCH, one after another through `items`."""
    position = 0

    def run() -> None:
        nonlocal position
        for _ in range(batches):
            torch.stack([load(items[(position + place) % len(items)]) for place in range(PER_BATCH)])
            position += PER_BATCH

    return run


def interleaved(runs: dict[str, Run], rounds: int, images: int) -> dict[str, list[float]]:
    """Images per second of processor time of each run in each round, after one round nobody counts."""
    rates: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, run in runs.items():
            start = time.process_time()
            run()
            if number >= 1:
                rates[name].append(images / (time.process_time() - start))
    return rates


def quotient(mine: list[float], theirs: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(mine, theirs, strict=True))


if __name__ == "__main__":
    main()
