"""The choice of a backend: the one named, or for `auto` the fastest of those measured here, kept for the next time."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import torch
from torch import Tensor

from reinception.errors import ReinceptionError, UsageError
from reinception.inference.backends import kept
from reinception.inference.backends.inductor_backend import InductorBackend
from reinception.inference.backends.network_backend import BackendName, NetworkBackend, Output, Rows, Task
from reinception.inference.backends.openvino_backend import OpenVinoBackend, default_streams, has_openvino, key_of
from reinception.inference.backends.torch_backend import TorchBackend

if TYPE_CHECKING:
    from reinception.distributed import Ranks

FEW_IMAGES = 64
"""Fewer are done before another backend than torch has started; `auto` does not measure for them."""

LARGEST_DIFFERENCE = {"fp32": 1e-5, "bf16": 0.1}
"""Of a feature, relative to the largest one, from torch in the same precision. `auto` takes nothing that exceeds it."""

_IMAGES, _FEWEST, _MOST, _SECONDS = 16, 2, 5, 3.0
"""What one repetition has, how many there are at least and at most, and after how long no more is begun."""

Tell = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One way to compute a network."""

    backend: BackendName
    block_size: int = 16
    streams: int = 1

    @property
    def words(self) -> str:
        if self.backend == "torch":
            return "torch"
        return f"{self.backend} ({self.block_size} images x {self.streams} at once)"

    def make(self, task: Task) -> NetworkBackend:
        """ReinceptionError where it cannot compute this network, or is not installed."""
        if self.backend == "openvino":
            return OpenVinoBackend(task, block_size=self.block_size, streams=self.streams)
        return named(self.backend, task)


def named(backend: BackendName, task: Task, *, streams: int | None = None) -> NetworkBackend:
    """The backend of this name. UsageError where it is not installed or computes on other devices only."""
    if backend == "openvino":
        return OpenVinoBackend(task, block_size=16 if streams == 1 else 8, streams=streams)
    if backend == "inductor":
        return InductorBackend(task)
    return TorchBackend(task)


def automatic(
    task: Task,
    *,
    num_images: int | None = None,
    streams: int | None = None,
    tell: Tell | None = None,
    ranks: Ranks | None = None,
) -> NetworkBackend:
    """The fastest backend for the task on this machine, within `LARGEST_DIFFERENCE` of torch.

    It is measured once for each network, precision, processor and version, which takes a few seconds, and kept in the
    cache folder. torch where there is nothing to choose from.

    Args:
        task: the network and its precision.
        num_images: how many there will be at most, where that is known; for fewer than `FEW_IMAGES` it is torch.
        streams: 1 where the batches come one by one, so that all cores work on each; None where there are many.
        tell: called with one line that says what was chosen and why.
        ranks: connected processes that all call this; the first one's choice holds for all.
    """
    if task.device.type != "cpu" or (num_images is not None and num_images < FEW_IMAGES):
        return named("torch", task)
    candidates = _candidates()
    chosen, why = 0, ""
    if len(candidates) == 1:
        why = "openvino, which is often faster, is not installed: pip install 'reinception[fast]'"
    elif ranks is None or ranks.is_first:
        chosen, why = _chosen(task, candidates)
    if ranks is not None:
        chosen = int(ranks.from_first(chosen))
    if tell is not None:
        tell(f"backend {candidates[chosen].words} in {task.precision}: {why}")
    best = candidates[chosen]
    return best.make(task) if streams is None else named(best.backend, task, streams=streams)


def _candidates() -> list[Candidate]:
    if not has_openvino():
        return [Candidate(backend="torch")]
    several = {Candidate(backend="openvino", block_size=8, streams=default_streams()): None}
    return [Candidate(backend="torch"), *several, Candidate(backend="openvino", block_size=16, streams=1)]


