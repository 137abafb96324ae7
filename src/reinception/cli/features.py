"""`reinception features`: the pooled features of images, as an .npz file."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from reinception.cli.counter import counter, say
from reinception.cli.flags import refuse_results
from reinception.cli.ranks import connected, is_first
from reinception.errors import ReinceptionError
from reinception.inference.compute import Compute


@dataclass(frozen=True, kw_only=True)
class FeaturesOptions:
    model: str
    """a model file or a run folder"""

    paths: tuple[str, ...]
    """image files, folders (searched through), quoted globs, or manifests (.csv, .jsonl: the images of column path)"""

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
    from reinception.inference.features import features_stream, npz_writer
    from reinception.model.artifact import load

    model = load(options.model, with_aux=False)
    num = num_failed = 0
    with connected(compute, progress=counter("images")) as connection, ExitStack() as files:
        speaks = is_first(connection)
        write = files.enter_context(npz_writer(options.out, model.manifest)) if speaks else None
        for one in features_stream(model, options.paths, compute=connection):
            num, num_failed = num + 1, num_failed + (one.error is not None)
            if write is not None and one.values is not None:
                write(one.path, one.values)
            if speaks and one.error is not None:
                say(f"{one.path}: {one.error}")
    if not speaks:
        return  # the first writes and speaks for all
    if num > num_failed:
        print(f"{options.out}: {num - num_failed:,} x {model.network.num_features:,}")
    if num_failed:
        raise ReinceptionError(f"{num_failed} could not be read; the other {num - num_failed} are done")
