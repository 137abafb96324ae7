"""Networks as tensors: equal to torchvision's and to the review's, one return type, initialised as published."""

from __future__ import annotations

import copy
import dataclasses
import math
import warnings
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from reinception import family, spec
from reinception.errors import ReinceptionError, UsageError
from reinception.model.build import Network, build
from reinception.model.layers import ConvNorm
from reinception.spec import SpecError, cost

if TYPE_CHECKING:
    import torchvision

RELEASED = family.NETWORKS["inception_v3"].arch
NARROW = family.network("inception_v3", width=0.1, num_classes=5)
IMAGES = torch.randn(2, 3, 299, 299, generator=torch.Generator().manual_seed(1))


def randomise(network: nn.Module, seed: int = 0) -> None:
    """Weights and statistics far from their initial values, so that nothing agrees by being zero or one."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fan_in = module.weight[0].numel()
            module.weight.data.normal_(0, math.sqrt(2 / fan_in), generator=generator)
            if module.bias is not None:
                module.bias.data.normal_(0, 0.1, generator=generator)
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.8, 1.25, generator=generator)
            module.bias.data.normal_(0, 0.1, generator=generator)
            if module.weight is not None:
                module.weight.data.uniform_(0.8, 1.25, generator=generator)


# torchvision's blocks in its own words, beside ours: the map a reader would draw from its source.
STEM = {"Conv2d_1a_3x3": 0, "Conv2d_2a_3x3": 1, "Conv2d_2b_3x3": 2, "Conv2d_3b_1x1": 4, "Conv2d_4a_3x3": 5}
MODULES = {
    "Mixed_5b": "grid35.0", "Mixed_5c": "grid35.1", "Mixed_5d": "grid35.2", "Mixed_6a": "reduce35",
    "Mixed_6b": "grid17.0", "Mixed_6c": "grid17.1", "Mixed_6d": "grid17.2", "Mixed_6e": "grid17.3",
    "Mixed_7a": "reduce17", "Mixed_7b": "grid8.0", "Mixed_7c": "grid8.1",
}  # fmt: skip
A = {"branch1x1": "point.0", "branch5x5_1": "single.0", "branch5x5_2": "single.1", "branch3x3dbl_1": "doubled.0",
     "branch3x3dbl_2": "doubled.1", "branch3x3dbl_3": "doubled.2", "branch_pool": "pool.1"}  # fmt: skip
B = {
    "branch3x3": "single.0",
    "branch3x3dbl_1": "doubled.0",
    "branch3x3dbl_2": "doubled.1",
    "branch3x3dbl_3": "doubled.2",
}
C = {"branch1x1": "point.0", **{f"branch7x7_{i + 1}": f"single.{i}" for i in range(3)},
     **{f"branch7x7dbl_{i + 1}": f"doubled.{i}" for i in range(5)}, "branch_pool": "pool.1"}  # fmt: skip
D = {"branch3x3_1": "single.0", "branch3x3_2": "single.1", **{f"branch7x7x3_{i + 1}": f"doubled.{i}" for i in range(4)}}
E = {"branch1x1": "point.0", "branch3x3_1": "single.0", "branch3x3_2a": "single.1.wide.0",
     "branch3x3_2b": "single.1.tall.0", "branch3x3dbl_1": "doubled.0", "branch3x3dbl_2": "doubled.1",
     "branch3x3dbl_3a": "doubled.2.wide.0", "branch3x3dbl_3b": "doubled.2.tall.0", "branch_pool": "pool.1"}  # fmt: skip
BLOCKS = {"Mixed_5": A, "Mixed_6a": B, "Mixed_6": C, "Mixed_7a": D, "Mixed_7": E}


def torchvision_state(network: nn.Module) -> dict[str, Tensor]:
    """The state dict of torchvision's Inception v3 under our names."""
    names = {f"{theirs}.": f"stem.{index}." for theirs, index in STEM.items()}
    for module, ours in MODULES.items():
        block = BLOCKS.get(module) or BLOCKS[module[:-1]]
        names |= {f"{module}.{theirs}.": f"{ours}.{branch}." for theirs, branch in block.items()}
    names |= {"AuxLogits.conv0.": "aux.body.1.", "AuxLogits.conv1.": "aux.body.2.", "AuxLogits.fc.": "aux.classifier."}
    names |= {"fc.": "classifier."}
    state = {}
    for key, tensor in network.state_dict().items():
        prefix = max((prefix for prefix in names if key.startswith(prefix)), key=len)
        state[names[prefix] + key.removeprefix(prefix)] = tensor
    return state


