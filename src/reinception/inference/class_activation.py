"""Class-activation maps: the part of each position in a class's logit, exact for an average and a linear layer."""

from __future__ import annotations

import torch
from torch import Tensor

from reinception.errors import ReinceptionError
from reinception.model.build import Network


def class_activation(network: Network, images: Tensor, classes: Tensor) -> Tensor:
    """What each position of the last grid adds to a class's logit.

    The classifier is linear in the average over positions, so a position's part is its channels times the class's
    weights, over the number of positions: no gradient and no approximation.

    Args:
        network: in evaluation mode, since dropout would give another logit each time.
        images: (n, 3, s, s), normalised.
        classes: (n,) the class of each image.

    Returns:
        (n, h, w), which sum to the logit less its bias.

    Raises:
        ReinceptionError: the network is in training mode.

    Source: Zhou et al. 2016 (arXiv 1512.04150).
    """
    if network.training:
        raise ReinceptionError("class activation: the network is in training mode; call .eval() first")
    last = network.arch.stages[-1][0]
    grid = network.endpoints(images, at=[last])[last]
    weights = network.classifier.weight[classes]
    return torch.einsum("nchw,nc->nhw", grid, weights) / (grid.shape[2] * grid.shape[3])
