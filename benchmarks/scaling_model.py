"""How long a training step takes on N workers: formulas, and what they say of clusters that nobody here has.

A step is a forward pass, a backward pass with the exchange of gradients beside it, and the update. The exchange is the
better of a ring and a tree, and the slowest of the workers sets the pace. Seconds, bytes and bytes a second throughout.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import NormalDist

from reinception.cli.table import aligned
from reinception.family import network
from reinception.spec import cost

BUCKETS = 5  # DistributedDataParallel's 25 MB buckets of 108.6 MB
FORWARD_SHARE = 1 / 3  # a backward pass does the multiplications of a forward pass twice


@dataclass(frozen=True, kw_only=True)
class Link:
    """A network between workers: what one of them can send, and how long the first byte takes."""

    name: str
    bytes_per_second: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Host:
    """What workers share that run on one machine; as it stands, each has a machine of its own that costs nothing.

    `crowding` is by how much a process computes slower while the other cores are busy too. Handling a byte that is sent
    takes `elapsed` seconds where nothing limits the link, both measured with company; `busy` of them are a processor's.
    """

    cores: float = math.inf
    crowding: float = 0.0
    elapsed: float = 0.0
    busy: float = 0.0

    def turns(self, workers: int) -> float:
        """How many processes share a core."""
        return max(1.0, workers / self.cores)

    def slowdown(self, workers: int) -> float:
        """How many times as long as alone a process computes beside `workers` - 1 others."""
        return self.turns(workers) * (1 + self.crowding if workers > 1 else 1.0)


OWN_MACHINES = Host()


@dataclass(frozen=True, kw_only=True)
class Work:
    """The computation of one step of one worker, alone on its machine: two passes, and what follows the exchange."""

    forward: float
    backward: float
    after: float = 0.0

    @property
    def total(self) -> float:
        return self.forward + self.backward + self.after


# Goodput of a busy link, not its label: about nine tenths of it. Latencies are assumed.
LINKS = (
    Link(name="10 Gbit/s", bytes_per_second=1.1e9, seconds=30e-6),
    Link(name="25 Gbit/s", bytes_per_second=2.9e9, seconds=10e-6),
    Link(name="100 Gbit/s", bytes_per_second=11.5e9, seconds=8e-6),
)
# Horovod's README: 90 % for Inception V3 on 128 servers of 4 Pascal GPUs, RoCE at 25 Gbit/s. Batch and speed of one are
# those of TensorFlow's benchmarks of 2017 (synthetic data, DGX-1, P100), because Horovod's page gives neither.
PUBLISHED_WORKERS, PUBLISHED_EFFICIENCY, PUBLISHED_LINK = 512, 0.90, LINKS[1]
PUBLISHED_BATCH, PUBLISHED_IMAGES_PER_SECOND = 64, 142.0


def sent(size: float, workers: int) -> float:
    """Bytes each worker of a ring sends so that all have the sum of their `size` bytes."""
    return 2 * (workers - 1) / workers * size


def ring(size: float, workers: int, link: Link, *, buckets: int = BUCKETS) -> float:
    """Seconds for `size` bytes to be summed around a ring, bucket by bucket."""
    return sent(size, workers) / link.bytes_per_second + 2 * (workers - 1) * link.seconds * buckets


def tree(size: float, workers: int, link: Link, *, buckets: int = BUCKETS) -> float:
    """Seconds for `size` bytes to be summed up a pair of trees and sent back down."""
    return 2 * size / link.bytes_per_second + 2 * math.log2(workers) * link.seconds * buckets


def exchange(
    size: float, workers: int, link: Link, *, host: Host = OWN_MACHINES, buckets: int = BUCKETS, trees: bool = True
) -> float:
    """Seconds of the better of the two, or without `trees` of a ring, on a link no faster than the host can feed it."""
    if workers == 1:
        return 0.0
    per_byte = max(1 / link.bytes_per_second, host.elapsed + host.busy * (host.turns(workers) - 1))
    fed = replace(link, bytes_per_second=1 / per_byte if per_byte else math.inf)
    around = ring(size, workers, fed, buckets=buckets)
    return min(around, tree(size, workers, fed, buckets=buckets)) if trees else around


def slowest(workers: int) -> float:
    """How many standard deviations the last of `workers` is behind the mean, normally; Blom's approximation of 1958."""
    return NormalDist().inv_cdf((workers - 0.375) / (workers + 0.25)) if workers > 1 else 0.0


