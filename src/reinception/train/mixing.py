"""Mixup and cutmix: each image of a batch mixed with its neighbour, and their labels in the same proportion."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from reinception.data.images.random_stream import RandomStream
from reinception.data.images.resize import Box
from reinception.recipe import Mixing


def mix(
    images: Tensor, labels: Tensor, mixing: Mixing, *, num_classes: int, stream: RandomStream
) -> tuple[Tensor, Tensor]:
    """Mixes `images` (n, 3, h, w) in place, on their device; returns them and their labels (n, num_classes), float32.

    `labels` are class numbers (n,) or probabilities (n, num_classes). Image i is mixed with image i - 1, the first
    with the last (the order of a batch is random already), all with one weight and one box, as torchvision's trainer
    does it after scaling. Mixup: Zhang et al., arXiv 1710.09412. Cutmix: Yun et al., arXiv 1905.04899; the weight of
    its labels is the fraction of the pixels, so a box that is cut off at the border counts for what is left of it.

    Labels are smoothed afterwards, by the loss (as torchvision has it). Smoothing them first (as timm has it) is the
    same: both are q -> (1 - epsilon) q + epsilon u, and the weights of a mixture sum to one.
    """
    if stream.uniform(0, 1) < mixing.cutmix_share:
        height, width = images.shape[-2:]
        top, bottom, left, right = cutmix_box(height, width, beta(mixing.cutmix_alpha, stream), stream)
        inside = images[:, :, top:bottom, left:right]
        inside.copy_(inside.roll(1, 0))
        weight = 1 - (bottom - top) * (right - left) / (height * width)
    else:
        weight = beta(mixing.mixup_alpha, stream)
        neighbours = images.roll(1, 0)
        images.mul_(weight).add_(neighbours, alpha=1 - weight)
    certain = labels if labels.ndim == 2 else torch.nn.functional.one_hot(labels, num_classes)
    certain = certain.to(torch.float32)
    return images, weight * certain + (1 - weight) * certain.roll(1, 0)


def cutmix_box(height: int, width: int, weight: float, stream: RandomStream) -> Box:
    """(top, bottom, left, right): 1 - `weight` of the area around a point anywhere, as much of it as lies inside."""
    half = math.sqrt(1 - weight) / 2
    half_height, half_width = int(half * height), int(half * width)
    down, across = stream.integer(height), stream.integer(width)
    return (
        max(down - half_height, 0),
        min(down + half_height, height),
        max(across - half_width, 0),
        min(across + half_width, width),
    )


def beta(alpha: float, stream: RandomStream) -> float:
    """A number of the distribution Beta(alpha, alpha), between 0 and 1.

    Jöhnk's method (1964): of two uniform numbers to the power of 1 / alpha, the first one's fraction of their sum,
    where the sum is at most one; in logarithms, because for a small alpha both powers may be too small for a float.
    """
    while True:
        one, other = (math.log(1 - stream.uniform(0, 1)) / alpha for _ in range(2))
        larger = max(one, other)
        parts = math.exp(one - larger), math.exp(other - larger)
        if larger + math.log(sum(parts)) <= 0:
            return parts[0] / sum(parts)
