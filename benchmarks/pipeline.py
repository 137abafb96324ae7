"""From JPEGs on disk to a file of results, as whole processes: ours beside loops that users write, in turn.

Every round starts each contestant once, from the command to its exit, so start-up and writing count. Ours runs cold
(its cache empty: it measures backends and compiles) and warm. Images are made from photographs into a temporary folder.
Peak memory is the proportional share (PSS) of a process and all it started, looked at ten times a second in a round of
its own before the others: looking costs the system up to a tenth of the time.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openvino
import torch
import torchvision
from PIL import Image
from sklearn.datasets import load_sample_images

import reinception as ri
from reinception.cli.table import aligned
from reinception.machine import examine, has_bf16
from reinception.preprocess import Preprocessing

HERE = Path(__file__).parent
SETS = {"500x375": (500, 375, 2000), "12 megapixels": (4000, 3000, 300)}
"""Width, height and number of images."""


@dataclass(frozen=True, kw_only=True)
class Round:
    """One contestant in one round."""

    images: str
    name: str
    seconds: float
    peak_mib: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="(default: %(default)s)")
    parser.add_argument("--images", nargs="+", default=list(SETS), choices=SETS, help="(default: all)")
    parser.add_argument("--share", type=float, default=1.0, help="share of the images, to try it (default: 1)")
    parser.add_argument("--only", nargs="+", help="names of contestants (default: all)")
    parser.add_argument("--json", type=Path, help="write every round to FILE")
    options = parser.parse_args()
    precision = "bf16" if has_bf16(torch.device("cpu")) else "fp32"
    rounds: list[Round] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model, graph = networks(folder)
        for images in options.images:
            width, height, num = SETS[images]
            photographs = make_images(folder / "images", width, height, max(int(num * options.share), 1))
            commands = contestants(folder, model, graph, photographs, precision)
            chosen = {key: value for key, value in commands.items() if options.only is None or key in options.only}
            peaks = {contestant: timed(prepare(), is_watched=True)[1] for contestant, prepare in chosen.items()}
            for number in range(options.rounds):
                for contestant, prepare in chosen.items():
                    seconds, _ = timed(prepare())
                    rounds.append(Round(images=images, name=contestant, seconds=seconds, peak_mib=peaks[contestant]))
                    print(f"round {number + 1}, {images}: {contestant} {seconds:.1f} s", file=sys.stderr)
            print(f"{images}, {len(list(photographs.iterdir())):,} images, {precision}\n{table(rounds, images)}\n")
            shutil.rmtree(photographs)
    facts = examine()
    print(f"{facts['processor']['model']}, {torch.get_num_threads()} threads; n = {options.rounds} interleaved rounds")
    if options.json is not None:
        document = {"machine": facts, "precision": precision, "rounds": [vars(one) for one in rounds]}
        options.json.write_text(json.dumps(document, indent=2) + "\n")


def networks(folder: Path) -> tuple[Path, Path]:
    """Our model file and OpenVINO's file of torchvision's graph to pooled features, both with random weights."""
    own = ri.create("inception_v3", aux="none", seed=0)
    classes = tuple(f"class {index}" for index in range(own.arch.num_classes))
    ri.save(
        own, folder / "model.safetensors", ri.Manifest(arch=own.arch, classes=classes, preprocessing=Preprocessing())
    )
    network = torchvision.models.inception_v3(weights=None, aux_logits=False, init_weights=False).eval()
    network.fc = torch.nn.Identity()  # pyrefly: ignore[bad-assignment]
    graph = openvino.convert_model(network, example_input=torch.zeros(1, 3, 299, 299), input=[-1, 3, 299, 299])
    openvino.save_model(graph, folder / "graph.xml")
    return folder / "model.safetensors", folder / "graph.xml"


def make_images(folder: Path, width: int, height: int, num: int) -> Path:
    """JPEGs cut from photographs, each from another place and of another size in them."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    photographs = [Image.fromarray(one) for one in load_sample_images().images]
    for index in range(num):
        photograph = photographs[index % len(photographs)]
        share = generator.uniform(0.5, 1)
        wide, high = (round(side * share) for side in photograph.size)
        left = int(generator.integers(0, photograph.width - wide + 1))
        top = int(generator.integers(0, photograph.height - high + 1))
        box = (left, top, left + wide, top + high)
        cut = photograph.resize((width, height), Image.Resampling.BICUBIC, box=box)
        cut.save(folder / f"{index:05}.jpg", quality=90)
    return folder


