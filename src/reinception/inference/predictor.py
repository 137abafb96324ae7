"""Predictor: a model held ready to answer for images that a program has in hand, one answer each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from reinception.data.images.crops import evaluation_pixels
from reinception.data.images.decode import Pixels, decode
from reinception.data.loading.evaluation_stream import EvaluationBatch
from reinception.errors import BadImage, UsageError
from reinception.inference.cascade import Cascade
from reinception.inference.compute import Backend, Compute, InferencePrecision
from reinception.inference.engine import Engine, Row
from reinception.inference.evaluate import as_model
from reinception.inference.features import ImageFeatures
from reinception.inference.predict import Prediction, prediction
from reinception.model.artifact import Model
from reinception.preprocess import Preprocessing

OneImage = str | Path | bytes | bytearray | memoryview | Image.Image | npt.NDArray[Any] | torch.Tensor
"""A file's path or content, a Pillow image, or pixels: a uint8 array (h, w, 3) or tensor (3, h, w), or grey (h, w)."""

AnyModel = Model | str | Path
"""A model, or the path of one."""

Columns = dict[str, npt.NDArray[Any]]
_COLUMN = "image"


class Predictor:
    """A model held ready: call it with an image, a list of them, or a dict of arrays; each gets one answer.

    One bad image is an answer with an `error`, never an exception. It may be called by several threads. Pickled it
    travels as the path it was made from, or with its model where it was made from one.

    Args:
        model: the path of a model file or run folder, or a `Model`, whose network is not changed; or two of these.
        device: cpu, cuda, cuda:N, or auto for a GPU where there is one; None for where the network is (the processor
            for a path).
        precision: number format of the heavy layers: fp32, bf16, or auto for bf16 where the hardware has it.
        backend: what computes the network: torch, openvino, or auto for the fastest that is measured here within the
            precision's tolerance, once for each model.
        top: labels in an answer.
        batch_size: images made ready at a time.
        threshold: with two models, a small and a large one: the small one's answer stands where its highest
            probability is at least this, the large one answers for the rest (`shrink` chooses it).

    Raises:
        UsageError: no such device, precision or backend.
        ReinceptionError: a damaged model.

    Example:
        >>> import reinception as ri
        >>> predictor = ri.Predictor("model.safetensors")
        >>> predictor("images/functional/1.png").error is None
        True
        >>> predictor("nowhere.png").error
        'there is no such file: check the path'
    """

    def __init__(
        self,
        model: AnyModel | Sequence[AnyModel],
        device: str | None = None,
        precision: InferencePrecision = "auto",
        backend: Backend = "auto",
        *,
        top: int = 5,
        batch_size: int = 32,
        threshold: float | None = None,
    ) -> None:
        if top < 1:
            raise UsageError(f"top must be at least 1, got {top}")
        more = {"top": top, "batch_size": batch_size, "threshold": threshold}
        self._made_of = (model, device, precision, backend, more)
        models = [as_model(one) for one in ([model] if isinstance(model, Model | str | Path) else model)]
        if len(models) not in (1, 2) or (len(models) == 2) != (threshold is not None):
            raise UsageError("give one model, or a small and a large one with a threshold for the small one's answers")
        self.manifest, self._top = models[0].manifest, top
        compute = Compute(device=device, precision=precision, backend=backend, batch_size=batch_size)
        self._engine, *large = (Engine(one.network, one.preprocessing, compute) for one in models)
        self._large = large[0] if large else None
        self._cascade = Cascade.of(models[0].manifest, models[1].manifest, threshold) if threshold is not None else None

    def __reduce__(self) -> tuple[Any, ...]:
        return _remake, self._made_of

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order of an answer's `probabilities`."""
        return self.manifest.classes

    @overload
    def __call__(self, images: Mapping[str, Any]) -> Columns: ...
    @overload
    def __call__(self, images: list[Any] | tuple[Any, ...]) -> list[Prediction]: ...
    @overload
    def __call__(self, images: str | Path | bytes | Image.Image) -> Prediction: ...
    @overload
    def __call__(self, images: OneImage) -> Prediction | list[Prediction]: ...
    def __call__(self, images: Any) -> Prediction | list[Prediction] | Columns:
        """What is in images.

        Args:
            images: a path, an encoded image as bytes, a Pillow image, a uint8 array (h, w, 3) or tensor (3, h, w), grey
                ones without the 3; a list, or an array or tensor with a first dimension more, of these; or a dict whose
                `image` is such a list or array (what Ray Data's map_batches hands over).

        Returns:
            A `Prediction` with `.label`, `.probability`, `.labels`, `.probabilities` and `.error`; a list of them; or
            for a dict the arrays `label`, `probability` (n,), `probabilities` (n, k) and `error` (n,), of which the
            first three hold None and NaN where there is an error. Other arrays of the dict, such as paths, come back
            as they are.
        """
        self.manifest.require_classifier()
        if isinstance(images, Mapping):
            answers = self._answers(_column(images))
            return _others(images) | {
                "label": _objects([one.label for one in answers]),
                "probability": np.array([one.probability for one in answers], dtype=np.float32),
                "probabilities": _table([one.probabilities for one in answers], len(self.classes)),
                "error": _objects([one.error for one in answers]),
            }
        items = _items(images)
        return self._answers([images])[0] if items is None else self._answers(items)

    def _answers(self, items: Sequence[Any]) -> list[Prediction]:
        """Not by `__call__`: Ray Data's subclass of this class lets one thread call it, which would wait for itself."""
        rows = self._probabilities(self._engine, items)
        if self._cascade is not None and (large := self._large) is not None:
            rows = self._cascade.answers(
                items, partial(self._probabilities, self._engine), partial(self._probabilities, large)
            )
        return [prediction(_name(item, i), row, self.classes, self._top) for i, (item, row) in _numbered(items, rows)]

    def features(self, images: Any) -> ImageFeatures | list[ImageFeatures] | Columns:
        """The pooled features of images.

        Args:
            images: as for a call.

        Returns:
            An `ImageFeatures` with `.values` (num_features,) float32 and `.error`; a list of them; or for a dict the
            arrays `features` (n, num_features) and `error` (n,).
        """
        if isinstance(images, Mapping):
            answers = self.features(_column(images))
            assert isinstance(answers, list)
            columns = self._engine.num_features
            return _others(images) | {
                "features": _table([one.values for one in answers], columns),
                "error": _objects([one.error for one in answers]),
            }
        items = _items(images)
        if items is None:
            answers = self.features([images])
            assert isinstance(answers, list)
            return answers[0]
        rows = self._engine.features(self._batches(self._engine, items))
        return [ImageFeatures.of(_name(item, index), row) for index, (item, row) in _numbered(items, rows)]

    def _probabilities(self, engine: Engine, items: Sequence[Any]) -> Iterator[Row | BadImage]:
        block = None if len(items) >= engine.block_size else 1
        return engine.probabilities(self._batches(engine, items), block=block)

    def _batches(self, engine: Engine, items: Sequence[Any]) -> Iterator[EvaluationBatch]:
        preprocessing, size = engine.preprocessing, engine.compute.batch_size
        for start in range(0, len(items), size):
            squares: list[Pixels] = []
            good: list[int] = []
            bad: list[tuple[int, BadImage]] = []
            for index, item in enumerate(items[start : start + size], start):
                try:
                    squares.append(evaluation_pixels(pixels_of_item(item, preprocessing), preprocessing))
                    good.append(index)
                except BadImage as error:
                    bad.append((index, error))
            side = preprocessing.input_size
            images = np.stack(squares) if squares else np.empty((0, side, side, 3), dtype=np.uint8)
            yield EvaluationBatch(
                images=torch.from_numpy(images).permute(0, 3, 1, 2),
                indices=np.array(good, dtype=np.int64),
                weights=np.ones(len(good)),
                bad=tuple(bad),
            )


