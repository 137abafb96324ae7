"""How the values of flags are written: one converter for each kind, and its inverse for the defaults in help."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

from reinception.inference.shard import Shard

N = TypeVar("N", int, float)
Read = Callable[[str], Any]
"""Makes a value of a word; ValueError with the reason where it cannot."""

_SECONDS = {"h": 3600, "m": 60, "s": 1, "ms": 0.001}


def duration(text: str) -> float:
    """Seconds, from `90`, `90s`, `15m`, `1.5h`."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|[smh]?)", text)
    if not match or float(match[1]) == 0:
        raise ValueError(f"{text!r} is not a length of time such as 90s, 15m or 2h")
    return float(match[1]) * _SECONDS[match[2] or "s"]


def _number(kind: Callable[[str], N], fits: Callable[[N], bool], what: str) -> Callable[[str], N]:
    def read(text: str) -> N:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not fits(value):
            raise ValueError(f"{text!r} is not {what}")
        return value

    return read


_positive = _number(int, lambda value: value > 0, "a whole number above 0")


def _sizes(text: str) -> tuple[int, ...]:
    return tuple(map(_positive, text.split(",")))


def _numbers(num: int, most: int, like: str) -> Read:
    def read(text: str) -> tuple[int, ...]:
        words = text.split(",")
        if len(words) != num or not all(word.strip().isdecimal() and int(word) <= most for word in words):
            raise ValueError(f"{text!r} is not {num} whole numbers from 0 to {most}, such as {like}")
        return tuple(map(int, words))

    return read


def _multiply_adds(text: str) -> float:
    """A number of operations, from `500M`, `0.5G` or `5e8`."""
    number, factor = (text[:-1], {"K": 1e3, "M": 1e6, "G": 1e9}[text[-1]]) if text[-1:] in "KMG" else (text, 1.0)
    return factor * _number(float, lambda value: 0 < value < float("inf"), "a number such as 500M or 0.5G")(number)


_BY_TYPE: dict[type, tuple[str, Read]] = {
    int: ("N", _positive),
    float: ("X", _number(float, lambda value: 0 < value < float("inf"), "a number above 0")),
    str: ("NAME", str),
}
_LISTS: dict[type, tuple[str, Read]] = {
    int: ("N,...", _sizes),
    str: ("NAME,...", lambda text: tuple(text.split(","))),
}
_BY_NAME: dict[str, tuple[str, Read]] = {
    "seed": ("N", _number(int, lambda value: True, "a whole number")),
    "split_seed": ("N", _number(int, lambda value: True, "a whole number")),
    "workers": ("N", _number(int, lambda value: value >= 0, "a whole number, 0 or more")),
    "scales": ("N,...", _sizes),
    "background": ("R,G,B", _numbers(3, 255, "0,0,0")),
    "deep_range": ("LOW,HIGH", _numbers(2, 65535, "0,4095")),
    "table": ("N", str),
    "resume": ("RUN", str),
    "baseline": ("RUN", str),
    "group_by": ("HOW", str),
    "licence": ("TEXT", str),
    "calibrate": ("DATA", str),
    "check": ("DATA", str),
    "shard": ("I/N", Shard.parse),
    "multiply_adds": ("N", _multiply_adds),
    "tolerance": ("POINTS", _number(float, lambda value: value >= 0, "a number of points, 0 or more")),
}


def value_of(name: str, hint: Any) -> tuple[str, Read]:
    """How help calls the value of the option `name` of type `hint`, and what makes it of a word."""
    members = get_args(hint) or (hint,)
    if choices := choices_of(hint):
        return ("NAME" if isinstance(choices[0], str) else "N"), partial(_choice, choices=choices)
    if name in _BY_NAME:
        return _BY_NAME[name]
    if name.endswith("_seconds"):
        return "TIME", duration
    if name.endswith("_fraction"):
        return "X", _number(float, lambda value: 0 <= value < 1, "a fraction, at least 0 and below 1")
    if Path in members:
        return ("PATH" if name == "out" else "FILE"), (str if str in members else Path)
    return (_LISTS if get_origin(hint) is tuple else _BY_TYPE)[members[0]]


def choices_of(hint: Any) -> tuple[Any, ...]:
    """What a Literal, optional or not, leaves to choose from; () for any other type."""
    return next((get_args(one) for one in (hint, *get_args(hint)) if get_origin(one) is Literal), ())


def _choice(text: str, *, choices: tuple[Any, ...]) -> object:
    known = {str(choice): choice for choice in choices}
    if text not in known:
        raise ValueError(f"unknown: {text}; choose one of {', '.join(known)}")
    return known[text]


def shown(name: str, value: Any) -> str:
    """A value as a user would write it: 10m for 600.0 of an option in seconds."""
    if name.endswith("_seconds"):
        unit = next(unit for unit, seconds in _SECONDS.items() if value % seconds == 0)
        return f"{value / _SECONDS[unit]:g}{unit}"
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
