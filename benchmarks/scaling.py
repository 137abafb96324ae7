"""How training scales with workers: a cost model's table, and with `--measure` its errors on this machine.

What the model is told and what it is asked come from different runs: it is told of one process, of two that know
nothing of each other, and of other messages between two processes at one bandwidth; it is asked about the whole
gradient and whole steps, on one, two and four processes, at other bandwidths. Bandwidth is limited between network
namespaces, which needs root; without it, only the loopback is measured. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from limited_network import INTERFACE, LimitedNetwork, limited_network, why_not
from scaling_model import Host, Link, Work, check, exchange, gradient_bytes, sent, step_seconds, table

from reinception.cli.table import aligned
from reinception.errors import ReinceptionError
from reinception.machine import examine

WORLDS = (2, 4)
TINY, SMALL, MIDDLE = 4_000, 16_000_000, 24_000_000  # bytes: what the link is learned from; none is the gradient's size
TOLD_AT, ASKED_AT, STEPS_AT = 200.0, (500.0, 1000.0), 1000.0  # Mbit/s
NORMAL_QUARTILES = 1.349  # what lies between them, in standard deviations


@dataclass(frozen=True, kw_only=True)
class Timed:
    """The seconds of each round, from the first process that began to the last that was through, and until all were
    through its first part; and the processor's seconds of one process in one round."""

    seconds: tuple[float, ...]
    first_part: tuple[float, ...]
    processor: float

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def first(self) -> float:
        return statistics.median(self.first_part)

    @property
    def deviation(self) -> float:
        """A standard deviation, as a share of the median, that no single hiccup decides: from the quartiles."""
        low, _, high = statistics.quantiles(self.seconds, n=4)
        return (high - low) / NORMAL_QUARTILES / self.median


class Workers:
    """`world` processes of one thread each that do the same job at the same time; on the nodes of `network`, if any."""

    def __init__(self, world: int, network: LimitedNetwork | None = None) -> None:
        self.world = world
        self._processes: list[subprocess.Popen[str]] = []
        self._network = network

    def __enter__(self) -> Workers:
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start(self) -> None:
        world, network = self.world, self._network
        place = {"MASTER_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo", "WORLD_SIZE": str(world)}
        if network is not None:
            place |= {"MASTER_ADDR": network.address(0), "GLOO_SOCKET_IFNAME": INTERFACE}
        quiet = {"OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"}  # it misses the names that nodes do not have
        common = os.environ | place | quiet | {"MASTER_PORT": str(_free_port())}
        program = [sys.executable, str(Path(__file__).with_name("scaling_worker.py"))]
        for rank in range(world):
            words = [*network.inside(rank), *program] if network else program
            pipe, environment = subprocess.PIPE, common | {"RANK": str(rank)}
            process = subprocess.Popen(
                words, env=environment, stdin=pipe, stdout=pipe, text=True, start_new_session=True
            )  # in a session of its own, so that Ctrl-C reaches this process, which then ends that one
            self._processes.append(process)

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.communicate()

    def do(self, job: str, rounds: int, **details: object) -> Timed:
        self.begin(job, rounds, **details)
        return self.end()

    def begin(self, job: str, rounds: int, **details: object) -> None:
        order = json.dumps(details | {"job": job, "rounds": rounds})
        for process in self._processes:
            assert process.stdin is not None
            try:
                print(order, file=process.stdin, flush=True)
            except BrokenPipeError:
                break  # `end` says who it was

    def end(self) -> Timed:
        answers = []
        for rank, process in enumerate(self._processes):
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise ReinceptionError(f"process {rank} of {self.world} has died; what it said stands above")
            answers.append(json.loads(line))
        rounds = list(zip(*(answer["rounds"] for answer in answers), strict=True))
        starts = [min(began for began, _, _ in every) for every in rounds]
        return Timed(
            seconds=tuple(max(end for *_, end in every) - start for every, start in zip(rounds, starts, strict=True)),
            first_part=tuple(max(mid for _, mid, _ in e) - start for e, start in zip(rounds, starts, strict=True)),
            processor=statistics.mean(answer["processor"] for answer in answers) / len(rounds),
        )


