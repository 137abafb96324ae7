"""One process of the bench in scaling.py: does the jobs that come in, a line of JSON each, and times their rounds.

Each answer is a line too: of every round the instants (of a clock that all processes of a machine share) at which it
began, at which its first part was over and at which it ended, and the processor's seconds of all rounds together.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from functools import cached_property

import torch

from reinception.data.loading.loader import Batch, normalise
from reinception.distributed import Ranks
from reinception.errors import ReinceptionError
from reinception.family import network
from reinception.machine import keep_freed_memory
from reinception.model.build import Network, build
from reinception.preprocess import Preprocessing
from reinception.recipe import named
from reinception.train.config import Reduction
from reinception.train.optim import clip_by_global_norm, set_learning_rate
from reinception.train.run.signals import StopRequest
from reinception.train.step import TrainState, accumulate

INPUT_SIZE, BATCH_SIZE = 96, 8  # small images and the full network: its gradient is the real one
UNTIMED = 2  # rounds nobody counts: memory is fetched, and DistributedDataParallel chooses its buckets anew

Round = Callable[[int], float | None]
"""What is timed; it may return the instant at which its first part was over."""


class Worker:
    """The full network on small random images, trained by the recipe of the paper."""

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks
        self._preprocessing = Preprocessing(input_size=INPUT_SIZE)
        self._recipe = named("paper_2015").changed("batch_size", BATCH_SIZE, source="benchmark")

    @cached_property
    def _live(self) -> Network:
        arch = network("inception_v3", input_size=INPUT_SIZE, aux="adaptive")
        return build(arch, seed=0).to(memory_format=torch.channels_last).train()

    def do(self, *, job: str, rounds: int, **details: object) -> dict[str, object]:
        """The answer to one job, ready for JSON."""
        jobs: dict[str, Callable[..., Round]] = {
            "exchange": self._exchange,
            "forward": self._forward,
            "steps": self._steps,
        }
        one_round = jobs[job](**details)
        instants: list[tuple[float, float, float]] = []
        spent = 0.0
        for number in range(UNTIMED + rounds):
            self._ranks.barrier()
            before, began = time.process_time(), time.perf_counter()
            middle = one_round(number)
            ended = time.perf_counter()
            if number >= UNTIMED:
                instants.append((began, ended if middle is None else middle, ended))
                spent += time.process_time() - before
        return {"rounds": instants, "processor": spent}

    def _exchange(self, *, size: int) -> Round:
        """All-reduces of `size` bytes, of the integers of the exact reduction: a byte is a byte to a network."""
        integers = torch.zeros(size // 8, dtype=torch.int64)

        def exchange(_: int) -> None:
            self._ranks.all_reduce(integers)

        return exchange

    def _forward(self) -> Round:
        """Forward passes that remember what a backward pass would need."""
        network, images = self._live, self._batch().images

        def forward(_: int) -> None:
            network.outputs(normalise(images, self._preprocessing))

        return forward

    def _steps(self, *, reduction: Reduction, replicas: int) -> Round:
        """Whole steps of `replicas` in all; the first part ends when their gradients are combined."""
        state = TrainState(
            network=self._live,
            recipe=self._recipe.changed("replicas", replicas, source="benchmark"),
            ranks=self._ranks,
            preprocessing=self._preprocessing,
            reduction=reduction,
        )
        set_learning_rate(state.optimizer, 1e-6)  # what is trained here is of no interest, but it must stay finite
        batches, stop = [self._batch()] * len(state.shard), StopRequest()

        def step(number: int) -> float:
            rows = accumulate(state, batches, step=number, stop=stop)
            state.reducer.finish()
            middle = time.perf_counter()
            if not bool(rows.isfinite().all()):
                raise ReinceptionError("the loss or gradient of the benchmark's network is not finite")
            clip_by_global_norm(self._live.parameters(), state.recipe.clip_norm)
            state.optimizer.step()
            state.statistics.update(rows[:, 3:])
            return middle

        return step

    def _batch(self) -> Batch:
        images = torch.randint(0, 256, (BATCH_SIZE, 3, INPUT_SIZE, INPUT_SIZE), dtype=torch.uint8)
        images = images.contiguous(memory_format=torch.channels_last)
        order = torch.arange(BATCH_SIZE)
        return Batch(images=images, targets=order, indices=order, epochs=torch.zeros_like(order), epoch=0, step=0)


def main() -> None:
    torch.set_num_threads(1)
    keep_freed_memory()
    with Ranks(torch.device("cpu")) as ranks:
        worker = Worker(ranks)
        for line in sys.stdin:
            print(json.dumps(worker.do(**json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
