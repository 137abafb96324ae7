"""The check of the rewrites: how far each endpoint of the rewritten network is from the original's, by precision."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from reinception.model.build import Network, build
from reinception.preprocess import Preprocessing
from reinception.rewrite.program import Program
from reinception.rewrite.rules import RULES, Rule, rewritten
from reinception.spec import Arch, endpoints

TOLERANCES = {"float64": 1e-10, "float32": 1e-5, "bfloat16": 0.2}
"""Of the largest value at an endpoint. bfloat16 keeps 8 bits, and a hundred layers of it add up."""

_TYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, kw_only=True)
class EndpointDifference:
    """The largest difference at one endpoint, relative to the largest value there, by the name of the precision."""

    endpoint: str
    differences: dict[str, float]

    @property
    def exceeded(self) -> str | None:
        """The first precision whose tolerance is exceeded."""
        return next((name for name, value in self.differences.items() if not value <= TOLERANCES[name]), None)

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def differences(
    program: Program,
    images: Tensor,
    *,
    rules: Sequence[Rule] = RULES,
    precisions: Sequence[str] = tuple(TOLERANCES),
) -> list[EndpointDifference]:
    """The difference that `rules` make at each endpoint that both networks have, of as many channels.

    Args:
        program: the original network.
        images: values from 0 to 1, (n, 3, h, w).
        rules: what is applied, in this order.
        precisions: names of `TOLERANCES`. float64 is compared with float64 and so on; bfloat16 with float32, as its
            own rounding is larger than any difference.
    """
    found: dict[str, dict[str, float]] = {}
    for precision in precisions:
        dtype = _TYPES[precision]
        exact = torch.float32 if dtype == torch.bfloat16 else dtype
        kinds = {name: exact if tensor.is_floating_point() else None for name, tensor in program.tensors.items()}
        original = dataclasses.replace(
            program, tensors={name: tensor.to(kinds[name]) for name, tensor in program.tensors.items()}
        )
        before = _endpoints(original, images.to(exact))
        after = _endpoints(rewritten(original, rules), images.to(exact), dtype)
        for name, value in before.items():
            if name in after and after[name].shape == value.shape:  # channels may have been dropped
                largest = value.abs().max().clamp(min=1e-30)
                difference = float((after[name].to(exact) - value).abs().max() / largest)
                found.setdefault(name, {})[precision] = difference
    return [EndpointDifference(endpoint=name, differences=values) for name, values in found.items()]


def random_network(arch: Arch, seed: int = 0) -> Network:
    """The network of `arch` with random weights, gammas, shifts and statistics, none of which is neutral."""
    network = build(arch, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if not tensor.is_floating_point():
                continue
            if tensor.dim() == 4:
                tensor.normal_(0, (2 / tensor[0].numel()) ** 0.5, generator=generator)
            elif tensor.dim() == 2:
                # Logits up to about 10, as of a trained network: saturated probabilities would hide differences.
                tensor.normal_(0, 1 / tensor.shape[1] ** 0.5, generator=generator)
            elif name.endswith(("running_var", "bn.weight")):
                tensor.uniform_(0.5, 1.5, generator=generator)
            elif tensor.dim() == 1:
                tensor.normal_(0, 0.2, generator=generator)
    return network.eval()


def random_values(arch: Arch, input_size: int, seed: int = 0) -> Tensor:
    """Two images of random values from 0 to 1: (2, 3, input_size, input_size) float64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(2, arch.input_channels, input_size, input_size, dtype=torch.float64, generator=generator)


NORMALISATION = Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
"""A mean and a std that are no round numbers, for networks that come with none."""


def _endpoints(program: Program, images: Tensor, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    dtype = dtype or images.dtype
    network = program.network(dtype)
    with torch.inference_mode():
        names = [name for name, _ in endpoints(program.arch)]
        return network.endpoints(program.input(images).to(dtype), at=[*names, "features", "logits"])
