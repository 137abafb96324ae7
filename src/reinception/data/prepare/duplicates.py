"""Finds exact and near duplicates: perceptual hashes propose pairs, small copies of the images confirm them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from types import ModuleType

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from reinception.data.images.decode import Pixels

try:
    import imagehash
except ImportError:  # the extra `check` is not installed: near duplicates are not looked for, and the user is told
    imagehash: ModuleType | None = None  # type: ignore[no-redef]

# A perceptual hash of 64 bits proposes, a small copy of the image decides. Of the 2,624 solar cells, which look alike,
# no two reach a correlation of 0.9984; an image saved again as JPEG or at another size keeps 0.9995 and more.
MAX_HASH_DISTANCE = 6
MIN_CORRELATION = 0.9992
SIDE = 32
# A flat image has nothing that distinguishes it from another one.
_LEAST_CONTRAST = 4.0
_BANDS = 8


@dataclass(frozen=True, slots=True)
class Thumbprint:
    """What images are compared by: a hash of 64 bits, and SIDE x SIDE grey values (uint8)."""

    hash: int
    small: bytes


def thumbprint(pixels: Pixels) -> Thumbprint | None:
    """None without imagehash, and for a flat image."""
    if imagehash is None:
        return None
    grey = Image.fromarray(pixels).convert("L")
    small = grey.resize((SIDE, SIDE), Image.Resampling.BOX)
    if np.asarray(small).std() < _LEAST_CONTRAST:
        return None
    bits = np.packbits(imagehash.phash(grey).hash.ravel()).tobytes()
    return Thumbprint(hash=int.from_bytes(bits), small=small.tobytes())


def exact_duplicates(hashes: Sequence[bytes | None]) -> list[list[int]]:
    """Groups of positions whose hashes are the same, in order."""
    groups: dict[bytes, list[int]] = defaultdict(list)
    for position, one in enumerate(hashes):
        if one is not None:
            groups[one].append(position)
    return [group for group in groups.values() if len(group) > 1]


def near_duplicates(thumbprints: Sequence[Thumbprint | None]) -> list[tuple[int, int]]:
    """Pairs of positions that show the same image.

    Hashes that differ in at most MAX_HASH_DISTANCE (6) of 64 bits are equal in two of 8 bytes at least, so only
    images that share two bytes in their places are compared: of a million different ones 28 times 7 others each.
    """
    chosen = [position for position, one in enumerate(thumbprints) if one is not None]
    if len(chosen) < 2:
        return []
    hashes = np.array([one.hash for one in thumbprints if one is not None], dtype=np.uint64)
    parts = hashes.view(np.uint8).reshape(-1, _BANDS).astype(np.uint16)
    small = [one.small for one in thumbprints if one is not None]
    candidates: set[tuple[int, int]] = set()
    for one, other in combinations(range(_BANDS), 2):
        keys: NDArray[np.uint16] = np.left_shift(parts[:, one], 8, dtype=np.uint16) | parts[:, other]
        candidates.update(_near(hashes, keys))
    same = (pair for pair in candidates if _correlation(small[pair[0]], small[pair[1]]) >= MIN_CORRELATION)
    return sorted((chosen[one], chosen[other]) for one, other in same)


def _near(hashes: NDArray[np.uint64], keys: NDArray[np.uint16]) -> Iterator[tuple[int, int]]:
    """Pairs of positions whose keys are equal and whose hashes are near; the cost is that of the equal keys."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    places, distance = np.arange(len(keys)), 0
    while len(places):
        distance += 1
        places = places[places + distance < len(keys)]
        places = places[ordered[places + distance] == ordered[places]]
        ones, others = order[places], order[places + distance]
        is_near = np.bitwise_count(hashes[ones] ^ hashes[others]) <= MAX_HASH_DISTANCE
        yield from zip(ones[is_near].tolist(), others[is_near].tolist(), strict=True)


def _correlation(one: bytes, other: bytes) -> float:
    first, second = (np.frombuffer(small, dtype=np.uint8).astype(np.float64) for small in (one, other))
    return float(np.corrcoef(first, second)[0, 1])


def connected_components(groups: Iterable[Sequence[int]]) -> list[list[int]]:
    """The groups, with those that share a member merged; members and groups in order."""
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
