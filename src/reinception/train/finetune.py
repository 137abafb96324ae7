"""Training that starts from a model file: its trunk kept, its classifiers new, part of it frozen if asked."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from torch import nn

from reinception.model.artifact import load
from reinception.model.build import Network, build
from reinception.spec import Arch

Freeze = Literal["trunk", "stem", "none"]


def start_from(weights: str | Path, arch: Arch, *, seed: int) -> Network:
    """The network of `arch` with everything but its classifiers from the model file `weights`, ready to train.

    `arch` is the file's, save for input size, classes, dropout, and auxiliary heads made adaptive or left out: none of
    these changes a tensor of the trunk.
    """
    network = build(arch, seed=seed)
    own = network.state_dict()
    learned, _ = load(weights)
    with torch.no_grad():
        for name, tensor in learned.state_dict().items():
            if name in own and "classifier" not in name.split("."):
                own[name].copy_(tensor)
    return network


def freeze(network: Network, part: Freeze) -> None:
    """Stops the named part of `network` from learning: its first stage, or everything below the classifier."""
    for stage in _frozen_stages(network, part):
        stage.requires_grad_(False)


def training_mode(network: Network, part: Freeze) -> Network:
    """`network` in training mode, except for what is frozen: its batch norm keeps the statistics it came with."""
    network.train()
    for stage in _frozen_stages(network, part):
        stage.eval()
    return network


def _frozen_stages(network: Network, part: Freeze) -> list[nn.Module]:
    names = [name for name, _ in network.arch.stages]
    return [network.get_submodule(name) for name in {"trunk": names, "stem": names[:1], "none": []}[part]]
