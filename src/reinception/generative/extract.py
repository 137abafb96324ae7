"""From images to features, one row per image in the order of content: the one file here that reads and computes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from reinception.data.images.crops import evaluation_pixels
from reinception.data.images.decode import Pixels
from reinception.data.loading.read import pixels_of, watched
from reinception.data.loading.watchdog import Progress
from reinception.data.loading.workers import Watchdog, ordered_map
from reinception.data.sources.class_folders import image_files
from reinception.data.sources.manifest import SUFFIXES as MANIFESTS
from reinception.data.sources.manifest import listed_images
from reinception.data.sources.open_source import open_source
from reinception.data.sources.records import Record
from reinception.data.sources.remote import is_address
from reinception.data.sources.shards import holds_shards
from reinception.errors import BadImage, ReinceptionError, UsageError
from reinception.generative.extractor import Extractor
from reinception.generative.modes import Mode, network_input
from reinception.inference import feature_cache
from reinception.inference.compute import Compute
from reinception.inference.engine import Engine
from reinception.inference.feature_cache import FeatureCache
from reinception.inference.image_digests import digests_of
from reinception.preprocess import Preprocessing

# -- images ------------------------------------------------------------------------------------------------------------


def records_of(data: str | Path) -> Sequence[Record]:
    """The images of a folder (at any depth), a manifest, shards here or elsewhere, or `elpv`; labels play no part.

    ReinceptionError, each its own sentence, for a path that is not there, a folder without images, and a single file.
    """
    path = Path(data)
    if data == "elpv" or (isinstance(data, str) and is_address(data)):
        return open_source(data).records
    if path.suffix.lower() in MANIFESTS and path.is_file():
        return list(listed_images(path))
    if path.is_dir():
        if holds_shards(path):
            return open_source(data).records
        found = [Record(path=one, name=one.relative_to(path).as_posix(), target=0) for one in image_files(path)]
        if not found:
            raise ReinceptionError(f"{path}: there is no image in this folder: name another")
        return found
    if not path.exists():
        raise ReinceptionError(f"{path}: there is no such file or folder: check the path")
    raise ReinceptionError(f"{path}: is a single file; give a folder of images, a manifest, shards or an .npz")


@dataclass(frozen=True, kw_only=True, eq=False)
class _Chunk:
    """Features (n, d) of n distinct images, which of them span exactly 0 to 255, and by row why one has none: (kind,
    reason). `dates` are the days they were computed, empty where that was just now."""

    features: npt.NDArray[np.float32]
    full_range: npt.NDArray[np.bool_]
    bad: Mapping[int, tuple[str, str]]
    dates: Sequence[str]


@dataclass(frozen=True, kw_only=True, eq=False)
class SetFeatures:
    """Features (n, d) float32 of the usable images of one set, ordered by the SHA-256 of their files (copies beside
    each other); `errors` name the others. `num_cached` rows were computed before, the last of them at `cached_on`.
    `num_full_range` counts images whose values span exactly 0 to 255. `device`, `precision`, `backend`: what computed
    them."""

    features: npt.NDArray[np.float32]
    num_found: int
    num_distinct: int
    errors: tuple[BadImage, ...]
    num_cached: int
    cached_on: str | None
    num_full_range: int
    device: str
    precision: str
    backend: str


def features_of_records(
    extractor: Extractor, records: Sequence[Record], compute: Compute, cache: Path | None = None
) -> SetFeatures:
    """The features of every image once; those whose files are equal are computed once and count as often as they are.

    With `cache`, a folder, blocks of images are kept there as soon as they are computed, so that work that was killed
    goes on where it was. With ranks, which all call this with the same arguments, each computes some of the blocks, and
    all get the whole. Neither changes a bit, nor do workers, batches or the order of `records`.
    """
    digests = digests_of(records, compute)
    errors = [found for found in digests if isinstance(found, BadImage)]
    places: dict[bytes, list[int]] = {}
    for index, digest in enumerate(digests):
        if not isinstance(digest, BadImage):
            places.setdefault(digest, []).append(index)
    ordered = sorted(places)
    runner = _Runner(extractor, compute)
    parts = [ordered[start : start + feature_cache.IMAGES] for start in range(0, len(ordered), feature_cache.IMAGES)]
    chunks = runner.chunks(parts, {digest: records[where[0]] for digest, where in places.items()}, cache)
    rows: list[npt.NDArray[np.float32]] = []
    num_distinct = num_cached = num_full_range = 0
    dates: set[str] = set()
    for part, chunk in zip(parts, chunks, strict=True):
        for row, digest in enumerate(part):
            where = places[digest]
            if row in chunk.bad:
                kind, reason = chunk.bad[row]
                errors += [BadImage(records[index].name, kind, reason) for index in where]
                continue
            rows += [chunk.features[row]] * len(where)
            num_distinct += 1
            num_full_range += len(where) * bool(chunk.full_range[row])
            num_cached += len(where) * (chunk.dates[row] != "")
        dates |= set(chunk.dates) - {""}
    return SetFeatures(
        features=np.stack(rows) if rows else np.empty((0, extractor.num_features), dtype=np.float32),
        num_found=len(records),
        num_distinct=num_distinct,
        errors=tuple(sorted(errors, key=lambda error: str(error.name))),
        num_cached=num_cached,
        cached_on=max(dates, default=None),
        num_full_range=num_full_range,
        device=str(runner.engine.device),
        precision=runner.engine.precision,
        backend=runner.engine.backend.name,
    )


def features_of_batch(extractor: Extractor, images: npt.NDArray[np.uint8], compute: Compute) -> npt.NDArray[np.float32]:
    """Features (n, d) of images (n, 3, h, w) of bytes."""
    runner = _Runner(extractor, compute)
    pixels = [runner.input_of(np.ascontiguousarray(image.transpose(1, 2, 0))) for image in images]
    return runner.rows(iter([np.stack(pixels)]) if pixels else iter([]))


# -- running the network -----------------------------------------------------------------------------------------------


class _Runner:
    """The network as it is computed: always the same number of images together, so neighbours change no bit."""

    def __init__(self, extractor: Extractor, compute: Compute) -> None:
        self.extractor, self.compute = extractor, compute
        if compute.backend == "inductor":
            raise UsageError("score: features are computed by torch, as those of others are, or by openvino")
        if compute.precision == "int8":
            raise UsageError("score: features are computed in fp32 or bf16: int8 would be another score")
        how = replace(compute, backend="torch") if compute.backend == "auto" else compute
        has_mode = extractor.mode is not None
        self.engine = Engine(extractor.network, extractor.preprocessing, how, streams=1, is_given_values=has_mode)
        self.input_of = partial(_input_of, extractor.mode, extractor.preprocessing)

    def chunks(
        self, parts: Sequence[Sequence[bytes]], records: Mapping[bytes, Record], root: Path | None
    ) -> Iterator[_Chunk]:
        """The chunk of each part in order: from the cache, from this process, or from the rank whose turn it was."""
        ranks = self.compute.ranks
        world_size, rank = (1, 0) if ranks is None else (ranks.world_size, ranks.rank)
        how = {**self.extractor.provenance(), "device": self.engine.device.type, "precision": self.engine.precision}
        if self.engine.backend.name != "torch":
            how["backend"] = self.engine.backend.name
        cache = FeatureCache(root, how, (self.extractor.num_features,))
        done, total = 0, sum(map(len, parts[rank::world_size]))
        for start in range(0, len(parts), world_size):
            own = None
            if start + rank < len(parts):
                part = parts[start + rank]
                told = self.compute.progress
                report = None if told is None else partial(_shifted, told, done, total)
                own = self._chunk(part, records, cache, report)
                done += len(part)
                if told:
                    told(done, total)
            yield from _exchanged(own, min(world_size, len(parts) - start), self.compute)

    def _chunk(
        self,
        part: Sequence[bytes],
        records: Mapping[bytes, Record],
        cache: FeatureCache,
        report: Callable[[int], None] | None,
    ) -> _Chunk:
        cache.refresh()
        dates = [cache.date(digest) or "" for digest in part]
        missing = [row for row, digest in enumerate(part) if digest not in cache]
        bad: dict[int, tuple[str, str]] = {}
        if missing:
            kept, rows, spans, refused = self._computed([records[part[row]] for row in missing], report)
            bad = {missing[index]: why for index, why in refused.items()}
            cache.keep([part[missing[index]] for index in kept], torch.from_numpy(rows), spans)
        good = [row for row in range(len(part)) if row not in bad]
        features = np.zeros((len(part), self.extractor.num_features), dtype=np.float32)
        full_range = np.zeros(len(part), dtype=bool)
        found, marks = cache.rows([part[row] for row in good])
        features[good], full_range[good] = found.numpy(), marks
        return _Chunk(features=features, full_range=full_range, bad=bad, dates=dates)

    def _computed(
        self, records: Sequence[Record], report: Callable[[int], None] | None
    ) -> tuple[list[int], npt.NDArray[np.float32], list[int], dict[int, tuple[str, str]]]:
        """Which of `records` are usable, their features, whether each spans 0 to 255, and why others are not."""
        bad: dict[int, tuple[str, str]] = {}
        kept: list[int] = []
        marks: list[int] = []
        job = partial(_load, self.input_of, records)
        size = self.compute.batch_size
        tasks = [range(start, min(start + size, len(records))) for start in range(0, len(records), size)]

        def loaded() -> Iterator[npt.NDArray[Any]]:
            done = ordered_map(job, tasks, self.compute.readers)
            for task, (images, spans, refused) in zip(tasks, done, strict=True):
                bad.update({index: (why.kind, why.reason) for index, why in refused.items()})
                kept.extend(index for index in task if index not in refused)
                marks.extend(map(int, spans))
                yield images
                if report:
                    report(task.stop)

        return kept, self.rows(loaded()), marks, bad

    def rows(self, batches: Iterable[npt.NDArray[Any]]) -> npt.NDArray[np.float32]:
        """Features of what `input_of` made of images, in order."""
        found = [np.empty((0, self.extractor.num_features), dtype=np.float32)]
        for images, num in _blocks(batches, self.engine.block_size):
            values = self.engine.backend.submit(_tensor(images), "features").result()[:num]
            if not np.isfinite(values).all():
                raise ReinceptionError("the extractor's features are not finite: its weights are damaged")
            found.append(values)
        return np.concatenate(found)


def _tensor(images: npt.NDArray[Any]) -> torch.Tensor:
    """Bytes (n, s, s, 3) or values (n, 3, s, s) as (n, 3, s, s), channels last."""
    tensor = torch.from_numpy(images)
    return tensor.permute(0, 3, 1, 2) if tensor.dtype == torch.uint8 else tensor.to(memory_format=torch.channels_last)


def _input_of(mode: Mode | None, preprocessing: Preprocessing, pixels: Pixels) -> npt.NDArray[Any]:
    """What a process that reads images makes of one: float32 (3, 299, 299), or for other networks a crop of bytes."""
    return evaluation_pixels(pixels, preprocessing) if mode is None else network_input(pixels, mode)


def _load(
    input_of: Callable[[Pixels], npt.NDArray[Any]], records: Sequence[Record], task: range, watchdog: Watchdog
) -> tuple[npt.NDArray[Any], list[bool], dict[int, BadImage]]:
    """The inputs of the usable images of `task`, whether each spans 0 to 255, and why the others cannot be used."""
    images: list[npt.NDArray[Any]] = []
    spans: list[bool] = []
    bad: dict[int, BadImage] = {}
    for index in task:
        try:
            with watched(records[index], index, watchdog) as record:
                pixels = pixels_of(record, watchdog.pause)
                images.append(input_of(pixels))
            spans.append(int(pixels.min()) == 0 and int(pixels.max()) == 255)
        except BadImage as error:
            bad[index] = error
    return np.stack(images) if images else np.empty((0,)), spans, bad


def _blocks(batches: Iterable[npt.NDArray[Any]], size: int) -> Iterator[tuple[npt.NDArray[Any], int]]:
    """The images `size` at a time, the last block filled up with its last image, and how many of them count."""
    waiting: npt.NDArray[Any] | None = None
    for batch in batches:
        if not len(batch):
            continue
        waiting = batch if waiting is None else np.concatenate([waiting, batch])
        while len(waiting) >= size:
            yield waiting[:size], size
            waiting = waiting[size:]
    if waiting is not None and len(waiting):
        yield np.concatenate([waiting, np.repeat(waiting[-1:], size - len(waiting), axis=0)]), len(waiting)


def _exchanged(own: _Chunk | None, num: int, compute: Compute) -> Iterator[_Chunk]:
    """The chunks of this turn in the order of the ranks, `num` of which have one."""
    ranks = compute.ranks
    if ranks is None:
        assert own is not None
        yield own
        return
    width = 0 if own is None else own.features.shape[1]
    told = None if own is None else [len(own.features), own.full_range.tolist(), list(own.bad.items()), list(own.dates)]
    every = ranks.all_gather_objects([width, told])
    width = max(one[0] for one in every)
    rows = np.zeros((0, width), dtype=np.float32) if own is None else own.features
    features = ranks.all_gather_rows(torch.from_numpy(rows)).numpy()
    start = 0
    for _, (count, full_range, bad, dates) in every[:num]:
        yield _Chunk(
            features=features[start : start + count],
            full_range=np.array(full_range, dtype=bool),
            bad={index: (kind, reason) for index, (kind, reason) in bad},
            dates=dates,
        )
        start += count


def _shifted(told: Progress, before: int, total: int, done: int) -> None:
    told(before + done, total)
