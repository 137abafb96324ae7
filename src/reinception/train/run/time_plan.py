"""How a time budget is divided: what has passed, training with its validations, judging, and the report."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from reinception.inference.engine import evaluating
from reinception.model.build import Network
from reinception.preprocess import Preprocessing
from reinception.report.formatting import count, duration

REPORT_SECONDS = 3.0
"""Of the report's own work; its class activation maps, and the measurement of speed before it, cost images besides."""
REPORT_IMAGES = 60
MOST_MEASURED = 8
LEAST_TRAINING = 0.1
"""Of a budget that is too short for what surrounds it, so much is spent on training all the same."""


@dataclass(frozen=True, kw_only=True)
class TimePlan:
    """Seconds of a whole command."""

    total: float
    start: float
    judging: float
    report: float
    num_judged: int

    @property
    def training(self) -> float:
        """What is left for steps and validations."""
        return max(self.total - self.start - self.judging - self.report, LEAST_TRAINING * self.total)

    def __str__(self) -> str:
        parts = (
            f"start {duration(self.start)}",
            f"training and validation {duration(self.training)}",
            f"judging {count(self.num_judged, 'image')} {duration(self.judging)}",
            f"report {duration(self.report)}",
        )
        needed = self.start + self.training + self.judging + self.report
        over = f"; too short, it will take {duration(needed)}" if needed > 1.1 * self.total else ""
        return f"time budget {duration(self.total)}: {', '.join(parts)}{over}"


def plan_time(total: float, *, start: float, seconds_per_image: float, num_judged: int) -> TimePlan:
    """The division of `total` seconds of which `start` have passed, by the cost of one image without gradient."""
    return TimePlan(
        total=total,
        start=start,
        judging=seconds_per_image * num_judged,
        report=REPORT_SECONDS + seconds_per_image * REPORT_IMAGES,
        num_judged=num_judged,
    )


def seconds_per_image(network: Network, preprocessing: Preprocessing, *, batch_size: int) -> float:
    """Of one image in a batch in float32, measured once after a first try; `network` is not changed."""
    device, side, num = next(network.parameters()).device, preprocessing.input_size, min(batch_size, MOST_MEASURED)
    images = torch.zeros(num, 3, side, side, device=device).contiguous(memory_format=torch.channels_last)
    with evaluating(network):
        for _ in range(2):
            began = time.perf_counter()
            network(images).cpu()
    return (time.perf_counter() - began) / num
