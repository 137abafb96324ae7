"""What the exact reduction of gradients costs beside the fast one, with one and with two processes.

Two things are timed, round by round, both reductions in each round and in turn the first: whole steps of the full
inception_v3 at a small input, and what is done to its gradients alone. Seconds are those of the clock, of rank 0. The
smaller the input and the batch, the more of a step is reduction: the fractions here are above those of real training.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import torch
import torch.distributed as dist

from reinception.cli.table import aligned
from reinception.data.loading.loader import Batch
from reinception.distributed import Ranks
from reinception.family import network
from reinception.machine import examine, keep_freed_memory
from reinception.model.build import build
from reinception.preprocess import Preprocessing
from reinception.recipe import named
from reinception.train.config import Reduction
from reinception.train.reduction import FixedPointSum
from reinception.train.run.signals import StopRequest
from reinception.train.step import TrainState, train_step

INPUT_SIZE, BATCH_SIZE, REPLICAS = 96, 8, 4
UNTIMED = 2  # memory is fetched, and DistributedDataParallel chooses its buckets anew
PROCESSES = (1, 2)
KINDS: tuple[Reduction, Reduction] = ("fast", "exact")

Seconds = dict[str, list[float]]


class Steps:
    """A network of its own, trained by the recipe of the paper with one of the reductions."""

    def __init__(self, ranks: Ranks, reduction: Reduction) -> None:
        recipe = named("paper_2015")
        for name, value in (("batch_size", BATCH_SIZE), ("replicas", REPLICAS)):
            recipe = recipe.changed(name, value, source="benchmark")
        live = build(network("inception_v3", input_size=INPUT_SIZE, aux="adaptive"), seed=0)
        self.state = TrainState(
            network=live.to(memory_format=torch.channels_last),
            recipe=recipe,
            ranks=ranks,
            preprocessing=Preprocessing(input_size=INPUT_SIZE),
            reduction=reduction,
        )
        images = torch.randint(0, 256, (BATCH_SIZE, 3, INPUT_SIZE, INPUT_SIZE), dtype=torch.uint8)
        images = images.contiguous(memory_format=torch.channels_last)
        order = torch.arange(BATCH_SIZE)
        self._batches = [
            Batch(images=images, targets=order, indices=order, epochs=torch.zeros_like(order), epoch=0, step=0)
        ] * len(self.state.shard)

    def take(self, number: int) -> None:
        train_step(self.state, self._batches, learning_rate=1e-6, step=number, stop=StopRequest())


def rank(rounds: int) -> Seconds:
    """One process's part: seconds of each round by what was timed."""
    seconds: defaultdict[str, list[float]] = defaultdict(list)
    keep_freed_memory()
    with Ranks(torch.device("cpu")) as ranks:
        steps = {kind: Steps(ranks, kind) for kind in KINDS}
        for number in range(UNTIMED + rounds):
            for kind in KINDS if number % 2 else reversed(KINDS):
                ranks.barrier()
                began = time.perf_counter()
                steps[kind].take(number)
                seconds[f"step, {kind}"].append(time.perf_counter() - began)
        # The gradients that the last step has left are real ones; from here on nothing is computed but their sum.
        exact = steps["exact"].state.reducer
        assert isinstance(exact, FixedPointSum)
        gradients = torch.cat(
            [p.grad.flatten() for p in steps["fast"].state.network.parameters() if p.grad is not None]
        )
        total = torch.zeros_like(gradients)
        for _ in range(UNTIMED + rounds):
            ranks.barrier()
            marks = [time.perf_counter()]
            total.add_(gradients)
            marks.append(time.perf_counter())
            if ranks.world_size > 1:
                dist.all_reduce(total)
            marks.append(time.perf_counter())
            total.zero_()
            exact.begin()
            ranks.barrier()
            marks.append(time.perf_counter())
            exact.add()
            marks.append(time.perf_counter())
            exact.finish()
            marks.append(time.perf_counter())
            seconds["add a replica, fast"].append(marks[1] - marks[0])
            seconds["end of a step, fast"].append(marks[2] - marks[1])
            seconds["add a replica, exact"].append(marks[4] - marks[3])
            seconds["end of a step, exact"].append(marks[5] - marks[4])
    return {name: values[UNTIMED:] for name, values in seconds.items()}


def measured(world: int, rounds: int) -> Seconds:
    """The same on `world` processes of this machine, one thread each; what rank 0 saw."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"OMP_NUM_THREADS": "1", "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    words = [sys.executable, str(Path(__file__)), "--rank", "--rounds", str(rounds)]
    processes = [
        subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=os.environ | shared | {"RANK": str(number)})
        for number in range(world)
    ]
    said = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        sys.exit(f"with {world} processes: one of them failed, see above")
    seconds: Seconds = json.loads(said[0])
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="(default: %(default)s)")
    parser.add_argument("--rank", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.rank:
        torch.set_num_threads(1)
        print(json.dumps(rank(arguments.rounds)))
        return
    rows = []
    for world in PROCESSES:
        seconds = measured(world, arguments.rounds)
        for what in ("step", "add a replica", "end of a step"):
            fast, exact = seconds[f"{what}, fast"], seconds[f"{what}, exact"]
            more = [slow - quick for slow, quick in zip(exact, fast, strict=True)]
            rows.append((str(world), what, in_words(fast), in_words(exact), in_words(more)))
        shares = [
            100 * (slow / quick - 1) for slow, quick in zip(seconds["step, exact"], seconds["step, fast"], strict=True)
        ]
        rows.append((str(world), "step, exact over fast, %", "", "", in_words(shares, 1)))
    facts = examine()
    print(f"{facts['processor']['model']}, one thread a process; torch {facts['versions']['torch']}")
    print(f"inception_v3 at {INPUT_SIZE}, {REPLICAS} replicas of {BATCH_SIZE}, float32, n = {arguments.rounds} rounds")
    print("seconds, median (range); MORE within rounds; to add is done for each replica, the end once a step\n")
    print(aligned(("PROCESSES", "WHAT", "FAST", "EXACT", "MORE"), rows, right=(0,)))


def in_words(values: list[float], digits: int = 3) -> str:
    """Median and range."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


if __name__ == "__main__":
    main()
