"""Files written for the user: never over an existing one, never half written; `-` is the standard output."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from reinception.errors import ReinceptionError


@contextmanager
def new_text_file(path: str | Path, *, replace: bool = False) -> Iterator[TextIO]:
    """Open `path` for writing; it appears, whole, when the block ends, and not at all when the block fails.

    An existing file is refused unless `replace`. Line ends are written as given, and file names that are not UTF-8
    survive as their bytes. `-` is the standard output.
    """
    if str(path) == "-":
        yield sys.stdout
        sys.stdout.flush()
        return
    path = Path(path)
    if not replace:
        refuse_existing(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with part.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            yield file
        part.replace(path)
    except OSError as error:
        raise ReinceptionError(f"{path}: cannot write: {error.strerror}") from None
    finally:
        part.unlink(missing_ok=True)


def refuse_existing(path: Path) -> None:
    """Raise when `path` is there already, before any work is spent on what would go into it."""
    if path.exists():
        raise ReinceptionError(f"{path}: exists already; name another file or remove it first")


def write_json(value: Any, path: str | Path, *, replace: bool = False) -> None:
    """Write strict JSON (no NaN), indented, with a final newline; over an existing file only with `replace`."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:  # a file name that is not UTF-8; escaped, the JSON stays readable everywhere
            text = json.dumps(value, indent=2, allow_nan=False)
    with new_text_file(path, replace=replace) as file:
        file.write(text + "\n")


def cache_folder() -> Path:
    """Where we keep what we can make again: `reinception` in the user's cache folder (XDG_CACHE_HOME, or ~/.cache).

    RuntimeError where the user has no home.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "reinception"
