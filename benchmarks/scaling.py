"""How training scales with workers: a cost model of one step, its table, and its error where something was measured.

A step is a forward pass (a third of the computation), a backward pass with the exchange of gradients beside it, and
what is left of the exchange after that. The exchange is the better of a ring and a tree. Stragglers are told apart: the
slowest of N workers whose step times vary by a share c takes about 1 + c sqrt(2 ln N) as long as the mean.

`--measure` times real steps on one and on two processes of this machine and prints the model's error beside them.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import socket
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass

from reinception import cost
from reinception.cli.table import aligned
from reinception.family import network

BUCKETS = 5  # DistributedDataParallel's 25 MB buckets of 108.6 MB
FORWARD_SHARE = 1 / 3


@dataclass(frozen=True, kw_only=True)
class Link:
    """A network between workers: what one of them can send, and how long the first byte takes; both assumed."""

    name: str
    bytes_per_second: float
    seconds: float


# Goodput of a busy link, not its label: about nine tenths of it.
LINKS = (
    Link(name="10 Gbit/s", bytes_per_second=1.1e9, seconds=30e-6),
    Link(name="25 Gbit/s", bytes_per_second=2.9e9, seconds=10e-6),
    Link(name="100 Gbit/s", bytes_per_second=11.5e9, seconds=8e-6),
)
# Horovod's README: 90 % for Inception V3 on 512 Pascal GPUs in 128 servers on 25 Gbit/s RoCE.
PUBLISHED = {"workers": 512, "link": LINKS[1], "batch_size": 64, "images_per_second": 142.0, "efficiency": 0.90}


def ring(size: float, workers: int, link: Link) -> float:
    """Seconds for `size` bytes to be summed around a ring, bucket by bucket."""
    steps = 2 * (workers - 1)
    return steps / workers * size / link.bytes_per_second + steps * link.seconds * BUCKETS


def tree(size: float, workers: int, link: Link) -> float:
    """Seconds for `size` bytes to be summed up a pair of trees and sent back down."""
    return 2 * size / link.bytes_per_second + 2 * math.log2(workers) * link.seconds * BUCKETS


def exchange(size: float, workers: int, link: Link) -> float:
    return min(ring(size, workers, link), tree(size, workers, link)) if workers > 1 else 0.0


def step_seconds(compute: float, size: float, workers: int, link: Link, *, overlap: bool, spread: float = 0.0) -> float:
    """Seconds of a step whose computation takes `compute` on one worker, with `spread` between workers."""
    slowest = compute * (1 + spread * math.sqrt(2 * math.log(workers)))
    communication = exchange(size, workers, link)
    if not overlap:
        return slowest + communication
    forward = slowest * FORWARD_SHARE
    return forward + max(slowest - forward + communication / BUCKETS, communication) if workers > 1 else slowest


def efficiency(compute: float, size: float, workers: int, link: Link, *, overlap: bool, spread: float = 0.0) -> float:
    """Images per second and worker, as a share of what one worker does alone."""
    return compute / step_seconds(compute, size, workers, link, overlap=overlap, spread=spread)


def gradient_bytes() -> int:
    """Of the network in training, with its auxiliary classifier, in float32: 108.6 MB."""
    return 4 * cost.parameters(network("inception_v3"), with_aux=True)


def table() -> str:
    """Efficiencies for the paper's 50 workers and for more, a replica of 32 on each, at three speeds of a worker."""
    size, rows = gradient_bytes(), []
    for what, images_per_second in (
        ("GPU of 2015, 9.5 images/s", 9.5),
        ("200 images/s", 200),
        ("1,200 images/s", 1200),
    ):
        compute = 32 / images_per_second
        for workers in (50, 256, 1024):
            cells = []
            for link in LINKS:
                fast = efficiency(compute, size, workers, link, overlap=True)
                exact = efficiency(compute, 2 * size, workers, link, overlap=False)  # 8 bytes a number, after backward
                cells.append(f"{fast:.0%} / {exact:.0%}")
            rows.append((what, f"{workers:,}", *cells))
    return aligned(("WORKER", "WORKERS", *(link.name for link in LINKS)), rows, right=range(1, 5))


def check() -> str:
    """The published efficiency beside the model's."""
    workers, link = PUBLISHED["workers"], PUBLISHED["link"]
    compute = PUBLISHED["batch_size"] / PUBLISHED["images_per_second"]
    assert isinstance(workers, int) and isinstance(link, Link)
    pure = efficiency(compute, gradient_bytes(), workers, link, overlap=True)
    missing = (1 / PUBLISHED["efficiency"] - 1 / pure) / math.sqrt(2 * math.log(workers))
    return (
        f"published: 90 % at 512 workers on 25 Gbit/s; the model without stragglers: {pure:.1%}, an error of "
        f"{100 * pure - 90:+.1f} points;\nsteps that vary by {missing:.1%} between workers would explain it, "
        "which is not a measurement of it"
    )


