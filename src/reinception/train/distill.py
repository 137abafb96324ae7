"""Distillation: a teacher's probabilities of the very images a student trains on, kept, and the loss that uses them."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from reinception import machine
from reinception.data.loading.loader import Batch, TrainingStream, normalise
from reinception.data.sources.labels import listed
from reinception.distributed import Ranks
from reinception.errors import ReinceptionError, UsageError
from reinception.inference.backends import kept
from reinception.inference.backends.network_backend import Task
from reinception.inference.compute import Compute
from reinception.inference.engine import Engine
from reinception.inference.image_digests import readable_digests_of
from reinception.model.artifact import Model, load
from reinception.train.loss import Losses

_BATCH, _BATCHES_IN_PART = 16, 16
"""Images the teacher sees at a time, and batches in one file: the work that an interrupted run loses at most."""

_FORMAT = 2


def distillation_loss(logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """T^2 KL(teacher || student) of the distributions at temperature T: summed over classes, mean over images.

    T^2 keeps the gradient's size when T changes.

    Args:
        logits: (n, k) of the student.
        teacher_logits: (n, k); logits and log-probabilities give the same.
        temperature: T, by which both are divided before the softmax.

    Returns:
        A scalar, computed in float32 or wider.

    Source: Hinton, Vinyals and Dean 2015 (arXiv 1503.02531), section 2.

    Example:
        >>> import torch
        >>> from reinception.train.distill import distillation_loss
        >>> teacher, student = torch.tensor([[2.0, 0.0, -2.0]]), torch.zeros(1, 3)
        >>> round(float(distillation_loss(student, teacher, 2.0)), 6)
        1.064867
    """
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    own = torch.log_softmax(logits.to(dtype) / temperature, dim=1)
    wanted = torch.log_softmax(teacher_logits.to(dtype) / temperature, dim=1)
    return temperature**2 * (wanted.exp() * (wanted - own)).sum(dim=1).mean()


@dataclass(frozen=True, kw_only=True, eq=False)
class TeacherTargets:
    """What a teacher said of every view of every training image: log-probabilities (images, views, classes) float32.

    The classes are those of the data, in their order; one that the teacher gives no probability has a very low number
    and not minus infinity.
    """

    log_probabilities: Tensor
    weight: float
    temperature: float

    def of(self, batch: Batch) -> Tensor:
        """The rows (n, classes) of a batch's images and views."""
        return self.log_probabilities[batch.indices, batch.epochs % self.log_probabilities.shape[1]]

    def added(self, losses: Losses, logits: Tensor, batch: Batch) -> Losses:
        """`losses` of the labels with the teacher's: (1 - weight) labels + weight teacher, in `total` alone."""
        soft = distillation_loss(logits, self.of(batch).to(logits.device), self.temperature)
        return replace(losses, total=(1 - self.weight) * losses.total + self.weight * soft)


