"""The metrics of a run for TensorBoard, in RUN/tensorboard: only where asked for, and only with the extra `track`."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reinception.errors import ReinceptionError

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

TENSORBOARD_NAME = "tensorboard"


def require_tensorboard() -> None:
    """ReinceptionError where the package is missing."""
    if importlib.util.find_spec("tensorboard") is None:
        raise ReinceptionError("--tensorboard: the package tensorboard is missing; pip install 'reinception[track]'")


class Scalars:
    """Every number of a metrics line as a scalar `split/name` at its step.

    `resumed_after` is the step a run goes on after: what an earlier process wrote beyond it, TensorBoard then leaves
    out. A full disk ends this log, with a warning, and not the run: metrics.jsonl has the same numbers.
    """

    def __init__(self, run: Path, *, resumed_after: int | None, say: Callable[[str], None]) -> None:
        require_tensorboard()
        self._say = say
        self._folder = run / TENSORBOARD_NAME
        self._resumed_after = resumed_after
        self._writer: SummaryWriter | None = None
        self._is_lost = False

    def add(self, line: Mapping[str, Any]) -> None:
        """One line of metrics.jsonl."""
        if self._is_lost:
            return
        try:
            if self._writer is None:
                self._writer = self._begin()
            for name, value in line.items():
                if name != "step" and isinstance(value, int | float):
                    self._writer.add_scalar(f"{line['split']}/{name}", value, line["step"])
            self._writer.flush()
        except OSError as error:
            self._is_lost = True
            self._say(f"WARNING: {self._folder}: cannot write: {error.strerror}; the run goes on without TensorBoard")

    def _begin(self) -> SummaryWriter:
        from torch.utils.tensorboard import SummaryWriter

        purge = None if self._resumed_after is None else self._resumed_after + 1
        return SummaryWriter(str(self._folder), purge_step=purge)
