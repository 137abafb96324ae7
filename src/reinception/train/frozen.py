"""What a frozen trunk makes of images, computed once: undistorted, and in distorted views; from the cache if there."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reinception import machine
from reinception.data.images.augment import augment
from reinception.data.loading.evaluation_stream import EvaluationBatch
from reinception.data.loading.read import errors_named, training_image, watched
from reinception.data.loading.watchdog import Watchdog
from reinception.data.loading.workers import ordered_map
from reinception.data.sources.records import Record
from reinception.distributed import collect, shard
from reinception.errors import BadImage
from reinception.files import cache_folder
from reinception.inference.backends.network_backend import BackendName
from reinception.inference.compute import Compute
from reinception.inference.engine import Engine
from reinception.inference.feature_cache import FeatureCache, weights_digest
from reinception.inference.image_digests import digests_of, readable_digests_of
from reinception.model.build import Network
from reinception.preprocess import Preprocessing
from reinception.recipe import Augmentation

PLAIN = 0
"""The number of the view that is not distorted: what evaluation sees."""


@dataclass(eq=False)
class FrozenTrunk:
    """The features of images under a network that does not change, from `root` where they are kept, else computed.

    View 0 of an image is what evaluation sees; view v is distorted as `augmentation` says, with random numbers of v
    and the image's content. So a row belongs to an image and not to a place in a list: order, names, seeds, batches
    and workers change nothing.

    Args:
        network: the network; its classifier plays no part.
        preprocessing: what becomes of pixels.
        root: the folder of the cache; None computes everything anew.
        compute: precision, batch size, workers, ranks, progress.
        augmentation: how views are distorted.
        num_images: how many there will be, for the choice of a backend.
        say: gets a line for each file of the cache that cannot be used.
    """

    network: Network
    preprocessing: Preprocessing
    root: Path | None
    compute: Compute
    augmentation: Augmentation = "none"
    num_images: int | None = None
    say: Callable[[str], None] = print
    num_computed: int = field(init=False, default=0)
    """rows that were not in the cache"""

    def __post_init__(self) -> None:
        own = next(self.network.parameters()).device
        self.device = own if self.compute.device is None else machine.choose_device(self.compute.device)
        asked = self.compute.precision or "fp32"
        assert asked != "int8", "nothing is trained on quantized features"
        is_fp32 = machine.precision(asked, self.device) == torch.float32
        self.precision = "fp32" if is_fp32 else "bf16"
        on_cpu = self.device.type == "cpu"
        self._how = {
            "what": "features",
            "weights": weights_digest(self.network, [name for name, _ in self.network.arch.stages]),
            "preprocessing": self.preprocessing.to_json(),
            "precision": self.precision,
            "device": torch.backends.cpu.get_cpu_capability() if on_cpu else torch.cuda.get_device_name(self.device),
        }

    @cached_property
    def engine(self) -> Engine:
        """What computes features; made when the first is missing, for that takes longer than to read them."""
        return Engine(self.network, self.preprocessing, self.compute, num_images=self.num_images)

    def rows(self, records: Sequence[Record], view: int = PLAIN) -> Tensor:
        """The features (n, num_features) float32 of that view of each record; the ranks share the work.

        A `BadImage` for one that cannot be read.
        """
        ranks, size = self.compute.ranks, self.compute.batch_size
        own = shard(records, ranks, batch_size=size)
        digests = readable_digests_of(own, dataclasses.replace(self.compute, ranks=None))
        cache = self._complete(digests, view)
        if cache is None:
            cache = self.cache(view, self.engine.backend.name)
            self._fill(cache, dict(zip(digests, own, strict=True)), view)
        rows, _ = collect(cache.rows(digests)[0].numpy(), {}, ranks, batch_size=size)
        return torch.from_numpy(rows)

    def cache(self, view: int, backend: str) -> FeatureCache:
        """Where the rows of that view are kept that the backend of this name computes."""
        how = {**self._how, "backend": backend}
        if view != PLAIN:
            how |= {"augmentation": self.augmentation, "view": view}
        return FeatureCache(self.root, how, (self.network.num_features,), say=self.say)

    def known(self, records: Sequence[Record]) -> list[bool]:
        """Of each record whether its undistorted features are there, so that its image has been decoded before."""
        caches = [self.cache(PLAIN, name) for name in self._backends]
        digests = digests_of(records, dataclasses.replace(self.compute, ranks=None))
        return [any(digest in cache for cache in caches) for digest in digests]

    @property
    def _backends(self) -> tuple[str, ...]:
        """Those that may have computed what is kept, the fastest first."""
        return get_args(BackendName)[::-1] if self.compute.backend == "auto" else (self.compute.backend,)

    def _complete(self, digests: Sequence[bytes], view: int) -> FeatureCache | None:
        """The rows of one backend, where all of them are there on all ranks."""
        ranks = self.compute.ranks
        for name in self._backends:
            cache = self.cache(view, name)
            own = all(digest in cache for digest in digests)
            answers = [(own,)] if ranks is None else ranks.all_gather_numbers(own)
            if all(is_complete for (is_complete,) in answers):
                return cache
        return None

    def _fill(self, cache: FeatureCache, records: dict[bytes, Record], view: int) -> None:
        """Computes what is missing, a file of the cache at a time.

        Where several processes do the same at once each begins at another place and takes what the others have kept.
        """
        missing = [digest for digest in records if digest not in cache]
        size = cache.rows_per_file
        parts = [missing[start : start + size] for start in range(0, len(missing), size)]
        first, done = os.getpid() % max(len(parts), 1), 0
        for part in (*parts[first:], *parts[:first]):
            cache.refresh()
            todo = [digest for digest in part if digest not in cache]
            if todo:
                cache.keep(todo, self._computed([records[digest] for digest in todo], todo, view, done, len(missing)))
                self.num_computed += len(todo)
            done += len(part)

    def _computed(
        self, records: Sequence[Record], digests: Sequence[bytes], view: int, done: int, total: int
    ) -> Tensor:
        rows = np.empty((len(records), self.network.num_features), dtype=np.float32)
        batches = self.engine.batches(records) if view == PLAIN else self._distorted(records, digests, view)
        for index, row in enumerate(self.engine.features(batches)):
            if isinstance(row, BadImage):
                raise row
            rows[index] = row
            if self.compute.progress:
                self.compute.progress(done + index + 1, total)
        return torch.from_numpy(rows)

    def _distorted(self, records: Sequence[Record], digests: Sequence[bytes], view: int) -> Iterator[EvaluationBatch]:
        size = self.compute.batch_size
        tasks = [range(start, min(start + size, len(records))) for start in range(0, len(records), size)]
        job = _Distorter(records, digests, self.augmentation, self.preprocessing, view)
        for task, images in zip(tasks, ordered_map(job, tasks, self.compute.readers), strict=True):
            yield EvaluationBatch(
                images=torch.from_numpy(images).permute(0, 3, 1, 2),
                indices=np.array(task, dtype=np.int64),
                weights=np.ones(len(task)),
            )


@dataclass(frozen=True)
class _Distorter:
    """What a process that reads images does for a view."""

    records: Sequence[Record]
    digests: Sequence[bytes]
    kind: Augmentation
    preprocessing: Preprocessing
    view: int

    def __call__(self, task: range, watchdog: Watchdog) -> NDArray[np.uint8]:
        """The distorted images (n, s, s, 3) of `task`."""
        size = self.preprocessing.input_size
        images = np.empty((len(task), size, size, 3), dtype=np.uint8)
        for pixels, index in zip(images, task, strict=True):
            with watched(self.records[index], index, watchdog) as record, errors_named(record):
                # By content: the place of an image in a list may change.
                number = int.from_bytes(self.digests[index][:8], "big")
                image = training_image(record, watchdog.pause, preprocessing=self.preprocessing)
                pixels[:] = augment(image, kind=self.kind, input_size=size, seed=0, epoch=self.view, index=number)
        return images


def features_root(cache: str | Path | None) -> Path:
    """The folder of the cache: `cache`, or the user's."""
    return cache_folder() / "features" if cache is None else Path(cache)
