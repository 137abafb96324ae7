"""The pooled features of many images, in one .npz file: what a network knows of an image before it names it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from reinception import machine
from reinception.data.sources.records import Record
from reinception.distributed import Ranks, collect, shard
from reinception.errors import ReinceptionError
from reinception.files import new_file
from reinception.inference import engine
from reinception.inference.engine import Progress, prepare
from reinception.inference.predict import expand
from reinception.machine import Precision, choose_device
from reinception.model.artifact import Manifest
from reinception.model.build import Network


@dataclass(frozen=True, kw_only=True, eq=False)
class Features:
    """`values` (n, num_features) float32, one row for each of `paths` (n); `errors` says why others have none."""

    paths: tuple[str, ...]
    values: npt.NDArray[np.float32]
    errors: Mapping[str, str]

    def save(self, path: str | Path, manifest: Manifest) -> Path:
        """A new .npz with `features`, `paths`, and as JSON the network and `preprocessing` that gave them."""
        path = Path(path)
        try:
            with new_file(path) as part, part.open("wb") as file:
                np.savez(
                    file,
                    features=self.values,
                    paths=np.array(self.paths, dtype=np.str_),
                    network=np.array(manifest.arch.name),
                    preprocessing=np.array(json.dumps(manifest.preprocessing.to_json())),
                )
        except OSError as error:
            raise ReinceptionError(f"{path}: cannot write: {error.strerror}") from None
        return path


def features(
    network: Network,
    manifest: Manifest,
    paths: Sequence[str | Path],
    *,
    batch_size: int = 32,
    workers: int = 0,
    precision: Precision = "fp32",
    progress: Progress | None = None,
    ranks: Ranks | None = None,
) -> Features:
    """The features of every image that `paths` (files, folders, globs) mean, in the order given; bad ones are named.

    With `ranks`, which all call this with the same arguments, each computes its shard, and all get the whole.
    """
    found = list(expand(paths))
    files = [item for item in found if isinstance(item, Path)]
    device = choose_device()
    records = [Record(path=path, name=str(path), target=0) for path in files]
    values, refused = engine.features(
        prepare(network, device),
        manifest.preprocessing,
        shard(records, ranks, batch_size=batch_size),
        batch_size=batch_size,
        workers=workers,
        dtype=machine.precision(precision, device),
        progress=progress,
    )
    values, refused = collect(values, refused, ranks, batch_size=batch_size)
    kept = [index for index in range(len(files)) if index not in refused]
    errors = {item.path: item.reason for item in found if not isinstance(item, Path)}
    errors |= {str(files[index]): why.reason for index, why in sorted(refused.items())}
    return Features(paths=tuple(str(files[index]) for index in kept), values=values[kept], errors=errors)
