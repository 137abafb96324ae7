"""What 144 crops cost beside 144 times the network alone at its best batch, and how often each picture is decoded.

Rounds are interleaved: the network alone at each batch size on pixels that lie ready, then the whole evaluation of some
pictures from their files, which computes blocks of a fixed size (Engine.block_size). The pictures are landscapes, of
which all 144 crops are distinct. Seven rounds of two pictures, and one that nobody counts, run the network on about
4,600 images: a minute and a half where two idle cores take 20 ms for one.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import reinception
from reinception.cli.table import aligned
from reinception.data.images.decode import AS_DECLARED, Pixels
from reinception.data.loading import evaluation_stream
from reinception.data.sources.open_source import open_source
from reinception.data.sources.records import Record
from reinception.data.sources.remote import Pause
from reinception.inference.compute import Compute
from reinception.inference.engine import Engine, evaluating, score
from reinception.machine import autocast, choose_device, examine, keep_freed_memory, precision
from reinception.model.build import Network
from reinception.preprocess import Preprocessing, many_crops

NUM_CROPS = 144


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="(default: %(default)s)")
    parser.add_argument("--images", type=int, default=2, help="pictures in a round (default: %(default)s)")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[8, 16, 32], help="(default: 8, 16 and 32)")
    parser.add_argument("--threads", type=int, help="(default: torch's own)")
    parser.add_argument("--workers", type=int, default=0, help="processes that read pictures (default: %(default)s)")
    parser.add_argument(
        "--processor-time",
        action="store_true",
        help="count this process's processor seconds: with --threads 1 what the clock of an idle machine would say",
    )
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto", help="(default: auto)")
    arguments = parser.parse_args()
    clock = time.process_time if arguments.processor_time else time.perf_counter
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    device = choose_device()
    dtype = precision(arguments.precision, device)
    keep_freed_memory()
    network = reinception.create("inception_v3", aux="none", seed=0).to(device).to(memory_format=torch.channels_last)
    compute = Compute(precision=arguments.precision, workers=arguments.workers)
    with tempfile.TemporaryDirectory() as folder:
        records = landscapes(Path(folder), arguments.images)
        log = Path(folder) / "decoded.txt"
        log_decodes(log)
        alone: dict[int, list[float]] = {size: [] for size in arguments.batch_sizes}
        whole: list[float] = []
        for number in range(arguments.rounds + 1):
            for size, seconds in alone.items():
                seconds.append(per_image(network, size, dtype, clock))
            start = clock()
            crops = many_crops(NUM_CROPS, 299)
            score(network, Preprocessing(), records, crops=crops, compute=compute)
            whole.append((clock() - start) / len(records))
            if number == 0:  # nobody counts the first round
                log.unlink()
                whole.clear()
                for seconds in alone.values():
                    seconds.clear()
        decoded = Counter(log.read_text(encoding="utf-8").splitlines())
    best = min(alone, key=lambda size: statistics.median(alone[size]))
    ratios = [spent / (NUM_CROPS * own) for spent, own in zip(whole, alone[best], strict=True)]
    facts = examine()
    model, version = facts["processor"]["model"], facts["versions"]["torch"]
    print(f"{model}, {torch.get_num_threads()} threads, {device}; torch {version}")
    seconds_of = "seconds of the processor" if arguments.processor_time else "seconds of the clock"
    kind = str(dtype).removeprefix("torch.")
    print(f"inception_v3, {kind}, {arguments.images} landscapes, n = {arguments.rounds} rounds, {seconds_of}\n")
    rows = [
        (f"network alone, batch {size}", *in_words(seconds, 1000, "ms an image")) for size, seconds in alone.items()
    ]
    block = Engine(network, Preprocessing(), compute).block_size
    rows.append((f"{NUM_CROPS} crops, blocks of {block}, from the file", *in_words(whole, 1, "s an image")))
    rows.append((f"against {NUM_CROPS} x the network alone, batch {best}", *in_words(ratios, 1, "times")))
    print(aligned(("WHAT", "MEDIAN", "RANGE", "UNIT"), rows, right=(1, 2)))
    times = ", ".join(map(str, sorted(set(decoded.values()))))
    print(f"\neach picture was decoded {times} times in {arguments.rounds} rounds")


def in_words(values: list[float], scale: float, unit: str) -> tuple[str, str, str]:
    """Median and range, at three digits after the point."""
    scaled = [scale * value for value in values]
    return f"{statistics.median(scaled):.3f}", f"{min(scaled):.3f} to {max(scaled):.3f}", unit


def per_image(network: Network, batch_size: int, dtype: torch.dtype, clock: Callable[[], float]) -> float:
    """Seconds of the network alone for one image, over about as many batches as 144 crops are."""
    device = next(network.parameters()).device
    images = torch.rand(batch_size, 3, 299, 299, device=device).to(memory_format=torch.channels_last)
    batches = max(1, NUM_CROPS // batch_size // 2)
    with evaluating(network), autocast(dtype, device):
        network(images).sum().item()
        start = clock()
        for _ in range(batches):
            network(images).sum().item()
        return (clock() - start) / (batches * batch_size)


def landscapes(folder: Path, num: int) -> list[Record]:
    """JPEG files of 500 x 375 made of two solar cells side by side."""
    cells = open_source("elpv").records
    records = []
    for index in range(num):
        pair = [np.asarray(Image.open(cells[2 * index + i].path).convert("RGB")) for i in (0, 1)]
        path = folder / f"{index}.jpg"
        Image.fromarray(np.concatenate(pair, axis=1)).resize((500, 375)).save(path, quality=90)
        records.append(Record(path=path, name=path.name, target=0))
    return records


def log_decodes(log: Path) -> None:
    """From now on every picture that is read, in whatever process, leaves a line in `log`."""
    true = evaluation_stream.pixels_of

    def logging(record: Record, pause: Pause = nullcontext, *, preprocessing: Preprocessing = AS_DECLARED) -> Pixels:
        with log.open("a", encoding="utf-8") as file:
            file.write(f"{record.name}\n")
        return true(record, pause, preprocessing=preprocessing)

    evaluation_stream.pixels_of = logging


if __name__ == "__main__":
    main()
