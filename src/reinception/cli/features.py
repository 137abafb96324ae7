"""`reinception features`: the pooled features of images, in one file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from reinception.cli.job import JobOptions, do_job, require_all
from reinception.cli.ranks import connected
from reinception.inference.compute import Compute


@dataclass(frozen=True, kw_only=True)
class FeaturesOptions:
    model: str
    """a model file or a run folder"""

    paths: tuple[str, ...]
    """image files, folders (searched through), quoted globs, or manifests (.csv, .jsonl: the images of column path)"""

    out: Path
    """the .npz, .parquet, .csv or .jsonl file to write, never over another file; until it is whole, what is done
    is kept beside it, in PATH.job"""


def run(options: FeaturesOptions, job: JobOptions, compute: Compute) -> None:
    """Extract pooled features (embeddings), 2,048 per image.

    They go into the array `features` beside `paths`, or into a table; a network of another width has as many as its
    last layer has channels. A file that cannot be read is named, and the rest go on; the exit code is then 1. Under
    torchrun each process takes a shard of the images; --resume continues after any end.

    Example: reinception features runs/first photos -o features.npz
    """
    asked = replace(job, out=options.out)
    if asked.is_done():
        return
    from reinception.inference.backends.choice import FEW_IMAGES
    from reinception.inference.engine import Engine
    from reinception.inference.features import pooled_features
    from reinception.inference.jobs.result_files import require_format
    from reinception.inference.jobs.result_rows import feature_rows
    from reinception.inference.jobs.run_job import ImageJob, fingerprint
    from reinception.inference.stream import expand, peeked
    from reinception.model.artifact import load, resolve

    require_format(options.out)
    model = load(options.model, with_aux=False)
    with connected(compute, progress=asked.counter(options.paths)) as connection:
        num, _ = peeked(expand(options.paths), FEW_IMAGES)  # of the whole list, not of a shard
        compute = replace(connection.with_default("auto"), progress=None)
        engine = Engine(model.network, model.preprocessing, compute, num_images=num)
        work = ImageJob(
            out=options.out,
            paths=options.paths,
            rows=feature_rows(model.manifest, model.network.num_features),
            results=lambda items: pooled_features(engine, items),
            asked={"verb": "features", "model": fingerprint(resolve(options.model))},
            shard=job.shard,
            resume=job.resume,
        )
        done = do_job(work, engine, connection)
    require_all(done)
