"""Checks of the fields of a network; SpecError names what does not fit."""

from __future__ import annotations

from reinception.errors import UsageError

Size = tuple[int, int]


class SpecError(UsageError):
    """A network that cannot exist: a bad field, a bad JSON document, or an input too small for a layer."""


require = SpecError.require
check_fraction = SpecError.require_fraction


def check_name(name: str) -> None:
    require(name.isidentifier(), f"{name!r} cannot be a name: letters, digits and underscores only")


def check_window(kernel: Size, stride: Size, padding: Size) -> None:
    require(min(kernel) > 0 and min(stride) > 0, f"kernel {kernel} and stride {stride} must be positive")
    fits = min(padding) >= 0 and all(2 * p <= k for p, k in zip(padding, kernel, strict=True))
    require(fits, f"padding {padding} must lie between 0 and half the kernel {kernel}")
