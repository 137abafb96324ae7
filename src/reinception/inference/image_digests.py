"""The SHA-256 of image files: what an image is known by where its name and place may change."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial

from reinception.data.loading.read import bytes_of
from reinception.data.loading.workers import Watchdog, ordered_map
from reinception.data.sources.records import Record
from reinception.distributed import require_same
from reinception.errors import BadImage
from reinception.inference.compute import Compute

_IMAGES_PER_TASK = 256


def digests_of(records: Sequence[Record], compute: Compute) -> list[bytes | BadImage]:
    """The SHA-256 of each image's file, or why it cannot be read; the ranks share the reading."""
    ranks = compute.ranks
    world_size, rank = (1, 0) if ranks is None else (ranks.world_size, ranks.rank)
    mine = range(rank, len(records), world_size)
    tasks = [mine[start : start + _IMAGES_PER_TASK] for start in range(0, len(mine), _IMAGES_PER_TASK)]
    found = [one for part in ordered_map(partial(_hash, records), tasks, compute.readers) for one in part]
    if ranks is not None:
        require_same(ranks, str(len(records)))
    every = [found] if ranks is None else ranks.all_gather_objects(found)
    digests: list[bytes | BadImage] = []
    for index in range(len(records)):
        one = every[index % world_size][index // world_size]
        digests.append(bytes.fromhex(one) if isinstance(one, str) else BadImage(*one))
    return digests


def readable_digests_of(records: Sequence[Record], compute: Compute) -> list[bytes]:
    """`digests_of` where all can be read; else the `BadImage` of the first that cannot."""
    found: list[bytes] = []
    for digest in digests_of(records, compute):
        if isinstance(digest, BadImage):
            raise digest
        found.append(digest)
    return found


def _hash(records: Sequence[Record], task: range, watchdog: Watchdog) -> list[str | tuple[str, str, str]]:
    found: list[str | tuple[str, str, str]] = []
    for index in task:
        try:
            found.append(hashlib.sha256(bytes_of(records[index], watchdog.pause)).hexdigest())
        except BadImage as error:
            found.append((records[index].name, error.kind, error.reason))
    return found
