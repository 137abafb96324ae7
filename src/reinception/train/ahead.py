"""Steps taken without waiting for the device: their numbers are read together, and taken back where one is not finite.

A GPU that is asked for its loss after every step stands still while it is answered. Here it is asked once in a window.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from reinception.data.loading.loader import Batch
from reinception.train.reduction import LocalSum
from reinception.train.run.checkpoint import capture
from reinception.train.step import StepRecord, TrainState

WINDOW = 16
"""Steps between two looks at the device."""


def window_of(state: TrainState) -> int:
    """How many steps may be taken ahead: with several processes or an exact sum each step has to wait anyway."""
    recipe = state.recipe
    is_steady = recipe.growth is None and not recipe.unfreeze_fraction  # nothing changes in the middle of a window
    is_ahead = state.ranks.device.type == "cuda" and state.ranks.world_size == 1 and is_steady
    return WINDOW if is_ahead and isinstance(state.reducer, LocalSum) else 1


@dataclass(frozen=True, kw_only=True, eq=False)
class Taken:
    """A step that was taken but not looked at: what it was made of, and its (3,) numbers on the device."""

    progress: float
    learning_rate: float
    batches: list[Batch]
    numbers: Tensor


class Snapshot:
    """A copy of all that steps change, on the device, to go back to."""

    def __init__(self, state: TrainState) -> None:
        self._state = state
        self._copies: dict[str, Tensor] = {}
        self._num_averaged = 0
        self._scale: Mapping[str, float] = {}

    @property
    def is_possible(self) -> bool:
        """Whether the optimizer has made its own tensors, which it does in the first step."""
        return bool(self._state.optimizer.state)

    def take(self) -> None:
        """From here on `restore` comes back to the state as it is now."""
        live = self._tensors()
        if live.keys() != self._copies.keys():
            self._copies = {name: tensor.detach().clone() for name, tensor in live.items()}
        else:
            _copy(self._copies, live)
        self._num_averaged, self._scale = self._state.average.num_updates, self._state.scale.to_json()

    def restore(self) -> None:
        """Puts the state back, to the bit."""
        _copy(self._tensors(), self._copies)
        self._state.average.num_updates = self._num_averaged
        self._state.scale.resume(self._scale)

    def _tensors(self) -> dict[str, Tensor]:
        return capture(self._state.network, self._state.average, self._state.optimizer)


@torch.no_grad()
def _copy(to: Mapping[str, Tensor], source: Mapping[str, Tensor]) -> None:
    """Group by group, for tensors of several types cannot be copied by one call."""
    for dtype in {tensor.dtype for tensor in to.values()}:
        names = [name for name, tensor in to.items() if tensor.dtype == dtype]
        torch._foreach_copy_([to[name] for name in names], [source[name] for name in names])


def records_of(state: TrainState, taken: list[Taken]) -> list[StepRecord] | None:
    """The steps in numbers, for which the device is waited for once; None where one of them was not finite."""
    rows = torch.stack([one.numbers for one in taken]).cpu()
    if not bool(rows.isfinite().all()):
        return None
    return [
        state.record(row.tolist(), learning_rate=one.learning_rate, is_finite=True)
        for row, one in zip(rows, taken, strict=True)
    ]


def on_device(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """`batches` with their images and labels on `device`, the next one sent while the last is computed.

    They are sent from pinned memory, of which torch keeps a small ring. On a processor they are left where they are.
    """
    if device.type != "cuda":
        yield from batches
        return
    source = iter(batches)
    waiting = [_sent(batch, device) for batch in islice(source, 1)]
    for batch in source:
        waiting.append(_sent(batch, device))
        yield waiting.pop(0)
    yield from waiting


def _sent(batch: Batch, device: torch.device) -> Batch:
    def sent(tensor: Tensor) -> Tensor:
        return tensor.pin_memory().to(device, non_blocking=True)

    soft = None if batch.soft is None else sent(batch.soft)
    return dataclasses.replace(batch, images=sent(batch.images), targets=sent(batch.targets), soft=soft)
