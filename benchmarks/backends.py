"""Backends: the choice of `auto` and eager bf16 on networks x widths x batches, interleaved, and where it is slower."""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from reinception import family, machine
from reinception.cli.table import aligned
from reinception.files import write_json
from reinception.inference.backends.choice import automatic, computed, named, sample
from reinception.inference.backends.network_backend import NetworkBackend, NetworkPrecision, Task
from reinception.preprocess import Preprocessing
from reinception.rewrite.check import random_network

NETWORKS = ("inception_v3", "inception_v3_paper", "inception_v2", "bn_inception", "googlenet")
WIDTHS = (1.0, 0.25)
BATCHES = (1, 8, 64)
TOLERATED = 0.95
"""Of eager bf16's rate: below it `auto` has chosen badly."""


def speed(repetitions: int, networks: tuple[str, ...], widths: tuple[float, ...]) -> list[dict[str, Any]]:
    """One row for each network, width and batch: images a second of `auto`'s choice and of eager bf16."""
    cpu = torch.device("cpu")
    precision: NetworkPrecision = "bf16" if machine.has_bf16(cpu) else "fp32"
    rows: list[dict[str, Any]] = []
    for name in networks:
        for width in widths:
            arch = family.network(name, width=width, aux="none")
            preprocessing = Preprocessing(input_size=arch.input_size)
            network = random_network(arch)
            task = Task(network=network, preprocessing=preprocessing, precision=precision, device=cpu)
            backends: dict[str, NetworkBackend] = {"auto": automatic(task, tell=print), "eager": named("torch", task)}
            for batch in BATCHES:
                images = sample(arch.input_size, batch)
                took: dict[str, list[float]] = {one: [] for one in backends}
                for number in range(repetitions + 1):
                    for one, backend in backends.items():
                        began = time.perf_counter()
                        computed(backend, images, "probabilities")
                        if number:  # the first warms up
                            took[one].append(time.perf_counter() - began)
                rates = {one: batch / statistics.median(values) for one, values in took.items()}
                spreads = {f"{one}_spread": [batch / max(values), batch / min(values)] for one, values in took.items()}
                chosen = backends["auto"].name
                row = {"network": name, "width": width, "batch": batch, "precision": precision, "chosen": chosen}
                rows.append({**row, **rates, **spreads, "n": repetitions})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--widths", default=",".join(map(str, WIDTHS)))
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    widths = tuple(map(float, asked.widths.split(",")))
    rows = speed(asked.repetitions, tuple(asked.networks.split(",")), widths)
    header = [name for name in rows[0] if not name.endswith("_spread")]
    cells = [
        [f"{row[name]:.4g}" if isinstance(row[name], float) else str(row[name]) for name in header] for row in rows
    ]
    print(aligned(header, cells))
    slow = [row for row in rows if row["auto"] < TOLERATED * row["eager"]]
    print(f"auto is slower than {TOLERATED:.0%} of eager in {len(slow)} of {len(rows)} cases")
    if asked.json is not None:
        write_json({"machine": machine.processor_name(), "threads": torch.get_num_threads(), "rows": rows}, asked.json)


if __name__ == "__main__":
    main()
