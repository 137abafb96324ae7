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
class Plan:
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


def compare_speed(subject: Subject, plan: Plan, say: Callable[[str], None]) -> Found:
    """Try each contestant's settings, keep the fastest at the largest batch, and time those in turn."""
    left_out: list[tuple[Contestant, str]] = []
    runs: list[Timed] = []
    starts: list[tuple[Contestant, float, int]] = []
    limits: dict[str, float] = {}
    for precision in plan.precisions:
        with ExitStack() as stack:
            entrants: list[Entrant] = []
            for name in (own.NAME, *plan.against):
                options = _options(name, precision, plan, left_out)
                best = _best(
                    [Contestant(what=name, setting=one, precision=precision) for one in options],
                    subject,
                    plan,
                    left_out,
                    say,
                )
                if best is not None:
                    entrants.append(stack.enter_context(best))
            say(f"{precision}: {len(entrants)} in turn, {plan.rounds} rounds")
            runs += interleaved(entrants, plan.batch_sizes, plan.rounds)
            starts += [(one.contestant, one.start_seconds, one.peak_mib()) for one in entrants]
        say(f"{precision}: the convolutions alone")
        limits[precision] = own.limit(subject, precision)[0]
    return Found(subject=subject, runs=tuple(runs), starts=tuple(starts), limits=limits, left_out=tuple(left_out))


def _options(name: str, precision: str, plan: Plan, left_out: list[tuple[Contestant, str]]) -> Sequence[str]:
    if name == own.NAME:
        return own.settings()
    if (package := peers.missing(name)) is not None:
        left_out.append((Contestant(what=name, setting="", precision=precision), f"{package} is not installed"))
        return ()
    return [one for one in peers.settings(name, precision) if plan.with_compiled or one != peers.COMPILED]


def _best(
    contestants: Sequence[Contestant],
    subject: Subject,
    plan: Plan,
    left_out: list[tuple[Contestant, str]],
    say: Callable[[str], None],
) -> Entrant | None:
    """The fastest of them at the largest batch, running; the others are ended, or noted where they cannot take part."""
    best: Entrant | None = None
    best_rate = 0.0
    for contestant in contestants:
        say(f"{contestant.precision}: {contestant.what}, {contestant.setting}")
        try:
            entrant = Entrant(contestant, subject, plan.threads)
            rate = max(entrant.rate(max(plan.batch_sizes)) for _ in range(SEARCH_ROUNDS))
        except LeftOutError as error:
            left_out.append((contestant, str(error)))
            continue
        if best is None or rate > best_rate:
            loser, best, best_rate = best, entrant, rate
        else:
            loser = entrant
        if loser is not None:
            loser.close()
    return best


def _named(one: Contestant) -> dict[str, str]:
    return {"what": one.what, "setting": one.setting, "precision": one.precision}
