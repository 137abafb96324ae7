"""Time and accuracy of `train --freeze trunk`, from an empty cache and from a full one, as whole commands.

Run on an idle machine: python benchmarks/frozen_trunk.py WEIGHTS [--data elpv] [--seeds 3] [--views 1]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from reinception.machine import processor_name
from reinception.metrics import PredictionTable, accuracy


def train(words: list[str], out: Path, cache: Path) -> tuple[float, PredictionTable]:
    """Seconds of one command by the clock, its start and report included, and what it predicts of the test images."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "reinception", "train", *words, "-o", str(out), "--freeze", "trunk"]
    environment = os.environ | {"XDG_CACHE_HOME": str(cache)}  # so that the choice of a backend is cold, too
    subprocess.run(command, check=True, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began, PredictionTable.load_csv(out / "predictions" / "test.csv")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights")
    parser.add_argument("--data", default="elpv")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--views", type=int, default=1)
    given = parser.parse_args()
    print(f"{processor_name()}; {given.data}, {given.views} views, {given.seeds} seeds, each with a cache of its own")
    found: list[float] = []
    for seed in range(given.seeds):
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            words = [given.data, "--weights", given.weights, "--seed", str(seed), "--views", str(given.views)]
            cold, table = train(words, root / "cold", root / "cache")
            warm, again = train(words, root / "warm", root / "cache")
            if (table.probabilities != again.probabilities).any():
                raise SystemExit("the run from the cache predicts something else")
            right = accuracy(table)
            low, high = right.interval()
            found.append(right.percent)
            print(
                f"seed {seed}: {cold:.0f} s from an empty cache, {warm:.1f} s from a full one; "
                f"{right.percent:.1f} % ({low:.1f} to {high:.1f}) of {len(table)}",
                flush=True,
            )
    print(f"mean accuracy {statistics.fmean(found):.2f} %")


if __name__ == "__main__":
    main()
