"""The ways to compute the outputs of a step: plain, fused or compiled, each a function of a network."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from reinception.errors import UsageError
from reinception.model.build import Network, Outputs
from reinception.train.config import StepKind

Forward = Callable[[Tensor], Outputs]
"""The outputs of a network in training for normalised images (n, 3, h, w)."""


def forward_of(kind: StepKind, network: Network) -> Forward:
    """How a step of `kind` computes the outputs of `network`. UsageError where this machine cannot."""
    match kind:
        case "plain":
            return network.outputs
        case "fused":
            from reinception.train.fused.walk import fused_outputs

            return partial(fused_outputs, network)
        case "compiled":
            from reinception.train.compiled import through_compiler

            require_compiler(next(network.parameters()).device)
            # The whole graph or an error: after too many shapes torch would go on without a compiler, and not say so.
            return torch.compile(partial(network.outputs, through=through_compiler), fullgraph=True, dynamic=False)
        case "auto":
            raise ValueError("auto is resolved before the first step, by run/choose_step.py")


def require_compiler(device: torch.device) -> None:
    """UsageError where torch.compile has nothing to compile with: a C++ compiler for a processor, Triton for a GPU."""
    if device.type == "cpu":
        if not any(map(shutil.which, filter(None, (os.environ.get("CXX"), "g++", "clang++")))):
            raise UsageError("--step compiled: no C++ compiler here; install g++, or use --step fused")
    elif device.type != "cuda":  # on Apple's GPUs it is slower than no compiler (pytorch#192551)
        raise UsageError(f"--step compiled: not on {device.type}; use --step plain or fused")
