"""Compute: how a trained network is run, as one value: device, precision, batches, reading processes, ranks."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, get_args

from reinception.data.loading.watchdog import Progress
from reinception.errors import UsageError
from reinception.machine import num_processors

if TYPE_CHECKING:
    from reinception.distributed import Ranks

Backend = Literal["auto", "torch", "inductor", "openvino"]
InferencePrecision = Literal["auto", "fp32", "bf16", "int8"]


@dataclass(frozen=True, kw_only=True)
class Compute:
    """How a network is run over many images. `precision` changes the result within a tolerance, `backend` its rounding.

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

    precision: InferencePrecision | None = None
    """number format of the heavy layers; auto is bf16 where the hardware has it, which is faster; int8 is faster still,
    computed by openvino, and needs --calibrate once (default: auto for predict and features, fp32 for what else there
    is, so that figures are the same on every processor)"""

    backend: Backend = "auto"
    """what computes the network; auto is the fastest that is measured here within the precision's tolerance, once for
    each model, and torch for score. torch in fp32 gives the reference"""

    calibrate: str | None = None
    """images like those to come, some hundred, which int8's ranges are measured on: a folder, a manifest, tar shards or
    the word elpv. What was quantized is kept for the model"""

    least_agreement: float = 0.97
    """refuse int8 where the most probable class is float32's on fewer of the images, as a fraction"""

    batch_size: int = 32
    """images at a time: memory and speed, not the result"""

    workers: int | None = None
    """processes that read images; any number gives the same result. With 0 this process reads them, and an image that
    crashes the decoder ends it; with 1 or more such an image is named (default: one for each core, at most 8)"""

    progress: Progress | None = None
    """called with (images done, images in all or None), of this process's shard"""

    notice: Callable[[str], None] | None = None
    """called with a line about what `auto` chose and why"""

    ranks: Ranks | None = None
    """the connected processes that share the images; None for a process alone"""

    @property
    def readers(self) -> int:
        """`workers`, or where it is not given a process for each core that this process may use, at most 8.

        They sleep while the network has images, so there are enough where images of many megapixels take longer to
        decode than to classify. Processes that torchrun starts on one machine share its cores.
        """
        if self.workers is not None:
            return self.workers
        return min(8, max(1, num_processors() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))

    def __post_init__(self) -> None:
        if self.backend not in get_args(Backend):
            raise UsageError(f"backend {self.backend!r} is unknown; it is {' or '.join(get_args(Backend))}")
        if self.calibrate is not None and self.precision != "int8":
            raise UsageError("calibrate is for precision int8: ask for that, or leave it out")
        if self.precision == "int8" and self.backend not in ("auto", "openvino"):
            raise UsageError(f"int8 is computed by openvino, not by {self.backend}: leave --backend out")
        if not 0 < self.least_agreement <= 1:
            raise UsageError(f"least_agreement must be above 0 and at most 1, got {self.least_agreement:g}")
        if self.batch_size < 1:
            raise UsageError(f"batch_size must be at least 1, got {self.batch_size}")

    def with_default(self, precision: InferencePrecision) -> Compute:
        """The same with `precision` where none is given."""
        return self if self.precision is not None else replace(self, precision=precision)


HERE = Compute()
"""The defaults: on the device that the network is on."""
