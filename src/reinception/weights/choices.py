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

    normalisation: str = "source"
    """what the weights were trained on: source (what the source says), inception (mean and std 0.5), imagenet, zero_one
    (values / 255), or mean and std by number on values from 0 to 1, as 0.5:0.5 or R,G,B:R,G,B"""

    classes: Sequence[str] | None = None
    """names of the outputs, in their order"""

    licence: str | None = None
    """the weights' licence, for the manifest, where you know it"""
