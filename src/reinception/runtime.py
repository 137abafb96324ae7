"""The fastest correct way to run a network on this machine: device, precision, layout, images to probabilities."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from reinception.data.crop_stream import crop_batches
from reinception.data.decode import Refused
from reinception.data.loader import evaluation_batches, normalise
from reinception.data.records import Record
from reinception.errors import ReinceptionError, UsageError
from reinception.metrics import Probabilities
from reinception.model.build import Network
from reinception.protocol import Crops, Preprocessing

Precision = Literal["auto", "fp32", "bf16"]

_CPU_BF16 = ("avx512_bf16", "amx_bf16", "sve_bf16", "bf16")
"""Processor features, as torch names them, that multiply bfloat16 in hardware; the last two are Arm's."""

Progress = Callable[[int, int], None]
"""Called with (images done, images in all)."""


def choose_device() -> torch.device:
    """The current CUDA device where there is one, else the processor."""
    return torch.device("cuda") if torch.cuda.is_available() else torch.device("cpu")


def has_bf16(device: torch.device) -> bool:
    """Whether `device` computes in bfloat16 itself; a processor that has to emulate it is slower than in float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    features = torch.cpu.get_capabilities()
    return device.type == "cpu" and any(features.get(name, False) for name in _CPU_BF16)


def precision(kind: Precision = "auto", device: torch.device | None = None) -> torch.dtype:
    """`auto` is bfloat16 where the device has it, else float32. UsageError for a bf16 that would be emulated."""
    if kind not in ("auto", "fp32", "bf16"):
        raise UsageError(f"precision {kind!r} is unknown; it is auto, fp32 or bf16")
    device = device or choose_device()
    if kind == "bf16" and not has_bf16(device):
        raise UsageError(f"bf16: {device.type} has no bfloat16 arithmetic here; use --precision fp32 or auto")
    return torch.bfloat16 if kind != "fp32" and has_bf16(device) else torch.float32


def autocast(dtype: torch.dtype, device: torch.device) -> AbstractContextManager[object]:
    """Convolutions and products inside the block run in `dtype`; float32 changes nothing."""
    return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype=dtype)


def prepare(network: Network, device: torch.device) -> Network:
    """The same network on `device` with weights laid out channels last, as the convolutions want them."""
    return network.to(device).to(memory_format=torch.channels_last)


@contextmanager
def evaluating(network: Network) -> Iterator[Network]:
    """Evaluation mode without gradients inside the block; the mode from before is restored."""
    was_training = network.training
    network.eval()
    try:
        with torch.inference_mode():
            yield network
    finally:
        network.train(was_training)


@dataclass(frozen=True, kw_only=True, eq=False)
class Scored:
    """One row of probabilities per record (n, k) float32, and by record index why a row is empty (all zero)."""

    probabilities: Probabilities
    refused: Mapping[int, Refused]


def score(
    network: Network,
    preprocessing: Preprocessing,
    records: Sequence[Record],
    *,
    crops: Crops | None = None,
    batch_size: int = 32,
    workers: int = 0,
    dtype: torch.dtype = torch.float32,
    progress: Progress | None = None,
) -> Scored:
    """Softmax of the network's logits for each record once, on the device the network is on.

    Without `crops` the single crop of `preprocessing`; with them the average of their probabilities, `batch_size` crops
    at a time, whichever pictures they come from. An image that cannot be read is listed in `refused`, the rest go on.
    ReinceptionError where the network itself gives something that is no number.
    """
    sums = np.zeros((len(records), network.arch.num_classes), dtype=np.float64)
    refused: dict[int, Refused] = {}
    finished = 0

    def say(done: int) -> None:
        nonlocal finished
        if progress and done > finished:
            finished = done
            progress(done, len(records))

    with evaluating(network), autocast(dtype, next(network.parameters()).device):
        if crops is None:
            for batch, bad in evaluation_batches(records, preprocessing, batch_size=batch_size, workers=workers):
                refused.update(bad)
                if len(batch.indices):
                    sums[batch.indices.numpy()] = _probabilities(network, batch.images, preprocessing)
                say(finished + len(batch.indices) + len(bad))
        else:
            for cut, bad in crop_batches(records, preprocessing, crops, batch_size=batch_size, workers=workers):
                refused.update(bad)
                if len(cut.indices):
                    for images in (cut.images, cut.images.flip(3)):
                        rows = _probabilities(network, images, preprocessing)
                        np.add.at(sums, cut.indices, rows * cut.shares[:, None])
                say(max([0, *cut.indices[-1:], *(index + 1 for index, _ in bad)]))
    if progress:
        say(len(records))
    return Scored(probabilities=sums.astype(np.float32), refused=refused)


def features(
    network: Network,
    preprocessing: Preprocessing,
    records: Sequence[Record],
    *,
    batch_size: int = 32,
    workers: int = 0,
    dtype: torch.dtype = torch.float32,
    progress: Progress | None = None,
) -> tuple[npt.NDArray[np.float32], Mapping[int, Refused]]:
    """The pooled features (n, num_features) of each record's single crop, and which rows stayed zero, and why."""
    rows = np.zeros((len(records), network.num_features), dtype=np.float32)
    refused: dict[int, Refused] = {}
    done = 0
    with evaluating(network), autocast(dtype, next(network.parameters()).device):
        for batch, bad in evaluation_batches(records, preprocessing, batch_size=batch_size, workers=workers):
            refused.update(bad)
            if len(batch.indices):
                values = network.features(_on_device(network, batch.images, preprocessing)).float()
                rows[batch.indices.numpy()] = _finite(values).cpu().numpy()
            done += len(batch.indices) + len(bad)
            if progress:
                progress(done, len(records))
    return rows, refused


def _probabilities(network: Network, images: torch.Tensor, preprocessing: Preprocessing) -> Probabilities:
    """Float32 (n, k), whatever precision the network runs in."""
    logits = network(_on_device(network, images, preprocessing)).float()
    return _finite(logits.softmax(dim=1)).cpu().numpy()


def _on_device(network: Network, images: torch.Tensor, preprocessing: Preprocessing) -> torch.Tensor:
    device = next(network.parameters()).device
    return normalise(images.to(device), preprocessing, dtype=torch.float32, memory_format=torch.channels_last)


def _finite(values: torch.Tensor) -> torch.Tensor:
    if not bool(values.isfinite().all()):
        raise ReinceptionError("the network's output is not a number: its weights are damaged or diverged")
    return values
