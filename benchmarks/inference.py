"""Images per second of the released network, ours beside torchvision's with the same number format and memory layout.

Every round times each contestant once, in turn, so that a machine that slows down slows down all of them; the median
of the rounds is printed with their range, and with what the machine is.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torchvision
from torch import Tensor, nn

import reinception
from reinception.cli.table import aligned
from reinception.machine import autocast, choose_device, examine, has_bf16, keep_freed_memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="times each contestant is timed (default: %(default)s)")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 16], help="(default: 1 and 16)")
    arguments = parser.parse_args()
    keep_freed_memory()
    device = choose_device()
    dtypes = [torch.float32, *([torch.bfloat16] if has_bf16(device) else [])]
    own = reinception.create("inception_v3", aux="none", seed=0)
    networks = {
        "reinception": own.to(device).to(memory_format=torch.channels_last).eval(),
        "torchvision": peer(device),
    }
    rows = []
    for dtype in dtypes:
        for batch_size in arguments.batch_sizes:
            images = torch.rand(batch_size, 3, 299, 299, device=device).to(memory_format=torch.channels_last)
            runs = {name: forward(network, images, dtype) for name, network in networks.items()}
            for name, rates in interleaved(runs, arguments.rounds, batch_size).items():
                spread = f"{min(rates):.1f} to {max(rates):.1f}"
                kind = str(dtype).removeprefix("torch.")
                rows.append((name, kind, str(batch_size), f"{statistics.median(rates):.1f}", spread))
    facts = examine()
    versions, processor = facts["versions"], facts["processor"]
    print(f"{processor['model']}, {torch.get_num_threads()} threads, {device}; torch {versions['torch']}")
    print(f"inception_v3, 299 pixels, channels last, eager; n = {arguments.rounds} interleaved rounds\n")
    print(aligned(("NETWORK", "PRECISION", "BATCH", "IMAGES/S", "RANGE"), rows, right=(2, 3)))


def peer(device: torch.device) -> nn.Module:
    """torchvision's network with random weights: its outputs are compared in the tests, only its speed is here."""
    network = torchvision.models.inception_v3(weights=None, aux_logits=False, init_weights=False)
    return network.to(device).to(memory_format=torch.channels_last).eval()  # pyrefly: ignore[no-matching-overload]


def forward(network: nn.Module, images: Tensor, dtype: torch.dtype) -> Callable[[], None]:
    """One batch through `network`, waited for."""

    def run() -> None:
        with torch.inference_mode(), autocast(dtype, images.device):
            network(images).sum().item()

    return run


def interleaved(runs: dict[str, Callable[[], None]], rounds: int, batch_size: int) -> dict[str, list[float]]:
    """Images per second of each run in each round, after two rounds nobody counts."""
    rates: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 2):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if number >= 2:
                rates[name].append(batch_size / (time.perf_counter() - start))
    return rates


if __name__ == "__main__":
    main()