@pytest.fixture(scope="module")
def peer() -> torchvision.models.Inception3:
    import torchvision

    network = torchvision.models.inception_v3(weights=None, init_weights=False, aux_logits=True, dropout=0.0)
    randomise(network)
    return network


def ours_like(peer: nn.Module, *, count_include_pad: bool) -> Network:
    arch = spec.count_border(family.network("inception_v3", dropout=0.0), count_include_pad)
    network = build(arch)
    network.load_state_dict(torchvision_state(peer))
    return network


def agree(ours: Tensor, theirs: Tensor) -> bool:
    return torch.allclose(ours, theirs, rtol=1e-5, atol=1e-5 * theirs.abs().max().item())


def test_the_released_network_gives_torchvisions_logits_in_evaluation(peer: torchvision.models.Inception3) -> None:
    ours = ours_like(peer, count_include_pad=True).eval()
    with torch.no_grad():
        assert agree(ours(IMAGES), peer.eval()(IMAGES))


def test_the_released_network_gives_torchvisions_logits_and_auxiliary_logits_in_training(
    peer: torchvision.models.Inception3,
) -> None:
    ours = ours_like(peer, count_include_pad=True).train()
    theirs = copy.deepcopy(peer).train()
    with torch.no_grad():
        expected, got = theirs(IMAGES), ours.outputs(IMAGES)
    assert got.auxiliary is not None
    assert agree(got.logits, expected.logits)
    assert agree(got.auxiliary, expected.aux_logits)
    running = torchvision_state(theirs)
    assert all(agree(value.float(), running[name].float()) for name, value in ours.state_dict().items())


def test_the_border_rule_makes_the_difference_it_should(peer: torchvision.models.Inception3) -> None:
    uncounted = ours_like(peer, count_include_pad=False).eval()
    for module in (patched := copy.deepcopy(peer)).modules():
        if type(module).__name__ in ("InceptionA", "InceptionC", "InceptionE"):
            module.forward = _without_border(module)  # type: ignore[method-assign]
    with torch.no_grad():
        got, counted, expected = uncounted(IMAGES), peer.eval()(IMAGES), patched.eval()(IMAGES)
    assert not agree(got, counted)
    assert agree(got, expected)


def _without_border(module: nn.Module):
    forward = module.forward

    def run(images: Tensor) -> Tensor:
        original = functional.avg_pool2d
        functional.avg_pool2d = lambda x, kernel_size, stride, padding: original(  # type: ignore[assignment]
            x, kernel_size, stride, padding, count_include_pad=False
        )
        try:
            return forward(images)
        finally:
            functional.avg_pool2d = original

    return run


# -- the review's network, transcribed from its forward pass with the review's own sizes ---------------------------


def _cbr(x: Tensor, state: dict[str, Tensor], at: str, training: bool, **options: object) -> Tensor:
    x = functional.conv2d(x, state[f"{at}.conv.weight"], state.get(f"{at}.conv.bias"), **options)  # type: ignore[arg-type]
    mean, var = state[f"{at}.bn.running_mean"].clone(), state[f"{at}.bn.running_var"].clone()
    x = functional.batch_norm(x, mean, var, state[f"{at}.bn.weight"], state[f"{at}.bn.bias"], training, 0.1, 1e-5)
    return functional.relu(x)