def pixels_of_item(item: object, preprocessing: Preprocessing) -> Pixels:
    """The pixels (h, w, 3) or (h, w) of a path, bytes, a Pillow image, an array or a tensor. BadImage for all else."""
    if isinstance(item, str | Path):
        return decode(item, keep_grey=True, preprocessing=preprocessing)
    if isinstance(item, bytes | bytearray | memoryview):
        return decode(bytes(item), keep_grey=True, preprocessing=preprocessing)
    if isinstance(item, Image.Image):
        return decode(item, keep_grey=True, preprocessing=preprocessing)
    if isinstance(item, torch.Tensor):
        item = item.detach().cpu()
        item = (item.permute(1, 2, 0) if item.ndim == 3 and item.shape[0] in _CHANNELS else item).numpy()
    if not isinstance(item, np.ndarray):
        raise BadImage("", "unreadable", f"is a {type(item).__name__}: give a path, bytes, an image, array or tensor")
    if item.dtype != np.uint8 or item.ndim not in (2, 3) or (item.ndim == 3 and item.shape[2] not in _CHANNELS):
        shape = " x ".join(map(str, item.shape))
        raise BadImage("", "values", f"is {shape} of {item.dtype}: give uint8 pixels, height x width x 3")
    if not item.size:
        raise BadImage("", "empty", "has no pixels: give an image")
    return decode(
        Image.fromarray(item[:, :, 0] if item.shape[2:] == (1,) else item), keep_grey=True, preprocessing=preprocessing
    )


_CHANNELS = (1, 3, 4)  # grey; colour; colour and opacity


def _remake(
    model: AnyModel | Sequence[AnyModel],
    device: str | None,
    precision: InferencePrecision,
    backend: Backend,
    more: Mapping[str, Any],
) -> Predictor:
    return Predictor(model, device, precision, backend, **more)


def _items(images: object) -> Sequence[Any] | None:
    """Several images, one by one; None where it is one."""
    if isinstance(images, np.ndarray) and (images.ndim == 4 or images.dtype.kind in "OUS"):
        return list(images)
    if isinstance(images, torch.Tensor) and images.ndim == 4:
        return list(images)
    if isinstance(images, tuple):
        return images
    return list(images) if isinstance(images, list) else None


def _others(images: Mapping[str, Any]) -> Columns:
    """The columns beside the images."""
    return {name: values for name, values in images.items() if name != _COLUMN}


def _column(images: Mapping[str, Any]) -> list[Any]:
    if _COLUMN not in images:
        raise UsageError(f"the images belong under {_COLUMN!r}; there is {', '.join(map(repr, images)) or 'nothing'}")
    return list(images[_COLUMN])


def _numbered(items: Sequence[Any], rows: Iterator[Row | BadImage]) -> Iterator[tuple[int, tuple[Any, Row | BadImage]]]:
    return enumerate(zip(items, rows, strict=True))


def _name(item: object, index: int) -> str:
    return str(item) if isinstance(item, str | Path) else f"image {index}"


def _objects(values: Sequence[object]) -> npt.NDArray[np.object_]:
    return np.array([*values, None], dtype=object)[:-1]


def _table(rows: Sequence[Row | None], columns: int) -> npt.NDArray[np.float32]:
    nothing = np.full(columns, np.nan, dtype=np.float32)
    return np.array([nothing if row is None else row for row in rows], dtype=np.float32).reshape(len(rows), columns)
