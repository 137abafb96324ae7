"""Models as they are served: loaded, warmed up, replaced while requests run, and freed after the last of them."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from reinception.data.images.decode import Pixels
from reinception.data.loading.evaluation_stream import EvaluationBatch
from reinception.data.loading.loader import normalise
from reinception.errors import ReinceptionError, first_line
from reinception.inference.cascade import Cascade
from reinception.inference.class_activation import class_activation
from reinception.inference.compute import Compute
from reinception.inference.engine import Engine
from reinception.model.artifact import Manifest, load, resolve
from reinception.serve.priority import lower_priority
from reinception.serve.refusal import Refusal

Kind = Literal["probabilities", "features", "map"]
HASH_CHARACTERS = 12


@dataclass(frozen=True, kw_only=True, eq=False)
class ServedModel:
    """One model ready to compute, and the first characters of the SHA-256 of the file it came from."""

    name: str
    path: Path
    digest: str
    manifest: Manifest
    engine: Engine
    seconds_per_image: float = 0.0
    """Measured in the largest batch, after a first one of that size."""

    @property
    def classes(self) -> tuple[str, ...]:
        return self.manifest.classes

    @property
    def num_features(self) -> int:
        return self.engine.num_features

    def compute(self, kind: Kind, squares: Sequence[Pixels]) -> list[Any]:
        """For each square (s, s, 3) uint8 its probabilities (k,), its features (f,), or probabilities and the class
        activation map (h, w) of the most probable class. ReinceptionError where the output is not finite.

        As many are computed together as the next power of two, so that there are few sizes to warm up, and at most as
        many as the backend takes at a time.
        """
        num = len(squares)
        images = torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2)
        batch = EvaluationBatch(images=images, indices=np.arange(num), weights=np.ones(num))
        block = min(1 << (num - 1).bit_length(), self.engine.block_size)
        rows = list((self.engine.features if kind == "features" else self.engine.probabilities)([batch], block=block))
        return list(zip(rows, self._maps(images, rows), strict=True)) if kind == "map" else rows

    def _maps(self, images: torch.Tensor, rows: Sequence[Any]) -> npt.NDArray[np.float32]:
        engine = self.engine
        classes = torch.tensor([int(np.argmax(row)) for row in rows], device=engine.device)
        with torch.inference_mode(), torch.autocast(engine.device.type, engine.dtype, engine.dtype != torch.float32):
            inputs = normalise(images.to(engine.device), engine.preprocessing)
            return class_activation(engine.network, inputs, classes).float().cpu().numpy()

    def to_json(self) -> dict[str, Any]:
        """What /v1/models says: the card of the model, without the architecture."""
        document = self.manifest.to_json()
        parts = ("classes", "preprocessing", "training", "origin")
        return {
            "name": self.name,
            "hash": self.digest,
            "architecture": self.manifest.arch.name,
            "precision": self.engine.precision,
            "num_features": self.num_features,
            **{part: document[part] for part in parts},
        }


def load_served(name: str, path: Path, compute: Compute, batch_size: int) -> ServedModel:
    """Loads and warms up a model, at every batch size it will be computed at. ReinceptionError for a damaged one."""
    lower_priority()
    digest = _digest(path)
    network, manifest = load(path, with_aux=False)
    engine = Engine(network, manifest.preprocessing, compute, streams=1)
    model = ServedModel(name=name, path=path, digest=digest, manifest=manifest, engine=engine)
    side = manifest.preprocessing.input_size
    grey = np.full((side, side, 3), 127, dtype=np.uint8)
    sizes = [1]
    while sizes[-1] < batch_size:
        sizes.append(min(2 * sizes[-1], batch_size))
    for size in sizes:
        model.compute("probabilities", [grey] * size)
    start = time.monotonic()
    model.compute("probabilities", [grey] * sizes[-1])
    return replace(model, seconds_per_image=(time.monotonic() - start) / sizes[-1])


def _digest(path: Path) -> str:
    with open(resolve(path), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:HASH_CHARACTERS]


class ServedModels:
    """The models by name. A reload loads, warms up and checks the new one first; a failed one changes nothing.

    With a `threshold` the first of two models answers as their cascade.
    """

    def __init__(self, paths: dict[str, Path], compute: Compute, batch_size: int, threshold: float | None) -> None:
        self._compute, self._batch_size, self._threshold = compute, batch_size, threshold
        self._lock = asyncio.Lock()
        with ThreadPoolExecutor(1) as thread:  # not this one: it will answer requests, with its full priority
            loading = partial(load_served, compute=compute, batch_size=batch_size)
            found = thread.map(loading, paths, paths.values())
            self._by_name = dict(zip(paths, found, strict=True))
        self._cascade = self._cascade_of(self.all())

    def __getitem__(self, name: str | None) -> ServedModel:
        """The model of that name, or the first for None. Refusal where there is none; the name is not repeated."""
        if name is None:
            return next(iter(self._by_name.values()))
        if name not in self._by_name:
            raise Refusal(404, "no_such_model", "no model has this name; /v1/models lists those there are")
        return self._by_name[name]

    def beyond(self, model: ServedModel) -> tuple[Cascade, ServedModel] | None:
        """When the answers of `model` stand, and the model that answers for the rest; None for most models."""
        if self._cascade is None:
            return None
        small, large = self.all()
        if model.name != small.name:
            return None
        # A request may hold the model from before a reload, whose classes had another order.
        cascade = self._cascade if model is small else self._cascade_of([model, large])
        return None if cascade is None else (cascade, large)

    def _cascade_of(self, models: Sequence[ServedModel]) -> Cascade | None:
        if self._threshold is None:
            return None
        small, large = models
        return Cascade.of(small.manifest, large.manifest, self._threshold)

    def all(self) -> list[ServedModel]:
        return list(self._by_name.values())

    async def reload(self) -> list[dict[str, str]]:
        """What became of each model: `loaded`, `unchanged` or `failed` with the reason; the old one then goes on."""
        async with self._lock:
            return [await self._reload_one(model) for model in self.all()]

    async def _reload_one(self, model: ServedModel) -> dict[str, str]:
        try:
            if await asyncio.to_thread(_digest, model.path) == model.digest:
                return {"name": model.name, "hash": model.digest, "status": "unchanged"}
            # The backend stays: `auto` would measure the requests that run meanwhile.
            how = replace(self._compute, backend=model.engine.backend.name)
            new = await asyncio.to_thread(load_served, model.name, model.path, how, self._batch_size)
            by_name = {**self._by_name, model.name: new}
            cascade = self._cascade_of(list(by_name.values()))
        except (ReinceptionError, OSError, MemoryError, RuntimeError) as error:
            reason = str(error) if isinstance(error, ReinceptionError) else first_line(error)
            return {"name": model.name, "hash": model.digest, "status": "failed", "reason": reason}
        self._by_name, self._cascade = by_name, cascade
        return {"name": model.name, "hash": new.digest, "status": "loaded"}
