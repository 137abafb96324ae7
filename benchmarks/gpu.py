"""Everything a GPU must prove and everything it is worth, in one command under nine minutes; needs torch 2.11 only.

First what is right (gpu_checks.py; pools come first), then how fast: training and inference beside torchvision and timm
where they are installed, each as its users set it best, interleaved; the loader; time to 93 % on scikit-learn's digits.
One table is printed and one JSON file written. Without a GPU it says so and ends well.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from gpu_checks import CHECKS
from torch import nn
from training import CLASSES, SIZE, interleaved, ours, peer

import reinception
from reinception.cli.table import aligned
from reinception.errors import first_line
from reinception.machine import examine, num_processors

SECONDS = 540
TRAINING_BATCH, INFERENCE_BATCH = 256, 1024
Row = tuple[str, str, str, str, str]


class Clock:
    """The seconds that are left, so that what is measured last is left out and not cut off."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        return self._end - time.monotonic()


def proved(device: torch.device) -> dict[str, str]:
    """Each check by name: `passed`, or the first line of what it said."""
    results = {}
    for check in CHECKS:
        began = time.perf_counter()
        try:
            check(device)
            results[check.__name__] = "passed"
        except Exception as error:  # each check is told of, whatever happens to another
            results[check.__name__] = f"FAILED: {type(error).__name__}: {first_line(error)}"
        print(f"{time.perf_counter() - began:6.1f} s  {check.__name__}: {results[check.__name__]}", flush=True)
    return results


def waited(run: Callable[[], object]) -> Callable[[], None]:
    def done() -> None:
        run()
        torch.cuda.synchronize()

    return done


def installed(library: str) -> bool:
    try:
        __import__(library)
    except ImportError:
        return False
    return True


def training_contestants(device: torch.device) -> dict[str, Callable[[], Callable[[], object]]]:
    last, bf16, size = torch.channels_last, torch.bfloat16, TRAINING_BATCH
    found: dict[str, Callable[[], Callable[[], object]]] = {
        "reinception plain": lambda: ours("plain", bf16, size, device),
        "reinception fused": lambda: ours("fused", bf16, size, device),
        "reinception compiled": lambda: ours("compiled", bf16, size, device),
    }
    for library in filter(installed, ("torchvision", "timm")):
        found[f"{library} channels last"] = lambda library=library: peer(library, bf16, size, device, last)
        found[f"{library} compiled"] = lambda library=library: peer(library, bf16, size, device, last, mode="default")
    if installed("torchvision"):
        found["torchvision max-autotune"] = lambda: peer(
            "torchvision", bf16, size, device, last, mode="max-autotune-no-cudagraphs"
        )
    return found


def inference_contestants(device: torch.device) -> dict[str, Callable[[], Callable[[], object]]]:
    def run(module: nn.Module, mode: str | None) -> Callable[[], object]:
        module = module.to(device, torch.bfloat16).to(memory_format=torch.channels_last).eval()  # pyrefly: ignore
        call = module if mode is None else torch.compile(module, mode=mode)
        images = torch.rand(INFERENCE_BATCH, 3, SIZE, SIZE, device=device, dtype=torch.bfloat16)
        images = images.contiguous(memory_format=torch.channels_last)

        def forward() -> object:
            with torch.inference_mode():
                return call(images)

        return forward

    def torchvision_network() -> nn.Module:
        import torchvision

        network = torchvision.models.inception_v3(weights=None, aux_logits=True, init_weights=False)
        network.AuxLogits, network.aux_logits = None, False
        return network

    def timm_network() -> nn.Module:
        import timm

        return timm.create_model("inception_v3", pretrained=False)

    found: dict[str, Callable[[], Callable[[], object]]] = {}
    makers: dict[str, Callable[[], nn.Module]] = {"reinception": lambda: reinception.create("inception_v3", aux="none")}
    if installed("torchvision"):
        makers["torchvision"] = torchvision_network
    if installed("timm"):
        makers["timm"] = timm_network
    for library, make in makers.items():
        found[f"{library} channels last"] = lambda make=make: run(make(), None)
        found[f"{library} compiled"] = lambda make=make: run(make(), "default")
    return found


