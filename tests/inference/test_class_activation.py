"""Class-activation maps are exact: on every network their sum is the logit less its bias."""

from __future__ import annotations

import pytest
import torch

from reinception import family
from reinception.errors import ReinceptionError
from reinception.inference.class_activation import class_activation
from reinception.model.build import build


@pytest.mark.parametrize("name", family.NETWORKS)
def test_the_sum_over_positions_is_the_logit_less_the_bias(name: str) -> None:
    arch = family.network(name, num_classes=5, width=0.1, input_size=139, aux="none")
    network = build(arch, seed=0).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        network.classifier.bias.copy_(torch.arange(5.0))
        network.classifier.weight.mul_(30)
        images = torch.randn(4, 3, 139, 139, generator=generator)
        classes = torch.tensor([0, 3, 4, 1])
        maps = class_activation(network, images, classes)
        logits = network(images)[torch.arange(4), classes]
    assert maps.shape[0] == 4 and maps.shape[1] == maps.shape[2] > 1
    assert (maps.sum(dim=(1, 2)) - (logits - network.classifier.bias[classes])).abs().max() < 1e-4
    assert maps.std() > 0


def test_dropout_must_be_off() -> None:
    network = build(family.network("inception_v3", num_classes=2, width=0.05, input_size=75, aux="none"), seed=0)
    with pytest.raises(ReinceptionError, match="training mode"):
        class_activation(network.train(), torch.zeros(1, 3, 75, 75), torch.tensor([0]))