def review_forward(state: dict[str, Tensor], x: Tensor, *, training: bool) -> tuple[Tensor, Tensor | None]:
    def cbr(x: Tensor, at: str, **options: object) -> Tensor:
        return _cbr(x, state, at, training, **options)

    def pooled(x: Tensor) -> Tensor:
        return functional.max_pool2d(x, 3, stride=1, padding=1)

    x = cbr(x, "stem.0", stride=2)
    x = cbr(x, "stem.1")
    x = cbr(x, "stem.2", padding=1)
    x = functional.max_pool2d(x, 3, 2)
    x = cbr(x, "stem.4")
    x = cbr(x, "stem.5", stride=2)
    x = cbr(x, "stem.6", padding=1)
    for i in range(3):
        m = f"grid35.{i}"
        one = cbr(cbr(cbr(x, f"{m}.doubled.0"), f"{m}.doubled.1", padding=1), f"{m}.doubled.2", padding=1)
        two = cbr(cbr(x, f"{m}.single.0"), f"{m}.single.1", padding=1)
        x = torch.cat([one, two, cbr(pooled(x), f"{m}.pool.1"), cbr(x, f"{m}.point.0")], 1)
    one = cbr(cbr(cbr(x, "reduce35.doubled.0"), "reduce35.doubled.1", padding=1), "reduce35.doubled.2", stride=2)
    x = torch.cat([one, cbr(x, "reduce35.single.0", stride=2), functional.max_pool2d(x, 3, 2)], 1)
    for i in range(5):
        m = f"grid17.{i}"
        one = cbr(x, f"{m}.doubled.0")
        for j, padding in enumerate([(0, 3), (3, 0), (0, 3), (3, 0)]):
            one = cbr(one, f"{m}.doubled.{j + 1}", padding=padding)
        two = cbr(cbr(cbr(x, f"{m}.single.0"), f"{m}.single.1", padding=(0, 3)), f"{m}.single.2", padding=(3, 0))
        x = torch.cat([one, two, cbr(pooled(x), f"{m}.pool.1"), cbr(x, f"{m}.point.0")], 1)
    aux = None
    if training:
        aux = cbr(functional.adaptive_avg_pool2d(x, (5, 5)), "aux.body.1")
        weight = state["aux.body.2.conv.weight"]
        aux = functional.linear(aux.flatten(1), weight.flatten(1), state["aux.body.2.conv.bias"])
        aux = functional.linear(aux.relu(), state["aux.classifier.weight"], state["aux.classifier.bias"])
    one = cbr(
        cbr(cbr(x, "reduce17.doubled.0"), "reduce17.doubled.1", padding=(0, 3)), "reduce17.doubled.2", padding=(3, 0)
    )
    one = cbr(one, "reduce17.doubled.3", stride=2)
    two = cbr(cbr(x, "reduce17.single.0"), "reduce17.single.1", stride=2)
    x = torch.cat([one, two, functional.max_pool2d(x, 3, 2)], 1)
    for i in range(2):
        m = f"grid8.{i}"
        stem = cbr(cbr(x, f"{m}.doubled.0"), f"{m}.doubled.1", padding=1)
        one = [cbr(stem, f"{m}.doubled.2.wide.0", padding=(0, 1)), cbr(stem, f"{m}.doubled.2.tall.0", padding=(1, 0))]
        stem = cbr(x, f"{m}.single.0")
        two = [cbr(stem, f"{m}.single.1.wide.0", padding=(0, 1)), cbr(stem, f"{m}.single.1.tall.0", padding=(1, 0))]
        x = torch.cat([*one, *two, cbr(pooled(x), f"{m}.pool.1"), cbr(x, f"{m}.point.0")], 1)
    x = functional.adaptive_avg_pool2d(x, (1, 1)).flatten(1)
    return functional.linear(x, state["classifier.weight"], state["classifier.bias"]), aux


