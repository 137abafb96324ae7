"""Every rewrite computes the same network, in any order and once or twice; a rule that does not is caught."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence

import pytest
import torch

from reinception import family
from reinception.rewrite.check import NORMALISATION, TOLERANCES, differences, random_network, random_values
from reinception.rewrite.program import Part, Program, Tensors, rewrite_layers
from reinception.rewrite.rules import (
    RULES,
    Rule,
    drop_constant_channels,
    fold_batch_norm,
    fold_input,
    fuse_pointwise_branches,
    move_pool_behind_pointwise,
    rewritten,
)
from reinception.spec import Arch, Chain, ChannelRange, Conv, Layer, Pool, count_border, minimum_input_size, trace

EXACT = ("float64", "float32")


def program_of(arch: Arch, seed: int = 0) -> Program:
    return Program.of(random_network(arch, seed), NORMALISATION)


def small(name: str) -> Arch:
    arch = family.network(name, width=0.1, num_classes=5)
    return dataclasses.replace(arch, input_size=minimum_input_size(arch, with_aux=False) + 8)


def assert_equal(program: Program, rules: Sequence[Rule] = RULES) -> None:
    arch = program.arch
    for one in differences(program, random_values(arch, arch.input_size), rules=rules, precisions=EXACT):
        assert one.exceeded is None, one


def layers_of(program: Program) -> list[Layer]:
    return [step.layer for step in trace(program.arch, with_aux=False)]


@pytest.mark.parametrize("name", tuple(family.NETWORKS))
def test_every_network_of_the_family_stays_equal(name: str) -> None:
    assert_equal(program_of(small(name)))


@pytest.mark.slow
@pytest.mark.parametrize("name", tuple(family.NETWORKS))
def test_every_network_stays_equal_at_full_width(name: str) -> None:
    assert_equal(program_of(dataclasses.replace(family.NETWORKS[name].arch, num_classes=10)))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_each_rule_alone_is_exact_and_idempotent(rule: Rule) -> None:
    program = with_dead_channels(program_of(small("inception_v3")))
    assert_equal(program, [rule])
    once, twice = rewritten(program, [rule]), rewritten(program, [rule, rule])
    assert once.arch != program.arch or once.std != program.std
    assert twice.arch == once.arch and (twice.mean, twice.std) == (once.mean, once.std)
    assert twice.tensors.keys() == once.tensors.keys()
    assert all(torch.equal(twice.tensors[name], tensor) for name, tensor in once.tensors.items())


@pytest.mark.parametrize("name", ["inception_v3", "googlenet", "bn_inception", "inception_v3_lucid"])
def test_any_order_gives_an_equal_network(name: str) -> None:
    program = with_dead_channels(program_of(small(name)))
    rules = list(RULES)
    for seed in range(3):
        random.Random(seed).shuffle(rules)
        assert_equal(program, rules)


def test_all_rules_together_change_nothing_more_when_applied_again() -> None:
    once = rewritten(program_of(small("inception_v3")))
    again = rewritten(once)
    assert again.arch == once.arch
    assert all(torch.equal(again.tensors[name], tensor) for name, tensor in once.tensors.items())


def test_the_given_tensors_are_not_changed() -> None:
    program = program_of(small("inception_v3"))
    before = {name: tensor.clone() for name, tensor in program.tensors.items()}
    rewritten(program)
    assert all(torch.equal(program.tensors[name], tensor) for name, tensor in before.items())


def test_no_batch_norm_and_no_auxiliary_classifier_is_left() -> None:
    program = rewritten(program_of(small("inception_v3")))
    assert not program.arch.aux
    assert all(layer.batch_norm is None for layer in layers_of(program) if isinstance(layer, Conv))
    assert (program.mean, program.std) == ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def test_a_padded_first_convolution_keeps_the_mean_outside() -> None:
    program = fold_input(program_of(small("googlenet")))
    assert program.mean == NORMALISATION.mean and program.std == (1.0, 1.0, 1.0)


def test_a_pool_whose_border_counts_stays_before_its_convolution() -> None:
    for counts in (False, True):
        program = program_of(count_border(small("inception_v3"), counts))
        moved = move_pool_behind_pointwise(program)
        assert (moved.arch == program.arch) is counts
        assert_equal(program)


def test_fusing_makes_one_convolution_of_three() -> None:
    program = fuse_pointwise_branches(program_of(small("inception_v3")))
    module = dict(program.arch.stages)["grid35"].layers[0]  # pyrefly: ignore[missing-attribute]
    assert [name for name, _ in module.branches] == ["point_single_doubled", "pool"]
    shared, inner = module.branches[0][1].layers
    assert shared.channels == sum(branch.layers[0].stop - branch.layers[0].start for _, branch in inner.branches)


def test_dead_channels_are_dropped_also_where_they_have_a_value() -> None:
    program = with_dead_channels(program_of(small("inception_v3")))
    dropped = drop_constant_channels(program)
    assert num_channels(dropped) < num_channels(program)
    assert num_channels(drop_constant_channels(fold_batch_norm(program))) == num_channels(dropped)


def test_a_layer_of_nothing_but_constants_keeps_one_channel() -> None:
    program = program_of(small("inception_v3"))
    tensors = dict(program.tensors)
    tensors["stem.0.conv.weight"] = torch.zeros_like(tensors["stem.0.conv.weight"])
    dead = dataclasses.replace(program, tensors=tensors)
    first = layers_of(drop_constant_channels(dead))[0]
    assert isinstance(first, Conv) and first.channels == 1
    assert_equal(dead)


def num_channels(program: Program) -> int:
    return sum(layer.channels for layer in layers_of(program) if isinstance(layer, Conv))


def with_dead_channels(program: Program) -> Program:
    """Some output channels of every convolution without weights, half of them by their batch norm's gamma."""

    def change(layer: Layer, tensors: Tensors) -> Part:
        if not isinstance(layer, Conv) or layer.groups > 1:
            return layer, tensors
        name = "bn.weight" if "bn.weight" in tensors and layer.channels % 2 else "conv.weight"
        dead = tensors[name].clone()
        dead[::5] = 0
        return layer, {**tensors, name: dead}

    return rewrite_layers(program, change)


