"""Reads lists of images to exclude, such as the doubtful ones of the ILSVRC validation set."""

from __future__ import annotations

from pathlib import Path

from reinception.errors import ReinceptionError


def read_exclusions(path: str | Path) -> frozenset[str]:
    """The names in an exclusion list: one a line, `#` starts a comment.

    A bare number, as in ILSVRC2014_clsloc_validation_blacklist.txt, means ILSVRC2012_val_<eight digits>.JPEG.
    """
    try:
        text = Path(path).read_text(encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise ReinceptionError(f"{path}: cannot read the exclusion list: {error.strerror}") from None
    names = {line.split("#")[0].strip() for line in text.splitlines()} - {""}
    if not names:
        raise ReinceptionError(f"{path}: the exclusion list names no image; one name a line is expected")
    return frozenset(f"ILSVRC2012_val_{int(name):08d}.JPEG" if name.isdecimal() else name for name in names)