def _chosen(task: Task, candidates: list[Candidate]) -> tuple[int, str]:
    """The number of the fastest candidate, and why it is."""
    name = f"{key_of(task, {'kind': 'choice', 'candidates': [asdict(one) for one in candidates]})}.choice"
    known = _known(kept.read(name), len(candidates))
    when = "measured before"
    if known is None:
        known, when = _measured(task, candidates), "measured now"
        kept.write(name, json.dumps(known).encode())
    rates: Mapping[str, float | str] = known["rates"]
    said = [
        f"{one} {rate:.1f} images/s" if not isinstance(rate, str) else f"{one} {rate}" for one, rate in rates.items()
    ]
    return known["chosen"], f"{', '.join(said)} ({when})"


def _known(content: bytes | None, num: int) -> dict[str, Any] | None:
    """The choice that was kept; None where it is not one of ours."""
    try:
        document = json.loads(content or b"")
        is_good = 0 <= int(document["chosen"]) < num and isinstance(document["rates"], dict)
    except (ValueError, KeyError, TypeError):
        return None
    return document if is_good else None


def _measured(task: Task, candidates: list[Candidate]) -> dict[str, Any]:
    """`chosen`, and for each candidate its images per second or why it is out of the question."""
    images = sample(task.side, max(_IMAGES, *(one.block_size * one.streams for one in candidates)))
    backends: dict[int, NetworkBackend] = {}
    rates: dict[str, float | str] = {}
    expected: Rows | None = None
    for number, one in enumerate(candidates):
        try:
            backend = one.make(task)
            found = computed(backend, images, "features")
        except ReinceptionError as error:
            rates[one.words] = f"cannot compute it: {error}"
            continue
        expected = found if expected is None else expected
        difference = float(np.abs(found - expected).max() / max(float(np.abs(expected).max()), 1e-30))
        if difference <= LARGEST_DIFFERENCE[task.precision]:
            backends[number] = backend
        else:
            rates[one.words] = f"differs from torch by {difference:.1e}"
    seconds: dict[int, list[float]] = {number: [] for number in backends}
    began = time.perf_counter()
    for repetition in range(_MOST):
        if repetition >= _FEWEST and time.perf_counter() - began > _SECONDS:
            break
        for number, backend in backends.items():
            start = time.perf_counter()
            computed(backend, images, "features")
            seconds[number].append(time.perf_counter() - start)
    # The shortest: other work on the machine only ever adds.
    for number, took in seconds.items():
        rates[candidates[number].words] = round(len(images) / min(took), 2)
    return {"chosen": min(seconds, key=lambda number: min(seconds[number])), "rates": rates}


def computed(backend: NetworkBackend, images: Tensor, output: Output) -> Rows:
    """The rows of all images (n, 3, s, s), block by block."""
    rows: list[Rows] = []
    waiting = deque()
    for block in images.split(backend.block_size):
        waiting.append(backend.submit(block, output))
        if len(waiting) > backend.in_flight:
            rows.append(waiting.popleft().result())
    return np.concatenate([*rows, *(one.result() for one in waiting)])


def sample(side: int, num: int) -> Tensor:
    """Images (n, 3, s, s) uint8, channels last: noise, which is darker in some than in others."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (num, side, side, 3), dtype=torch.int32, generator=generator)
    light = torch.linspace(0.2, 1, num)[:, None, None, None]
    return (noise * light).to(torch.uint8).permute(0, 3, 1, 2)


def backend_of(task: Task, backend: str, *, streams: int | None = None, **how: Any) -> NetworkBackend:
    """The backend `backend`, a name or `auto`; `streams` and `how` are the arguments of `automatic`.

    Raises:
        UsageError: no such backend, or it is not installed, or computes on other devices only.
    """
    if backend == "auto":
        return automatic(task, streams=streams, **how)
    known: dict[str, BackendName] = {name: name for name in get_args(BackendName)}
    if backend not in known:
        raise UsageError(f"backend {backend!r} is unknown; it is auto or {' or '.join(known)}")
    return named(known[backend], task, streams=streams)
