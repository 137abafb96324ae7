"""What the arithmetic of FID costs: features to value, beside pytorch-fid's, in turns in one run.

Ours: exact sums of both sets, both covariances, the distance; and, as a line of its own, the same with extrapolation
and interval. pytorch-fid's: numpy's mean and covariance in float64 as its `calculate_activation_statistics` takes them,
and its `calculate_frechet_distance` (scipy's sqrtm), which is called where pytorch-fid is installed and written out
otherwise. The distance alone is timed beside it too. Features are random, correlated and not negative. Peak memory is
this process's, features included.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from reinception.generative import fid, frechet_distance
from reinception.machine import examine


def features(num: int, width: int, seed: int) -> np.ndarray:
    """(num, width) float32, as pooled features are: not negative, and correlated."""
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(64, width)).astype(np.float32) / 8
    rows = np.empty((num, width), dtype=np.float32)
    for start in range(0, num, 5000):
        block = rng.normal(size=(min(5000, num - start), width)).astype(np.float32) * np.float32(0.3)
        block += rng.normal(size=(len(block), 64)).astype(np.float32) @ mixed
        rows[start : start + len(block)] = np.abs(block)
    return rows


def theirs_of_statistics(mu1: Any, sigma1: Any, mu2: Any, sigma2: Any) -> float:
    """pytorch-fid's distance, or its formula where it is not installed."""
    try:
        from pytorch_fid.fid_score import calculate_frechet_distance
    except ImportError:
        from scipy import linalg

        shift = mu1 - mu2
        root = linalg.sqrtm(sigma1.dot(sigma2))
        return float(shift.dot(shift) + np.trace(sigma1) + np.trace(sigma2) - 2 * np.trace(root).real)
    return float(calculate_frechet_distance(mu1, sigma1, mu2, sigma2))


def theirs(real: np.ndarray, generated: np.ndarray) -> float:
    """From features, as pytorch-fid goes: activations in float64, numpy's mean and covariance, sqrtm."""
    found = []
    for rows in (real, generated):
        activations = rows.astype(np.float64)
        found += [activations.mean(axis=0), np.cov(activations, rowvar=False)]
        del activations
    return theirs_of_statistics(*found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only-ours", action="store_true", help="for the peak memory of our own arithmetic")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    real, generated = (features(given.images, given.width, seed) for seed in (0, 1))
    generated += np.float32(0.05)
    jobs: dict[str, Callable[[], float]] = {
        "ours: features to FID": lambda: fid(real=real, generated=generated, interval=False).value,
        "ours: with extrapolation and interval": lambda: fid(real=real, generated=generated).value,
    }
    if not given.only_ours:
        known = [one for rows in (real, generated) for one in (rows.mean(0), np.cov(rows, rowvar=False))]
        jobs |= {
            "pytorch-fid: features to FID": lambda: theirs(real, generated),
            "ours: statistics to FID": lambda: frechet_distance(*known),
            "pytorch-fid: statistics to FID": lambda: theirs_of_statistics(*known),
        }
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    values: dict[str, float] = {}
    for turn in range(given.rounds):
        names = list(jobs) if turn % 2 == 0 else list(jobs)[::-1]
        for name in names:
            start = time.perf_counter()
            values[name] = jobs[name]()
            seconds[name].append(time.perf_counter() - start)
            print(f"round {turn + 1}: {name}: {seconds[name][-1]:.2f} s", file=sys.stderr)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{given.images} x {given.width} features a set, {given.rounds} rounds, peak {peak:.2f} GiB")
    for name, times in seconds.items():
        median = statistics.median(times)
        print(f"{name:40} {median:8.2f} s ({min(times):.2f} to {max(times):.2f})   value {values[name]:.9g}")
    if not given.only_ours:
        for what in ("features", "statistics"):
            ratio = statistics.median(seconds[f"pytorch-fid: {what} to FID"]) / statistics.median(
                seconds[f"ours: {what} to FID"]
            )
            print(f"{what} to FID: pytorch-fid takes {ratio:.1f} times as long")
    if given.json:
        facts = {"machine": examine(), "seconds": seconds, "values": values, "peak_gib": peak}
        given.json.write_text(json.dumps(facts, indent=2))


if __name__ == "__main__":
    main()
