"""Values on the command line: one converter for each kind, and the inverse for the defaults that help shows."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar, get_args, get_origin

N = TypeVar("N", int, float)
_SECONDS = {"h": 3600, "m": 60, "s": 1}


class Value(NamedTuple):
    """How help calls a value, and what makes it of a word; `read` raises ValueError with the reason."""

    metavar: str
    read: Callable[[str], object]


def duration(text: str) -> float:
    """Seconds, from `90`, `90s`, `15m`, `1.5h`."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    if not match or float(match[1]) == 0:
        raise ValueError(f"{text!r} is not a length of time such as 90s, 15m or 2h")
    return float(match[1]) * _SECONDS[match[2] or "s"]


def positive_int(text: str) -> int:
    return _number(text, int, lambda value: value > 0, "a whole number above 0")


def natural_int(text: str) -> int:
    return _number(text, int, lambda value: value >= 0, "a whole number, 0 or more")


def any_int(text: str) -> int:
    return _number(text, int, lambda value: True, "a whole number")


def positive_float(text: str) -> float:
    return _number(text, float, lambda value: 0 < value < float("inf"), "a number above 0")


def fraction(text: str) -> float:
    return _number(text, float, lambda value: 0 <= value < 1, "a fraction, at least 0 and below 1")


def sizes(text: str) -> tuple[int, ...]:
    """(342, 384) from `342,384`."""
    return tuple(positive_int(part.strip()) for part in text.split(","))


def _number(text: str, kind: Callable[[str], N], fits: Callable[[N], bool], what: str) -> N:
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not fits(value):
        raise ValueError(f"{text!r} is not {what}")
    return value


BY_NAME = {
    "seed": Value("N", any_int),
    "workers": Value("N", natural_int),
    "table": Value("N", str),
    "scales": Value("N,...", sizes),
    "resume": Value("RUN", str),
    "baseline": Value("RUN", str),
    "group_by": Value("HOW", str),
    "licence": Value("TEXT", str),
}
BY_TYPE = {int: Value("N", positive_int), float: Value("X", positive_float), str: Value("NAME", str)}


def value_of(name: str, hint: Any) -> Value:
    """How the option `name` of type `hint` is written on the command line."""
    members = [member for member in (get_args(hint) or (hint,)) if member is not type(None)]
    if choices := choices_of(hint):
        return Value("NAME" if isinstance(choices[0], str) else "N", partial(_choice, choices=choices))
    if name in BY_NAME:
        return BY_NAME[name]
    if name.endswith("_seconds"):
        return Value("TIME", duration)
    if name.endswith("_fraction"):
        return Value("X", fraction)
    if Path in members:
        return Value("PATH" if name == "out" else "FILE", str if str in members else Path)
    return BY_TYPE[members[0]]


def choices_of(hint: Any) -> tuple[Any, ...]:
    """What a Literal, optional or not, leaves to choose from; () for any other type."""
    if get_origin(hint) is Literal:
        return get_args(hint)
    return next((get_args(member) for member in get_args(hint) if get_origin(member) is Literal), ())


def _choice(text: str, *, choices: tuple[Any, ...]) -> object:
    known = {str(choice): choice for choice in choices}
    if text not in known:
        raise ValueError(f"unknown: {text}; {suggestion(text, tuple(known))}")
    return known[text]


def suggestion(text: str, known: Sequence[str]) -> str:
    """What to say to one who wrote `text` where one of `known` is meant."""
    near = difflib.get_close_matches(text, known, n=1)
    return f"did you mean {near[0]}?" if near else f"choose one of {', '.join(known)}"


def shown(name: str, default: Any) -> str:
    """A default as a user would write it: 10m for 600.0 of an option in seconds."""
    if name.endswith("_seconds"):
        unit = next(unit for unit, seconds in _SECONDS.items() if default % seconds == 0)
        return f"{default / _SECONDS[unit]:g}{unit}"
    return str(default)
