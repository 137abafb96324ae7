"""What to shrink, on which images, how far and for how long, as one value."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from reinception.errors import UsageError
from reinception.recipe import Recipe
from reinception.train.config import TrainConfig


@dataclass(frozen=True, kw_only=True)
class ShrinkConfig:
    """A trained model, the images it was judged on, and what its smaller versions must reach.

    Of `speed_up`, `latency_seconds` and `multiply_adds` one at most is given; without any it is a speed-up of 20.

    Args: each is a field, explained below.

    Raises:
        UsageError: two goals at once, or a number that makes no sense.

    Example:
        >>> from reinception.shrink.shrink_config import ShrinkConfig
        >>> ShrinkConfig(model="runs/large", data="images", out="small", speed_up=10).goal
        'at least 10 times as fast as the teacher'
    """

    model: str | Path
    """the teacher: a model file or a run folder"""

    data: str | Path
    """the images to train students on, as for train; the teacher's own split is found again"""

    out: str | Path
    """the folder for the students and the front; the same command goes on with what is missing"""

    speed_up: float | None = None
    """students at least this many times as fast as the teacher, at an equal batch (default: 20)"""

    latency_seconds: float | None = None
    """students that answer for one image within this time, as 5ms or 0.1s"""

    multiply_adds: float | None = None
    """students of at most this many multiply-adds, as 500M or 0.5G"""

    tolerance: float = 1.0
    """points of accuracy that a student may lose against the teacher, with 95 % confidence, to be recommended"""

    time_budget_seconds: float = 2400.0
    """how long the whole search may take, as 40m"""

    num_students: int = 3
    """students to train, each with an equal part of the time; one more is trained from the labels alone, to compare"""

    recipe: str | Recipe = "small_images"
    """how the students are trained, one of `reinception recipe list`"""

    temperature: float = TrainConfig.temperature
    teacher_weight: float = TrainConfig.teacher_weight
    teacher_views: int = TrainConfig.teacher_views
    agreement: float = 0.99
    """how often the cascade's small network must agree with the teacher where it answers alone"""

    seed: int = 0
    """fixes the students' initial weights, order and distortions; the split is the teacher's own"""

    workers: int = TrainConfig.workers

    def __post_init__(self) -> None:
        given = [name for name in ("speed_up", "latency_seconds", "multiply_adds") if getattr(self, name) is not None]
        if len(given) > 1:
            raise UsageError("--speed-up, --latency and --multiply-adds exclude each other: give one goal")
        for name in (*given, "time_budget_seconds"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise UsageError(f"--{name.removesuffix('_seconds').replace('_', '-')} must be positive, got {value:g}")
        if self.tolerance < 0 or not 0 < self.agreement <= 1 or self.num_students < 1:
            raise UsageError(
                "--tolerance must not be negative, --agreement lie above 0 and up to 1, --num-students be 1 or more"
            )

    @property
    def goal(self) -> str:
        """What a student must reach, in words."""
        if self.latency_seconds is not None:
            return f"one image within {1000 * self.latency_seconds:g} ms"
        if self.multiply_adds is not None:
            return f"at most {self.multiply_adds / 1e9:g} G multiply-adds"
        return f"at least {self.wanted_speed_up:g} times as fast as the teacher"

    @property
    def wanted_speed_up(self) -> float:
        """The speed-up, 20 where no goal is given."""
        return 20.0 if self.speed_up is None else self.speed_up
