"""From uploaded images to answers: decoding, the batcher, and what becomes of each image."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from reinception.data.images.decode import Pixels
from reinception.errors import BadImage
from reinception.inference.predict import prediction
from reinception.preprocess import Preprocessing
from reinception.serve.batcher import Batcher, late
from reinception.serve.counters import Counters
from reinception.serve.decoders import Decoded, DecoderPool
from reinception.serve.limits import READY_CACHE_SECONDS, READY_SECONDS
from reinception.serve.refusal import Refusal, bad_request
from reinception.serve.served_model import Kind, ServedModel, ServedModels


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a client asks for each image."""

    kind: Kind = "probabilities"
    top: int = 5
    threshold: float = 0.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Result:
    """The probabilities or features of an image, the class activation map where that is wanted, the image, and the
    model they are of: the second where a cascade passed the image on."""

    row: npt.NDArray[np.float32]
    activation: npt.NDArray[np.float32] | None
    decoded: Decoded
    model: ServedModel


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """The decoder pool and the batcher, one behind the other."""

    pool: DecoderPool
    batcher: Batcher
    models: ServedModels
    counters: Counters
    deadline_seconds: float

    async def results(self, model: ServedModel, kind: Kind, images: Sequence[bytes]) -> list[Any]:
        """For each image its `Result`, or the BadImage or Refusal that it has instead."""
        until = time.monotonic() + self.deadline_seconds
        work = (self._one(model, kind, data, until) for data in images)
        return list(await asyncio.gather(*work))

    async def _one(self, model: ServedModel, kind: Kind, data: bytes, until: float) -> Any:
        try:
            found = await self._of(model, kind, data, until)
            beyond = self.models.beyond(model)
            if beyond is None or kind == "features":
                return found
            cascade, large = beyond
            is_sure = cascade.is_sure(found.row)
            self.counters.cascade.labels("first" if is_sure else "second").inc()
            if is_sure:
                return found
            found = await self._of(large, kind, data, until)
            return replace(found, row=cascade.reordered(found.row))
        except (BadImage, Refusal) as error:
            return error

    async def _of(self, model: ServedModel, kind: Kind, data: bytes, until: float) -> Result:
        decoded = await self.decoded(data, model, until)
        values = await self.batcher.compute(model, kind, decoded.square, until)
        row, activation = values if kind == "map" else (values, None)
        return Result(row=row, activation=activation, decoded=decoded, model=model)

    async def decoded(self, data: bytes, model: ServedModel, until: float, *, is_urgent: bool = False) -> Decoded:
        try:
            async with asyncio.timeout(max(0.0, until - time.monotonic())):
                return await self.pool.decode(data, model.manifest.preprocessing, is_urgent=is_urgent)
        except TimeoutError:
            raise late() from None

    async def squares(self, model: ServedModel, kind: Kind, squares: Sequence[Pixels]) -> list[Any]:
        """What `model` computes of pixels that need no decoding. Refusal where they would belong to a cascade."""
        if kind != "features" and self.models.beyond(model) is not None:
            raise bad_request("pixels", "pixels: a cascade reads images; send images, or ask the other model by name")
        until = time.monotonic() + self.deadline_seconds
        return list(await asyncio.gather(*(self.batcher.compute(model, kind, one, until) for one in squares)))


class Readiness:
    """Ready means answered: a real image goes through the decoders and the batcher, in a place kept for it.

    Its answer must be the one that the model gave when the server started. It holds for a second.
    """

    def __init__(self, pipeline: Pipeline, models: ServedModels, image: bytes) -> None:
        self._pipeline, self._models, self._image = pipeline, models, image
        self._checked, self._problem = float("-inf"), "the server is starting"
        self._running: asyncio.Task[None] | None = None

    async def problem(self) -> str:
        """Why the server is not ready, or nothing."""
        if time.monotonic() - self._checked > READY_CACHE_SECONDS:
            if self._running is None or self._running.done():
                self._running = asyncio.create_task(self._check())
            await asyncio.shield(self._running)
        return self._problem

    async def _check(self) -> None:
        until = time.monotonic() + READY_SECONDS
        try:
            for model in self._models.all():
                decoded = await self._pipeline.decoded(self._image, model, until, is_urgent=True)
                compute = self._pipeline.batcher.compute
                row = await compute(model, "probabilities", decoded.square, until, is_urgent=True)
                if not np.isfinite(row).all():
                    raise Refusal(500, "non_finite_output", "the model's output is not finite")
            self._problem = ""
        except BadImage as bad:
            self._problem = f"the decoders refuse a good image: {bad.reason}"
        except Refusal as refusal:
            name = "no answer to a test image in time" if refusal.code == "deadline" else refusal.message
            self._problem = name
        self._checked = time.monotonic()


def answer(model: ServedModel, name: str, result: Any, wanted: Wanted) -> dict[str, Any]:
    """What /v1/predict says of one image."""
    if isinstance(result, BadImage | Refusal):
        error = Refusal.of(result) if isinstance(result, BadImage) else result
        return {"name": name, "labels": [], "abstained": False, **error.document}
    said = prediction(name, result.row, model.classes, wanted.top).to_json()
    labels = said["labels"]
    document = {
        "name": name,
        "labels": labels,
        "abstained": labels[0]["probability"] < wanted.threshold,
        "width": result.decoded.width,
        "height": result.decoded.height,
        "answered_by": result.model.name,
        "error": None,
    }
    if result.activation is not None:
        box = seen_box(result.model.manifest.preprocessing, result.decoded.width, result.decoded.height)
        document["map"] = {"values": np.round(result.activation, 4).astype(float).tolist(), "box": box}
    return document


def seen_box(preprocessing: Preprocessing, width: int, height: int) -> list[float]:
    """Left, top, right, bottom of what the network sees of an image, as fractions of its sides."""
    if preprocessing.resize == "whole":
        return [0.0, 0.0, 1.0, 1.0]
    if preprocessing.resize == "central_crop":
        edge = (1 - preprocessing.crop_fraction) / 2
        return [edge, edge, 1 - edge, 1 - edge]
    side = min(width, height) * preprocessing.input_size / preprocessing.resized_side
    left, top = (1 - side / width) / 2, (1 - side / height) / 2
    return [left, top, 1 - left, 1 - top]
