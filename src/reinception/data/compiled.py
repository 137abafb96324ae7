"""Functions that numba compiles to machine code, kept on disk from one process to the next."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def compiled(**options: Any) -> Decorator:
    """numba's `njit`, kept where there is a place for it: beside the source, or in the user's cache."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        try:
            return njit(cache=True, **options)(function)
        except RuntimeError:  # neither this folder nor the user's cache can be written
            return njit(**options)(function)

    return decorate


# Without numba's runtime (`_nrt`) a function makes no arrays, and does not count who uses those it is given.
lean = compiled(_nrt=False)
inlined = compiled(_nrt=False, inline="always")
