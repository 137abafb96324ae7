"""How much memory a step takes, an image of it, and how many images a step could have on this machine."""

from __future__ import annotations

import dataclasses
import resource
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from reinception.data.loading.loader import Batch
from reinception.machine import available_bytes

ROOM = 0.9
"""The part of what is free that a step may count on."""

LEAST_HALF = 2
"""Batch norm has nothing to normalise in less."""


@dataclass(frozen=True, kw_only=True)
class StepMemory:
    """Bytes: the most in use so far, of one image in a step (None where it was not measured), and free."""

    peak: int
    per_image: float | None
    free: int

    @staticmethod
    def measured(device: torch.device, *, half: tuple[int, int] | None, batch_size: int) -> StepMemory:
        """After a step of `batch_size` images; `half` is the number of images of a smaller step before it and the peak
        after that."""
        peak = peak_bytes(device)
        per_image = None
        if half is not None and peak > half[1]:
            per_image = (peak - half[1]) / (batch_size - half[0])
        return StepMemory(peak=peak, per_image=per_image, free=available_bytes(device))

    def largest_batch(self, batch_size: int) -> int | None:
        """The most images in a batch that should fit, where one of `batch_size` has; None where nobody knows."""
        if self.per_image is None:
            return None
        return batch_size + int(ROOM * self.free / self.per_image)

    def in_words(self, batch_size: int) -> str:
        """One line."""
        said = f"{self.peak / 2**30:.2f} GiB at its highest in these steps, this whole process"
        largest = self.largest_batch(batch_size)
        if self.per_image is None or largest is None:
            return said
        return f"{said}; {self.per_image / 2**20:.1f} MiB an image, so that a batch of about {largest:,} fits here"


def halved(batches: Sequence[Batch]) -> list[Batch] | None:
    """The first half of the images of each batch; None where that is too few."""
    num = len(batches[0].images) // 2
    if num < LEAST_HALF:
        return None
    return [
        dataclasses.replace(
            batch,
            images=batch.images[:num],
            targets=batch.targets[:num],
            indices=batch.indices[:num],
            epochs=batch.epochs[:num],
            soft=None if batch.soft is None else batch.soft[:num],
        )
        for batch in batches
    ]


def peak_bytes(device: torch.device) -> int:
    """The most memory so far: of the GPU, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
