"""What the files of a run say about its data, its machine and where its weights come from."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy
import PIL
import torch

from reinception import __version__, machine
from reinception.data.sources.records import Source
from reinception.data.sources.understanding import understand
from reinception.model.artifact import Manifest
from reinception.train.run.plan import Plan


def describe_data(source: Source) -> dict[str, Any]:
    """What config.json says about the data."""
    counted = {split: Counter(record.target for record in source.split(split)) for split in source.splits}
    return {
        "root": source.address or str(source.root.resolve()),
        "fingerprint": source.fingerprint,
        "classes": list(source.classes),
        "notes": list(understand(source).odd),
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
    return {torch.bfloat16: "bf16", torch.float16: "fp16"}.get(dtype, "fp32")


def describe_model(plan: Plan, source: Source, training: Mapping[str, Any]) -> Manifest:
    """The manifest of a run's model; `training` says how far it was trained (`step`, `epoch`) and how it scored."""
    config = plan.config
    return Manifest(
        arch=plan.arch,
        classes=source.classes,
        preprocessing=plan.preprocessing,
        training={
            "recipe": plan.recipe.to_json(),
            "data": {"name": source.name, "fingerprint": source.fingerprint},
            "split": {
                "seed": config.seed if config.split_seed is None else config.split_seed,
                "val_fraction": config.val_fraction,
                "test_fraction": config.test_fraction,
                **({} if config.folds is None else {"folds": config.folds, "fold": config.fold}),
            },
            "seed": config.seed,
            "weights": "parameter average",
            **training,
        },
        origin=_origin(plan),
    )


def _origin(plan: Plan) -> Mapping[str, Any]:
    """Where the weights come from: random ones, or a file with an origin of its own."""
    trained_by = f"reinception {__version__}"
    if plan.learned is None:
        return {"trained_by": trained_by, "from": "random initial weights"}
    name, origin = Path(str(plan.config.weights)).name, dict(plan.learned.manifest.origin)
    return {"trained_by": trained_by, "from": name, "origin_of_that": origin}


# -- what a resumed run compares ---------------------------------------------------------------------------------------


def numeric_environment(device: torch.device) -> dict[str, Any]:
    """What may change the bits of a step without changing the run: versions, processor, threads."""
    return {
        "reinception": __version__,
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "pillow": PIL.__version__,
        "threads": torch.get_num_threads(),
        "kernels": torch.backends.cpu.get_cpu_capability(),
        "device": device.type if device.type == "cpu" else torch.cuda.get_device_name(device),
    }


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """`torch 2.14.1, was 2.14.0` for everything that has changed."""
    return [f"{name} {now.get(name)}, was {before.get(name)}" for name in now if now.get(name) != before.get(name)]