# -- what the model is told --------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """The model's parameters on this machine; `goodput` is the share of a link's bits that are gradient."""

    host: Host
    work: Mapping[str, Work]  # of the fast and of the exact reduction
    spread: float
    latency_seconds: float
    goodput: float | None  # None where no link can be limited

    def link(self, megabits: float | None) -> Link:
        if megabits is None or self.goodput is None:
            return Link(name="no limit", bytes_per_second=float("inf"), seconds=self.latency_seconds)
        useful = self.goodput * megabits * 1e6 / 8
        return Link(name=f"{megabits:g} Mbit/s", bytes_per_second=useful, seconds=self.latency_seconds)

    def lines(self) -> Iterator[str]:
        fast, exact, host = self.work["fast"], self.work["exact"], self.host
        yield (
            f"one process alone: forward {fast.forward:.3f} s, backward {fast.backward:.3f} s, "
            f"update {fast.after:.3f} s; exact: backward {exact.backward:.3f} s, update {exact.after:.3f} s"
        )
        yield (
            f"P processes on {host.cores:g} cores: each computes max(1, P / {host.cores:g}) times as long, "
            f"and {host.crowding:.1%} longer in company; its steps vary by {self.spread:.1%}"
        )
        share = "" if self.goodput is None else f"; {self.goodput:.1%} of a limited link's bits are gradient"
        yield (
            f"exchange: {self.latency_seconds * 1e6:.0f} us a message; {host.elapsed * 1e9:.2f} ns a byte sent without "
            f"limit, {host.busy * 1e9:.2f} ns of them a processor's{share}"
        )


def told_of_computation(rounds: int) -> tuple[Mapping[str, Work], Host, float, Timed]:
    """One process alone, then two beside each other that exchange nothing: work, host and spread. The last is what
    the other process takes alone, which the model is not told."""
    with Workers(1) as one, Workers(1) as other:
        forward = one.do("forward", rounds).median
        alone = one.do("steps", rounds, reduction="fast", replicas=1)
        two, four = (one.do("steps", rounds, reduction="exact", replicas=replicas) for replicas in (2, 4))
        for process in (one, other):
            process.begin("steps", 2 * rounds, reduction="fast", replicas=1)
        beside = [process.end() for process in (one, other)]
        again = other.do("steps", rounds, reduction="fast", replicas=1)
    after = alone.median - alone.first
    replica = (four.first - two.first) / 2  # with its gradient as integers
    work = {
        "fast": Work(forward=forward, backward=alone.first - forward, after=after),
        "exact": Work(forward=forward, backward=replica - forward, after=max(two.first - 2 * replica, 0.0) + after),
    }
    crowding = statistics.mean(timed.median for timed in beside) / alone.median - 1
    host = Host(cores=len(os.sched_getaffinity(0)), crowding=max(crowding, 0.0))
    return work, host, statistics.mean(timed.deviation for timed in beside), again


def told_of_exchange(pair: Workers, network: LimitedNetwork | None, rounds: int) -> tuple[float, Host, float | None]:
    """Two processes and messages of other sizes: latency, what handling a byte takes, and goodput."""
    tiny, middle = pair.do("exchange", 3 * rounds, size=TINY), pair.do("exchange", rounds, size=MIDDLE)
    latency, goodput = tiny.median / 2, None
    if network is not None:
        network.limit(TOLD_AT)
        limited = pair.do("exchange", rounds, size=SMALL).median
        network.limit(None)
        goodput = sent(SMALL, 2) / (limited - tiny.median) / (TOLD_AT * 1e6 / 8)
    volume = sent(MIDDLE, 2)
    elapsed = (middle.median - tiny.median) / volume
    return latency, Host(elapsed=elapsed, busy=min(middle.processor / volume, elapsed)), goodput


# -- what it is asked --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Case:
    """Something measured, and what the model had to say of it."""

    what: str
    workers: int
    link: str
    timed: Timed
    predicted: float

    @property
    def error(self) -> float:
        return self.predicted / self.timed.median - 1

    def row(self) -> tuple[str, ...]:
        times = (self.timed.median, min(self.timed.seconds), max(self.timed.seconds), self.predicted)
        median, least, most, predicted = (f"{seconds:.3f}" for seconds in times)
        error = f"{100 * self.error:+.1f} %"
        return self.what, f"{self.workers}", self.link, median, f"{least} to {most}", predicted, error


