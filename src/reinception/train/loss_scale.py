"""The factor on the loss in half precision, whose gradients would else be too small to be told from zero."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

FIRST = 2.0**12
LARGEST = 2.0**24
GROWS_AFTER = 2000
"""Finite steps after which the factor is doubled, as torch's GradScaler has it."""


class LossScale:
    """A power of two that the loss is multiplied by and the gradients are divided by, so that no bit is lost by it.

    It is halved where a gradient was not finite: that step is skipped, and the schedule, the average and the count of
    updates go on as for every skipped step. Without `is_used` it is one and stays so.
    """

    def __init__(self, *, is_used: bool) -> None:
        self._is_used = is_used
        self.factor = FIRST if is_used else 1.0
        self.num_finite = 0

    @torch.no_grad()
    def unscale(self, parameters: Iterable[Tensor]) -> None:
        """Divides the parameters' gradients by the factor."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if self.factor != 1.0 and gradients:
            torch._foreach_mul_(gradients, 1 / self.factor)

    def update(self, *, is_finite: bool) -> None:
        """After a step, finite or skipped."""
        if not self._is_used:
            return
        self.num_finite = self.num_finite + 1 if is_finite else 0
        if not is_finite:
            self.factor = max(1.0, self.factor / 2)
        elif self.num_finite == GROWS_AFTER:
            self.factor, self.num_finite = min(LARGEST, 2 * self.factor), 0

    def to_json(self) -> dict[str, float]:
        return {"factor": self.factor, "num_finite": self.num_finite}

    def resume(self, document: Mapping[str, float]) -> None:
        """Goes on from `to_json`."""
        self.factor, self.num_finite = document["factor"], int(document["num_finite"])
