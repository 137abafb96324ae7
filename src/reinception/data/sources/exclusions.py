"""Reads and writes lists of images to exclude, such as the doubtful ones of the ILSVRC validation set."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from reinception.errors import ReinceptionError
from reinception.files import new_text_file


def read_exclusions(path: str | Path) -> frozenset[str]:
    """The names in an exclusion list: one a line, `#` starts a comment; a name in double quotes is a JSON string.

    A bare number, as in ILSVRC2014_clsloc_validation_blacklist.txt, means ILSVRC2012_val_<eight digits>.JPEG. A `#`
    after a name is kept: `Source.without` knows whether it belongs to the name.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise ReinceptionError(f"{path}: cannot read the exclusion list: {error.strerror}") from None
    names = {_name(line) for line in text.split("\n")} - {""}
    if not names:
        raise ReinceptionError(f"{path}: the exclusion list names no image; one name a line is expected")
    return frozenset(names)


def write_exclusions(path: Path, names: Iterable[str]) -> None:
    """A list that `read_exclusions` reads back as these names, whatever characters they hold. Never over a file."""
    with new_text_file(path) as file:
        for name in names:
            is_plain = name.isprintable() and _name(name) == name
            file.write(f"{name if is_plain else json.dumps(name)}\n")


def _name(line: str) -> str:
    line = line.strip()
    if line.startswith('"'):
        try:
            return str(json.loads(line))
        except ValueError:
            return line
    head = line.partition("#")[0].strip()
    if head.isdecimal():
        return f"ILSVRC2012_val_{int(head):08d}.JPEG"
    return line if head and "#" in line and not line.partition("#")[0].endswith((" ", "\t")) else head
