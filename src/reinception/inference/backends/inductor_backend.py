"""The inductor backend: the rewritten network compiled by torch itself, weights frozen into the program."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from concurrent.futures import Future

import torch
import torch.nn.functional as F
from torch import Tensor

from reinception.errors import UsageError
from reinception.inference.backends.network_backend import (
    BackendName,
    Classified,
    ClassifierHead,
    NetworkPrecision,
    Output,
    Pending,
    Rows,
    Task,
)


def has_compiler() -> bool:
    """Whether there is a C++ compiler, which inductor needs."""
    return any(shutil.which(name) for name in (os.environ.get("CXX"), "g++", "clang++") if name)


class InductorBackend:
    """A rewritten network compiled at its first block, which takes minutes; blocks are filled up to one size.

    Args:
        task: the network, in fp32 or bf16, on the processor.

    Raises:
        UsageError: there is no C++ compiler, or the device is not the processor.
    """

    name: BackendName = "inductor"
    block_size = 16
    in_flight = 0

    def __init__(self, task: Task) -> None:
        if task.device.type != "cpu":
            raise UsageError(f"backend inductor computes on the processor here, not on {task.device}")
        if not has_compiler():
            raise UsageError("backend inductor needs a C++ compiler (g++ or clang++): install one, or use torch")
        self._task, self._head = task, ClassifierHead(task.network)
        self.precision: NetworkPrecision = task.precision
        self._dtype = torch.float32 if task.precision == "fp32" else torch.bfloat16
        program = task.program()
        network = program.network(self._dtype).to(memory_format=torch.channels_last)

        def features(images: Tensor) -> Tensor:
            # Stage by stage: what `Network.features` checks of its input cannot be compiled.
            grid = program.input(images).to(self._dtype)
            for name, _ in program.arch.stages:
                grid = network.get_submodule(name)(grid)
            return grid.mean((2, 3)).float()

        self._features: Callable[[Tensor], Tensor] = torch.compile(features, dynamic=False, options={"freezing": True})

    def submit(self, images: Tensor, output: Output) -> Pending:
        done: Future[Rows] = Future()
        with torch.no_grad():
            parts = [self._block(self._task.values(part).float()) for part in images.split(self.block_size)]
        done.set_result(torch.cat(parts).numpy())
        return Classified(done, self._head) if output == "probabilities" else done

    def _block(self, values: Tensor) -> Tensor:
        filled = F.pad(values, (0, 0, 0, 0, 0, 0, 0, self.block_size - len(values)))
        return self._features(filled.contiguous(memory_format=torch.channels_last))[: len(values)]