@dataclass(frozen=True, kw_only=True, eq=False)
class Teacher:
    """A trained model as the teacher of a stream of distorted images.

    `stream` is the student's; the teacher sees the same parts of the same images, turned and coloured alike, at its own
    input size and with its own preprocessing. ReinceptionError for a model that cannot teach the `classes`.
    """

    path: str | Path
    classes: Sequence[str]
    stream: TrainingStream
    compute: Compute

    def __post_init__(self) -> None:
        if not self.stream.views:
            raise UsageError("a teacher needs a stream with a number of views, since its answers are kept")
        self.model.manifest.require_classifier()
        if missing := sorted(set(self.classes) - set(self.model.classes)):
            raise ReinceptionError(
                f"{self.path}: the teacher does not know {listed(missing)}; its classes are "
                f"{listed(self.model.classes)}: name a teacher that was trained on the same classes"
            )

    @property
    def device(self) -> torch.device:
        """Where the teacher is computed."""
        return self._engine.device

    @cached_property
    def model(self) -> Model:
        """The teacher itself, without auxiliary classifiers."""
        return load(self.path, with_aux=False)

    def targets(self, ranks: Ranks, *, say: Callable[[str], None], check: Callable[[], None]) -> Tensor:
        """Log-probabilities (images, views, classes) float32 of all views, from the cache as far as they are there.

        The work is cut into parts; ranks share them and each reads what the others computed. `check` is called between
        parts and may raise to stop: the parts that are done are kept.
        """
        records, views = self.stream.records, self.stream.views or 1
        found = np.full((len(records), views, len(self.classes)), np.nan, dtype=np.float32)
        num_batches = math.ceil(len(records) * views / _BATCH)
        key, is_told = self._key(), False
        parts = range(0, num_batches, _BATCHES_IN_PART)
        for first in range(0, len(parts), ranks.world_size):
            starts = parts[first : first + ranks.world_size]
            check()
            for start in starts[ranks.rank : ranks.rank + 1]:
                if not self._read(key, start, found):
                    if not is_told:
                        say(f"teacher: {self.path} answers for {views} views of {len(records):,} images, once")
                    is_told = True
                    self._compute(key, start, found)
            ranks.barrier()
            for start in starts:  # those of the other ranks; with a cache of their own they are computed here too
                if np.isnan(found[self._places(start)]).any() and not self._read(key, start, found):
                    self._compute(key, start, found)
        return torch.from_numpy(found)

    def _stream(self) -> TrainingStream:
        """Every view of every image once, in an order of its own, as the teacher's preprocessing has them."""
        return replace(
            self.stream,
            input_size=self.model.preprocessing.input_size,
            preprocessing=self.model.preprocessing,
            batch_size=_BATCH,
            seed=0,
            cache_bytes=0,
            is_balanced=False,
        )

    def _compute(self, key: str, start: int, found: npt.NDArray[np.float32]) -> None:
        """Computes a part, puts it into `found` and keeps it; a cache that cannot be written costs time only."""
        engine, places = self._engine, self._places(start)
        columns = [self.model.classes.index(name) for name in self.classes]
        rows = []
        for batch in self._stream().numbered(range(start, start + math.ceil(len(places[0]) / _BATCH))):
            with torch.inference_mode(), machine.autocast(engine.dtype, engine.device):
                logits = engine.network(normalise(batch.images.to(engine.device), engine.preprocessing)).float()
            if not bool(logits.isfinite().all()):
                raise ReinceptionError(f"{self.path}: the teacher's output is not finite: its weights are damaged")
            rows.append(logits[:, columns].log_softmax(dim=1).cpu().numpy())
        part = np.ascontiguousarray(np.concatenate(rows)[: len(places[0])])
        found[places] = part
        kept.write(_name(key, start), part.tobytes())

    @cached_property
    def _engine(self) -> Engine:
        return Engine(self.model.network, self.model.preprocessing, replace(self.compute, backend="torch"))

    # -- what is kept --------------------------------------------------------------------------------------------------

    def _places(self, start: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """(index, view) of each image of the part that begins with batch `start`, the images seen once."""
        total = len(self.stream.records) * (self.stream.views or 1)
        stream, end = self._stream(), start + _BATCHES_IN_PART
        samples = [place for step in range(start, end) for place in stream.samples(step)]
        samples = samples[: max(0, total - start * _BATCH)]
        return np.array([index for _, index in samples]), np.array([epoch for epoch, _ in samples])

    def _read(self, key: str, start: int, found: npt.NDArray[np.float32]) -> bool:
        """Puts a kept part into `found`; False where there is none, or it is damaged: then it is computed again."""
        places, shape = self._places(start), (-1, len(self.classes))
        content = kept.read(_name(key, start))
        if content is None:
            return False
        found[places] = np.frombuffer(content, dtype=np.float32).reshape(shape)
        return True

    def _key(self) -> str:
        """sha256 of all that the answers depend on: teacher, images, labels' order, distortion, precision.

        An answer belongs to the content of an image and not to its name.
        """
        engine = self._engine
        task = Task(
            network=self.model.network,
            preprocessing=self.model.preprocessing,
            precision=engine.precision,
            device=engine.device,
        )
        told = {
            "format": _FORMAT,
            "torch": torch.__version__,
            "teacher": task.digest,
            "augmentation": self.stream.augmentation,
            "views": self.stream.views,
            "precision": engine.precision,
            "classes": list(self.classes),
            "images": [digest.hex() for digest in readable_digests_of(self.stream.records, self.compute)],
        }
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _name(key: str, start: int) -> str:
    """Of a part among what is kept."""
    return f"{key}-{start}.teacher"
