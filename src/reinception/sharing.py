"""One job of many images shared by several processes: each does its neighbours, and all hold the whole result."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from reinception.data.sources.records import Record
from reinception.errors import BadImage, ReinceptionError


class Peers(Protocol):
    """The processes of a job, `world_size` of them, of which this is number `rank`; train/distributed.py has one."""

    rank: int
    world_size: int

    def gather(self, rows: torch.Tensor) -> torch.Tensor:
        """The rows (n, c) of all processes below each other, in the order of the ranks; n may differ."""
        ...

    def gather_json(self, value: Any) -> list[Any]:
        """Every process's `value`, which JSON can hold, in the order of the ranks."""
        ...


def own_share(records: Sequence[Record], peers: Peers | None) -> Sequence[Record]:
    """This process's part of `records`: neighbours, as many as any other's or one less.

    ReinceptionError where the processes have not all been given the same records.
    """
    if peers is None:
        return records
    named = "\n".join(f"{record.name}\t{record.target}" for record in records)
    if len(set(peers.gather_json(hashlib.sha256(named.encode(errors="surrogateescape")).hexdigest()))) > 1:
        raise ReinceptionError("the processes do not all see the same images; give each of them the same files")
    start, end = (len(records) * rank // peers.world_size for rank in (peers.rank, peers.rank + 1))
    return records[start:end]


def put_together(
    rows: npt.NDArray[np.float32], refused: Mapping[int, BadImage], peers: Peers | None
) -> tuple[npt.NDArray[np.float32], Mapping[int, BadImage]]:
    """What all made of their shares: (n, c) in the order of all records, and the refused by their place among them.

    ReinceptionError where rows are missing or too many.
    """
    if peers is None:
        return rows, refused
    told = [[index, why.kind, why.reason, why.name] for index, why in refused.items()]
    parts = peers.gather_json({"num": len(rows), "refused": told})
    every = peers.gather(torch.from_numpy(rows)).numpy()
    together: dict[int, BadImage] = {}
    start = 0
    for part in parts:
        for index, kind, reason, name in part["refused"]:
            together[start + index] = BadImage(name, kind, reason)
        start += part["num"]
    if start != len(every):
        raise ReinceptionError(f"{len(every)} rows came together for {start} images")
    return every, together
