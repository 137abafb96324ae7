"""Random weights with ordinary activations, for tests that compare networks with those of other libraries."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from reinception import family
from reinception.model.artifact import Manifest
from reinception.model.build import Network, skeleton
from reinception.preprocess import Preprocessing
from reinception.spec import count_border, with_scale

RELEASED = family.NETWORKS["inception_v3"].arch
FID = family.NETWORKS["inception_v3_fid"].arch
GOLDEN = Path(__file__).parent / "golden" / "layouts"
TOLERANCE = 1e-5


def randomise(module: nn.Module, seed: int) -> None:
    """Every parameter and statistic of any torch network drawn anew, so that activations neither vanish nor explode."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(tensor: Tensor, low: float, high: float) -> None:
        tensor.copy_(torch.rand(tensor.shape, generator=generator) * (high - low) + low)

    def normal(tensor: Tensor, stddev: float) -> None:
        tensor.copy_(torch.randn(tensor.shape, generator=generator) * stddev)

    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.Conv2d):
                normal(part.weight, (2 / part.weight[0].numel()) ** 0.5)
            elif isinstance(part, nn.Linear):
                normal(part.weight, 0.05)
                if part.bias is not None:
                    normal(part.bias, 0.1)
            elif isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
                if part.weight is not None:
                    uniform(part.weight, 0.7, 1.3)
                normal(part.bias, 0.1)
                assert part.running_mean is not None and part.running_var is not None
                normal(part.running_mean, 0.1)
                uniform(part.running_var, 0.5, 1.5)
                assert part.num_batches_tracked is not None
                part.num_batches_tracked.fill_(int(torch.randint(1, 1000, (), generator=generator)))


def random_network(
    *, seed: int, num_classes: int = 1000, aux: bool = True, border: bool = False, scale: bool = True, fid: bool = False
) -> Network:
    """The released network (or FID's) with random weights, in evaluation mode."""
    base = FID if fid else RELEASED
    arch = dataclasses.replace(base, num_classes=num_classes, aux=base.aux if aux else ())
    network = skeleton(with_scale(count_border(arch, border), scale)).to_empty(device="cpu")
    randomise(network, seed)
    return network.eval()


def manifest_of(network: Network) -> Manifest:
    names = tuple(f"class_{index}" for index in range(network.arch.num_classes))
    return Manifest(arch=network.arch, classes=names, preprocessing=Preprocessing())


def saved(state: dict[str, Tensor], file: Path) -> Path:
    torch.save(state, file)
    return file


def images(num: int = 1, size: int = 299, seed: int = 0) -> Tensor:
    return torch.rand(num, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def assert_same_outputs(ours: Tensor, theirs: Tensor) -> None:
    """Within `TOLERANCE` of the largest output, which must be of ordinary size for that to mean something."""
    largest = theirs.abs().max().item()
    assert 0.01 < largest < 1000
    assert (ours - theirs).abs().max().item() <= TOLERANCE * max(1.0, largest)


def assert_same_bits(left: dict[str, Any], right: dict[str, Any]) -> None:
    assert list(left) and set(left) == set(right)
    for name, tensor in left.items():
        assert torch.equal(torch.as_tensor(tensor), torch.as_tensor(right[name])), name


def real_weights() -> Path:
    """A real Inception-v3 in Keras's layout; never part of the project, so tests skip where it is absent."""
    shared = os.environ.get("REINCEPTION_SHARED")
    folders = [Path(shared)] if shared else [Path(__file__).parents[1] / "shared", Path(__file__).parents[2] / "shared"]
    for folder in folders:
        file = folder / "weights" / "inception_v3_notop.h5"
        if file.is_file():
            return file
    pytest.skip("no real weights here (REINCEPTION_SHARED)")
