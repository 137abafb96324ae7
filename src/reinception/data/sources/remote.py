"""Reads files by address (`s3://...`, `https://...`) in parts with fsspec; writes nothing."""

from __future__ import annotations

import contextlib
import itertools
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

from reinception.errors import ReinceptionError, UsageError

ATTEMPTS = 4
"""How many times a part is requested before the connection counts as lost."""
FIRST_PAUSE_SECONDS = 0.5
"""The pause before the second attempt; each later one is twice as long."""
TIMEOUT_SECONDS = 60.0
NUM_AT_ONCE = 8

Pause = Callable[[], AbstractContextManager[object]]
"""A context manager that is entered while a request is under way."""

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_BLOCK_BYTES = 1 << 20
# Under which names fsspec's backends give a file's version.
_VERSION = ("ETag", "etag", "Content-MD5", "md5Hash", "checksum", "LastModified", "Last-Modified", "mtime", "created")
_MAX_FILES = 1_000_000


class MissingError(ReinceptionError):
    """There is no such file at that address."""


def is_address(text: str) -> bool:
    """Whether it is an address, `protocol://...`, and not a path."""
    return _ADDRESS.match(text) is not None


def expanded(address: str) -> list[str]:
    """The addresses that one with braces stands for, in order: `{000..009}` counts, `{train,val}` lists."""
    pieces = _BRACES.split(address)
    choices = [_choices(address, piece) if place % 2 else [piece] for place, piece in enumerate(pieces)]
    num = 1
    for some in choices:
        num *= len(some)
    if num > _MAX_FILES:
        raise UsageError(f"{address}: stands for {num:,} files, more than {_MAX_FILES:,}: correct the braces")
    return ["".join(parts) for parts in itertools.product(*choices)]


def _choices(address: str, inside: str) -> list[str]:
    if (found := _RANGE.fullmatch(inside)) is None:
        return inside.split(",")
    first, last, width = int(found[1]), int(found[2]), len(found[1])
    if not first <= last <= first + _MAX_FILES:
        raise UsageError(f"{address}: {{{inside}}} does not count upwards: correct it")
    return [f"{number:0{width}d}" for number in range(first, last + 1)]


def size_and_version(address: str, pause: Pause = contextlib.nullcontext) -> tuple[int, str]:
    """The file's size in bytes and its version as its store gives it (empty where it gives none)."""
    info = _request(address, "its size", pause, "info")
    if info.get("type") == "directory" or not isinstance(info.get("size"), int):
        raise ReinceptionError(f"{address}: its server does not give its size: use a server that does")
    return info["size"], "; ".join(f"{name} {info[name]}" for name in _VERSION if info.get(name))


def sizes_and_versions(addresses: list[str]) -> list[tuple[int, str]]:
    """`size_and_version` of each, several at a time."""
    with ThreadPoolExecutor(NUM_AT_ONCE) as threads:
        return list(threads.map(size_and_version, addresses))


def read_part(address: str, offset: int, size: int, pause: Pause = contextlib.nullcontext) -> bytes:
    """The `size` bytes at `offset`, fewer where the file ends before.

    `MissingError` where there is no such file; ReinceptionError for a server that sends more than is requested, and
    for a connection that is lost ATTEMPTS times.
    """
    if size == 0:
        return b""
    data: bytes = _request(address, f"byte {offset:,}", pause, "cat_file", start=offset, end=offset + size)
    if len(data) > size:
        raise ReinceptionError(
            f"{address}: its server sends the whole file where a part is requested (no range requests): use another "
            "server, or copy the data here"
        )
    return data


def read_whole(address: str) -> bytes:
    """A whole file; the errors of `read_part`."""
    size, _ = size_and_version(address)
    data = read_part(address, 0, size)
    if len(data) < size:
        raise ReinceptionError(
            f"{address}: ends after {len(data):,} of {size:,} bytes: it may have been replaced, start again"
        )
    return data


class RemoteFile:
    """A file at an address with `seek` and `read`, read forwards in blocks large enough to be worth a request."""

    def __init__(self, address: str, size: int) -> None:
        self._address, self._size = address, size
        self._position = self._start = 0
        self._block = b""

    def seek(self, position: int) -> int:
        self._position = position
        return position

    def read(self, size: int) -> bytes:
        data = self.at(self._position, size)
        self._position += len(data)
        return data

    def at(self, offset: int, size: int) -> bytes:
        """The bytes at `offset`, whatever the position."""
        size = max(min(size, self._size - offset), 0)
        if not self._start <= offset <= offset + size <= self._start + len(self._block):
            length = min(max(size, _BLOCK_BYTES), self._size - offset)
            self._block, self._start = read_part(self._address, offset, length), offset
            if len(self._block) < length:
                raise ReinceptionError(f"{self._address}: ends before byte {offset + length:,}: was it replaced?")
        return self._block[offset - self._start : offset - self._start + size]


def _request(address: str, what: str, pause: Pause, method: str, **options: int) -> Any:
    """What the filesystem's method returns for the file, with more attempts while the connection is to blame."""
    files, path = _filesystem(address)
    # Only the asynchronous backends take a time limit; the others have their own.
    limit = {"timeout": TIMEOUT_SECONDS} if getattr(files, "async_impl", False) else {}
    seconds = FIRST_PAUSE_SECONDS
    with pause():
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return getattr(files, method)(path, **options, **limit)
            except (FileNotFoundError, IsADirectoryError) as error:
                raise MissingError(f"{address}: there is no such file: check the address") from error
            except PermissionError as error:
                raise ReinceptionError(f"{address}: may not be read ({_message(error)}): check your access") from error
            except Exception as error:  # each backend has its own errors for the network, the store and the time limit
                status = getattr(error, "status", None)
                if isinstance(status, int) and 400 <= status < 500 and status not in (408, 429):
                    raise ReinceptionError(f"{address}: is refused ({_message(error)}): check your access") from error
                if attempt == ATTEMPTS:
                    raise ReinceptionError(
                        f"{address}: the connection was lost at {what}, {ATTEMPTS} times ({_message(error)}): check "
                        "the network and start again; a run goes on with train --resume"
                    ) from error
            time.sleep(seconds)
            seconds *= 2
    raise AssertionError("the last attempt returns or raises")


def _filesystem(address: str) -> tuple[Any, str]:
    """The filesystem of this process (fsspec keeps one per process) and the path in it."""
    try:
        import fsspec.core
    except ImportError as error:
        raise UsageError(f'{address}: needs fsspec: pip install "reinception[remote]"') from error
    try:
        return fsspec.core.url_to_fs(address)
    except ImportError as error:
        raise UsageError(f'{address}: {_message(error)}; for http(s): pip install "reinception[remote]"') from error
    except Exception as error:
        raise ReinceptionError(f"{address}: cannot be opened ({_message(error)}): check the address") from error


def _message(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