def throughput(
    what: str, contestants: dict[str, Callable[[], Callable[[], object]]], batch_size: int, rounds: int, clock: Clock
) -> tuple[list[Row], dict[str, list[float]]]:
    """Images per second of each contestant that could be made in the time there is."""
    steps: dict[str, Callable[[], object]] = {}
    rows: list[Row] = []
    for name, make in contestants.items():
        if clock.left < 60:
            rows.append((what, name, "-", "no time left", ""))
            continue
        try:
            steps[name] = waited(make())
            steps[name]()
        except Exception as error:  # a contestant that does not run here is told of and left out
            steps.pop(name, None)
            rows.append((what, name, "-", first_line(error)[:60], ""))
    rates = {}
    for name, seconds in interleaved(steps, rounds).items():
        rates[name] = [batch_size / one for one in seconds]
        spread = f"{min(rates[name]):,.0f} to {max(rates[name]):,.0f}"
        rows.append((what, name, f"{statistics.median(rates[name]):,.0f}", spread, str(batch_size)))
    torch.cuda.empty_cache()
    return rows, rates


# -- with images -------------------------------------------------------------------------------------------------------


def digits(folder: Path) -> bool:
    """scikit-learn's 1,797 digits as class folders of PNG files; False where it is not installed."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        return False
    from PIL import Image

    rows, targets = load_digits(return_X_y=True)
    for number, (pixels, target) in enumerate(zip(rows.reshape(-1, 8, 8), targets, strict=True)):
        place = folder / str(target)
        place.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray((pixels * 255 / 16).round().astype("uint8"))
        image.resize((96, 96), Image.Resampling.BICUBIC).convert("RGB").save(place / f"{number}.png")
    return True


def on_images(seconds: int) -> dict[str, Any]:
    """A run on the digits by the command line: its images per second, waiting, and the time to 93 %."""
    with tempfile.TemporaryDirectory() as place:
        images, run = Path(place) / "digits", Path(place) / "run"
        if not digits(images):
            return {"said": "scikit-learn is not installed: no images to train on"}
        words = [
            "train",
            images,
            "-o",
            run,
            "--time-budget",
            f"{seconds}s",
            "--input-size",
            96,
            "--recipe",
            "from_scratch",
        ]
        words += ["--batch-size", 64, "--workers", min(8, num_processors()), "--device", "cuda"]
        done = subprocess.run(
            [sys.executable, "-m", "reinception", *map(str, words)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            return {"said": done.stderr.splitlines()[-1]}
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        validated = [line for line in lines if line["split"] == "val"]
        reached = [line["seconds"] for line in validated if line["top1_error"] <= 0.07]
        waiting = [line for line in done.stderr.splitlines() if "waited for images" in line]
        best = min(line["top1_error"] for line in validated)
        return {"seconds_to_93": min(reached, default=None), "best_error": best, "said": " ".join(waiting[-1:])}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, default=Path("gpu.json"), help="(default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=7, help="(default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for everything (default: %(default)s)")
    arguments = parser.parse_args()
    on_cpu = os.environ.get("REINCEPTION_GPU_TESTS_ON_CPU") == "1"
    if not torch.cuda.is_available() and not on_cpu:
        print("no GPU here: nothing is proved; REINCEPTION_GPU_TESTS_ON_CPU=1 runs the checks on the processor")
        return 0
    clock = Clock(arguments.seconds)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    facts = examine()
    print(f"{facts['devices']['cuda_devices'] or 'processor'}; torch {facts['versions']['torch']}")
    result: dict[str, Any] = {"machine": facts, "checks": proved(device)}
    rows: list[Row] = []
    if device.type == "cuda":
        for what, made, size in (
            ("training", training_contestants(device), TRAINING_BATCH),
            ("inference", inference_contestants(device), INFERENCE_BATCH),
        ):
            found, result[what] = throughput(what, made, size, arguments.rounds, clock)
            rows += found
        if clock.left > 60:
            result["digits"] = on_images(int(min(60, clock.left - 30)))
            rows.append(("digits", "seconds to 93 %", str(result["digits"].get("seconds_to_93", "-")),
                         result["digits"]["said"], ""))  # fmt: skip
        print(f"\nbf16, {SIZE} pixels, {CLASSES} classes; n = {arguments.rounds} interleaved rounds\n")
        print(aligned(("WHAT", "WHO", "IMAGES/S", "RANGE", "BATCH"), rows, right=(2, 4)))
    arguments.json.write_text(json.dumps(result, indent=1), encoding="utf-8")
    print(f"written: {arguments.json}")
    return 0 if all(said == "passed" for said in result["checks"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