@pytest.mark.parametrize("training", [False, True])
def test_the_reviews_network_equals_a_transcription_of_its_forward_pass(training: bool) -> None:
    network = build(family.network("inception_v3_lucid", num_classes=1000, dropout=0.0))
    randomise(network, seed=3)
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0  # random in training, so left out on both sides
    state = {name: value.clone() for name, value in network.state_dict().items()}
    network.train(training)
    with torch.no_grad():
        logits, auxiliary = review_forward(state, IMAGES, training=training)
        got = network.outputs(IMAGES)
    assert agree(got.logits, logits)
    assert auxiliary is None or agree(got.auxiliary, auxiliary)  # type: ignore[arg-type]


# -- one return type ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("aux", ["own", "none"])
def test_a_call_returns_logits_in_every_mode(training: bool, aux: str) -> None:
    network = build(family.network("inception_v3", width=0.1, num_classes=5, aux=aux), seed=0).train(training)  # type: ignore[arg-type]
    logits = network(IMAGES)
    outputs = network.outputs(IMAGES)
    assert isinstance(logits, Tensor) and logits.shape == (2, 5)
    assert outputs.logits.shape == (2, 5)
    assert (outputs.auxiliary is None) == (aux == "none")
    assert network.features(IMAGES).shape == (2, network.num_features)


def test_endpoints_are_found_by_name_and_have_the_specs_shapes() -> None:
    network = build(NARROW, seed=0).eval()
    names = [name for name, _ in spec.endpoints(NARROW)]
    with torch.no_grad():
        found = network.endpoints(IMAGES, at=[*names, "aux", "features", "logits"])
        assert torch.equal(found["logits"], network(IMAGES))
        assert torch.equal(found["aux"], network.outputs(IMAGES).auxiliary)  # type: ignore[arg-type]
    shapes = {step.path: step.output for step in spec.trace(NARROW)}
    for name in names:
        height, width, channels = shapes[name]
        assert tuple(found[name].shape) == (2, channels, height, width)
    with pytest.raises(UsageError, match=r"no endpoint 'Mixed_5b'; known: stem\.0"):
        network.endpoints(IMAGES, at=["Mixed_5b"])


def test_parameter_names_and_sizes_are_the_specs() -> None:
    for entry in family.NETWORKS.values():
        network = Network(spec.scale_width(entry.arch, 0.1))
        counted = {}
        for name, parameter in network.named_parameters():
            path = name.removesuffix(".weight").removesuffix(".bias").removesuffix(".conv").removesuffix(".bn")
            counted[path] = counted.get(path, 0) + parameter.numel()
        rows = {row.path: row.parameters for row in cost.rows(network.arch) if row.parameters}
        assert counted == rows


def test_torch_exports_a_network_as_it_is_and_unflattens_it_under_the_same_names() -> None:
    network = build(family.network("inception_v3", width=0.1, num_classes=5, input_size=75, aux="none"), seed=0).eval()
    images = IMAGES[:, :, :75, :75].contiguous()
    program = torch.export.export(network, (images,))
    unflattened = torch.export.unflatten(program)
    with torch.no_grad():
        logits = network(images)
        assert torch.equal(program.module()(images), logits)
        assert torch.equal(unflattened(images), logits)
    assert dict(unflattened.named_parameters()).keys() == dict(network.named_parameters()).keys()


def test_a_branch_that_would_hide_a_method_of_torchs_modules_is_refused() -> None:
    arch = spec.change_stage(NARROW, grid8=spec.Concat((("double", spec.Chain((spec.Conv(channels=16),))),)))
    with pytest.raises(SpecError, match="'double' cannot name a stage or branch"):
        build(arch, seed=0)


def test_too_small_an_image_is_one_clear_line() -> None:
    network = build(NARROW, seed=0).eval()
    with pytest.raises(ReinceptionError, match="needs images of at least 75 pixels"):
        network(torch.zeros(1, 3, 74, 299))
    with pytest.raises(ReinceptionError, match="auxiliary classifier needs images of at least 299 pixels"):
        network.outputs(torch.zeros(1, 3, 151, 151))
    with pytest.raises(ReinceptionError, match=r"shape \(n, 3, height, width\)"):
        network(torch.zeros(3, 299, 299))
    assert network(torch.zeros(1, 3, 75, 75)).shape == (1, 5)


