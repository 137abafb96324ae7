"""create: a network of the family by its name, fresh or with weights from a file."""

from __future__ import annotations

from pathlib import Path

import torch

from reinception.errors import UsageError
from reinception.family.catalog import AuxChoice, network
from reinception.model.build import Network, build
from reinception.weights.convert import convert


def create(
    name: str,
    *,
    num_classes: int | None = None,
    input_size: int | None = None,
    width: float = 1.0,
    aux: AuxChoice = "own",
    weights: str | Path | None = None,
    seed: int | None = None,
) -> Network:
    """The network `name` with fresh parameters or with `weights`, in training mode.

    Args:
        name: one of `models()`, or a variant of `reinception models --experiments`.
        num_classes: outputs (default: the network's own).
        input_size: pixels per side that it is meant for (default: the network's own).
        width: channels of every layer, times this (TF-slim's depth_multiplier).
        aux: own keeps the network's auxiliary classifiers; strict refuses an `input_size` they cannot take; adaptive
            lets them take any grid; none leaves them out.
        weights: a model file, a run folder, another library's weights, `torchvision:TAG` or `timm:NAME`. Classifiers
            for another number of classes than theirs, and auxiliary ones they lack, stay fresh.
        seed: draws the parameters from a generator of their own; without it they come from torch's global one.

    Returns:
        A `Network`: called with images (n, 3, h, w) it gives logits (n, num_classes), in every mode.

    Raises:
        UsageError: an unknown name, too small an input, or weights of another network.
        ReinceptionError: weights that cannot be read.

    Source: Szegedy et al. 2015 (arXiv 1512.00567); `reinception show NAME` says what each layer is.

    Example:
        >>> import torch, reinception as ri
        >>> network = ri.create("inception_v3", num_classes=2, input_size=75, width=0.1, aux="none")
        >>> network(torch.zeros(2, 3, 75, 75)).shape
        torch.Size([2, 2])
    """
    arch = network(name, num_classes=num_classes, width=width, input_size=input_size, aux=aux)
    fresh = build(arch, seed=seed)
    if weights is not None:
        copy_weights(convert(weights).network, fresh, source=str(weights))
    return fresh


def copy_weights(source_network: Network, target: Network, *, source: str) -> None:
    """Copies into `target` what fits: everything below the classifiers, and those for as many classes.

    UsageError, naming `source`, where a tensor below the classifiers is missing or of another shape.
    """
    given, own = source_network.state_dict(), target.state_dict()
    with torch.no_grad():
        for name, tensor in own.items():
            fits = name in given and given[name].shape == tensor.shape
            if fits:
                tensor.copy_(given[name])
            elif "classifier" not in name.split(".") and name.split(".")[0] in dict(target.arch.stages):
                raise UsageError(
                    f"{source}: holds {source_network.arch.name}, whose {name} does not fit {target.arch.name}; "
                    "create the network and width that the weights are of"
                )
