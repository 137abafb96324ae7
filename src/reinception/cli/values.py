"""What a flag's word means: numbers within their bounds, and lengths of time."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from typing import TypeVar

_SECONDS = {"s": 1, "m": 60, "h": 3600}
N = TypeVar("N", int, float)


def duration(text: str) -> float:
    """Seconds, from `90`, `90s`, `15m`, `1.5h`."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    if not match or float(match[1]) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a length of time such as 90s, 15m or 2h")
    return float(match[1]) * _SECONDS[match[2] or "s"]


def positive_int(text: str) -> int:
    return _number(text, int, lambda value: value > 0, "a whole number above 0")


def natural_int(text: str) -> int:
    return _number(text, int, lambda value: value >= 0, "a whole number, 0 or more")


def positive_float(text: str) -> float:
    return _number(text, float, lambda value: 0 < value < float("inf"), "a number above 0")


def fraction(text: str) -> float:
    return _number(text, float, lambda value: 0 <= value < 1, "a share, at least 0 and below 1")


def _number(text: str, kind: Callable[[str], N], fits: Callable[[N], bool], what: str) -> N:
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not fits(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
    return value
