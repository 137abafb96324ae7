"""How many images a day W workers do, what a million costs, and what holds them up: formulas over measured rates.

A worker is one process with its share of a machine. Decoding and the network overlap, but on the same cores: their
core-seconds add up. What workers share is the storage. Seconds, bytes and core-seconds throughout.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from reinception.cli.table import aligned

DAY, HOUR, MILLION = 86_400.0, 3_600.0, 1e6


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What one image costs: core-seconds of reading and decoding and of the network, bytes read; and a start."""

    decode: float
    network: float
    bytes: float
    start: float

    @property
    def core_seconds(self) -> float:
        return self.decode + self.network


@dataclass(frozen=True, kw_only=True)
class Site:
    """Where workers run: cores of a machine and workers on it, bytes a second that all machines together can read and
    that one can, and the price of a core for an hour."""

    cores: float = 1.0
    workers_a_machine: int = 1
    storage: float = math.inf
    link: float = math.inf
    price: float = 0.0

    def cores_busy(self, workers: int) -> float:
        """Cores that so many workers of one machine keep busy: with one thread each, no more than there are."""
        return min(self.cores, workers)


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """Images a second of all workers, and what bounds them: `processor`, `link` or `storage`."""

    images_per_second: float
    bound: str


def capacity(costs: Costs, site: Site, workers: int) -> Capacity:
    """What `workers` do together once they run, as many on a machine as the site says; the last may have fewer."""
    full, rest = divmod(workers, site.workers_a_machine)
    machines = [site.workers_a_machine] * full + [rest] * (rest > 0)
    by_processor = sum(site.cores_busy(one) for one in machines) / costs.core_seconds
    by_link = len(machines) * site.link / costs.bytes if costs.bytes else math.inf
    by_storage = site.storage / costs.bytes if costs.bytes else math.inf
    bounds = {"processor": by_processor, "link": by_link, "storage": by_storage}
    bound = min(bounds, key=bounds.__getitem__)
    return Capacity(images_per_second=bounds[bound], bound=bound)


def seconds_for(costs: Costs, site: Site, workers: int, images: int) -> float:
    """Seconds from the start of all workers, each with its shard, to the last image.

    Starting is core-seconds, too, where there are more workers than cores on a machine.
    """
    together = min(workers, site.workers_a_machine)
    crowd = max(1.0, together / site.cores)
    return costs.start * crowd + images / capacity(costs, site, workers).images_per_second


def price_of_a_million(costs: Costs, site: Site, workers: int) -> float:
    """The price of a million images while all workers run: also of cores that wait for storage."""
    machines = -(-workers // site.workers_a_machine)
    rate = capacity(costs, site, workers).images_per_second
    return site.price * site.cores * machines * MILLION / rate / HOUR


def table(settings: Sequence[tuple[str, Costs]], site: Site, numbers: Sequence[int] = (1, 10, 100, 1000)) -> str:
    """Images a day, a billion in days, the price of a million and the bound, for numbers of workers."""
    rows = []
    for name, costs in settings:
        for workers in numbers:
            found = capacity(costs, site, workers)
            a_day = DAY * found.images_per_second
            price = price_of_a_million(costs, site, workers)
            rows.append((name, f"{workers:,}", f"{a_day:,.0f}", f"{1e9 / a_day:,.1f}", f"{price:.2f}", found.bound))
    header = ("WHAT", "WORKERS", "IMAGES A DAY", "DAYS A BILLION", "PRICE A MILLION", "BOUND BY")
    return aligned(header, rows, right=range(1, 5))
