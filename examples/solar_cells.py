"""`make demo`: the main job on 2,624 solar cells, by the commands one would type, and what the result stands beside."""

from __future__ import annotations

import argparse
import csv
import json
import os
import shlex
import signal
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from reinception.data.sources.open_source import open_source

# Small enough for thousands of steps in five minutes on two cores; docs/results.md has the comparison.
TRAINING = ("--recipe", "small_images", "--width", "0.25", "--input-size", "128")

# Only what was measured on these cells, with the same two classes, on a random stratified 75/25 split of cells.
PUBLISHED = (
    ("SVM", "82.4 %", "Deitsch et al., Solar Energy 185 (2019): hand-made features"),
    ("VGG-19", "88.4 %", "the same paper: a network of 300 px that starts from ImageNet's weights"),
)
PROTOCOL = (
    "All on a random 75/25 split of cells: this run's by class, cell type and certainty, with a tenth of all cells "
    "taken from the larger part to choose the weights; the published one as later papers describe it. Cells of one "
    "solar module are on both sides of such a split, which flatters every figure. Not comparable, by another or an "
    "unstated protocol:"
)
NOT_COMPARABLE = (
    "InceptionV3 95.5 % (Abdulmajed and Alsumaidaee 2024: transfer learning, split not stated)",
    "ResNet-152 90.1 % mean recall per class (Ebied et al. 2025: GAN images added, threshold tuned)",
    "Lumi-Transformer 91.7 % (model card: split not stated)",
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python examples/solar_cells.py", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5, help="how long to train (default: %(default)s)")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where the run goes (default: %(default)s)")
    arguments = parser.parse_args()
    # Ctrl-C reaches the command that is running too; it ends with its own words, and the demo ends with its exit code.
    signal.signal(signal.SIGINT, lambda *_: None)
    run = free_name(arguments.runs / "demo")
    scores = run / "evaluation.json"
    print("2,624 photographs of solar cells from the package elpv-dataset (CC-BY-NC-SA-4.0, not for commercial use)")
    reinception("train", "elpv", "-o", run, "--time-budget", f"{arguments.minutes:g}m", *TRAINING)
    reinception("evaluate", run, "elpv", "--split", "test", "--json", scores)
    cells, truth = three_unseen_cells(run / "predictions" / "test.csv")
    reinception("predict", run, *cells)
    print(f"in truth: {', '.join(truth)}")
    print(beside_others(json.loads(scores.read_text(encoding="utf-8")), minutes=arguments.minutes))
    reinception("report", run)
    return 0


def reinception(*words: object) -> None:
    """Say the command, run it in a process of its own, and end as it ends when it fails."""
    said = [str(word) for word in words]
    print(f"\n$ {shlex.join(['reinception', *said])}", flush=True)
    code = subprocess.run([sys.executable, "-m", "reinception", *said], check=False).returncode
    if code:
        sys.exit(code)


def free_name(path: Path) -> Path:
    """`path`, or the first of `path-2`, `path-3`... that does not exist: a run is never written over."""
    number = 1
    found = path
    while found.exists():
        number += 1
        found = path.with_name(f"{path.name}-{number}")
    return found


def three_unseen_cells(predictions: Path) -> tuple[list[str], list[str]]:
    """The first held-out cell of each class, and the last one: their files from here, and their labels."""
    with predictions.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    first = {row["label"]: row for row in reversed(rows)}
    chosen = [*first.values(), rows[-1]]
    root = open_source("elpv").root
    files = [os.path.relpath(root / row["path"]) for row in chosen]
    return files, [row["label"] for row in chosen]


def beside_others(scores: Mapping[str, object], *, minutes: float) -> str:
    """The held-out accuracy with its interval, the majority class, and the published figures with their protocols."""
    error, majority, images = scores["top1_error"], scores["majority_class_error"], scores["num_images"]
    interval = scores["top1_error_interval"]
    assert isinstance(error, float) and isinstance(majority, float) and isinstance(interval, list)
    low, high = (100 - bound for bound in reversed(interval))
    rows = [
        (
            "this run",
            f"{100 - error:.1f} %",
            f"95 % interval {low:.1f} to {high:.1f}; {images} unseen cells; from random weights in {minutes:g} min",
        ),
        ("majority class", f"{100 - majority:.1f} %", f"always {scores['majority_class']}; {of_all_cells()}"),
        *PUBLISHED,
    ]
    lines = ["", "accuracy on held-out cells, defective meaning a probability of 1/2 or more"]
    lines += [f"  {name:<15} {figure:>7}   {how}" for name, figure, how in rows]
    lines += textwrap.wrap(PROTOCOL, width=110)
    lines += [f"  {line}" for line in NOT_COMPARABLE]
    return "\n".join(lines)


def of_all_cells() -> str:
    """How common the more frequent class is in the whole data set, of which the held-out part is nearly a copy."""
    cells = open_source("elpv")
    name, images = Counter(cells.classes[record.target] for record in cells.records).most_common(1)[0]
    return f"{name} are {100 * images / len(cells.records):.1f} % of all {len(cells.records):,} cells"


if __name__ == "__main__":
    sys.exit(main())
