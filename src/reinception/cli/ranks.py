"""The processes that torchrun has started for one command: they share its images, and the first speaks for all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from reinception.cli.counter import say

if TYPE_CHECKING:
    from reinception.data.loading.watchdog import Progress
    from reinception.inference.compute import Compute


@contextmanager
def connected(compute: Compute, *, progress: Progress | None) -> Iterator[Compute]:
    """`compute` as the command line means it: on the GPU where there is one, shared with the connected ranks, and with
    the first of them showing its progress."""
    from reinception.distributed import connected as connected_ranks

    with connected_ranks() as ranks:
        speaks = ranks is None or ranks.is_first
        own, notice = (progress, say) if speaks else (None, None)
        yield replace(compute, device=compute.device or "auto", ranks=ranks, progress=own, notice=notice)


def is_first(compute: Compute) -> bool:
    """Whether this process writes and speaks."""
    return compute.ranks is None or compute.ranks.is_first
