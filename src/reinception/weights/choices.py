"""What a file of weights cannot say and the user may: the options of its conversion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


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

    normalisation: Literal["source", "inception", "imagenet"] = "source"
    """what the weights were trained on: inception is mean and std 0.5, imagenet is ImageNet's"""

    classes: Sequence[str] | None = None
    """names of the outputs, in their order"""

    licence: str | None = None
    """the weights' licence, for the manifest, where you know it"""
