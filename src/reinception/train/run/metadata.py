"""What a run says about its data, its machine and its outcome."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from reinception import __version__, machine, metrics
from reinception.data.sources.records import Source
from reinception.metrics import PredictionTable


def describe_data(source: Source) -> dict[str, Any]:
    """What config.json says about the data."""
    counted = {split: Counter(record.target for record in source.split(split)) for split in source.splits}
    return {
        "root": source.address or str(source.root.resolve()),
        "fingerprint": source.fingerprint,
        "classes": list(source.classes),
        "splits": {
            split: {name: counts[target] for target, name in enumerate(source.classes)}
            for split, counts in counted.items()
        },
    }


def describe_machine(out: Path, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """What the numbers of this run may depend on besides its configuration."""
    facts = machine.examine(out)
    versions, processor = facts["versions"], facts["processor"]
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "reinception": __version__,
        "python": versions["python"],
        "torch": versions["torch"],
        "platform": versions["system"],
        "processor": processor["model"],
        "threads": torch.get_num_threads(),
        "device": str(device),
        "precision": precision_name(dtype),
        "machine": {name: facts[name] for name in ("versions", "processor", "memory", "devices")},
    }


def precision_name(dtype: torch.dtype) -> str:
    return "bf16" if dtype == torch.bfloat16 else "fp32"


def verdict(table: PredictionTable) -> str:
    right, (name, baseline) = metrics.accuracy(table), metrics.majority(table)
    low, high = right.interval()
    return (
        f"held-out images: {right.percent:.2f} % of {len(table):,} right (95 % interval {low:.1f} to {high:.1f}); "
        f"always answering {name!r}: {baseline.percent:.1f} %"
    )
