"""Write files whole or not at all, never over an existing one unasked; the cache folder."""

from __future__ import annotations

import json
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, TextIO

from reinception.errors import ReinceptionError

_LONGEST_NAME = 255


@contextmanager
def new_file(path: str | Path, *, replace: bool = False) -> Iterator[Path]:
    """A temporary path beside `path` to write to; the file appears under its own name, whole, when the block ends.

    File and folder are synced to the disk, so a loss of power leaves the old file or the new one. Nothing is left when
    the block fails. Raises ReinceptionError for an existing file unless `replace`; OSError where it cannot be written.
    """
    path = Path(path)
    if not replace:
        refuse_existing(path)
    part = temporary_name(path)
    try:
        yield part
        publish(part, path, replace=replace)  # another process may have written it meanwhile
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def temporary_name(path: Path) -> Path:
    """A new name beside `path` for what is not whole yet, with as much of its own as fits into most file systems."""
    own = os.fsdecode(os.fsencode(path.name)[: _LONGEST_NAME - len("..01234567.tmp")])
    return path.with_name(f".{own}.{secrets.token_hex(4)}.tmp")


def publish(part: Path, path: Path, *, replace: bool = False) -> None:
    """Give the finished file `part`, in the same file system, the name `path`, synced to the disk.

    Raises ReinceptionError for an existing file unless `replace`.
    """
    _sync(part)
    if not replace:
        refuse_existing(path)
    os.replace(part, path)
    with suppress(OSError):  # some network file systems cannot sync a folder
        _sync(path.parent)


@contextmanager
def new_text_file(path: str | Path, *, replace: bool = False) -> Iterator[TextIO]:
    """`new_file` opened for text. `-` is the standard output. Raises ReinceptionError where it cannot be written.

    Line ends are written as given, and file names that are not UTF-8 keep their bytes.
    """
    if str(path) == "-":
        yield sys.stdout
        sys.stdout.flush()
        return
    try:
        with (
            new_file(path, replace=replace) as part,
            part.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
        ):
            yield file
    except BrokenPipeError:  # of another file: the reader of the standard output has gone
        raise
    except OSError as error:
        raise ReinceptionError(f"{path}: cannot write: {error.strerror}") from None


@contextmanager
def utf8_name(path: Path) -> Iterator[str]:
    """A name of the file for libraries that take no other names than UTF-8: its own, or that of an open descriptor."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        with path.open("rb") as stream:
            yield f"/dev/fd/{stream.fileno()}"
    else:
        yield str(path)


def write_bytes(path: str | Path, content: bytes, *, replace: bool = False) -> None:
    """`new_file` with this content."""
    with new_file(path, replace=replace) as part, open(part, "wb") as file:
        file.write(content)


def write_json(value: Any, path: str | Path, *, replace: bool = False) -> None:
    """`new_text_file` with strict JSON (no NaN), indented, with a final newline."""
    with new_text_file(path, replace=replace) as file:
        file.write(json_text(value, indent=2) + "\n")


def json_text(value: Any, *, indent: int | None = None) -> str:
    """Strict JSON (no NaN), in one line without `indent`; a file name that is not UTF-8 makes it all ASCII."""
    text = json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:  # escaped, the JSON stays readable everywhere
            return json.dumps(value, indent=indent, allow_nan=False)
    return text


def refuse_existing(path: Path) -> None:
    """Raise when `path` is there already, before any work is spent on what would go into it."""
    if path.exists():
        raise ReinceptionError(f"{path}: exists already; name another file or remove it first")


def is_temporary(path: Path, name: str = "*") -> bool:
    """Whether `path` is what a killed process left of a file called `name` (a pattern) that it was writing."""
    return fnmatch(path.name, f".{name}.*.tmp") and path.is_file()


def cache_folder() -> Path:
    """Where we keep what we can make again: `reinception` in the user's cache folder (XDG_CACHE_HOME, or ~/.cache).

    RuntimeError where the user has no home.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "reinception"


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
