"""Latency of one image and throughput of a batch, measured on this machine."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from reinception import machine
from reinception.data.loading.loader import normalise
from reinception.inference.engine import evaluating
from reinception.model.build import Network
from reinception.preprocess import Preprocessing

SPEED_NAME = "speed.json"


@dataclass(frozen=True, kw_only=True)
class _Repetitions:
    """How often a batch is timed: at least `fewest` times, at most `most`, and no more after `seconds`."""

    warm_up: int
    fewest: int
    most: int
    seconds: float = 1.0


_SINGLE, _BATCHED = _Repetitions(warm_up=2, fewest=20, most=40), _Repetitions(warm_up=1, fewest=3, most=5)
"""Few, since a run waits for them. At least 20, so that a 95th percentile is not just the slowest."""


def measure(network: Network, preprocessing: Preprocessing, *, batch_size: int) -> dict[str, Any]:
    """The content of speed.json: from decoded pixels to probabilities in float32, on the device of the network.

    Each of `runs` has `batch_size`, `n` repetitions, their `median_milliseconds` and `p95_milliseconds`, and
    `images_per_second` at the median. Wall-clock time, so other load on the machine counts.
    """
    device = next(network.parameters()).device
    sizes = {1: _SINGLE} | ({batch_size: _BATCHED} if batch_size > 1 else {})
    with evaluating(network):
        runs = [_time(network, preprocessing, size, often) for size, often in sizes.items()]
    return {
        "what": "from decoded pixels to probabilities",
        "hardware": torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else machine.examine()["processor"]["model"],
        "device": str(device),
        "threads": torch.get_num_threads(),
        "precision": "fp32",
        "input_size": preprocessing.input_size,
        "runs": runs,
    }


def _time(network: Network, preprocessing: Preprocessing, batch_size: int, often: _Repetitions) -> dict[str, Any]:
    device, side = next(network.parameters()).device, preprocessing.input_size
    # Noise: a network's time does not depend on what an image shows.
    noise = torch.randint(0, 256, (batch_size, 3, side, side), dtype=torch.uint8, generator=torch.Generator())

    def once() -> float:
        began = time.perf_counter()
        inputs = normalise(noise.to(device), preprocessing)
        network(inputs).float().softmax(dim=1).cpu()  # back on the processor: only then has a device finished
        return time.perf_counter() - began

    for _ in range(often.warm_up):
        once()
    took: list[float] = []
    while len(took) < often.fewest or (len(took) < often.most and sum(took) < often.seconds):
        took.append(once())
    median, late = np.percentile(took, (50, 95))
    return {
        "batch_size": batch_size,
        "n": len(took),
        "median_milliseconds": round(1000 * float(median), 3),
        "p95_milliseconds": round(1000 * float(late), 3),
        "images_per_second": round(batch_size / float(median), 2),
    }
