"""Pictures that are the same: byte for byte, or re-encoded and resized; found by fingerprints, confirmed by pixels."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import ModuleType

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from reinception.data.decode import Pixels

try:
    import imagehash
except ImportError:  # the extra `check` is not installed: near duplicates are not looked for, and that is said
    imagehash: ModuleType | None = None  # type: ignore[no-redef]

# A perceptual hash of 64 bits proposes, a small copy of the picture decides. Of the 2,624 solar cells, which look
# alike, no two reach a correlation of 0.9984; a picture saved again as JPEG or at another size keeps 0.9995 and more.
MAX_HASH_DISTANCE = 6
MIN_CORRELATION = 0.9992
SIDE = 32
# In a flat picture there is nothing to tell it from another one.
_LEAST_CONTRAST = 4.0
_BANDS = 8


@dataclass(frozen=True, slots=True)
class Look:
    """What a picture is compared by: its hash of 64 bits, and SIDE x SIDE grey values (uint8)."""

    hash: int
    small: bytes


def content_hash(data: bytes) -> bytes:
    """sha256 of the encoded picture."""
    return hashlib.sha256(data).digest()


def look_of(pixels: Pixels) -> Look | None:
    """None without imagehash, and for a flat picture."""
    if imagehash is None:
        return None
    grey = Image.fromarray(pixels).convert("L")
    small = grey.resize((SIDE, SIDE), Image.Resampling.BOX)
    if np.asarray(small).std() < _LEAST_CONTRAST:
        return None
    bits = np.packbits(imagehash.phash(grey).hash.ravel()).tobytes()
    return Look(hash=int.from_bytes(bits), small=small.tobytes())


def equal(hashes: Sequence[bytes | None]) -> list[list[int]]:
    """Groups of positions whose hashes are the same, in order."""
    groups: dict[bytes, list[int]] = defaultdict(list)
    for position, one in enumerate(hashes):
        if one is not None:
            groups[one].append(position)
    return [group for group in groups.values() if len(group) > 1]


def alike(looks: Sequence[Look | None]) -> list[tuple[int, int]]:
    """Pairs of positions that show the same picture.

    Hashes that differ in at most MAX_HASH_DISTANCE of 64 bits are equal in one of 8 bytes at least, so only pictures
    that share such a byte are compared.
    """
    chosen = [position for position, look in enumerate(looks) if look is not None]
    if len(chosen) < 2:
        return []
    hashes = np.array([look.hash for look in looks if look is not None], dtype=np.uint64)
    parts = hashes.view(np.uint8).reshape(-1, _BANDS)
    small = np.stack([np.frombuffer(look.small, dtype=np.uint8) for look in looks if look is not None])
    pairs: set[tuple[int, int]] = set()
    for band in range(_BANDS):
        order = np.argsort(parts[:, band], kind="stable")
        ends = np.flatnonzero(np.diff(parts[order, band].astype(np.int16), append=256)) + 1
        for start, end in zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True):
            _compare(order[start:end], hashes, small, pairs)
    return sorted((chosen[one], chosen[other]) for one, other in pairs)


def _compare(
    bucket: NDArray[np.int64], hashes: NDArray[np.uint64], small: NDArray[np.uint8], pairs: set[tuple[int, int]]
) -> None:
    for place in range(len(bucket) - 1):
        one, others = int(bucket[place]), bucket[place + 1 :]
        near = others[np.bitwise_count(hashes[others] ^ hashes[one]) <= MAX_HASH_DISTANCE]
        for other in near.tolist():
            pair = (min(one, other), max(one, other))
            if pair not in pairs and _correlation(small[one], small[other]) >= MIN_CORRELATION:
                pairs.add(pair)


def _correlation(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    return float(np.corrcoef(one.astype(np.float64), other.astype(np.float64))[0, 1])


def joined(groups: Iterable[Sequence[int]]) -> list[list[int]]:
    """The groups, those that share a member made one; members and groups in order."""
    root: dict[int, int] = {}

    def find(item: int) -> int:
        while root.setdefault(item, item) != item:
            root[item] = root[root[item]]
            item = root[item]
        return item

    for group in groups:
        for item in group:
            one, other = find(group[0]), find(item)
            root[max(one, other)] = min(one, other)
    together: dict[int, list[int]] = defaultdict(list)
    for item in sorted(root):
        together[find(item)].append(item)
    return sorted(together.values())
