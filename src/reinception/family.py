"""The paper's figures as functions, its tables as values, its changes as diffs: every network of the family lives here.

Read it beside the paper: `figure_5` is Figure 5, `TABLE_1` is Table 1. `conv` is zero-padded, `valid` is not ("padded" in
Table 1's words); both mean convolution + batch normalisation + ReLU unless a field says otherwise.
Sources of channel counts and open choices: docs/paper-map.md.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from reinception.errors import UsageError
from reinception.spec import (
    AdaptivePool,
    Arch,
    Aux,
    BatchNorm,
    Chain,
    Concat,
    Conv,
    Layer,
    Pool,
    Size,
    change_layers,
    change_stage,
    count_border,
    minimum_input_size,
    rebuild,
    scale_width,
)

# -- the words ---------------------------------------------------------------------------------------------------------


def conv(channels: int, kernel: int | Size = 1, stride: int = 1, **fields: Any) -> Conv:
    """A zero-padded convolution: with stride 1 the grid stays as it is."""
    size = _pair(kernel)
    padding = (size[0] // 2, size[1] // 2)
    return Conv(channels=channels, kernel=size, stride=_pair(stride), padding=padding, **fields)


def valid(channels: int, kernel: int | Size, stride: int = 1, **fields: Any) -> Conv:
    """A convolution without padding: the grid shrinks by what the window overhangs."""
    return Conv(channels=channels, kernel=_pair(kernel), stride=_pair(stride), **fields)


def avg(kernel: int, stride: int = 1, **fields: Any) -> Pool:
    """A padded average pool; the border is not counted (TensorFlow's SAME) unless said otherwise."""
    return Pool(kind="average", kernel=_pair(kernel), stride=_pair(stride), padding=_pair(kernel // 2), **fields)


def maximum(kernel: int, stride: int) -> Pool:
    """A maximum pool without padding."""
    return Pool(kind="max", kernel=_pair(kernel), stride=_pair(stride))


def chain(*layers: Layer) -> Chain:
    return Chain(layers)


def concat(**branches: list[Layer]) -> Concat:
    return Concat(tuple((name, Chain(tuple(layers))) for name, layers in branches.items()))


def cross(channels: int) -> Concat:
    """The expanded filter bank of Figure 7: 1x3 beside 3x1 on the same input."""
    return concat(wide=[conv(channels, (1, 3))], tall=[conv(channels, (3, 1))])


def _pair(value: int | Size) -> Size:
    return (value, value) if isinstance(value, int) else value


# -- the figures -------------------------------------------------------------------------------------------------------


def figure_4(pool: int) -> Concat:
    """35x35, the original module: 1x1, 1x1-5x5, 1x1-3x3-3x3, pool-1x1 (GoogLeNet's, its 3x3 doubled as released)."""
    return concat(
        point=[conv(64)],
        single=[conv(48), conv(64, 5)],
        double=[conv(64), conv(96, 3), conv(96, 3)],
        pool=[avg(3), conv(pool)],
    )


def figure_5(pool: int) -> Concat:
    """35x35: the 5x5 gives way to two 3x3 (section 3.1, principle 3)."""
    return concat(
        point=[conv(64)],
        single=[conv(48), conv(64, 3)],
        double=[conv(64), conv(96, 3), conv(96, 3)],
        pool=[avg(3), conv(pool)],
    )


def figure_6(channels: int, *, double_starts: Literal["1x7", "7x1"] = "1x7") -> Concat:
    """17x17: nxn factorised into 1xn and nx1, n = 7 (section 3.2). The released network starts its double branch 7x1."""
    wide, tall = (1, 7), (7, 1)
    first, second = (wide, tall) if double_starts == "1x7" else (tall, wide)
    return concat(
        point=[conv(192)],
        single=[conv(channels), conv(channels, wide), conv(192, tall)],
        double=[
            conv(channels),
            conv(channels, first),
            conv(channels, second),
            conv(channels, first),
            conv(192, second),
        ],
        pool=[avg(3), conv(192)],
    )


def figure_7() -> Concat:
    """8x8: expanded filter banks on the coarsest grid (principle 2), 2048 channels out."""
    return concat(
        point=[conv(320)],
        single=[conv(384), cross(384)],
        double=[conv(448), conv(384, 3), cross(384)],
        pool=[avg(3), conv(192)],
    )


def figure_8(*, hidden: int, batch_norm: BatchNorm | None, dropout: float = 0.0, at: str = "grid17") -> Aux:
    """The auxiliary classifier on the last 17x17: 5x5 average pool, 1x1, fully connected, classifier.

    The fully connected layer is written as what it is on a 5x5 grid, a 5x5 convolution without padding.
    `batch_norm` on that layer is the last row of Table 3.
    """
    bias = batch_norm is None
    fully_connected = valid(hidden, 5, batch_norm=batch_norm, bias=bias, init_stddev=0.01)
    body = chain(Pool(kind="average", kernel=(5, 5), stride=(3, 3)), conv(128), fully_connected)
    return Aux(at=at, body=body, dropout=dropout)


def figure_10(*, single: list[Layer], double: list[Layer]) -> Concat:
    """Efficient grid size reduction: stride-2 convolutions beside a stride-2 pool, concatenated (section 5)."""
    return concat(single=single, double=double, pool=[maximum(3, 2)])


REDUCE_35 = figure_10(single=[valid(384, 3, 2)], double=[conv(64), conv(96, 3), valid(96, 3, 2)])
REDUCE_17 = figure_10(
    single=[conv(192), valid(320, 3, 2)],
    double=[conv(192), conv(192, (1, 7)), conv(192, (7, 1)), valid(192, 3, 2)],
)

# -- the networks ------------------------------------------------------------------------------------------------------

RELEASED = Arch(
    name="inception_v3",
    stages=(
        (
            "stem",
            chain(valid(32, 3, 2), valid(32, 3), conv(64, 3), maximum(3, 2), conv(80), valid(192, 3), maximum(3, 2)),
        ),
        ("grid35", chain(figure_4(pool=32), figure_4(pool=64), figure_4(pool=64))),
        ("reduce35", REDUCE_35),
        ("grid17", chain(*(figure_6(channels, double_starts="7x1") for channels in (128, 160, 160, 192)))),
        ("reduce17", REDUCE_17),
        ("grid8", chain(figure_7(), figure_7())),
    ),
    aux=(figure_8(hidden=768, batch_norm=BatchNorm()),),
)

# Table 1 read literally. Its seventh row is printed without padding, yet only a padded one gives the 35x35x288 of
# its next row; where the paper says only "pool", the pool is the released average.
TABLE_1 = Arch(
    name="inception_v3_paper",
    stages=(
        (
            "stem",
            chain(
                valid(32, 3, 2),
                valid(32, 3),
                conv(64, 3),
                maximum(3, 2),
                valid(80, 3),
                valid(192, 3, 2),
                conv(288, 3),
            ),
        ),
        ("grid35", chain(*(figure_5(pool=64) for _ in range(3)))),
        ("reduce35", REDUCE_35),
        ("grid17", chain(*(figure_6(channels) for channels in (128, 160, 160, 160, 192)))),
        ("reduce17", REDUCE_17),
        ("grid8", chain(figure_7(), figure_7())),
    ),
    aux=(figure_8(hidden=1024, batch_norm=BatchNorm()),),
)


def _lucid() -> Arch:
    """The review's network as changes to Table 1: 1x1 in the stem, maximum pools, biases, epsilon 1e-5, branch order."""
    epsilon = BatchNorm(epsilon=1e-5)

    def restyle(layer: Layer) -> Layer:
        if isinstance(layer, Conv):
            return dataclasses.replace(layer, bias=True, batch_norm=epsilon)
        if isinstance(layer, Pool) and layer.kind == "average":
            return dataclasses.replace(layer, kind="max")
        if isinstance(layer, Concat) and layer.branches[0][0] in ("point", "single"):
            order = ("double", "single", "pool", "point")
            return Concat(tuple(sorted(layer.branches, key=lambda branch: order.index(branch[0]))))
        return layer

    stem = chain(
        valid(32, 3, 2), valid(32, 3), conv(64, 3), maximum(3, 2), conv(80), valid(192, 3, 2), conv(288, 3)
    )
    stem = rebuild(stem, lambda layer: _with_batch_norm(layer, epsilon))
    head = chain(
        AdaptivePool(output=(5, 5)),
        conv(128, bias=True, batch_norm=epsilon),
        valid(1024, 5, bias=True, batch_norm=None),
    )
    aux = Aux(at="grid17", body=head, dropout=0.7)
    arch = dataclasses.replace(change_layers(TABLE_1, restyle), name="inception_v3_lucid", dropout=0.5, aux=(aux,))
    assert isinstance(stem, Chain)
    return change_stage(arch, stem=stem)


def _with_batch_norm(layer: Layer, batch_norm: BatchNorm) -> Layer:
    return dataclasses.replace(layer, batch_norm=batch_norm) if isinstance(layer, Conv) else layer


@dataclass(frozen=True, kw_only=True)
class Reported:
    """What a paper prints about a network: errors in percent (single crop), cost in billions of multiply-adds."""

    top1_error: float | None = None
    top5_error: float | None = None
    multiply_adds_billions: float | None = None
    source: str = "Table 3"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A network's place in the family: its value, one sentence, and what was reported about it."""

    arch: Arch
    summary: str
    reported: Reported | None = None


NETWORKS: Mapping[str, Entry] = MappingProxyType(
    {
        entry.arch.name: entry
        for entry in (
            Entry(
                arch=RELEASED,
                summary="the released network, whose weights exist (TF-slim, Keras, torchvision, timm)",
                reported=Reported(top1_error=21.2, top5_error=5.6, multiply_adds_billions=4.8),
            ),
            Entry(arch=TABLE_1, summary="Table 1 of the paper, read literally"),
            Entry(arch=_lucid(), summary="the network of the review's code"),
        )
    }
)

AuxChoice = Literal["own", "strict", "adaptive", "none"]


def network(
    name: str,
    *,
    num_classes: int = 1000,
    width: float = 1.0,
    input_size: int | None = None,
    aux: AuxChoice = "own",
    dropout: float | None = None,
) -> Arch:
    """The network `name`, for `num_classes`, at `input_size` pixels, `width` times as wide (TF-slim's depth_multiplier).

    aux: "own" keeps the network's auxiliary classifiers; "strict" refuses an `input_size` they cannot take; "adaptive"
    replaces their fixed 5x5/3 pool by an adaptive one to 5x5, so that they take any grid; "none" leaves them out.
    """
    if name not in NETWORKS:
        raise UsageError(f"unknown network {name!r}; known: {', '.join(NETWORKS)}")
    arch = scale_width(NETWORKS[name].arch, width)
    size = arch.input_size if input_size is None else input_size
    heads = {"none": (), "adaptive": tuple(adaptive(head) for head in arch.aux)}.get(aux, arch.aux)
    chosen = dataclasses.replace(
        arch,
        num_classes=num_classes,
        input_size=size,
        aux=heads,
        dropout=arch.dropout if dropout is None else dropout,
    )
    check_input_size(chosen, with_aux=aux == "strict")
    return chosen


def check_input_size(arch: Arch, *, with_aux: bool) -> None:
    """UsageError, naming the smallest size that fits, when `arch.input_size` is too small for the trunk or its heads."""
    least = minimum_input_size(arch, with_aux=False)
    if arch.input_size < least:
        raise UsageError(f"input size {arch.input_size} is too small: {arch.name} needs at least {least} pixels")
    if with_aux and arch.aux:
        least = minimum_input_size(arch, with_aux=True)
        if arch.input_size < least:
            raise UsageError(
                f"input size {arch.input_size} is too small for the strict auxiliary classifier of {arch.name}, which "
                f"needs at least {least} pixels: use {least}, or the adaptive auxiliary classifier, or none"
            )


def adaptive(head: Aux) -> Aux:
    """The head with its first pool made adaptive to 5x5; on a 17x17 grid its windows are not quite the fixed pool's."""
    first, *rest = head.body.layers
    if isinstance(first, Pool):
        first = AdaptivePool(output=(5, 5))
    return dataclasses.replace(head, body=Chain((first, *rest)))
