"""What a file of weights cannot say and the user may: the options of its conversion."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from reinception.errors import UsageError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_NORMALISATIONS = {
    "inception": ((0.5,) * 3, (0.5,) * 3),
    "imagenet": (IMAGENET_MEAN, IMAGENET_STD),
    "zero_one": ((0.0,) * 3, (1.0,) * 3),
}


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What the file cannot say and the user may."""

    source: str | None = None
    """whose weights they are, where names and shapes leave it open, as torchvision, timm:tf_in1k or keras; an unknown
    name is answered with all of them"""

    with_auxiliary: bool = True
    """keep the auxiliary classifier, where the file has one"""

    border: Literal["source", "counted", "ignored"] = "source"
    """whether padded average pools count the border; source is the rule of the source's own code"""

    background: Literal["drop", "keep"] = "drop"
    """what becomes of class 0 of 1,001, TF-slim's background"""

    normalisation: str = "source"
    """what the weights were trained on: source (what the source says), inception (mean and std 0.5), imagenet, zero_one
    (values / 255), or mean and std by number on values from 0 to 1, as 0.5:0.5 or R,G,B:R,G,B"""

    classes: Sequence[str] | None = None
    """names of the outputs, in their order"""

    licence: str | None = None
    """the weights' licence, for the manifest, where you know it"""

    def __post_init__(self) -> None:
        self.mean_and_std()

    def mean_and_std(self) -> dict[str, Any]:
        """`normalisation` as fields of `Preprocessing`, of which `source` has none. UsageError where it is none."""
        if self.normalisation == "source":
            return {}
        if self.normalisation in _NORMALISATIONS:
            return dict(zip(("mean", "std"), _NORMALISATIONS[self.normalisation], strict=True))
        try:
            mean, std = (tuple(map(float, part.split(","))) for part in self.normalisation.split(":"))
            if {len(mean), len(std)} <= {1, 3} and all(map(math.isfinite, mean + std)) and min(std) > 0:
                return {"mean": mean * (3 // len(mean)), "std": std * (3 // len(std))}
        except ValueError:
            pass
        raise UsageError(
            f"--normalisation {self.normalisation}: choose source, {', '.join(_NORMALISATIONS)}, or mean and std by "
            "number on values from 0 to 1, as 0.5:0.5 or 0.485,0.456,0.406:0.229,0.224,0.225"
        )
