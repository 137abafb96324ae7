"""A network is an ordinary torch module: traced, exported, copied, pickled, given other classes, left as it was."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

import reinception as ri
from reinception.errors import UsageError
from reinception.model.build import Network, Outputs

IMAGES = torch.linspace(-1, 1, 2 * 3 * 139 * 139).reshape(2, 3, 139, 139)
Call = Callable[[Tensor], Tensor]


@pytest.fixture(scope="module")
def network() -> Network:
    return ri.create("inception_v3", num_classes=3, input_size=139, width=0.1, aux="adaptive", seed=0).eval()


def traced(network: Network) -> Call:
    trace: Any = torch.jit.trace(network, IMAGES)
    return trace


def exported(network: Network) -> Call:
    return torch.export.export(network, (IMAGES,)).module()


def exported_for_any_batch(network: Network) -> Call:
    batch = torch.export.Dim("batch", min=1, max=64)
    return torch.export.export(network, (IMAGES,), dynamic_shapes=({0: batch},)).module()


def pickled(network: Network) -> Call:
    return pickle.loads(pickle.dumps(network))


def saved_and_loaded(network: Network) -> Call:
    file = io.BytesIO()
    torch.save(network, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("how", [traced, exported, exported_for_any_batch, copy.deepcopy, pickled, saved_and_loaded])
def test_a_copy_of_any_kind_gives_the_same_logits(network: Network, how: Callable[[Network], Call]) -> None:
    made = how(network)
    with torch.no_grad():
        assert torch.allclose(made(IMAGES), network(IMAGES), atol=1e-6)
        if how is not exported:
            assert torch.allclose(made(IMAGES[:1]), network(IMAGES[:1]), atol=1e-6)


def test_with_auxiliary_is_outputs_as_forward(network: Network) -> None:
    module = ri.WithAuxiliary(network)
    found = module(IMAGES)
    assert isinstance(found, Outputs)
    wanted = network.outputs(IMAGES)
    assert torch.equal(found.logits, wanted.logits)
    assert found.auxiliary is not None and wanted.auxiliary is not None
    assert torch.equal(found.auxiliary, wanted.auxiliary)
    assert {id(one) for one in module.parameters()} == {id(one) for one in network.parameters()}


def test_with_auxiliary_gives_both_logits_when_compiled(network: Network) -> None:
    found = torch.compile(ri.WithAuxiliary(network), backend="eager", fullgraph=True)(IMAGES)
    wanted = network.outputs(IMAGES)
    assert found.auxiliary is not None and wanted.auxiliary is not None
    assert torch.allclose(found.logits, wanted.logits, atol=1e-6)
    assert torch.allclose(found.auxiliary, wanted.auxiliary, atol=1e-6)


def test_a_network_trains_under_ddp_and_is_saved_from_it(place: Path, tmp_path: Path) -> None:
    model = ri.load(place / "model.safetensors")
    with_head = ri.create("inception_v3", num_classes=2, width=0.1, input_size=107, aux="adaptive", seed=0)
    manifest = ri.Manifest(arch=with_head.arch, classes=model.classes, preprocessing=ri.Preprocessing(input_size=107))
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        ddp = DistributedDataParallel(ri.WithAuxiliary(with_head))
        outputs = ddp(torch.randn(2, 3, 107, 107, generator=torch.Generator().manual_seed(0)))
        (outputs.logits.sum() + outputs.auxiliary.sum()).backward()
        assert all(parameter.grad is not None for parameter in with_head.parameters())
        ri.save(ddp, tmp_path / "ddp.safetensors", manifest)
    finally:
        dist.destroy_process_group()
    saved = ri.load(tmp_path / "ddp.safetensors").network.state_dict()
    assert all(torch.equal(tensor, saved[name]) for name, tensor in with_head.state_dict().items())


def test_a_network_can_be_given_other_classes(network: Network) -> None:
    other = copy.deepcopy(network)
    other.reset_classifier(7, seed=0)
    outputs = other.outputs(IMAGES)
    assert outputs.logits.shape == (2, 7) == outputs.auxiliaries[0].shape
    assert torch.equal(other.features(IMAGES), network.features(IMAGES))


def test_create_takes_the_weights_of_a_file_and_new_classes(place: Path) -> None:
    model = ri.load(place / "model.safetensors")
    file = place / "model.safetensors"
    small = {"width": 0.1, "input_size": 75, "aux": "none"}
    same = ri.create("inception_v3", num_classes=2, weights=file, **small)  # pyrefly: ignore[bad-argument-type]
    own = model.network.state_dict()
    assert all(torch.equal(tensor, own[name]) for name, tensor in same.state_dict().items())
    other = ri.create("inception_v3", num_classes=5, weights=file, seed=1, **small)  # pyrefly: ignore
    images = torch.zeros(1, 3, 75, 75)
    assert other.eval()(images).shape == (1, 5)
    assert torch.equal(other.features(images), model.network.features(images))
    with pytest.raises(UsageError, match=r"model\.safetensors: holds inception_v3, whose .* does not fit"):
        ri.create("inception_v3", num_classes=2, weights=file)
    with pytest.raises(UsageError, match="does not fit googlenet"):
        ri.create("googlenet", width=0.1, weights=file)


# -- no hidden effects -------------------------------------------------------------------------------------------------


def everything(network: Network) -> list[object]:
    """Whatever a call might change: device, layout, memory, mode and gradient of every tensor."""
    tensors = [*network.parameters(), *network.buffers()]
    return [
        network.training,
        *((one.device, one.stride(), one.data_ptr(), one.requires_grad, one._version) for one in tensors),
        *(None if one.grad is None else one.grad.sum().item() for one in network.parameters()),
        *(module.training for module in network.modules()),
    ]


def use_all(model: ri.Model, place: Path) -> None:
    images = place / "images"
    ri.predict(model, images)
    ri.features(model, images)
    ri.evaluate(model, images, split=None)
    ri.evaluate(model, images, protocol=ri.CropProtocol(crops=10))
    ri.Predictor(model)(next(images.rglob("*.png")))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("training", [True, False])
def test_using_a_model_changes_nothing_of_its_network(place: Path, layout: torch.memory_format, training: bool) -> None:
    model = ri.load(place / "model.safetensors")
    network = model.network.to(memory_format=layout).train(training)  # pyrefly: ignore[no-matching-overload]
    network.classifier.eval()  # a part may be in another mode
    network(torch.zeros(2, 3, 75, 75)).sum().backward()
    before = everything(network)
    use_all(model, place)
    assert everything(network) == before


def test_training_a_network_on_does_not_change_a_predictor_made_of_it(place: Path) -> None:
    model = ri.load(place / "model.safetensors")
    predictor = ri.Predictor(model)
    image = next((place / "images").rglob("*.png"))
    before = predictor(image).to_json()
    with torch.no_grad():
        for tensor in (*model.network.parameters(), *model.network.buffers()):
            tensor.zero_()
    assert predictor(image).to_json() == before


def test_the_layout_of_the_network_changes_no_bit(place: Path) -> None:
    found = []
    for layout in (torch.contiguous_format, torch.channels_last):
        model = ri.load(place / "model.safetensors")
        model.network.to(memory_format=layout)  # pyrefly: ignore[no-matching-overload]
        rows = [one.probabilities for one in ri.predict(model, [place / "images"] * 5)]
        found.append(np.stack([row for row in rows if row is not None]).tobytes())
    assert found[0] == found[1]


def test_using_a_model_leaves_the_modes_of_torch_alone(place: Path) -> None:
    """Also between two results of a stream that is not read to its end."""
    from reinception.inference.predict import predict_stream

    stream = predict_stream(place / "model.safetensors", place / "images", compute=ri.Compute(precision="auto"))
    next(stream)
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
    assert not torch.is_autocast_enabled("cpu")


def test_a_library_call_leaves_the_allocator_alone(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from reinception import machine

    def refuse() -> None:
        raise AssertionError("only the program's entry may do this")

    monkeypatch.setattr(machine, "keep_freed_memory", refuse)
    use_all(ri.load(place / "model.safetensors"), place)
