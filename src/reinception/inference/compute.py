"""Compute: how a trained network is run, as one value: device, precision, batches, reading processes, ranks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reinception.machine import Precision

if TYPE_CHECKING:
    from reinception.distributed import Ranks

Progress = Callable[[int, int], None]
"""Called with (images done, images in all)."""


@dataclass(frozen=True, kw_only=True)
class Compute:
    """How a network is run over many images. Nothing in it changes the result, except `precision`."""

    device: str = "auto"
    """cpu, cuda or cuda:N; auto is the current GPU, else the processor"""

    precision: Precision = "fp32"
    """number format of the heavy layers; fp32 gives the same figures on every processor, bf16 is faster where the
    hardware has it"""

    batch_size: int = 32
    """images at a time: memory and speed, not the result"""

    workers: int = 1
    """processes that read images; any number gives the same result. With 0 this process reads them, and an image that
    crashes the decoder ends it; with 1 or more such an image is named"""

    progress: Progress | None = None
    """called with (images done, images in all), of this process's shard"""

    ranks: Ranks | None = None
    """the connected processes that share the images; None for a process alone"""
