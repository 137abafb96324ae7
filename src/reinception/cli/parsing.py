"""argparse as we want it: whole words, errors of one line, the same help on every Python, values that are checked."""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

_SECONDS = {"s": 1, "m": 60, "h": 3600}
N = TypeVar("N", int, float)


class Parser(argparse.ArgumentParser):
    """argparse with whole words only, and with errors of one line."""

    def __init__(self, **fields: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=Help, **fields)
        if sys.version_info >= (3, 14):
            self.color = False

    def _check_value(self, action: argparse.Action, value: object) -> None:
        if action.choices is not None and value not in action.choices:
            near = difflib.get_close_matches(str(value), [str(choice) for choice in action.choices], n=1)
            hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(map(str, action.choices))}"
            raise argparse.ArgumentError(action, f"unknown: {value}; {hint}")

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


class Help(argparse.HelpFormatter):
    """Help that reads the same on every Python: 3.13 began to write `-o, --out X` where 3.11 writes `-o X, --out X`."""

    def __init__(self, prog: str, **fields: Any) -> None:
        super().__init__(prog, max_help_position=30, **fields)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings or action.nargs == 0:
            return super()._format_action_invocation(action)
        return f"{', '.join(action.option_strings)} {self._format_args(action, action.dest.upper())}"


# -- values ------------------------------------------------------------------------------------------------------------


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


def sizes(text: str) -> tuple[int, ...]:
    """(342, 384) from `342,384`."""
    return tuple(positive_int(part.strip()) for part in text.split(","))


def _number(text: str, kind: Callable[[str], N], fits: Callable[[N], bool], what: str) -> N:
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not fits(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
    return value
