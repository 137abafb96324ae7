"""Where in the image a class's logit comes from: class-activation maps, exact for a head of average and linear."""

from __future__ import annotations

import torch
from torch import Tensor

from reinception.errors import ReinceptionError
from reinception.model.build import Network


def class_activation(network: Network, images: Tensor, classes: Tensor) -> Tensor:
    """(n, h, w) what each position of the last grid adds to the logit of `classes` (n,) for `images` (n, 3, s, s).

    The classifier is linear in the average over positions, so each position's part is its channels times the class's
    weights, over the number of positions: no gradient and no approximation. The parts sum to the logit less its bias
    (Zhou et al. 2016, arXiv 1512.04150). In evaluation mode only: dropout would draw another logit each time.
    """
    if network.training:
        raise ReinceptionError("class activation: the network is in training mode; call .eval() first")
    last = network.arch.stages[-1][0]
    grid = network.endpoints(images, at=[last])[last]
    weights = network.classifier.weight[classes]
    return torch.einsum("nchw,nc->nhw", grid, weights) / (grid.shape[2] * grid.shape[3])
