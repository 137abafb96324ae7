"""Training at a small size on a busy machine: images per second and per CPU second, idle and beside other programs.

Every round trains once for each way of waiting, first on the machine as it is and then beside LOADS processes of two
busy threads each. The fair share is what the processes would get that divide the processors evenly.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from reinception.cli.table import aligned
from reinception.machine import num_processors, share_processors, use_free_processors

INPUT_SIZE, BATCH_SIZE = 96, 32
UNTIMED = 2
THREADS_A_LOAD = 2
UNCHANGED = "REINCEPTION_WAITS_UNCHANGED"
WAYS: Mapping[str, Mapping[str, str]] = {
    "torch's default": {UNCHANGED: "1"},
    "never spinning": {"OMP_WAIT_POLICY": "PASSIVE", UNCHANGED: "1"},
    "as the verbs": {},
}


def worker(seconds: float) -> None:
    """Trains for `seconds` and prints images, seconds and CPU seconds as JSON."""
    if UNCHANGED not in os.environ:
        use_free_processors()
        share_processors()
    import torch  # after the environment is set

    from reinception.data.loading.loader import Batch
    from reinception.distributed import Ranks
    from reinception.family import network
    from reinception.machine import keep_freed_memory, precision
    from reinception.model.build import build
    from reinception.preprocess import Preprocessing
    from reinception.recipe import named
    from reinception.train.run.signals import StopRequest
    from reinception.train.step import TrainState, train_step

    keep_freed_memory()
    device = torch.device("cpu")
    arch = network("inception_v3", input_size=INPUT_SIZE, aux="adaptive")
    state = TrainState(
        network=build(arch, seed=0).to(memory_format=torch.channels_last),
        recipe=named("from_scratch").changed("batch_size", BATCH_SIZE, source="benchmark"),
        ranks=Ranks(device),
        preprocessing=Preprocessing(input_size=INPUT_SIZE),
        dtype=precision("auto", device),
    )
    images = torch.randint(0, 256, (BATCH_SIZE, 3, INPUT_SIZE, INPUT_SIZE), dtype=torch.uint8)
    order = torch.arange(BATCH_SIZE)
    images = images.contiguous(memory_format=torch.channels_last)
    batch = Batch(images=images, targets=order, indices=order, epochs=order * 0, epoch=0, step=0)
    number, began, cpu = 0, time.perf_counter(), time.process_time()
    while number <= UNTIMED or time.perf_counter() - began < seconds:
        if number == UNTIMED:
            began, cpu = time.perf_counter(), time.process_time()
        train_step(state, [batch], learning_rate=1e-6, step=number, stop=StopRequest())
        number += 1
    print(json.dumps([(number - UNTIMED) * BATCH_SIZE, time.perf_counter() - began, time.process_time() - cpu]))


def measured(way: str, seconds: float, *, loads: int) -> tuple[float, float]:
    """Images per second and per CPU second of one worker beside `loads` busy processes."""
    # Two processes for a load, of one busy thread each: Python's threads would share one core.
    spin = [sys.executable, "-c", "while True: pass"]
    busy = [subprocess.Popen(spin) for _ in range(loads * THREADS_A_LOAD)]
    try:
        words = [sys.executable, str(Path(__file__)), "--worker", "--seconds", str(seconds)]
        done = subprocess.run(words, env=os.environ | WAYS[way], stdout=subprocess.PIPE, text=True, check=True)
    finally:
        for process in busy:
            process.kill()
            process.wait()
    images, wall, cpu = json.loads(done.stdout)
    return images / wall, images / cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="(default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=15, help="of training each time (default: %(default)s)")
    parser.add_argument("--loads", type=int, default=2, help="processes of two busy threads (default: %(default)s)")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        worker(arguments.seconds)
        return
    rates: defaultdict[tuple[str, int], list[tuple[float, float]]] = defaultdict(list)
    for _ in range(arguments.rounds):
        for loads in (0, arguments.loads):
            for way in WAYS:
                rates[way, loads].append(measured(way, arguments.seconds, loads=loads))
    threads = num_processors()
    share = min(1.0, threads / (threads + THREADS_A_LOAD * arguments.loads))
    rows = []
    for (way, loads), both in rates.items():
        wall, cpu = (statistics.median(one) for one in zip(*both, strict=True))
        idle = statistics.median(rate for rate, _ in rates[way, 0])
        fair = idle if loads == 0 else idle * share
        spread = f"{min(rate for rate, _ in both):.1f} to {max(rate for rate, _ in both):.1f}"
        rows.append((way, str(loads), f"{wall:.1f}", spread, f"{cpu:.1f}", f"{100 * wall / fair:.0f} %"))
    print(f"inception_v3 at {INPUT_SIZE}, batch {BATCH_SIZE}, {threads} processors; n = {arguments.rounds} rounds of")
    print(f"{arguments.seconds:g} s; the fair share beside {arguments.loads} loads is {100 * share:.0f} % of idle\n")
    columns = ("WAITING", "LOADS", "IMAGES/S", "RANGE", "IMAGES/CPU-S", "OF FAIR SHARE")
    print(aligned(columns, rows, right=(1, 2, 4, 5)))


if __name__ == "__main__":
    main()
