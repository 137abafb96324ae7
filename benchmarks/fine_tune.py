"""Accuracy after some minutes of fine-tuning, beside other libraries' own ways: same split, weights and wall clock.

`python benchmarks/fine_tune.py WEIGHTS.h5 -o FOLDER` trains ours, a loop as in torchvision's fine-tuning tutorial, one
with timm's factories and its training script's defaults, and Keras' fit as in its transfer-learning guide, each in a
process of its own, for 5, 10 and 20 minutes and `--seeds` seeds in turn: 35 minutes for each of the four and each seed.
What is finished stays in FOLDER/results.json, so it can be interrupted. Ours is given the time for the whole command,
judging included; the others train until the time is over, and are judged afterwards. WEIGHTS is a trunk in Keras'
"notop" layout; torchvision's and timm's loops train our network with those weights, Keras its own.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn

from reinception.data.sources.open_source import open_source
from reinception.data.sources.split import assign_splits
from reinception.model.build import Network
from reinception.train.finetune import start_from
from reinception.weights.convert import convert

PEERS = ("ours", "torchvision", "timm", "keras")
SPLIT_SEED = 7
SIZE = 299
Rows = list[tuple[Path, int]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--data", default="elpv", help="default: %(default)s")
    parser.add_argument("--minutes", type=float, nargs="+", default=[5, 10, 20])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--one", nargs=3, metavar=("PEER", "MINUTES", "SEED"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        peer, minutes, seed = asked.one
        print(json.dumps(train_peer(peer, asked, 60 * float(minutes), int(seed))))
        return 0
    asked.out.mkdir(parents=True, exist_ok=True)
    results = asked.out / "results.json"
    done: dict[str, Any] = json.loads(results.read_text()) if results.is_file() else {}
    write_manifest(asked)
    for seed in range(asked.seeds):
        for minutes in asked.minutes:
            for peer in asked.peers:  # in turn, so that a change of the machine meets all of them
                name = f"{peer} {minutes:g} {seed}"
                if name not in done:
                    done[name] = in_own_process(asked, peer, minutes, seed)
                    results.write_text(json.dumps(done, indent=1))
                    print(f"{name}: {done[name]}", file=sys.stderr, flush=True)
    print(table(done, asked))
    return 0


def in_own_process(asked: argparse.Namespace, peer: str, minutes: float, seed: int) -> dict[str, float]:
    words = [sys.executable, __file__, str(asked.weights), "-o", str(asked.out), "--data", asked.data]
    words += ["--one", peer, f"{minutes:g}", str(seed)]
    environment = os.environ | {"KERAS_BACKEND": "torch"}
    done = subprocess.run(words, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def write_manifest(asked: argparse.Namespace) -> None:
    """The split that all of them train, choose and are judged on."""
    source = assign_splits(open_source(asked.data), seed=SPLIT_SEED)
    with (asked.out / "split.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "split"])
        writer.writerows([record.path, source.classes[record.target], record.split] for record in source.records)


def rows_of(asked: argparse.Namespace, split: str) -> tuple[Rows, list[str]]:
    with (asked.out / "split.csv").open(newline="", encoding="utf-8") as file:
        listed = list(csv.DictReader(file))
    classes = sorted({row["label"] for row in listed})
    return [(Path(row["path"]), classes.index(row["label"])) for row in listed if row["split"] == split], classes


def train_peer(peer: str, asked: argparse.Namespace, seconds: float, seed: int) -> dict[str, float]:
    torch.manual_seed(seed)
    how: dict[str, Callable[[argparse.Namespace, float, int], dict[str, float]]] = {
        "ours": ours,
        "torchvision": torchvision_loop,
        "timm": timm_loop,
        "keras": keras_fit,
    }
    return how[peer](asked, seconds, seed)


# -- ours --------------------------------------------------------------------------------------------------------------


def ours(asked: argparse.Namespace, seconds: float, seed: int) -> dict[str, float]:
    began, run = time.monotonic(), asked.out / f"ours-{seconds:g}-{seed}"
    command = [sys.executable, "-m", "reinception", "train", str(asked.out / "split.csv"), "-o", str(run)]
    command += ["--weights", str(asked.weights), "--recipe", "fine_tune", "--seed", str(seed)]
    subprocess.run([*command, "--time-budget", f"{seconds:g}s"], check=True, stdout=subprocess.DEVNULL)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    (judged,) = [line for line in lines if line["split"] == "test"]
    return {"accuracy": 100 - judged["top1_error"], "seconds": time.monotonic() - began, "steps": judged["step"]}


# -- loops in torch ----------------------------------------------------------------------------------------------------


def learned_network(asked: argparse.Namespace, num_classes: int, seed: int) -> Network:
    import dataclasses

    learned = convert(str(asked.weights))
    arch = dataclasses.replace(learned.manifest.arch, num_classes=num_classes, input_size=SIZE, aux=())
    return start_from(learned.network, arch, seed=seed).to(memory_format=torch.channels_last)


def images_of(rows: Rows, transform: Callable[[Image.Image], torch.Tensor]) -> list[tuple[torch.Tensor, int]]:
    return [(transform(Image.open(path).convert("RGB")), label) for path, label in rows]


def right(network: nn.Module, rows: Rows, transform: Callable[[Image.Image], torch.Tensor]) -> float:
    """Accuracy in percent."""
    network.eval()
    count = 0
    with torch.no_grad():
        for first in range(0, len(rows), 32):
            part = images_of(rows[first : first + 32], transform)
            logits = network(torch.stack([image for image, _ in part]))
            count += int((logits.argmax(1) == torch.tensor([label for _, label in part])).sum())
    return 100 * count / len(rows)


def loop(
    network: nn.Module,
    train: Rows,
    *,
    transform: Callable[[Image.Image], torch.Tensor],
    step: Callable[[float, torch.Tensor, torch.Tensor], None],
    batch_size: int,
    seconds: float,
) -> int:
    """Shuffled epochs until the time is over; `step` gets the part of the time that is gone. Returns the steps."""
    began, steps = time.monotonic(), 0
    while True:
        order = torch.randperm(len(train)).tolist()
        for first in range(0, len(order) - batch_size + 1, batch_size):
            gone = (time.monotonic() - began) / seconds
            if gone >= 1:
                return steps
            network.train()
            part = images_of([train[index] for index in order[first : first + batch_size]], transform)
            step(gone, torch.stack([image for image, _ in part]), torch.tensor([label for _, label in part]))
            steps += 1


def torchvision_loop(asked: argparse.Namespace, seconds: float, seed: int) -> dict[str, float]:
    """pytorch.org's tutorial of fine-tuning torchvision's models: SGD at 0.001, momentum 0.9, batches of 8, random
    resized crops and mirrored images, the rate divided by ten after 7 and 14 of 25 epochs: here of the time."""
    from torchvision import transforms

    began = time.monotonic()
    scaled = [transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.5] * 3)]
    training = transforms.Compose([transforms.RandomResizedCrop(SIZE), transforms.RandomHorizontalFlip(), *scaled])
    judging = transforms.Compose([transforms.Resize(SIZE), transforms.CenterCrop(SIZE), *scaled])
    (train, classes), (val, _), (test, _) = (rows_of(asked, split) for split in ("train", "val", "test"))
    network = learned_network(asked, len(classes), seed)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.001, momentum=0.9)

    def step(gone: float, images: torch.Tensor, labels: torch.Tensor) -> None:
        for group in optimizer.param_groups:
            group["lr"] = 0.001 * 0.1 ** int(gone * 25 / 7)
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images), labels).backward()
        optimizer.step()

    left = seconds - (time.monotonic() - began)
    steps = loop(network, train, transform=training, step=step, batch_size=8, seconds=left)
    return {"accuracy": right(network, test, judging), "validation": right(network, val, judging), "steps": steps}


def timm_loop(asked: argparse.Namespace, seconds: float, seed: int) -> dict[str, float]:
    """timm's train.py with its defaults, but for batches of 32 (128 there, a step of a minute here): SGD, Nesterov, at
    0.1 for 256 images, weight decay 2e-5, cosine with 5 of 300 epochs of warm-up, smoothing 0.1, its transforms."""
    from timm.data import create_transform
    from timm.loss import LabelSmoothingCrossEntropy
    from timm.optim import create_optimizer_v2
    from timm.scheduler import CosineLRScheduler

    began, batch_size, updates = time.monotonic(), 32, 300_000
    statistics_ = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
    training = create_transform(SIZE, is_training=True, color_jitter=0.4, **statistics_)
    judging = create_transform(SIZE, crop_pct=0.875, interpolation="bicubic", **statistics_)
    (train, classes), (val, _), (test, _) = (rows_of(asked, split) for split in ("train", "val", "test"))
    network = learned_network(asked, len(classes), seed)
    optimizer = create_optimizer_v2(network, opt="sgd", lr=0.1 * batch_size / 256, weight_decay=2e-5, momentum=0.9)
    schedule = CosineLRScheduler(
        optimizer, t_initial=updates, warmup_t=updates // 60, warmup_lr_init=1e-5, t_in_epochs=False
    )
    loss = LabelSmoothingCrossEntropy(0.1)

    def step(gone: float, images: torch.Tensor, labels: torch.Tensor) -> None:
        schedule.step_update(int(gone * updates))
        optimizer.zero_grad()
        loss(network(images), labels).backward()
        optimizer.step()

    left = seconds - (time.monotonic() - began)
    steps = loop(network, train, transform=training, step=step, batch_size=batch_size, seconds=left)  # pyrefly: ignore
    return {"accuracy": right(network, test, judging), "validation": right(network, val, judging), "steps": steps}  # pyrefly: ignore


# -- Keras -------------------------------------------------------------------------------------------------------------


def keras_fit(asked: argparse.Namespace, seconds: float, seed: int) -> dict[str, float]:
    """keras.io's guide to transfer learning: the trunk in inference mode throughout; a new head with Adam at 0.001 for
    two thirds of the time (20 of 30 epochs), then everything with Adam at 0.00001; mirrored images; batches of 32."""
    import keras
    import numpy as np

    began = time.monotonic()
    keras.utils.set_random_seed(seed)

    def arrays(split: str) -> tuple[Any, Any]:
        rows, _ = rows_of(asked, split)
        images = [np.asarray(Image.open(path).convert("RGB").resize((SIZE, SIZE))) for path, _ in rows]
        return np.stack(images), np.array([label for _, label in rows])

    _, classes = rows_of(asked, "train")
    base = keras.applications.InceptionV3(weights=None, include_top=False, pooling="avg", input_shape=(SIZE, SIZE, 3))
    base.load_weights(str(asked.weights))
    base.trainable = False
    inputs = keras.Input((SIZE, SIZE, 3))
    scaled = keras.layers.Rescaling(1 / 127.5, offset=-1)(keras.layers.RandomFlip("horizontal")(inputs))
    features = keras.layers.Dropout(0.2)(base(scaled, training=False))
    model = keras.Model(inputs, keras.layers.Dense(len(classes))(features))
    images, labels = arrays("train")

    class Clock(keras.callbacks.Callback):
        def __init__(self, end: float) -> None:
            super().__init__()
            self.end, self.steps = end, 0

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.steps += 1
            if time.monotonic() >= self.end:
                raise TimeoutError

    steps = 0
    for rate, end in ((1e-3, began + seconds * 2 / 3), (1e-5, began + seconds)):
        base.trainable = rate < 1e-3
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer=keras.optimizers.Adam(rate), loss=loss)
        clock = Clock(end)
        try:
            model.fit(images, labels, batch_size=32, epochs=1000, callbacks=[clock], verbose=0)
        except TimeoutError:  # in the middle of an epoch, which may be longer than the time there is
            steps += clock.steps
    judged, wanted = arrays("test")
    logits = model.predict(judged, batch_size=32, verbose=0)
    return {"accuracy": 100 * float((logits.argmax(1) == wanted).mean()), "steps": steps}


# -- the table ---------------------------------------------------------------------------------------------------------


def table(done: dict[str, Any], asked: argparse.Namespace) -> str:
    """Mean accuracy with the 95 % interval of Student's t over seeds."""
    lines = [f"| minutes | {' | '.join(asked.peers)} |", f"|---|{'---|' * len(asked.peers)}"]
    for minutes in asked.minutes:
        cells = []
        for peer in asked.peers:
            seen = [
                done[name]["accuracy"] for seed in range(asked.seeds) if (name := f"{peer} {minutes:g} {seed}") in done
            ]
            cells.append(cell(seen))
        lines.append(f"| {minutes:g} | {' | '.join(cells)} |")
    return "\n".join(lines)


def cell(seen: list[float]) -> str:
    if not seen:
        return "-"
    if len(seen) == 1:
        return f"{seen[0]:.1f}"
    from reinception.metrics.significance import student_interval

    low, high = student_interval(seen)
    spread = "" if math.isnan(low) else f" ({low:.1f} to {high:.1f})"
    return f"{statistics.fmean(seen):.1f}{spread}"


if __name__ == "__main__":
    sys.exit(main())
