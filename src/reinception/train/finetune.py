"""Fine-tuning: the trunk of learned weights under new classifiers, with a part that may be frozen."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from reinception.errors import UsageError
from reinception.model.build import Network, build
from reinception.spec import Arch
from reinception.train.config import Freeze


def start_from(learned: Network, arch: Arch, *, seed: int, outputs: Sequence[int] | None = None) -> Network:
    """The network of `arch` with everything but its classifiers from `learned`, ready to train.

    `arch` is that of `learned`, save for input size, classes, dropout, and auxiliary heads made adaptive or left out:
    none of these changes a tensor of the trunk. With `outputs`, which output of `learned` each class has, the
    classifiers come along, theirs in that order.
    """
    network = build(arch, seed=seed)
    own = network.state_dict()
    with torch.no_grad():
        for name, tensor in learned.state_dict().items():
            is_classifier = "classifier" in name.split(".")
            if name in own and (outputs is not None or not is_classifier):
                own[name].copy_(tensor[list(outputs)] if is_classifier and outputs is not None else tensor)
    return network


def matching_outputs(learned: Sequence[str], classes: Sequence[str]) -> list[int] | None:
    """For each of `classes` the place of that name among those of `learned`; None where they are not the same names.

    Example:
        >>> matching_outputs(("dog", "cat"), ("cat", "dog")), matching_outputs(("dog", "cat"), ("cat", "cow"))
        ([1, 0], None)
    """
    if sorted(learned) != sorted(classes) or len(set(learned)) != len(learned):
        return None
    return [learned.index(name) for name in classes]


def freeze(network: Network, part: Freeze) -> None:
    """Stops the named part of `network` from learning: its first stages, or everything below the classifier."""
    for stage in _frozen_modules(network, part):
        stage.requires_grad_(False)


def training_mode(network: Network, part: Freeze) -> Network:
    """`network` in training mode, except for what is frozen: its batch norm keeps the statistics it came with."""
    network.train()
    for stage in _frozen_modules(network, part):
        stage.eval()
    return network


def frozen_stages(arch: Arch, part: Freeze) -> tuple[str, ...]:
    """The stages of `arch` that `part` names: all of them for `trunk`, else those from the first to that one.

    UsageError where `arch` has no such stage.
    """
    names = [name for name, _ in arch.stages]
    if part == "none":
        return ()
    if part == "trunk":
        return tuple(names)
    if part not in names:
        raise UsageError(f"--freeze {part}: {arch.name} has the stages {', '.join(names)}; choose one of them or trunk")
    return tuple(names[: names.index(part) + 1])


def _frozen_modules(network: Network, part: Freeze) -> list[nn.Module]:
    return [network.get_submodule(name) for name in frozen_stages(network.arch, part)]