# -- measured on this machine ------------------------------------------------------------------------------------------


def measure(rounds: int) -> str:
    """Two replicas on one and on two processes of one thread each: measured steps beside predicted ones."""
    rows = []
    for reduction in ("exact", "fast"):
        alone = _run(1, reduction, rounds)[0]
        pair = _run(2, reduction, rounds)
        one, two = (statistics.median(run["steps"]) for run in (alone, pair[0]))
        sent = statistics.median(pair[0]["exchange"]) * (1.0 if reduction == "exact" else 0.5)
        compute = one / 2
        forward = compute * FORWARD_SHARE
        predicted = compute + sent if reduction == "exact" else forward + max(compute - forward + sent / BUCKETS, sent)
        spread = f"{min(pair[0]['steps']):.3f} to {max(pair[0]['steps']):.3f}"
        error = f"{100 * (predicted / two - 1):+.0f} %"
        rows.append((reduction, f"{one:.3f}", f"{two:.3f}", spread, f"{sent:.3f}", f"{predicted:.3f}", error))
    header = ("REDUCTION", "1 PROCESS, S", "2 PROCESSES, S", "RANGE", "EXCHANGE, S", "PREDICTED, S", "ERROR")
    return aligned(header, rows, right=range(1, 7))


def _run(world: int, reduction: str, rounds: int) -> list[dict[str, list[float]]]:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    processes = []
    for rank in range(world):
        ranks = {"RANK": rank, "WORLD_SIZE": world, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        environment = os.environ | {name: str(value) for name, value in ranks.items()} | {"OMP_NUM_THREADS": "1"}
        words = [sys.executable, __file__, "--rank", reduction, "--rounds", str(rounds)]
        processes.append(subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True))
    return [json.loads(process.communicate()[0].splitlines()[-1]) for process in processes]


def rank(reduction: str, rounds: int) -> None:
    """One process of a measurement: the steps of two replicas of the full network on small random images."""
    import torch

    from reinception.data.loader import Batch
    from reinception.model.build import build
    from reinception.protocol import Preprocessing
    from reinception.recipe import named
    from reinception.runtime import prepare
    from reinception.train.distributed import Ranks
    from reinception.train.replicas import Replicas
    from reinception.train.stop import Stop

    device, size = torch.device("cpu"), 96
    recipe = named("paper_2015").changed("replicas", 2, source="benchmark").changed("batch_size", 8, source="benchmark")
    arch = network("inception_v3", input_size=size, aux="adaptive")
    live = prepare(build(arch, seed=0), device).train()
    images = torch.randint(0, 256, (8, 3, size, size), dtype=torch.uint8)
    batch = Batch(images=images, targets=torch.arange(8), indices=torch.arange(8), epoch=0, step=0)
    measured: dict[str, list[float]] = {"steps": [], "exchange": []}
    with Ranks(device) as ranks:
        replicas = Replicas(
            live,
            recipe,
            ranks=ranks,
            reduction="exact" if reduction == "exact" else "fast",
            preprocessing=Preprocessing(input_size=size),
            seed=0,
            dtype=torch.float32,
            device=device,
        )
        integers = torch.zeros(sum(parameter.numel() for parameter in live.parameters()), dtype=torch.int64)
        for step in range(2 + rounds):
            ranks.meet()
            began = time.perf_counter()
            replicas.combine([batch] * len(replicas.share), step=step, stop=Stop())
            measured["steps"].append(time.perf_counter() - began)
            ranks.meet()
            began = time.perf_counter()
            ranks.add_integers(integers)
            measured["exchange"].append(time.perf_counter() - began)
        ranks.meet()
    print(json.dumps({name: seconds[2:] for name, seconds in measured.items()}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true", help="time one and two processes of this machine as well")
    parser.add_argument("--rounds", type=int, default=7, help="steps timed in each case (default: %(default)s)")
    parser.add_argument("--rank", choices=("exact", "fast"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.rank is not None:
        rank(arguments.rank, arguments.rounds)
        return
    print(f"gradient: {gradient_bytes() / 1e6:.1f} MB in float32; efficiency with the fast / exact reduction\n")
    print(table())
    print(f"\n{check()}")
    if arguments.measure:
        print(f"\nfull network at 96 pixels, 2 replicas of 8, one thread a process, n = {arguments.rounds}\n")
        print(measure(arguments.rounds))


if __name__ == "__main__":
    main()
