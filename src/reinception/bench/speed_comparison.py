"""The whole comparison: settings tried, the best of each timed in turn, start-up, memory and the limit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from reinception import machine
from reinception.bench import own, peers
from reinception.bench.contestant import Contestant, LeftOutError, Subject
from reinception.bench.timing import Entrant, Timed, interleaved

SEARCH_ROUNDS = 2


@dataclass(frozen=True, kw_only=True)
class BenchPlan:
    """What is compared: `against` are names of `peers.PEERS`."""

    against: Sequence[str]
    precisions: Sequence[str]
    batch_sizes: Sequence[int]
    rounds: int
    threads: int
    with_compiled: bool


@dataclass(frozen=True, kw_only=True)
class Found:
    """The runs, best setting of each first searched; start-up and memory by contestant; limits by precision."""

    subject: Subject
    runs: tuple[Timed, ...]
    starts: tuple[tuple[Contestant, float, int], ...]
    limits: dict[str, float]
    left_out: tuple[tuple[Contestant, str], ...]

    def to_json(self) -> dict[str, Any]:
        """`{"machine", "network", "runs", "starts", "limits", "left_out"}`; rates in images a second."""
        return {
            "machine": machine.examine(),
            "network": {"model": self.subject.model, "input_size": self.subject.input_size},
            "runs": [one.to_json() for one in self.runs],
            "starts": [
                _named(one) | {"start_seconds": round(seconds, 2), "peak_mib": mib} for one, seconds, mib in self.starts
            ],
            "limits": [
                {"what": "convolutions alone", "precision": name, "images_per_second": round(rate, 2)}
                for name, rate in self.limits.items()
            ],
            "left_out": [_named(one) | {"reason": reason} for one, reason in self.left_out],
        }


def compare_speed(subject: Subject, plan: BenchPlan, say: Callable[[str], None]) -> Found:
    """Try each contestant's settings, keep the fastest at each batch size, and time those in turn."""
    left_out: list[tuple[Contestant, str]] = []
    runs: list[Timed] = []
    starts: list[tuple[Contestant, float, int]] = []
    limits: dict[str, float] = {}
    for precision in plan.precisions:
        with ExitStack() as stack:
            entries: list[tuple[Entrant, int]] = []
            for name in (own.NAME, *plan.against):
                options = _options(name, precision, plan, left_out)
                contestants = [Contestant(what=name, setting=one, precision=precision) for one in options]
                best = _best(contestants, subject, plan, left_out, say)
                for entrant in set(best.values()):
                    stack.enter_context(entrant)
                entries += [(entrant, size) for size, entrant in best.items()]
            entries.sort(key=lambda entry: entry[1])  # those that are compared follow each other
            say(f"{precision}: {len(entries)} in turn, {plan.rounds} rounds")
            runs += interleaved(entries, plan.rounds)
            for entrant in dict.fromkeys(entrant for entrant, _ in entries):
                starts.append((entrant.contestant, entrant.start_seconds, entrant.peak_mib()))
        say(f"{precision}: the convolutions alone")
        limits[precision] = own.limit(subject, precision)[0]
    return Found(subject=subject, runs=tuple(runs), starts=tuple(starts), limits=limits, left_out=tuple(left_out))


def _options(name: str, precision: str, plan: BenchPlan, left_out: list[tuple[Contestant, str]]) -> Sequence[str]:
    if name == own.NAME:
        return own.settings()
    if (package := peers.missing(name)) is not None:
        left_out.append((Contestant(what=name, setting="", precision=precision), f"{package} is not installed"))
        return ()
    return [one for one in peers.settings(name, precision) if plan.with_compiled or one != peers.COMPILED]


def _best(
    contestants: Sequence[Contestant],
    subject: Subject,
    plan: BenchPlan,
    left_out: list[tuple[Contestant, str]],
    say: Callable[[str], None],
) -> dict[int, Entrant]:
    """The fastest at each batch size, running; the others are ended, or noted where they cannot take part."""
    best: dict[int, tuple[float, Entrant]] = {}
    for contestant in contestants:
        say(f"{contestant.precision}: {contestant.what}, {contestant.setting}")
        entrant: Entrant | None = None
        try:
            entrant = Entrant(contestant, subject, plan.threads)
            rates = {size: max(entrant.rate(size) for _ in range(SEARCH_ROUNDS)) for size in plan.batch_sizes}
        except LeftOutError as error:
            left_out.append((contestant, str(error)))
            if entrant is not None:
                entrant.close()
            continue
        before = {one for _, one in best.values()} | {entrant}
        for size, rate in rates.items():
            if size not in best or rate > best[size][0]:
                best[size] = rate, entrant
        for loser in before - {one for _, one in best.values()}:
            loser.close()
    return {size: entrant for size, (_, entrant) in best.items()}


def _named(one: Contestant) -> dict[str, str]:
    return {"what": one.what, "setting": one.setting, "precision": one.precision}
