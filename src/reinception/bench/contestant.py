"""A contestant: what computes a network, with which setting and number format, and what all of them compute."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from reinception.errors import ReinceptionError

Images = npt.NDArray[np.uint8]
"""Decoded images (n, s, s, 3)."""

Run = Callable[[Images, int], Any]
"""Compute probabilities of images, so many at a time at most; whatever it returns, all has been computed by then."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What all contestants compute: a network of the family by name, or a model file."""

    model: str
    input_size: int
    num_classes: int
    is_released: bool
    """whether it is the released Inception-v3, which other libraries have too"""


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """Who computes (`what`), how it is set up (`setting`), and in which number format."""

    what: str
    setting: str
    precision: str


class LeftOutError(ReinceptionError):
    """A contestant cannot take part; `str(error)` is the reason."""
