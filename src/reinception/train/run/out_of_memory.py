"""Out of memory, or a device that is lost: recognising it, and advice how the same images are computed after all."""

from __future__ import annotations

import errno

import torch

from reinception.errors import ReinceptionError, UsageError, first_line
from reinception.recipe import Recipe

LEAST_BATCH = 2  # batch norm has nothing to normalise in less
# Messages of torch's allocators on a processor, and last of oneDNN when it gets no memory for its code and scratch;
# on a GPU it is torch.OutOfMemoryError, and NumPy raises a MemoryError.
SAID_WITHOUT_MEMORY = ("can't allocate memory", "not enough memory", "bad_alloc", "could not create a primitive")


class OutOfMemoryError(ReinceptionError):
    """A step did not fit into memory; `flags` ask for the same images in smaller batches, where there are such."""

    def __init__(self, message: str, *, flags: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.flags = flags


def is_out_of_memory(error: BaseException) -> bool:
    """Whether that is what `error` means, on a processor or a GPU."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and any(words in str(error) for words in SAID_WITHOUT_MEMORY)


class DeviceLostError(ReinceptionError):
    """The device does not answer any more, and what it held is gone."""


# Of a driver that has reset the device, a device that has fallen off the bus, or a fault that its context does not
# survive: torch then fails in every further call.
SAID_WITHOUT_DEVICE = (
    *("device-side assert", "unspecified launch failure", "illegal memory access", "device lost", "unknown error"),
    *("uncorrectable ECC", "hardware", "CUDA-capable device", "driver shutting down", "fallen off the bus"),
)


def is_device_lost(error: BaseException) -> bool:
    """Whether `error` says that the GPU is lost for this process."""
    said = str(error)
    is_cuda = "CUDA error" in said or "HIP error" in said or type(error).__name__ == "AcceleratorError"
    return isinstance(error, RuntimeError) and is_cuda and any(words in said for words in SAID_WITHOUT_DEVICE)


def device_lost(error: BaseException, device: torch.device) -> DeviceLostError:
    """The error for a run whose device is gone; the steps since the last checkpoint are lost with it."""
    return DeviceLostError(f"{device} is lost ({first_line(error)}); the last checkpoint is whole")


def at_most_half(batch_size: int) -> int | None:
    """The largest divisor of `batch_size` up to its half, so that a step keeps its images; None below 2."""
    return next((n for n in range(batch_size // 2, LEAST_BATCH - 1, -1) if batch_size % n == 0), None)


def out_of_memory(recipe: Recipe, device: torch.device) -> OutOfMemoryError:
    """The error for a step that has run out of memory, with advice.

    Adding up the gradients of several small batches is what replicas do already, over the same images in the same
    order. Whether the half fits is not tried: after a failure oneDNN may refuse in this process what would fit.
    """
    what = f"out of memory: a batch of {recipe.batch_size} images does not fit on {device}"
    half = at_most_half(recipe.batch_size)
    if half is None:
        return OutOfMemoryError(f"{what}; choose a smaller --input-size, --width or network")
    flags = ("--batch-size", str(half), "--replicas", str(recipe.replicas * recipe.batch_size // half))
    return OutOfMemoryError(
        f"{what}; try {' '.join(flags)}: as many images a step, added up {half} at a time, "
        "which batch norm then sees, so it is not quite the same run",
        flags=flags,
    )


def divided(recipe: Recipe, *, batch_size: int | None, replicas: int | None) -> Recipe:
    """`recipe` with its steps cut into other batches, as a run that has begun may be: every step keeps its images.

    UsageError where it would not, or where a batch is below 2.
    """
    size, num = batch_size or recipe.batch_size, replicas or recipe.replicas
    if size * num != recipe.batch_size * recipe.replicas:
        raise UsageError(
            f"--batch-size {size} --replicas {num} beside --resume: steps of this run have "
            f"{recipe.batch_size} x {recipe.replicas} images, and as many they must keep"
        )
    if size < min(LEAST_BATCH, recipe.batch_size):
        raise UsageError(f"--batch-size {size}: batch norm needs at least {LEAST_BATCH} images")
    if size == recipe.batch_size:
        return recipe
    source = "beside --resume"
    return recipe.changed("batch_size", size, source=source).changed("replicas", num, source=source)