# -- rules that are wrong on purpose ----------------------------------------------------------------------------------


def without_epsilon(program: Program) -> Program:
    def change(layer: Layer, tensors: Tensors) -> Part:
        if isinstance(layer, Conv) and layer.batch_norm is not None:
            layer = dataclasses.replace(layer, batch_norm=dataclasses.replace(layer.batch_norm, epsilon=1e-12))
        return layer, tensors

    return fold_batch_norm(rewrite_layers(program, change))


def border_forgotten(program: Program) -> Program:
    return dataclasses.replace(
        move_pool_behind_pointwise(dataclasses.replace(program, arch=count_border(program.arch, False))),
    )


def mean_forgotten(program: Program) -> Program:
    folded = fold_input(program)
    return dataclasses.replace(folded, tensors={**folded.tensors, **norms(program)})


def norms(program: Program) -> Tensors:
    return {name: tensor for name, tensor in program.tensors.items() if name.startswith("stem.0.bn.")}


def padding_forgotten(program: Program) -> Program:
    """Folds the mean into a padded convolution as if its border were pixels."""
    (name, stage), *rest = program.arch.stages
    assert isinstance(stage, Chain) and isinstance(stage.layers[0], Conv)
    first = stage.layers[0]
    bare = Chain((dataclasses.replace(first, padding=(0, 0)), *stage.layers[1:]))
    folded = fold_input(
        dataclasses.replace(program, arch=dataclasses.replace(program.arch, stages=((name, bare), *rest)))
    )
    layers = folded.arch.stages[0][1]
    assert isinstance(layers, Chain)
    assert isinstance(layers.layers[0], Conv)
    padded = Chain((dataclasses.replace(layers.layers[0], padding=first.padding), *layers.layers[1:]))
    return dataclasses.replace(folded, arch=dataclasses.replace(folded.arch, stages=((name, padded), *rest)))


def slices_exchanged(program: Program) -> Program:
    def change(layer: Layer, tensors: Tensors) -> Part:
        if isinstance(layer, ChannelRange) and layer.start == 0:
            layer = dataclasses.replace(layer, start=1, stop=layer.stop + 1)
        return layer, tensors

    return rewrite_layers(fuse_pointwise_branches(program), change)


def activation_before_the_pool(program: Program) -> Program:
    def change(layer: Layer, tensors: Tensors) -> Part:
        if isinstance(layer, Conv) and layer.activation == "linear":
            layer = dataclasses.replace(layer, activation="relu")
        return layer, tensors

    return rewrite_layers(move_pool_behind_pointwise(program), change)


@pytest.mark.parametrize(
    ("broken", "name"),
    [
        (without_epsilon, "inception_v3"),
        (border_forgotten, "inception_v3"),
        (mean_forgotten, "inception_v3"),
        (padding_forgotten, "bn_googlenet"),
        (slices_exchanged, "inception_v3"),
        (activation_before_the_pool, "inception_v3"),
    ],
)
def test_a_broken_rule_is_caught(broken: Rule, name: str) -> None:
    program = program_of(count_border(small(name), broken is border_forgotten))
    found = differences(program, random_values(program.arch, program.arch.input_size), rules=[broken], precisions=EXACT)
    assert any(one.exceeded == "float64" for one in found)
    assert any(one.exceeded for one in found if one.endpoint == "logits")


def test_the_tolerances_are_those_of_the_claims() -> None:
    assert TOLERANCES["float64"] == 1e-10 and TOLERANCES["float32"] == 1e-5


def test_pools_are_only_moved_where_they_average() -> None:
    program = move_pool_behind_pointwise(program_of(small("googlenet")))
    assert not any(isinstance(layer, ChannelRange) for layer in layers_of(program))
    assert any(isinstance(layer, Pool) and layer.kind == "max" for layer in layers_of(program))
