"""How fast a network answers here: milliseconds for one picture alone, and pictures a second in batches."""

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
class _Patience:
    """How often a measurement is repeated: to warm up, then between two numbers, none begun after so many seconds."""

    warm_up: int
    fewest: int
    most: int
    seconds: float = 1.0


_ALONE, _BATCHES = _Patience(warm_up=2, fewest=20, most=40), _Patience(warm_up=1, fewest=3, most=5)
"""Short: a verdict waits for it. Twenty, so that a 95th percentile is not just the slowest."""


def measure(network: Network, preprocessing: Preprocessing, *, batch_size: int) -> dict[str, Any]:
    """What speed.json holds: from decoded pixels to probabilities in float32, on the device the network is on.

    Each of `runs` has `batch_size`, `n` repetitions, their `median_milliseconds` and `p95_milliseconds`, and
    `images_per_second` at the median. By the clock on the wall, so whatever else the machine does counts.
    """
    device = next(network.parameters()).device
    sizes = {1: _ALONE} | ({batch_size: _BATCHES} if batch_size > 1 else {})
    with evaluating(network):
        runs = [_run(network, preprocessing, size, patience) for size, patience in sizes.items()]
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


def _run(network: Network, preprocessing: Preprocessing, batch_size: int, patience: _Patience) -> dict[str, Any]:
    device, side = next(network.parameters()).device, preprocessing.input_size
    # Noise: a network's time does not depend on what a picture shows.
    noise = torch.randint(0, 256, (batch_size, 3, side, side), dtype=torch.uint8, generator=torch.Generator())

    def once() -> float:
        began = time.perf_counter()
        inputs = normalise(noise.to(device), preprocessing)
        network(inputs).float().softmax(dim=1).cpu()  # back on the processor: only then has a device finished
        return time.perf_counter() - began

    for _ in range(patience.warm_up):
        once()
    took: list[float] = []
    while len(took) < patience.fewest or (len(took) < patience.most and sum(took) < patience.seconds):
        took.append(once())
    median, late = np.percentile(took, (50, 95))
    return {
        "batch_size": batch_size,
        "n": len(took),
        "median_milliseconds": round(1000 * float(median), 3),
        "p95_milliseconds": round(1000 * float(late), 3),
        "images_per_second": round(batch_size / float(median), 2),
    }