def asked(workers: Workers, network: LimitedNetwork | None, rounds: int, told: Calibration) -> Iterator[Case]:
    """All-reduces of the real gradient at each bandwidth, and whole steps at none and at one of them."""
    size, world = gradient_bytes(), workers.world
    for rate in (None, *ASKED_AT) if network else (None,):
        if network is not None:
            network.limit(rate)
        link = told.link(rate)
        timed = workers.do("exchange", rounds, size=size)
        predicted = exchange(size, world, link, host=told.host, buckets=1, trees=False)
        yield Case(what="all-reduce", workers=world, link=link.name, timed=timed, predicted=predicted)
        for reduction, bytes_sent in (("fast", size), ("exact", 2 * size)) if rate in (None, STEPS_AT) else ():
            timed = workers.do("steps", rounds, reduction=reduction, replicas=world)
            predicted = step_seconds(
                told.work[reduction],
                bytes_sent,
                world,
                link,
                overlap=reduction == "fast",
                host=told.host,
                spread=told.spread,
                trees=False,  # gloo's all-reduce is a ring
            )
            yield Case(what=f"{reduction} step", workers=world, link=link.name, timed=timed, predicted=predicted)


def measure(rounds: int, *, limited: bool) -> tuple[Calibration, list[Case]]:
    """Everything, in the order of the processes it takes."""
    work, computing, spread, again = told_of_computation(rounds)
    cases = [Case(what="fast step", workers=1, link="-", timed=again, predicted=work["fast"].total)]
    told: Calibration | None = None
    for world in WORLDS:
        with joined(world, limited=limited) as (workers, network):
            if told is None:
                latency, handling, goodput = told_of_exchange(workers, network, rounds)
                host = replace(computing, elapsed=handling.elapsed, busy=handling.busy)
                told = Calibration(host=host, work=work, spread=spread, latency_seconds=latency, goodput=goodput)
            for case in asked(workers, network, rounds, told):
                print(*case.row(), sep="  ", file=sys.stderr, flush=True)
                cases.append(case)
    assert told is not None
    return told, cases


@contextmanager
def joined(world: int, *, limited: bool) -> Iterator[tuple[Workers, LimitedNetwork | None]]:
    """That many processes, on nodes of a network of their own if `limited`, or all on the loopback."""
    with ExitStack() as stack:
        network = stack.enter_context(limited_network(world)) if limited else None
        yield stack.enter_context(Workers(world, network)), network


def worst(cases: Sequence[Case], what: str) -> float:
    """The largest error of `what`, as a share and without its sign, on more than one worker."""
    return max(abs(case.error) for case in cases if case.what == what and case.workers > 1)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _say_measured(rounds: int) -> None:
    began, reason = time.perf_counter(), why_not()
    facts = examine()
    print(
        f"{facts['processor']['model']}; torch {facts['versions']['torch']}; load {os.getloadavg()[0]:.1f} at the start"
    )
    print(
        f"full network at 96 pixels, a replica of 8 images and one thread a process, n = {rounds}, medians in seconds"
    )
    if reason:
        print(f"no limited links: {reason}; what follows is the loopback's")
    told, cases = measure(rounds, limited=reason is None)
    print("\ntold:", *told.lines(), sep="\n  ")
    header = ("ASKED", "WORKERS", "LINK", "MEASURED", "RANGE", "PREDICTED", "ERROR")
    print(f"\n{aligned(header, [case.row() for case in cases], right=(1, 3, 4, 5, 6))}")
    errors = {name: worst(cases, f"{name} step") for name in ("fast", "exact")}
    print(
        f"\nefficiency in percent, fast / exact; in brackets if the model were off by the largest error of a step\n"
        f"above, {errors['fast']:.0%} / {errors['exact']:.0%}. The links' figures are assumed, "
        f"nothing beyond {max(WORLDS)} workers was measured,\nand no tree: gloo has none\n"
    )
    print(table(errors))
    print(f"\n{check(told.spread)}")
    print(f"\n{time.perf_counter() - began:.0f} s, load {os.getloadavg()[0]:.1f} at the end")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true", help="measure on this machine as well; about five minutes")
    parser.add_argument("--rounds", type=int, default=7, help="times each case is timed (default: %(default)s)")
    arguments = parser.parse_args()
    if arguments.rounds < 1:
        parser.error("--rounds must be at least 1")
    print(f"gradient: {gradient_bytes() / 1e6:.1f} MB in float32")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that namespaces go when this process is told to
    if arguments.measure:
        try:
            _say_measured(arguments.rounds)
        except ReinceptionError as error:
            sys.exit(f"error: {error}")
        return
    print(f"efficiency in percent, fast / exact reduction; --measure says how wrong the model is\n\n{table()}")
    print(f"\n{check()}")


if __name__ == "__main__":
    main()
