"""The paper's small experiments as values: networks that differ in one thing, ready to be trained side by side.

Each is a base network (Inception-v3) with one part exchanged, listed, costed, drawn and trained like any other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType

from reinception.family.figures import avg, chain, concat, conv, figure_5, figure_6, figure_8, valid_max
from reinception.spec import Arch, Chain, Concat, Conv, Layer, change_stage, rebuild

POOLS = (32, 64, 64)  # pool projections of the three modules on 35x35


def _grid35(base: Arch, module: Callable[[int], Concat]) -> Arch:
    return change_stage(base, grid35=chain(*(module(pool) for pool in POOLS)))


def _every_3x3(replacement: Callable[[int], tuple[Conv, ...]]) -> Callable[[int], Concat]:
    """Figure 5 with each of its 3x3 convolutions written as `replacement(channels)`."""

    def expand(layer: Layer) -> Layer:
        if isinstance(layer, Chain):
            layers: list[Layer] = []
            for child in layer.layers:
                is_3x3 = isinstance(child, Conv) and child.kernel == (3, 3)
                layers += replacement(child.channels) if is_3x3 and isinstance(child, Conv) else [child]
            return Chain(tuple(layers))
        return layer

    def module(pool: int) -> Concat:
        changed = rebuild(figure_5(pool), expand)
        assert isinstance(changed, Concat)
        return changed

    return module


def _first_linear(pool: int) -> Concat:
    """Figure 2's other curve: the first of the two 3x3 that replace a 5x5 is linear."""
    point, single, (name, doubled), pooled = figure_5(pool).branches
    reduce, first, second = doubled.layers
    assert isinstance(first, Conv)
    return Concat(
        (point, single, (name, chain(reduce, dataclasses.replace(first, activation="linear"), second)), pooled)
    )


def _5x5_doubled(pool: int) -> Concat:
    """What Figure 5 starts from: the doubled branch is still one 5x5."""
    point, single, (name, _), pooled = figure_5(pool).branches
    return Concat((point, single, (name, chain(conv(64), conv(96, 5))), pooled))


def _seven_on_35(pool: int) -> Concat:
    """1x7 and 7x1 on a 35x35 grid, outside the 12 to 20 the paper recommends."""
    wide, tall = (1, 7), (7, 1)
    return concat(
        point=[conv(64)],
        single=[conv(48), conv(64, wide), conv(64, tall)],
        doubled=[conv(64), conv(96, wide), conv(96, tall)],
        pool=[avg(3), conv(pool)],
    )


def _two_2x2(channels: int) -> tuple[Conv, ...]:
    """Two 2x2: the first grows the grid by one, the second shrinks it back."""
    return Conv(channels=channels, kernel=(2, 2), padding=(1, 1)), Conv(channels=channels, kernel=(2, 2))


def _3x1_1x3(channels: int) -> tuple[Conv, ...]:
    return conv(channels, (3, 1)), conv(channels, (1, 3))


def _with_head(base: Arch, *, batch_norm: bool, dropout: float = 0.0) -> Arch:
    return dataclasses.replace(base, aux=(figure_8(hidden=768, batch_norm=batch_norm, dropout=dropout),))


EXPERIMENT_SUMMARIES: Mapping[str, str] = MappingProxyType(
    {
        "figure_2": "Figure 2, a 5x5 or two 3x3 with a linear or rectified layer between",
        "section_3_2": "section 3.2, a 3x3 in smaller pieces",
        "figure_9": "Figures 9 and 10, grid reductions",
        "auxiliary": "section 4, the auxiliary classifier",
        "factorization_place": "section 3.2, where to factorize into 1xn and nx1",
    }
)


def experiments_on(base: Arch) -> Mapping[str, Mapping[str, Arch]]:
    """Experiment -> variant -> network, each network called `experiment_variant`."""
    widen = figure_6(128)  # a module with 768 channels out, before or after the pool of Figure 9
    variants = {
        # a 5x5 against two 3x3, with a linear or a rectified layer in between
        "figure_2": {
            "5x5": _grid35(base, _5x5_doubled),
            "linear": _grid35(base, _first_linear),
            "relu": _grid35(base, figure_5),
        },
        # a 3x3 against two 2x2 and against 3x1 with 1x3 (section 3.2)
        "section_3_2": {
            "3x3": _grid35(base, figure_5),
            "2x2_2x2": _grid35(base, _every_3x3(_two_2x2)),
            "3x1_1x3": _grid35(base, _every_3x3(_3x1_1x3)),
        },
        # pool first (a bottleneck) or widen first (dear), against the efficient reduction
        "figure_9": {
            "pool_first": change_stage(base, reduce35=chain(valid_max(3, 2), widen)),
            "expand_first": change_stage(base, reduce35=chain(widen, valid_max(3, 2))),
            "figure_10": base,
        },
        # the auxiliary classifier as regularizer (section 4)
        "auxiliary": {
            "none": dataclasses.replace(base, aux=()),
            "plain": _with_head(base, batch_norm=False),
            "batch_norm": _with_head(base, batch_norm=True),
            "dropout": _with_head(base, batch_norm=False, dropout=0.7),
        },
        # 1xn and nx1 only where the grid is 12 to 20, or on 35x35 as well, where the paper found them not to work
        "factorization_place": {"grid17": _grid35(base, figure_5), "earlier": _grid35(base, _seven_on_35)},
    }
    return MappingProxyType(
        {
            experiment: MappingProxyType(
                {name: dataclasses.replace(arch, name=f"{experiment}_{name}") for name, arch in archs.items()}
            )
            for experiment, archs in variants.items()
        }
    )
