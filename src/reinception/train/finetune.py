"""Fine-tuning: the trunk of learned weights under new classifiers, with a part that may be frozen."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import torch
from torch import nn

from reinception.errors import UsageError
from reinception.model.build import Network, build
from reinception.recipe import BatchNormMode, Growth
from reinception.spec import Arch, minimum_input_size
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


def fix(network: Network, part: Freeze, batch_norm: BatchNormMode) -> None:
    """Stops from learning, for the whole run: the named part of `network` (its first stage, or everything below the
    classifier), and gamma and beta of the trunk's batch norms where `batch_norm` is frozen."""
    for name in frozen_stages(network.arch, part):
        network.get_submodule(name).requires_grad_(False)
    if batch_norm == "frozen":
        for norm in _trunk_norms(network):
            norm.requires_grad_(False)


def learning_stages(network: Network, part: Freeze, *, unfreeze_fraction: float, progress: float) -> tuple[str, ...]:
    """The stages of the trunk that learn at `progress`, in their order; classifiers always do.

    The first `unfreeze_fraction` of a run is divided evenly: in its first part only the classifiers learn, and at the
    end of each part the next stage from above joins them. Stages of the frozen part never do.
    """
    frozen = frozen_stages(network.arch, part)
    names = [name for name, _ in network.arch.stages if name not in frozen]
    num = len(names) if progress >= unfreeze_fraction else int(progress / unfreeze_fraction * len(names))
    return tuple(names[len(names) - num :])


def training_side(growth: Growth | None, arch: Arch, progress: float) -> int:
    """Pixels of the side of training images at `progress`: never fewer than the trunk of `arch` takes."""
    if growth is None:
        return arch.input_size
    least = min(minimum_input_size(arch, with_aux=False), arch.input_size)
    return max(growth.side(arch.input_size, progress), least)


def training_mode(network: Network, learning: Collection[str], batch_norm: BatchNormMode) -> Network:
    """`network` in training mode, except for stages that do not learn and, unless `batch_norm` is `train`, for the
    trunk's batch norms: these normalise with the statistics they came with, and keep them."""
    network.train()
    for name, _ in network.arch.stages:
        if name not in learning:
            network.get_submodule(name).eval()
    if batch_norm != "train":
        for norm in _trunk_norms(network):
            norm.eval()
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


def _trunk_norms(network: Network) -> Iterator[nn.BatchNorm2d]:
    """Those of the trunk alone: an auxiliary head is new, and has no statistics to keep."""
    for name, _ in network.arch.stages:
        yield from (one for one in network.get_submodule(name).modules() if isinstance(one, nn.BatchNorm2d))
