"""What backends keep in the cache folder: compiled networks and choices, each checked before it is used."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path

from reinception.files import cache_folder, is_temporary, write_bytes

MOST_BYTES = 4 << 30
"""Of all that is kept; what was used least recently goes first."""

_DIGEST_BYTES = 32


def folder() -> Path:
    """Where it lies. RuntimeError where the user has no home."""
    return cache_folder() / "backends"


def read(name: str) -> bytes | None:
    """What was kept under `name`; None where there is nothing, or it is not what was written under this name."""
    try:
        path = folder() / name
        content = path.read_bytes()
    except (OSError, RuntimeError):
        return None
    value = content[_DIGEST_BYTES:]
    if content[:_DIGEST_BYTES] != _digest(name, value):
        return None
    with suppress(OSError):
        os.utime(path)
    return value


def write(name: str, value: bytes) -> bool:
    """Keeps `value` under `name`, whole or not at all, in place of what was there. False where it cannot be kept.

    Two processes may write at once: the later one's value stays.
    """
    try:
        path = folder() / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, _digest(name, value) + value, replace=True)
        _forget_oldest()
    except (OSError, RuntimeError):
        return False
    return True


def _digest(name: str, value: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\0" + value).digest()


def _forget_oldest() -> None:
    found = []
    for path in folder().iterdir():
        with suppress(OSError):
            if not is_temporary(path):
                found.append((path.stat().st_mtime, path.stat().st_size, path))
    total = sum(size for _, size, _ in found)
    for _, size, path in sorted(found):
        if total <= MOST_BYTES:
            return
        path.unlink(missing_ok=True)
        total -= size