def step_seconds(
    work: Work,
    size: float,
    workers: int,
    link: Link,
    *,
    overlap: bool,
    host: Host = OWN_MACHINES,
    spread: float = 0.0,
    trees: bool = True,
) -> float:
    """Seconds of a step whose computation varies by a share of `spread` (a standard deviation) between workers.

    With `overlap` buckets are exchanged while the backward pass goes on, which what the processor has to do for them
    delays: two stages of a pipeline, of which the shorter one sticks out by a bucket. Without, one message follows it.
    """
    slower = host.slowdown(workers) * (1 + spread * slowest(workers))
    forward, backward, after = (seconds * slower for seconds in (work.forward, work.backward, work.after))
    if not overlap or workers == 1:
        return forward + backward + exchange(size, workers, link, host=host, buckets=1, trees=trees) + after
    communication = exchange(size, workers, link, host=host, trees=trees)
    handling = sent(size, workers) * host.busy * host.turns(workers)
    stages = (backward + handling, communication)
    return forward + max(stages) + min(stages) / BUCKETS + after


def efficiency(work: Work, size: float, workers: int, link: Link, *, overlap: bool, spread: float = 0.0) -> float:
    """Images per second and worker, as a share of what one worker does alone; each on its own machine."""
    return work.total / step_seconds(work, size, workers, link, overlap=overlap, spread=spread)


def gradient_bytes() -> int:
    """Of the network in training, with its auxiliary classifier, in float32: 108.6 MB."""
    return 4 * cost.parameters(network("inception_v3"), with_aux=True)


def batch(images: int, images_per_second: float) -> Work:
    """A step of a worker of which only the speed is known."""
    seconds = images / images_per_second
    return Work(forward=FORWARD_SHARE * seconds, backward=(1 - FORWARD_SHARE) * seconds)


def table(errors: Mapping[str, float] | None = None) -> str:
    """Efficiencies for the paper's 50 workers and for more, a replica of 32 on each, at three speeds of a worker.

    In percent. `errors` are the largest of step time seen for "fast" and "exact", as shares: each efficiency then has
    beside it what it would be if the model were as wrong there, either way.
    """
    size, rows = gradient_bytes(), []
    for what, images_per_second in (
        ("GPU of 2015, 9.5 images/s", 9.5),
        ("200 images/s", 200),
        ("1,200 images/s", 1200),
    ):
        work = batch(32, images_per_second)
        for workers in (50, 256, 1024):
            cells = []
            for link in LINKS:
                fast = efficiency(work, size, workers, link, overlap=True)
                exact = efficiency(work, 2 * size, workers, link, overlap=False)  # 8 bytes a number, after backward
                pair = (("fast", fast), ("exact", exact))
                cells.append(" / ".join(_percent(value, (errors or {}).get(name)) for name, value in pair))
            rows.append((what, f"{workers:,}", *cells))
    return aligned(("WORKER", "WORKERS", *(link.name for link in LINKS)), rows, right=range(1, 5))


def _percent(value: float, error: float | None) -> str:
    if error is None:
        return f"{100 * value:.0f}"
    low, high = (min(max(value * (1 + sign * error), 0.0), 1.0) for sign in (-1, 1))
    return f"{100 * value:.0f} ({100 * low:.0f}-{100 * high:.0f})"


def check(spread: float | None = None) -> str:
    """The published efficiency beside the model's, and beside that with the `spread` of steps that was measured."""
    work, size = batch(PUBLISHED_BATCH, PUBLISHED_IMAGES_PER_SECOND), gradient_bytes()

    def predicted(spread: float) -> float:
        return efficiency(work, size, PUBLISHED_WORKERS, PUBLISHED_LINK, overlap=True, spread=spread)

    pure = predicted(0.0)
    missing = (1 / PUBLISHED_EFFICIENCY - 1 / pure) / slowest(PUBLISHED_WORKERS)
    said = (
        f"published: 90 % at 512 workers on 25 Gbit/s; the model without stragglers: {pure:.1%}, an error of "
        f"{100 * (pure - PUBLISHED_EFFICIENCY):+.1f} points;\nsteps that vary by {missing:.1%} between workers would "
        "explain it, which is not a measurement of it"
    )
    if spread is None:
        return said
    here = predicted(spread)
    off = 100 * (here - PUBLISHED_EFFICIENCY)
    return f"{said};\nwith the {spread:.1%} measured here: {here:.1%}, an error of {off:+.1f} points"
