"""Plain text in aligned columns, for people and for `cut` and `grep`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def aligned(header: Sequence[str], rows: Iterable[Sequence[str]], *, right: Iterable[int] = ()) -> str:
    """The rows under their header, two spaces between columns; the columns numbered in `right` end flush."""
    lines = [tuple(header), *(tuple(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    flush = set(right)
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column in flush else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def count(number: int | None) -> str:
    """23,834,568; a dash where there is none."""
    return "-" if number is None else f"{number:,}"


def billions(number: int) -> str:
    """5.713 G for 5,712,927,904."""
    return f"{number / 1e9:.3f} G"


def by(size: Sequence[int] | None) -> str:
    """3x3 for (3, 3); nothing where there is no window."""
    return "" if size is None else "x".join(map(str, size))