Words = Sequence[object]
Prepare = Callable[[], tuple[Words, dict[str, str]]]
"""The words and the environment of a process, made ready: no file of results is there yet."""


def contestants(folder: Path, model: Path, graph: Path, images: Path, precision: str) -> dict[str, Prepare]:
    own = [sys.executable, "-m", "reinception"]
    cache = folder / "cache"

    def of(words: Words, out: str, *, cold: bool = False) -> Prepare:
        def prepare() -> tuple[Words, dict[str, str]]:
            (folder / out).unlink(missing_ok=True)
            home = folder / "cold" if cold else cache
            shutil.rmtree(folder / "cold", ignore_errors=True)
            return words, {"XDG_CACHE_HOME": str(home)}

        return prepare

    features = [*own, "features", model, images, "-o", folder / "f.npz", "--precision", precision]
    predict = [*own, "predict", model, images, "-o", folder / "p.csv", "--precision", precision]
    old = [*own, "features", model, images, "-o", folder / "o.npz", "--backend", "torch", "--precision", "fp32"]
    loop = [sys.executable, HERE / "openvino_loop.py", graph, images, precision, folder / "l.npz"]
    return {
        "reinception features, cold": of(features, "f.npz", cold=True),
        "reinception features": of(features, "f.npz"),
        "reinception predict": of(predict, "p.csv"),
        "OpenVINO, forty lines": of(loop, "l.npz"),
        "timm, its defaults": of([sys.executable, HERE / "timm_loop.py", images, folder / "t.npz"], "t.npz"),
        "reinception, torch fp32": of([*old, "--workers", 1], "o.npz"),
    }


def timed(command: tuple[Words, dict[str, str]], *, is_watched: bool = False) -> tuple[float, float]:
    """Seconds from the start to the exit of a process, and the most MiB it and what it started held together, 0 where
    it is not watched."""
    words, settings = command
    began, peak = time.perf_counter(), 0.0
    environment = os.environ | settings | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with tempfile.TemporaryFile("w+") as said:  # not a pipe, which could fill up
        process = subprocess.Popen(
            [str(word) for word in words], env=environment, stdout=subprocess.DEVNULL, stderr=said, text=True
        )
        while is_watched and process.poll() is None:
            peak = max(peak, sum(map(pss, family_of(process.pid))))
            time.sleep(0.1)
        process.wait()
        seconds = time.perf_counter() - began
        if process.returncode:
            said.seek(0)
            raise SystemExit(f"{words}: exit code {process.returncode}: {said.read()}")
    return seconds, peak


def family_of(pid: int) -> list[int]:
    """A process and all that descend from it."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = task.read_text().split()
        except OSError:  # it has just ended
            continue
        found += [one for child in children for one in family_of(int(child))]
    return found


def pss(pid: int) -> float:
    """MiB of a process, with its share of what it has in common with others; 0 where it has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:")), 0.0)


def table(rounds: Sequence[Round], images: str) -> str:
    rows = []
    here = [one for one in rounds if one.images == images]
    names = list(dict.fromkeys(one.name for one in here))
    medians = {name: statistics.median(one.seconds for one in here if one.name == name) for name in names}
    fastest = medians.get("reinception features", medians.get("reinception predict", min(medians.values())))
    for name in names:
        seconds = [one.seconds for one in here if one.name == name]
        peak = max(one.peak_mib for one in here if one.name == name)
        spread = f"{min(seconds):.1f} to {max(seconds):.1f}"
        rows.append((name, f"{medians[name]:.1f}", spread, f"{medians[name] / fastest:.2f}", f"{peak:,.0f}"))
    return aligned(("WHAT", "SECONDS", "RANGE", "OF OURS", "PEAK MIB"), rows, right=(1, 3, 4))


if __name__ == "__main__":
    main()
