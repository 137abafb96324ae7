"""`reinception data pack`: images as tar shards with an index."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from reinception.cli.counter import counter
from reinception.cli.flags import Common
from reinception.cli.table import count
from reinception.errors import ReinceptionError


@dataclass(frozen=True, kw_only=True)
class PackOptions:
    data: str

    out: Path
    """the folder to make, or to go on with"""

    shorter_side: int | None = None
    """resize larger images to N pixels on the shorter side, as JPEG (default: bytes as they are)"""

    per_shard: int = 2000
    """images per shard"""

    workers: int = Common.workers


def run(options: PackOptions) -> None:
    """Put images into tar shards with an index and checksums.

    The folder is DATA for train, and WebDataset reads its shards. Interrupted, the same command goes on.

    Example: reinception data pack photos -o shards --shorter-side 400
    """
    from reinception.data.prepare.pack import pack
    from reinception.data.sources.open_source import open_source

    packed = pack(
        open_source(options.data),
        options.out,
        shorter_side=options.shorter_side,
        per_shard=options.per_shard,
        workers=options.workers,
        progress=counter("images"),
    )
    for bad in packed.left_out:
        print(f"reinception: {bad}", file=sys.stderr)
    print(
        f"{packed.folder}: {count(packed.num_images)} of {count(packed.num_listed)} images in {packed.num_shards} "
        "shards, read back and equal"
    )
    if packed.left_out:
        raise ReinceptionError(
            f"{options.data}: {count(len(packed.left_out))} images were left out; the rest is packed"
        )
