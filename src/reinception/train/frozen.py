"""What a frozen trunk makes of images, computed once: undistorted, and in distorted views; from the cache if there."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reinception.data.images.augment import augment
from reinception.data.loading.evaluation_stream import EvaluationBatch
from reinception.data.loading.read import errors_named, training_image, watched
from reinception.data.loading.watchdog import Watchdog
from reinception.data.loading.workers import ordered_map
from reinception.data.sources.records import Record
from reinception.distributed import collect, shard
from reinception.errors import BadImage
from reinception.inference.compute import Compute
from reinception.inference.engine import Engine
from reinception.inference.feature_cache import FeatureCache, weights_digest
from reinception.inference.image_digests import readable_digests_of
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
        self.engine = Engine(self.network, self.preprocessing, self.compute, num_images=self.num_images)
        stages = [name for name, _ in self.network.arch.stages]
        device = self.engine.device
        on_cpu = device.type == "cpu"
        self._how = {
            "what": "features",
            "weights": weights_digest(self.network, stages),
            "preprocessing": self.preprocessing.to_json(),
            "precision": self.engine.precision,
            "backend": self.engine.backend.name,
            "device": torch.backends.cpu.get_cpu_capability() if on_cpu else torch.cuda.get_device_name(device),
        }

    def rows(self, records: Sequence[Record], view: int = PLAIN) -> Tensor:
        """The features (n, num_features) float32 of that view of each record; the ranks share the work.

        A `BadImage` for one that cannot be read.
        """
        ranks, size = self.compute.ranks, self.compute.batch_size
        own = shard(records, ranks, batch_size=size)
        digests = readable_digests_of(own, dataclasses.replace(self.compute, ranks=None))
        cache = self.cache(view)
        self._fill(cache, dict(zip(digests, own, strict=True)), view)
        rows, _ = collect(cache.rows(digests)[0].numpy(), {}, ranks, batch_size=size)
        return torch.from_numpy(rows)

    def cache(self, view: int = PLAIN) -> FeatureCache:
        """Where the rows of that view are kept."""
        distorted = {} if view == PLAIN else {"augmentation": self.augmentation, "view": view}
        return FeatureCache(self.root, {**self._how, **distorted}, (self.network.num_features,), say=self.say)

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
