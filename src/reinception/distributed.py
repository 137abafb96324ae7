"""The process group of a run: barrier, gather, broadcast, shards; the only file that imports torch.distributed."""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from reinception.data.sources.records import Record
from reinception.errors import BadImage, ReinceptionError, UsageError, first_line
from reinception.machine import choose_device

# A rank that keeps the others waiting for so long is taken for dead; longer than any checkpoint takes to write.
TIMEOUT_SECONDS = 300.0
# After a collective has failed, the ranks that still answer find out within this time which do not.
MISSING_RANKS_SECONDS = 10.0
# How often a rank looks whether the others have started.
POLL_SECONDS = 0.02


class RankLostError(ReinceptionError):
    """Another process of the run has died or does not answer."""


class Ranks:
    """The `world_size` processes of a run, of which this is number `rank`; one process unless torchrun says more.

    As a context manager it connects them: gloo for small messages and processors, NCCL for gradients on GPUs. Every
    method is called by all ranks at the same place. RankLostError where a rank does not come within `timeout_seconds`.
    `restarts` is how often torchrun has started them before; once connected, the same number on all ranks.
    """

    def __init__(self, device: torch.device) -> None:
        self.rank = int(os.environ.get("RANK", "0"))
        self.world_size = int(os.environ.get("WORLD_SIZE", "1"))
        self.restarts = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
        self.device = device
        self.timeout_seconds = float(os.environ.get("REINCEPTION_PEER_SECONDS", TIMEOUT_SECONDS))
        self._small: dist.ProcessGroup | None = None
        # Never used for data, so a failed collective leaves it whole.
        self._barriers: dist.ProcessGroup | None = None

    def __enter__(self) -> Ranks:
        if self.world_size > 1:
            timeout = timedelta(seconds=self.timeout_seconds)
            try:
                store, earlier = _fresh_store(self.rank, self.world_size, timeout)
                backend = "nccl" if self.device.type == "cuda" else "gloo"
                dist.init_process_group(
                    backend, store=store, rank=self.rank, world_size=self.world_size, timeout=timeout
                )
                self._small, self._barriers = (_gloo_group(timeout) for _ in range(2))
            except RuntimeError as error:
                raise RankLostError(
                    f"rank {self.rank}: the {self.world_size} ranks did not connect within {self.timeout_seconds:g} s "
                    f"({first_line(error)}); see the messages of the other ranks"
                ) from None
            self.restarts = max(earlier, *(int(count) for (count,) in self.all_gather_numbers(self.restarts)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.world_size > 1:
            dist.destroy_process_group()

    @property
    def is_first(self) -> bool:
        """Whether this process writes the run's files and prints its messages."""
        return self.rank == 0

    def require_replicas(self, replicas: int) -> None:
        """UsageError where there are more processes than `replicas`: one of them would have nothing to compute."""
        if self.world_size > replicas:
            raise UsageError(
                f"{self.world_size} processes for {replicas} replica{'' if replicas == 1 else 's'}: "
                f"start at most {replicas}, or train with --replicas {self.world_size} or more"
            )

    def shard(self, num: int) -> range:
        """This rank's part of `range(num)`: consecutive, and as long as that of any other rank or one shorter."""
        return range(num * self.rank // self.world_size, num * (self.rank + 1) // self.world_size)

    def barrier(self) -> None:
        """Waits for all ranks; the RankLostError names those that do not come."""
        if self.world_size > 1:
            self._require_all(self.timeout_seconds)

    def all_gather_numbers(self, *numbers: float) -> list[tuple[float, ...]]:
        """Every rank's `numbers`, in the order of the ranks."""
        if self.world_size == 1:
            return [numbers]
        own = torch.tensor(numbers, dtype=torch.float64)
        rows = [torch.empty_like(own) for _ in range(self.world_size)]
        with self._naming_missing():
            dist.all_gather(rows, own, group=self._small)
        return [tuple(row.tolist()) for row in rows]

    def from_first(self, number: float) -> float:
        """The `number` of rank 0, so that all ranks decide alike."""
        return self.all_gather_numbers(number)[0][0]

    def all_gather_rows(self, rows: Tensor) -> Tensor:
        """The rows (n, c) of all ranks below each other, in the order of the ranks; n may differ, c may not."""
        if self.world_size == 1:
            return rows
        counts = [int(count) for (count,) in self.all_gather_numbers(len(rows))]
        own = rows.new_zeros((max(counts), *rows.shape[1:]), device="cpu")
        own[: len(rows)] = rows
        every = [torch.empty_like(own) for _ in counts]
        with self._naming_missing():
            dist.all_gather(every, own, group=self._small)
        return torch.cat([part[:count] for part, count in zip(every, counts, strict=True)]).to(rows.device)

    def all_gather_objects(self, value: Any) -> list[Any]:
        """Every rank's `value`, which JSON can hold, in the order of the ranks."""
        text = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        counts = [int(count) for (count,) in self.all_gather_numbers(len(text))]
        every = self.all_gather_rows(text.unsqueeze(1)).squeeze(1).split(counts)
        return [json.loads(bytes(part.tolist())) for part in every]

    def all_reduce(self, totals: Tensor) -> None:
        """Replaces int64 `totals` by their sum over the ranks: integers, so the order of the sum changes no bit."""
        if self.world_size > 1:
            with self._naming_missing():
                dist.all_reduce(totals)

    def broadcast(self, tensors: Sequence[Tensor]) -> None:
        """Overwrites `tensors` with those of rank 0."""
        if self.world_size > 1:
            with self._naming_missing():
                for tensor in tensors:
                    same = tensor.contiguous()
                    dist.broadcast(same, src=0)
                    tensor.copy_(same)

    def data_parallel(self, module: nn.Module) -> DistributedDataParallel | None:
        """`module` with torch's bucketed, overlapped all-reduce of its gradients; None for one process."""
        return None if self.world_size == 1 else DistributedDataParallel(module, forward_sync_buffers=False)

    @contextmanager
    def _naming_missing(self) -> Iterator[None]:
        """Turns the failure of a collective into an error that names the missing ranks."""
        try:
            yield
        except RuntimeError as error:
            self._require_all(MISSING_RANKS_SECONDS)
            raise RankLostError(f"rank {self.rank}: a collective operation failed ({first_line(error)})") from None

    def _require_all(self, seconds: float) -> None:
        """A barrier of at most `seconds`. RankLostError names the missing ranks."""
        try:
            dist.monitored_barrier(self._barriers, timeout=timedelta(seconds=seconds), wait_all_ranks=True)
        except RuntimeError as error:
            missing = re.search(r"[Rr]anks? ([\d, ]+) failed to pass", str(error))
            who = f"rank {missing[1].strip(' ,')}" if missing and self.is_first else "rank 0, or a rank it waited for,"
            if self.is_first and not missing:  # a connection was closed, and gloo does not say whose
                who = "rank 1" if self.world_size == 2 else f"one of the ranks 1 to {self.world_size - 1}"
            raise RankLostError(
                f"{who} is dead or has not answered for {self.timeout_seconds:g} s; "
                "see its last message, and start again (a training with --resume), with any number of processes"
            ) from None


@contextmanager
def connected() -> Iterator[Ranks | None]:
    """The ranks that share this command's images; None where torchrun has not started several.

    A barrier at the end: no rank ends while another still needs it.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield None
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    with Ranks(choose_device()) as ranks:
        yield ranks
        ranks.barrier()


# -- one evaluation by several ranks -----------------------------------------------------------------------------------


def shard(records: Sequence[Record], ranks: Ranks | None, *, batch_size: int) -> Sequence[Record]:
    """This rank's records: batch b of `batch_size` is rank b's modulo world_size, the same batch for any number of
    ranks.

    ReinceptionError where the ranks have not all been given the same records.
    """
    if ranks is None or ranks.world_size == 1:
        return records
    listed = "\n".join(f"{record.name}\t{record.target}" for record in records)
    require_same(ranks, hashlib.sha256(listed.encode(errors="surrogateescape")).hexdigest())
    return [records[index] for index in _indices(len(records), ranks.rank, ranks.world_size, batch_size)]


def collect(
    rows: npt.NDArray[np.float32], refused: Mapping[int, BadImage], ranks: Ranks | None, *, batch_size: int
) -> tuple[npt.NDArray[np.float32], Mapping[int, BadImage]]:
    """The rows (n, c) of all records in their order, and the refused by index, from what each rank made of its `shard`.

    ReinceptionError where rows are missing or too many.
    """
    if ranks is None or ranks.world_size == 1:
        return rows, refused
    own = [[index, bad.kind, bad.reason, bad.name] for index, bad in refused.items()]
    parts = ranks.all_gather_objects({"num": len(rows), "refused": own})
    gathered = ranks.all_gather_rows(torch.from_numpy(rows)).numpy()
    num = sum(part["num"] for part in parts)
    indices = [_indices(num, rank, ranks.world_size, batch_size) for rank in range(ranks.world_size)]
    if [part["num"] for part in parts] != [len(some) for some in indices] or len(gathered) != num:
        raise ReinceptionError(f"the ranks computed {[part['num'] for part in parts]} rows of {num} images")
    ordered = np.empty_like(gathered)
    ordered[[index for some in indices for index in some]] = gathered
    return ordered, {
        some[index]: BadImage(name, kind, reason)
        for some, part in zip(indices, parts, strict=True)
        for index, kind, reason, name in part["refused"]
    }


def require_same(ranks: Ranks, fingerprint: str) -> None:
    """ReinceptionError where the ranks do not all have the same `fingerprint` of their images."""
    if len(set(ranks.all_gather_objects(fingerprint))) > 1:
        raise ReinceptionError("the processes do not all see the same images; give each of them the same files")


def _indices(num: int, rank: int, world_size: int, batch_size: int) -> list[int]:
    return [index for index in range(num) if index // batch_size % world_size == rank]


# -- the process group -------------------------------------------------------------------------------------------------


def _fresh_store(rank: int, world_size: int, timeout: timedelta) -> tuple[dist.Store, int]:
    """A store with nothing of an earlier start of these ranks, and the number of those starts.

    torchrun (torch 2.14.1) keeps one store through all its restarts, with the addresses of processes that are dead:
    a rank that comes before its peer would call there in vain. Its restart count does not tell the starts apart, for
    the agent of each machine counts its own (pytorch#135712). So each rank writes a unique name, and they begin when
    all have read the same names, under keys that belong to these names.
    """
    deadline = time.monotonic() + timeout.total_seconds()
    rendezvous, _, _ = next(dist.rendezvous("env://", timeout=timeout))
    shared = dist.PrefixStore("reinception", rendezvous)
    keys = [f"name of {other}" for other in range(world_size)]
    shared.set(keys[rank], uuid.uuid4().hex)
    read: set[str] = set()
    while True:
        names = hashlib.sha256(b"".join(shared.multi_get(keys))).hexdigest()
        if names not in read:
            read.add(names)
            shared.add(names, 1)
        if shared.add(names, 0) == world_size:
            break
        if time.monotonic() > deadline:
            raise RuntimeError("a rank of an earlier start has not come again")
        time.sleep(POLL_SECONDS)
    store = dist.PrefixStore(names, shared)
    if rank == 0:
        store.set("earlier", str(shared.add("starts", 1) - 1))
    return store, int(store.get("earlier"))


def _gloo_group(timeout: timedelta) -> dist.ProcessGroup:
    group = dist.new_group(backend="gloo", timeout=timeout)
    assert isinstance(group, dist.ProcessGroup)  # torch says so only where a rank is left out
    return group
