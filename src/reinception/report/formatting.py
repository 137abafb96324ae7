"""Numbers and counts as people write them."""

from __future__ import annotations

NARROW_SPACE = "\u202f"


def percent(value: float, digits: int = 1) -> str:
    """81.4 % from 81.4."""
    return f"{value:.{digits}f}{NARROW_SPACE}%"


def interval(low: float, high: float) -> str:
    """79.5 to 85.3 % from a pair of percents."""
    return f"{low:.1f} to {percent(high)}"


def count(number: int, noun: str, plural: str | None = None) -> str:
    """1 image, 2,624 images."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def duration(seconds: float) -> str:
    """42 s, 5 min 12 s, 2 h 05 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def joined(words: list[str]) -> str:
    """a; a and b; a, b and c."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
