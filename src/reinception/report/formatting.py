"""Numbers, counts and durations as text; imports nothing, so that every module may use it."""

from __future__ import annotations

from collections.abc import Sequence

NARROW_SPACE = "\u202f"


def percent(value: float, digits: int = 1) -> str:
    """81.4 % from 81.4."""
    return f"{value:.{digits}f}{NARROW_SPACE}%"


def interval(low: float, high: float) -> str:
    """79.5 to 85.3 % from a pair of percents."""
    return f"{low:.1f} to {percent(high)}"


def percent_or_dash(fraction: float | None) -> str:
    """81.4 % from 0.814; a dash where there is none."""
    return "–" if fraction is None else percent(100 * fraction)


def number_or_dash(value: float | None) -> str:
    """0.814; a dash where there is none."""
    return "–" if value is None else f"{value:.3f}"


def p_value(p: float) -> str:
    """Two digits; 1 and < 0.001 at the ends."""
    return "1" if p > 0.995 else "< 0.001" if p < 0.001 else f"{p:.2g}"


def count(number: int, noun: str, plural: str | None = None) -> str:
    """1 image, 2,624 images; `plural` for a noun that does more than add an s."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def duration(seconds: float) -> str:
    """42 s, 5 min 12 s, 2 h 05 min, 3 days 4 h: the two largest units of a time in seconds."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 2 * 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} days {whole % 86400 // 3600} h"


def first_three(names: Sequence[str], *, quoted: bool = True) -> str:
    """“a”; “a” and “b”; “a”, “b”, “c” and 2 more."""
    words = [f"“{name}”" if quoted else name for name in names[:3]]
    words += [f"{len(names) - 3} more"] if len(names) > 3 else []
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
