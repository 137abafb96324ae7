"""The rules: each is a pure function of a program, and its docstring claims the equality that tests hold it to.

All are exact in real numbers, so only rounding differs. They are computed in float64 and kept in the tensors' own type.
Each changes nothing where it does not apply, and nothing when it is applied again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from itertools import groupby, pairwise

import torch
from torch import Tensor

from reinception.rewrite.program import (
    Part,
    Program,
    Tensors,
    chain_of,
    inside,
    parts_of,
    rewrite_layers,
    under,
)
from reinception.spec import Chain, ChannelRange, Concat, Conv, Layer, Pool

Rule = Callable[[Program], Program]


def drop_auxiliary(program: Program) -> Program:
    """Equal logits and features: the auxiliary classifiers read the trunk, and nothing of the trunk reads them."""
    heads = {head.name for head in program.arch.aux}
    kept = {name: tensor for name, tensor in program.tensors.items() if name.partition(".")[0] not in heads}
    return dataclasses.replace(program, arch=dataclasses.replace(program.arch, aux=()), tensors=kept)


def fold_batch_norm(program: Program) -> Program:
    """Equal at every endpoint: with fixed statistics batch norm is a scale and a shift of each channel.

    gamma (w x + b - m) / sqrt(v + eps) + beta = (s w) x + (b - m) s + beta, where s = gamma / sqrt(v + eps).
    """

    def change(layer: Layer, tensors: Tensors) -> Part:
        if not isinstance(layer, Conv) or layer.batch_norm is None:
            return layer, tensors
        weight, bias = _affine(layer, tensors)
        return dataclasses.replace(layer, batch_norm=None, bias=True), _conv_tensors(weight, bias, like=tensors)

    return rewrite_layers(program, change)


def fold_input(program: Program) -> Program:
    """Equal at every endpoint, on values from 0 to 1 in place of normalised ones.

    w ((v - mean) / std) = (w / std) v - sum(w mean / std). The first layer has to be a convolution. Where it is padded,
    only std is folded: the zeros of the border stand for `mean`, which no weight can give back.
    """
    name, stage = program.arch.stages[0]
    first = stage.layers[0] if isinstance(stage, Chain) else stage
    if not isinstance(first, Conv) or program.mean is None or program.std is None:
        return program
    own = inside(program.tensors, f"{name}.0")
    shape = (3, 1, 1) if first.groups == 1 else (-1, 1, 1, 1)
    each = first.channels // first.groups
    mean, std = (
        torch.tensor(one, dtype=torch.float64).repeat_interleave(1 if first.groups == 1 else each).reshape(shape)
        for one in (program.mean, program.std)
    )
    weight = own["conv.weight"].double() / std
    is_padded = first.padding != (0, 0)
    constant = torch.zeros(first.channels, dtype=torch.float64) if is_padded else -(weight * mean).sum((1, 2, 3))
    own = {**own, "conv.weight": weight.to(own["conv.weight"].dtype)}
    layer, own = _plus(first, own, constant)
    assert isinstance(stage, Chain)
    stages = ((name, Chain((layer, *stage.layers[1:]))), *program.arch.stages[1:])
    tensors = {key: tensor for key, tensor in program.tensors.items() if not key.startswith(f"{name}.0.")}
    return Program(
        arch=dataclasses.replace(program.arch, stages=stages),
        tensors={**under(f"{name}.0", own), **tensors},
        mean=program.mean if is_padded and any(program.mean) else (0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
    )


def move_pool_behind_pointwise(program: Program) -> Program:
    """Equal at the module's output: an average pool and a 1x1 convolution are linear on different axes.

    The convolution then runs on what it shares with its siblings, and fewer channels are pooled. Its bias passes the
    pool unchanged where a window's weights add up to one; a border that counts would shrink it, so such a pool stays
    where it is. The activation comes after both.
    """

    def change(parts: list[Part]) -> None:
        for index, ((pool, nothing), (conv, own)) in enumerate(pairwise(parts)):
            if not (_is_plain_average(pool) and isinstance(conv, Conv) and _is_pointwise(conv)):
                continue
            moved: Part = (dataclasses.replace(conv, activation="linear"), own)
            after = (
                [(ChannelRange(start=0, stop=conv.channels, activation="relu"), {})]
                if conv.activation == "relu"
                else []
            )
            parts[index : index + 2] = [moved, (pool, nothing), *after]
            return change(parts)

    return _rewrite_chains(program, change)


def fuse_pointwise_branches(program: Program) -> Program:
    """Equal at the module's output: 1x1 convolutions that read one tensor are one convolution with all their channels.

    Branches that stand beside each other and begin with such a convolution, with the same activation, are fused; each
    takes its channels by a slice. Where not all branches are, the fused ones stay one branch of the module.
    """

    def change(layer: Layer, tensors: Tensors) -> Part:
        if not isinstance(layer, Concat):
            return layer, tensors
        named = [(name, parts_of(branch, inside(tensors, name))) for name, branch in layer.branches]
        groups = [list(group) for _, group in groupby(named, key=lambda one: _kind(one[1]))]
        if all(len(group) == 1 or _kind(group[0][1]) is None for group in groups):
            return layer, tensors
        branches: dict[str, list[Part]] = {}
        for group in groups:
            if len(group) > 1 and _kind(group[0][1]) is not None:
                branches["_".join(name for name, _ in group)] = _fused(group)
            else:
                branches |= group
        if len(branches) == 1:
            return chain_of(*branches.values())
        return _concat_of(branches)

    return rewrite_layers(program, change)


def drop_constant_channels(program: Program) -> Program:
    """Equal at every endpoint but those dropped from: a channel that never changes is a constant for the next layer.

    A channel is constant where all its weights, batch norm's gamma included, are zero. The next convolution of the same
    chain takes the constant into its shift; where that convolution is padded only a constant of zero is dropped, as its
    border is zero. One channel is always kept.
    """

    def change(parts: list[Part]) -> None:
        for index in range(len(parts) - 1):
            (first, own), (second, following) = parts[index : index + 2]
            is_pair = isinstance(first, Conv) and isinstance(second, Conv)
            if is_pair and first.groups == second.groups == 1:
                parts[index : index + 2] = _without_constants(first, own, second, following)

    return _rewrite_chains(program, change)


RULES: tuple[Rule, ...] = (
    drop_auxiliary,
    fold_batch_norm,
    fold_input,
    drop_constant_channels,
    move_pool_behind_pointwise,
    fuse_pointwise_branches,
)


def rewritten(program: Program, rules: Sequence[Rule] = RULES) -> Program:
    """`program` after all the rules, in their order: equal logits and features, on values from 0 to 1."""
    for rule in rules:
        program = rule(program)
    return program


def _rewrite_chains(program: Program, change: Callable[[list[Part]], None]) -> Program:
    """`program` with `change` applied to the list of the layers of each chain."""

    def on_chain(layer: Layer, tensors: Tensors) -> Part:
        if not isinstance(layer, Chain):
            return layer, tensors
        parts = parts_of(layer, tensors)
        change(parts)
        return chain_of(parts)

    return rewrite_layers(program, on_chain)


def _affine(layer: Conv, tensors: Tensors) -> tuple[Tensor, Tensor]:
    """The weight and the bias (float64) of a convolution with its batch norm."""
    weight = tensors["conv.weight"].double()
    bias = tensors["conv.bias"].double() if layer.bias else torch.zeros(layer.channels, dtype=torch.float64)
    if layer.batch_norm is None:
        return weight, bias
    scale = (tensors["bn.running_var"].double() + layer.batch_norm.epsilon).rsqrt()
    if layer.batch_norm.scale:
        scale = scale * tensors["bn.weight"].double()
    bias = (bias - tensors["bn.running_mean"].double()) * scale + tensors["bn.bias"].double()
    return weight * scale[:, None, None, None], bias


def _conv_tensors(weight: Tensor, bias: Tensor, *, like: Tensors) -> dict[str, Tensor]:
    dtype = like["conv.weight"].dtype
    return {"conv.weight": weight.to(dtype), "conv.bias": bias.to(dtype)}


def _plus(layer: Conv, tensors: Tensors, constant: Tensor) -> tuple[Conv, Tensors]:
    """The convolution whose result, before batch norm, is `constant` (channels,) larger."""
    if not constant.any():
        return layer, tensors
    dtype = tensors["conv.weight"].dtype
    if layer.batch_norm is not None:
        return layer, {**tensors, "bn.running_mean": (tensors["bn.running_mean"].double() - constant).to(dtype)}
    bias = tensors["conv.bias"].double() if layer.bias else 0
    return dataclasses.replace(layer, bias=True), {**tensors, "conv.bias": (bias + constant).to(dtype)}


def _is_plain_average(layer: Layer) -> bool:
    if not (isinstance(layer, Pool) and layer.kind == "average" and layer.stride == (1, 1)):
        return False
    return layer.padding == (0, 0) or not layer.count_include_pad


def _is_pointwise(layer: Conv) -> bool:
    return (layer.kernel, layer.stride, layer.padding, layer.groups) == ((1, 1), (1, 1), (0, 0), 1)


def _kind(parts: list[Part]) -> Conv | None:
    """What the first 1x1 convolution of a branch has in common with those it can be fused with; None for others."""
    first = parts[0][0] if parts else None
    return dataclasses.replace(first, channels=1) if isinstance(first, Conv) and _is_pointwise(first) else None


def _fused(group: list[tuple[str, list[Part]]]) -> list[Part]:
    """The shared convolution, and the branches that take their channels from it."""
    firsts = [parts[0] for _, parts in group]
    channels = [first.channels for first, _ in firsts if isinstance(first, Conv)]
    like = firsts[0][0]
    assert isinstance(like, Conv)
    joined = {
        name: tensor if tensor.dim() == 0 else torch.cat([own[name] for _, own in firsts])
        for name, tensor in firsts[0][1].items()
    }
    branches: dict[str, list[Part]] = {}
    start = 0
    for (name, parts), num in zip(group, channels, strict=True):
        branches[name] = [(ChannelRange(start=start, stop=start + num), {}), *parts[1:]]
        start += num
    return [(dataclasses.replace(like, channels=start), joined), _concat_of(branches)]


def _concat_of(branches: dict[str, list[Part]]) -> Part:
    chains = {name: chain_of(parts) for name, parts in branches.items()}
    tensors = {key: tensor for name, (_, own) in chains.items() for key, tensor in under(name, own).items()}
    return Concat(tuple((name, chain) for name, (chain, _) in chains.items())), tensors


def _without_constants(first: Conv, own: Tensors, second: Conv, following: Tensors) -> list[Part]:
    weight, bias = _affine(first, own)
    value = bias.clamp(min=0) if first.activation == "relu" else bias
    constant = (weight == 0).all(dim=(1, 2, 3)) & ((value == 0) | (second.padding == (0, 0)))
    constant[0] &= not bool(constant.all())
    if not constant.any():
        return [(first, own), (second, following)]
    kept = ~constant
    after = following["conv.weight"]
    shift = (after.double()[:, constant] * value[constant][:, None, None]).sum((1, 2, 3))
    own = {name: tensor if tensor.dim() == 0 else tensor[kept] for name, tensor in own.items()}
    shifted = _plus(second, {**following, "conv.weight": after[:, kept]}, shift)
    return [(dataclasses.replace(first, channels=int(kept.sum())), own), shifted]