def test_resetting_the_classifier_keeps_everything_below() -> None:
    network = build(NARROW, seed=0)
    below = {name: value.clone() for name, value in network.state_dict().items() if "classifier" not in name}
    network.reset_classifier(7, seed=1)
    outputs = network.eval().outputs(IMAGES)
    assert outputs.logits.shape == (2, 7)
    assert outputs.auxiliary is not None and outputs.auxiliary.shape == (2, 7)
    assert all(torch.equal(network.state_dict()[name], value) for name, value in below.items())
    assert network.arch.num_classes == 7


# -- initialisation -------------------------------------------------------------------------------------------------


def test_initial_weights_are_cut_at_two_standard_deviations() -> None:
    network = build(RELEASED, seed=0)
    for module in network.modules():
        if isinstance(module, ConvNorm) and module.conv.weight.numel() > 50_000:
            weight, stddev = module.conv.weight, module.spec.init_stddev
            assert weight.abs().max() <= 2 * stddev
            assert weight.std().item() == pytest.approx(0.8796 * stddev, rel=0.02)
        if isinstance(module, nn.BatchNorm2d):
            assert module.weight is not None and (module.weight == 1).all()
            assert not module.bias.any()
            assert module.running_var is not None and (module.running_var == 1).all()
    head = network.get_submodule("aux.body.2")
    assert isinstance(head, ConvNorm) and head.spec.init_stddev == 0.01
    assert network.classifier.weight.abs().max() <= 0.02


def test_one_seed_gives_one_network_and_leaves_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    first, second, third = build(NARROW, seed=5), build(NARROW, seed=5), build(NARROW, seed=6)
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(first.classifier.weight, third.classifier.weight)


def test_a_network_without_gamma_has_no_such_parameter() -> None:
    def change(layer: spec.Layer) -> spec.Layer:
        if isinstance(layer, spec.Conv) and layer.batch_norm is not None:
            return dataclasses.replace(layer, batch_norm=spec.BatchNorm(scale=False))
        return layer

    arch = spec.change_layers(NARROW, change)
    network = build(arch, seed=0)
    assert sum(p.numel() for p in network.parameters()) == cost.parameters(arch, with_aux=True)
    assert network(IMAGES).shape == (2, 5)


# -- torch's own tools -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [True, False])
def test_torch_traces_scripts_and_exports_a_network(scale: bool) -> None:
    network = build(spec.with_scale(NARROW, scale), seed=0).eval()
    logits = network(IMAGES)
    assert torch.equal(torch.fx.symbolic_trace(network)(IMAGES), logits)
    assert torch.equal(torch.export.export(network, (IMAGES,)).module()(IMAGES), logits)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated, and still used
        assert torch.equal(torch.jit.script(network)(IMAGES), logits)
        traced: Any = torch.jit.trace(network, IMAGES)
        assert torch.equal(traced(IMAGES), logits)


def test_torchvision_extracts_features_of_a_network_by_the_names_of_its_stages() -> None:
    from torchvision.models.feature_extraction import create_feature_extractor

    network = build(NARROW, seed=0).eval()
    found = create_feature_extractor(network, {"grid17.0": "middle", "classifier": "logits"})(IMAGES)
    assert torch.equal(found["middle"], network.endpoints(IMAGES, ["grid17.0"])["grid17.0"])
    assert torch.equal(found["logits"], network(IMAGES))


def test_batch_norm_with_gamma_is_exactly_torchs() -> None:
    kinds = {type(module) for module in build(NARROW, seed=0).modules() if isinstance(module, nn.BatchNorm2d)}
    assert kinds == {nn.BatchNorm2d}
