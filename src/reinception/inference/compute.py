"""Compute: how a trained network is run, as one value: device, precision, batches, reading processes, ranks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from reinception.errors import UsageError
from reinception.machine import Precision

if TYPE_CHECKING:
    from reinception.distributed import Ranks

Backend = Literal["auto", "torch"]

Progress = Callable[[int, int | None], None]
"""Called with (images done, images in all; None while the list of them has not been read to its end)."""


@dataclass(frozen=True, kw_only=True)
class Compute:
    """How a network is run over many images. Nothing in it changes the result, except `precision`.

    Args: each is a field, explained below.

    Raises:
        UsageError: an unknown backend, or no image at a time.

    Example:
        >>> import reinception as ri
        >>> compute = ri.Compute(precision="auto", batch_size=64)
        >>> len(ri.predict("model.safetensors", "images", compute=compute))
        4
    """

    device: str | None = None
    """cpu, cuda or cuda:N; auto is the current GPU, else the processor (default: auto; in Python, where
    the network is)"""

    precision: Precision = "fp32"
    """number format of the heavy layers; fp32 gives the same figures on every processor, bf16 is faster where the
    hardware has it"""

    backend: Backend = "auto"
    """what computes the network"""

    batch_size: int = 32
    """images at a time: memory and speed, not the result"""

    workers: int = 1
    """processes that read images; any number gives the same result. With 0 this process reads them, and an image that
    crashes the decoder ends it; with 1 or more such an image is named"""

    progress: Progress | None = None
    """called with (images done, images in all or None), of this process's shard"""

    ranks: Ranks | None = None
    """the connected processes that share the images; None for a process alone"""

    def __post_init__(self) -> None:
        if self.backend not in get_args(Backend):
            raise UsageError(f"backend {self.backend!r} is unknown; it is {' or '.join(get_args(Backend))}")
        if self.batch_size < 1:
            raise UsageError(f"batch_size must be at least 1, got {self.batch_size}")


HERE = Compute()
"""The defaults: on the device that the network is on, in float32."""
