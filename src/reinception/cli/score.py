"""`reinception score`: FID, KID, Inception score, precision and recall of generated images."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from reinception.cli.counter import counter
from reinception.cli.flags import STDOUT, Given, refuse_results
from reinception.cli.ranks import connected, is_first
from reinception.errors import UsageError
from reinception.files import cache_folder, write_json
from reinception.generative.score_config import ScoreConfig
from reinception.inference.compute import Compute


@dataclass(frozen=True, kw_only=True)
class ScoreOptions:
    real: str
    """the real images: a folder, a manifest, tar shards, or an .npz of statistics (mu, sigma) or of features"""

    generated: str
    """the generated images, likewise"""

    against: str | None = None
    """another generator's images: which of the two has the smaller FID, and the difference with its interval"""

    statistics: Path | None = None
    """also write the statistics of REAL to this .npz, which can stand for REAL from then on, never over a file"""

    no_cache: bool = False
    """compute every feature again and keep none"""

    json: Path | None = None


GROUPS = {
    "Extractor": ("weights", "mode"),
    "Metrics": ("metrics", "seed", "subsets", "subset_size", "splits", "neighbours"),
}


def run(options: ScoreOptions, config: Annotated[Given, ScoreConfig], compute: Compute) -> None:
    """Score generated images against real ones: FID, KID, IS, PRDC.

    FID needs its own weights; without them the command says what to get and where to put it. With any other extractor
    the scores have other names. Features are kept by content, so that a second run, or one that was killed, goes on
    from there. A file that cannot be read is named, and the rest count. Under torchrun each process takes a shard.

    Example: reinception score photos generated --metrics fid,kid
    """
    if options.no_cache and "cache" in config:
        raise UsageError("--no-cache and --cache exclude each other: leave one of them out")
    settings: dict[str, Any] = {"cache": None if options.no_cache else cache_folder() / "features", **config}
    chosen = ScoreConfig(**settings)
    refuse_results(options.json, options.statistics)
    from reinception.generative.scoring import score

    with connected(compute, progress=counter("images")) as connection:
        report = score(options.real, options.generated, chosen, connection, against=options.against)
    if not is_first(connection):
        return  # the first writes and speaks for all
    for told in report.sets.values():
        for error in told.get("errors", ()):
            print(f"reinception: {error['path']}: {error['reason']}", file=sys.stderr)
    if options.statistics is not None:
        report.save_statistics("real", options.statistics)
    if options.json is not None:
        write_json(report.to_json(), options.json)
    if options.json != STDOUT:
        print("\n".join(report.lines()))
