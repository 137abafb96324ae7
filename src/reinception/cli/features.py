"""`reinception features`: the pooled features of images, as an .npz file."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from reinception.cli.counter import counter
from reinception.cli.flags import refuse_results
from reinception.cli.ranks import connected
from reinception.errors import ReinceptionError
from reinception.inference.compute import Compute


@dataclass(frozen=True, kw_only=True)
class FeaturesOptions:
    model: str
    """a model file or a run folder"""

    paths: tuple[str, ...]
    """image files, folders (searched through) or quoted globs"""

    out: Path
    """the .npz file to write, never over another file"""


def run(options: FeaturesOptions, compute: Compute) -> None:
    """Extract pooled features (embeddings), 2,048 per image.

    They go into the array `features` beside `paths`; a network of another width has as many as its last layer has
    channels. A file that cannot be read is named, and the rest go on; the exit code is then 1. Under torchrun each
    process takes a shard of the images.

    Example: reinception features runs/first photos -o features.npz
    """
    refuse_results(options.out)
    from reinception.inference.features import features
    from reinception.model.artifact import load

    network, manifest = load(options.model, with_aux=False)
    with connected() as peers:
        found = features(
            network,
            manifest,
            options.paths,
            batch_size=compute.batch_size,
            workers=compute.workers,
            precision=compute.precision,
            progress=None if peers is not None and peers.rank else counter("images"),
            ranks=peers,
        )
    if peers is not None and peers.rank:
        return  # the first writes and speaks for all
    for path, reason in found.errors.items():
        print(f"reinception: {path}: {reason}", file=sys.stderr)
    if found.paths:
        rows, columns = found.values.shape
        print(f"{found.save(options.out, manifest)}: {rows:,} x {columns:,}")
    if found.errors:
        raise ReinceptionError(f"{len(found.errors)} could not be read; the other {len(found.paths)} are done")
