"""This process among the others of a run: the only file that imports torch.distributed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from types import TracebackType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from reinception.errors import ReinceptionError, UsageError

# How long a peer may keep the others waiting before it is taken for dead; longer than any checkpoint takes to write.
PEER_SECONDS = 300.0
# After a collective has failed, those who still answer find out within this time who does not.
ROLL_CALL_SECONDS = 10.0
# How often a rank looks whether the others have come.
LOOK_SECONDS = 0.02


class PeerLostError(ReinceptionError):
    """Another process of the run has died or does not answer."""


class Ranks:
    """The processes of a run, `world_size` of them, of which this is number `rank`; alone unless torchrun says more.

    Entered, they are connected: gloo for everything small and for processors, NCCL for gradients on GPUs. Every method
    is called by all ranks at the same place. PeerLostError where a rank does not come within PEER_SECONDS.
    `restarts` is how often torchrun has started them before, from then on the same number for all.
    """

    def __init__(self, device: torch.device) -> None:
        self.rank = int(os.environ.get("RANK", "0"))
        self.world_size = int(os.environ.get("WORLD_SIZE", "1"))
        self.restarts = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
        self.device = device
        self.seconds = float(os.environ.get("REINCEPTION_PEER_SECONDS", PEER_SECONDS))
        self._small: dist.ProcessGroup | None = None
        self._roll: dist.ProcessGroup | None = None  # never used for data, so a failed collective leaves it whole

    def __enter__(self) -> Ranks:
        if self.world_size > 1:
            patience = timedelta(seconds=self.seconds)
            try:
                store, earlier = _meeting(self.rank, self.world_size, patience)
                backend = "nccl" if self.device.type == "cuda" else "gloo"
                dist.init_process_group(
                    backend, store=store, rank=self.rank, world_size=self.world_size, timeout=patience
                )
                self._small, self._roll = (_group(patience) for _ in range(2))
            except RuntimeError as error:
                raise PeerLostError(
                    f"rank {self.rank}: the {self.world_size} ranks did not come together within {self.seconds:g} s "
                    f"({_first_line(error)}); see what the others said"
                ) from None
            self.restarts = max(earlier, *(int(count) for (count,) in self.table(self.restarts)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.world_size > 1:
            dist.destroy_process_group()

    @property
    def is_first(self) -> bool:
        """Whether this process writes the run's files and speaks for it."""
        return self.rank == 0

    def share(self, replicas: int) -> range:
        """The replicas of a step that are this rank's: neighbours, as many as the others' or one less.

        UsageError where there are more processes than replicas: one of them would have nothing to do.
        """
        if self.world_size > replicas:
            raise UsageError(
                f"{self.world_size} processes for {replicas} replica{'s' * (replicas > 1)}: "
                f"start at most {replicas}, or train with --replicas {self.world_size} or more"
            )
        return range(replicas * self.rank // self.world_size, replicas * (self.rank + 1) // self.world_size)

    def table(self, *numbers: float) -> list[tuple[float, ...]]:
        """Every rank's `numbers`, in the order of the ranks."""
        if self.world_size == 1:
            return [numbers]
        own = torch.tensor(numbers, dtype=torch.float64)
        rows = [torch.empty_like(own) for _ in range(self.world_size)]
        with self._naming():
            dist.all_gather(rows, own, group=self._small)
        return [tuple(row.tolist()) for row in rows]

    def gather(self, rows: Tensor) -> Tensor:
        """The rows (n, c) of all ranks below each other, in the order of the ranks; n may differ, c may not."""
        if self.world_size == 1:
            return rows
        counts = [int(count) for (count,) in self.table(len(rows))]
        own = rows.new_zeros((max(counts), *rows.shape[1:]), device="cpu")
        own[: len(rows)] = rows
        every = [torch.empty_like(own) for _ in counts]
        with self._naming():
            dist.all_gather(every, own, group=self._small)
        return torch.cat([part[:count] for part, count in zip(every, counts, strict=True)]).to(rows.device)

    def gather_json(self, value: Any) -> list[Any]:
        """Every rank's `value`, which JSON can hold, in the order of the ranks."""
        text = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        counts = [int(count) for (count,) in self.table(len(text))]
        every = self.gather(text.unsqueeze(1)).squeeze(1).split(counts)
        return [json.loads(bytes(part.tolist())) for part in every]

    def add_integers(self, totals: Tensor) -> None:
        """Replaces int64 `totals` by their sum over the ranks: exact, so whatever order it is taken in."""
        if self.world_size > 1:
            with self._naming():
                dist.all_reduce(totals)

    def copy_from_first(self, tensors: Sequence[Tensor]) -> None:
        """Makes `tensors` those of rank 0."""
        if self.world_size > 1:
            with self._naming():
                for tensor in tensors:
                    same = tensor.contiguous()
                    dist.broadcast(same, src=0)
                    tensor.copy_(same)

    def data_parallel(self, module: nn.Module) -> DistributedDataParallel | None:
        """`module` with torch's bucketed, overlapped all-reduce of its gradients; None for a process alone."""
        return None if self.world_size == 1 else DistributedDataParallel(module, forward_sync_buffers=False)

    def meet(self) -> None:
        """Waits for all ranks, and names those that do not come."""
        if self.world_size > 1:
            self._call_the_roll(self.seconds)

    @contextmanager
    def _naming(self) -> Iterator[None]:
        """Turns a collective that failed into who is missing."""
        try:
            yield
        except RuntimeError as error:
            self._call_the_roll(ROLL_CALL_SECONDS)
            raise PeerLostError(f"rank {self.rank}: the ranks have lost each other ({_first_line(error)})") from None

    def _call_the_roll(self, seconds: float) -> None:
        try:
            dist.monitored_barrier(self._roll, timeout=timedelta(seconds=seconds), wait_all_ranks=True)
        except RuntimeError as error:
            missing = re.search(r"[Rr]anks? ([\d, ]+) failed to pass", str(error))
            who = f"rank {missing[1].strip(' ,')}" if missing and self.is_first else "rank 0, or a rank it waited for,"
            if self.is_first and not missing:  # a connection was closed, and gloo does not say whose
                who = "rank 1" if self.world_size == 2 else f"one of the ranks 1 to {self.world_size - 1}"
            raise PeerLostError(
                f"{who} is dead or has not answered for {self.seconds:g} s; see what it said last, "
                "and start again (a training with --resume), with any number of processes"
            ) from None


def _meeting(rank: int, world_size: int, patience: timedelta) -> tuple[dist.Store, int]:
    """A store that holds nothing of an earlier start of these ranks, and how many of those the launcher has seen.

    torchrun (torch 2.14.1) keeps one store through all its restarts, with the addresses of processes that are dead:
    a rank that comes before its peer would call there in vain. Its restart count does not tell the starts apart, for
    the agent of each machine counts its own (pytorch#135712). So each rank leaves a name that nobody had before, and
    they begin when all have read the same names, under keys that belong to these names.
    """
    deadline = time.monotonic() + patience.total_seconds()
    shared, _, _ = next(dist.rendezvous("env://", timeout=patience))
    hall = dist.PrefixStore("reinception", shared)
    places = [f"name of {other}" for other in range(world_size)]
    hall.set(places[rank], uuid.uuid4().hex)
    read: set[str] = set()
    while True:
        names = hashlib.sha256(b"".join(hall.multi_get(places))).hexdigest()
        if names not in read:
            read.add(names)
            hall.add(names, 1)
        if hall.add(names, 0) == world_size:
            break
        if time.monotonic() > deadline:
            raise RuntimeError("a rank of an earlier start has not come again")
        time.sleep(LOOK_SECONDS)
    store = dist.PrefixStore(names, hall)
    if rank == 0:
        store.set("earlier", str(hall.add("starts", 1) - 1))
    return store, int(store.get("earlier"))


def _group(patience: timedelta) -> dist.ProcessGroup:
    group = dist.new_group(backend="gloo", timeout=patience)
    assert isinstance(group, dist.ProcessGroup)  # torch says so only where a rank is left out
    return group


def no_sync(module: DistributedDataParallel, *, last: bool) -> contextlib.AbstractContextManager[None]:
    """Gradients stay here until the last replica of a step."""
    return contextlib.nullcontext() if last else module.no_sync()


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:160]
