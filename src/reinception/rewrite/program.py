"""A network as values, its architecture and its tensors, and the walk over it that every rewrite uses."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from reinception.model.build import Network, skeleton
from reinception.preprocess import Preprocessing
from reinception.spec import Arch, Chain, Concat, Layer, as_chain

Tensors = Mapping[str, Tensor]
Part = tuple[Layer, Tensors]
"""A layer and its tensors, by their names inside it."""

Colours = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True, eq=False)
class Program:
    """What is computed of values v from 0 to 1, (n, 3, h, w): the network `arch` with `tensors` on (v - mean) / std.

    `mean` and `std` are None where the input's normalisation is not part of it.
    """

    arch: Arch
    tensors: Tensors
    mean: Colours | None = None
    std: Colours | None = None

    @staticmethod
    def of(network: Network, preprocessing: Preprocessing | None = None) -> Program:
        """The program of a network; with a `preprocessing` of fixed mean and std these are part of it."""
        tensors = {name: tensor.detach().cpu() for name, tensor in network.state_dict().items()}
        if preprocessing is None or preprocessing.scaling != "fixed":
            return Program(arch=network.arch, tensors=tensors)
        return Program(arch=network.arch, tensors=tensors, mean=preprocessing.mean, std=preprocessing.std)

    def network(self, dtype: torch.dtype = torch.float32) -> Network:
        """The torch network in evaluation mode; it takes what `input` gives."""
        network = skeleton(self.arch)
        own = network.state_dict()
        values = {
            name: tensor.to(dtype if own[name].is_floating_point() else None) for name, tensor in self.tensors.items()
        }
        network.load_state_dict(values, assign=True)
        return network.requires_grad_(False).eval()

    def input(self, values: Tensor) -> Tensor:
        """What the network reads of `values` (n, 3, h, w) from 0 to 1."""
        if self.mean is None or self.std is None:
            return values
        mean, std = (torch.tensor(one, dtype=values.dtype)[:, None, None] for one in (self.mean, self.std))
        return (values - mean) / std


def rewrite_layers(program: Program, change: Callable[[Layer, Tensors], Part]) -> Program:
    """`program` with `change` applied to every layer of its stages and what it holds, what is inside first."""
    tensors: dict[str, Tensor] = {}
    stages = []
    for name, stage in program.arch.stages:
        layer, own = _rebuilt(stage, inside(program.tensors, name), change)
        assert isinstance(layer, Chain | Concat)
        stages.append((name, layer))
        tensors |= under(name, own)
    known = {name for name, _ in program.arch.stages}
    rest = {name: tensor for name, tensor in program.tensors.items() if name.partition(".")[0] not in known}
    arch = dataclasses.replace(program.arch, stages=tuple(stages))
    return dataclasses.replace(program, arch=arch, tensors={**tensors, **rest})


def inside(tensors: Tensors, name: str) -> dict[str, Tensor]:
    """The tensors of the part `name`, by their names inside it."""
    return {key.removeprefix(f"{name}."): tensor for key, tensor in tensors.items() if key.startswith(f"{name}.")}


def under(name: str | int, tensors: Tensors) -> dict[str, Tensor]:
    """The inverse of `inside`."""
    return {f"{name}.{key}": tensor for key, tensor in tensors.items()}


def parts_of(chain: Chain, tensors: Tensors) -> list[Part]:
    """The layers of a chain, each with its tensors."""
    return [(layer, inside(tensors, str(index))) for index, layer in enumerate(chain.layers)]


def chain_of(parts: list[Part]) -> tuple[Chain, Tensors]:
    """The inverse of `parts_of`."""
    tensors = {key: tensor for index, (_, own) in enumerate(parts) for key, tensor in under(index, own).items()}
    return Chain(tuple(layer for layer, _ in parts)), tensors


def _rebuilt(layer: Layer, tensors: Tensors, change: Callable[[Layer, Tensors], Part]) -> Part:
    if isinstance(layer, Chain):
        layer, tensors = chain_of([_rebuilt(*part, change) for part in parts_of(layer, tensors)])
    elif isinstance(layer, Concat):
        named = [(name, *_rebuilt(branch, inside(tensors, name), change)) for name, branch in layer.branches]
        layer = Concat(tuple((name, as_chain(branch)) for name, branch, _ in named))
        tensors = {key: tensor for name, _, own in named for key, tensor in under(name, own).items()}
    return change(layer, tensors)
