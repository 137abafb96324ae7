"""Lists the members of a tar file by name and offset from its headers; nothing is ever extracted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

from reinception.errors import ReinceptionError

MAX_MEMBERS = 500_000
"""A file with more is not taken for a shard of images."""

_BLOCK = 512
_MAX_NAME_BYTES = 1 << 16
_REGULAR, _FOLDER = (b"0", b"\0", b"7"), b"5"
_LONG_NAME, _LONG_LINK, _EXTENDED, _EXTENDED_FOR_ALL = b"L", b"K", b"x", b"g"
_REFUSED = {b"1": "a hard link", b"2": "a link", b"3": "a device", b"4": "a device", b"6": "a pipe", b"S": "sparse"}
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZ": "bzip2", b"\xfd7": "xz", b"(\xb5": "zstd"}


@dataclass(frozen=True, slots=True)
class Member:
    """A regular file inside a tar file: its name, and the `offset` and `size` of its content in bytes."""

    name: str
    offset: int
    size: int


def members(path: Path) -> Iterator[Member]:
    """Every regular file of a tar file (POSIX ustar and pax, GNU long names), in order.

    `ReinceptionError` for what could lead outside or is no plain archive of files: absolute names or names with `..`,
    links, devices, pipes, sparse files, compression, members larger than the file, more than MAX_MEMBERS members, and
    damaged headers. At most 64 KiB are read at a time.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            yield from members_of(path, file, size)
    except OSError as error:
        raise ReinceptionError(f"{path}: cannot be read ({error.strerror}): check the path") from error


class Readable(Protocol):
    """An open tar file."""

    def seek(self, position: int, /) -> int: ...
    def read(self, size: int, /) -> bytes: ...


def members_of(path: Path | str, file: Readable, end: int) -> Iterator[Member]:
    """`members` of an open file of `end` bytes, read forwards; `path` is its name in errors."""
    position, number, overrides = 0, 0, dict[str, str]()
    if packing := _COMPRESSED.get(file.read(2)):
        raise ReinceptionError(f"{path}: is compressed ({packing}), so its images have no offset: decompress it")
    while position + _BLOCK <= end:
        file.seek(position)
        header = file.read(_BLOCK)
        if not header.strip(b"\0"):
            return  # a block of zeros ends the archive
        if not _is_sound(header):
            raise ReinceptionError(f"{path}: is damaged or no tar file (at byte {position:,}): get a fresh copy")
        number += 1
        if number > MAX_MEMBERS:
            raise ReinceptionError(f"{path}: has more than {MAX_MEMBERS:,} members: pack them into several files")
        kind = header[156:157]
        size = int(overrides["size"]) if overrides.get("size", "").isdecimal() else _number(header[124:136])
        offset = position + _BLOCK
        name = overrides.get("path") or _name(header)
        if size < 0 or offset + size > end:
            raise ReinceptionError(f"{path}: {name!r} lacks some of its {size:,} bytes: get a fresh copy")
        position = offset + -(-size // _BLOCK) * _BLOCK
        if kind in (_LONG_NAME, _LONG_LINK, _EXTENDED, _EXTENDED_FOR_ALL):
            if size > _MAX_NAME_BYTES:
                raise ReinceptionError(f"{path}: a name of {size:,} bytes is no name: get another copy")
            overrides |= _overrides(kind, file.read(size))
            continue
        overrides = dict[str, str]()
        if kind in _REFUSED:
            raise ReinceptionError(f"{path}: {name!r} is {_REFUSED[kind]}; only files are read: pack it without")
        if name.startswith("/") or ".." in PurePosixPath(name).parts or "\0" in name:
            raise ReinceptionError(f"{path}: {name!r} leads outside the archive: pack it with plain names")
        if kind in _REGULAR and not name.endswith("/"):
            yield Member(name=name, offset=offset, size=size)
        elif kind != _FOLDER and kind not in _REGULAR:
            raise ReinceptionError(f"{path}: {name!r} is of the unknown kind {kind!r}: pack it without")


def _is_sound(header: bytes) -> bool:
    """Whether the checksum holds: the sum of all bytes, its own field counted as spaces."""
    return _number(header[148:156]) == sum(header) - sum(header[148:156]) + 8 * 0x20


def _number(field: bytes) -> int:
    """Octal digits, or a binary number where the first bit is set; -1 for neither."""
    if field[0] & 0x80:
        return int.from_bytes(bytes([field[0] & 0x7F]) + field[1:]) if field[0] == 0x80 else -1
    digits = field.strip(b"\0 ")
    return int(digits, 8) if digits.isdigit() and not set(digits) & set(b"89") else (0 if not digits else -1)


def _name(header: bytes) -> str:
    name = header[:100].split(b"\0")[0]
    if header[257:263] == b"ustar\0" and (prefix := header[345:500].split(b"\0")[0]):
        name = prefix + b"/" + name
    return name.decode("utf-8", "surrogateescape")


def _overrides(kind: bytes, data: bytes) -> dict[str, str]:
    """The `path` and `size` that an extra header gives for the member that follows."""
    if kind == _LONG_NAME:
        return {"path": data.rstrip(b"\0").decode("utf-8", "surrogateescape")}
    found = {}
    while kind == _EXTENDED and data:
        length, _, _ = data.partition(b" ")
        if not length.isdigit() or not len(length) < int(length) <= len(data):
            break
        record, data = data[len(length) + 1 : int(length) - 1], data[int(length) :]
        key, _, value = record.decode("utf-8", "surrogateescape").partition("=")
        if key in ("path", "size"):
            found[key] = value
    return found
