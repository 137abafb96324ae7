"""Tables 1 to 3 of the paper as values: a row is a change to the row above.

Figures are in `figures.py`, the networks before this paper in `googlenet.py`; where a number comes from, and where the
paper contradicts itself, is in docs/paper-map.md.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from reinception.family.figures import (
    chain,
    conv,
    figure_5,
    figure_5_as_released,
    figure_5_at_17,
    figure_6,
    figure_7,
    figure_8,
    maximum,
    reduce_17,
    reduce_35,
    stem_with_7x7,
    stem_with_three_3x3,
    valid,
    valid_max,
)
from reinception.recipe import PAPER_2015, SGD, Recipe
from reinception.spec import (
    AdaptivePool,
    Arch,
    Aux,
    BatchNorm,
    Concat,
    Conv,
    Layer,
    Pool,
    as_chain,
    change_layers,
    change_stage,
    rebuild,
)


@dataclass(frozen=True, kw_only=True)
class Reported:
    """What a paper prints about a network: errors in percent (single crop), cost in billions of multiply-adds."""

    top1_error: float | None = None
    top5_error: float | None = None
    multiply_adds_billions: float | None = None
    source: str = "Table 3"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A network's place in the family: its value, one sentence, what was reported, and how a paper's row trains it."""

    arch: Arch
    summary: str
    reported: Reported | None = None
    recipe: Recipe = PAPER_2015


# -- Table 1, read literally -------------------------------------------------------------------------------------------

# Its seventh row is printed without padding, yet only a padded convolution gives the 35x35x288 of the row below it;
# where the figures say only "pool", the pool is the released average; the fully connected layer of Figure 8 has 1024.
TABLE_1 = Arch(
    name="inception_v3_paper",
    stages=(
        (
            "stem",
            chain(
                valid(32, 3, 2),  # 299x299x3
                valid(32, 3),  # 149x149x32
                conv(64, 3),  # 147x147x32, padded
                valid_max(3, 2),  # 147x147x64
                valid(80, 3),  # 73x73x64
                valid(192, 3, 2),  # 71x71x80
                conv(288, 3),  # 35x35x192
            ),
        ),
        ("grid35", chain(*(figure_5(pool=64) for _ in range(3)))),  # 35x35x288
        ("reduce35", reduce_35()),
        ("grid17", chain(*(figure_6(channels) for channels in (128, 160, 160, 160, 192)))),  # 17x17x768
        ("reduce17", reduce_17()),
        ("grid8", chain(figure_7(), figure_7())),  # 8x8x1280
    ),
    aux=(figure_8(hidden=1024, batch_norm=True),),
)

# -- Table 3: Inception-v2 and what each row changes -------------------------------------------------------------------

# The first row trains with momentum; that its clip, average and the rest are those of the later rows is our reading.
_MOMENTUM = dataclasses.replace(
    PAPER_2015,
    name="paper_2015_momentum",
    optimizer=SGD(momentum=0.9, weight_decay=PAPER_2015.optimizer.weight_decay),
    label_smoothing=0.0,
    sources={
        path: source
        for path, source in PAPER_2015.sources.items()
        if path not in ("optimizer.decay", "optimizer.epsilon")
    },
)
_RMSPROP = dataclasses.replace(PAPER_2015, name="paper_2015_rmsprop", label_smoothing=0.0)

INCEPTION_V2 = Arch(
    name="inception_v2",
    stages=(
        ("stem", stem_with_7x7()),
        ("grid35", chain(figure_5_as_released(32), figure_5_as_released(64), figure_5_as_released(64))),
        ("reduce35", reduce_35()),
        ("grid17", chain(*(figure_5_at_17(channels) for channels in (128, 160, 160, 192)))),
        ("reduce17", reduce_17()),
        ("grid8", chain(figure_7(), figure_7())),
    ),
    aux=(figure_8(hidden=768, batch_norm=False),),
)


def factorized_7x7(arch: Arch) -> Arch:
    """Both sevens: the 7x7 of the stem becomes three 3x3, the modules on 17x17 become Figure 6."""
    grid17 = chain(*(figure_6(channels, doubled_starts="7x1") for channels in (128, 160, 160, 192)))
    return change_stage(arch, stem=stem_with_three_3x3(), grid17=grid17)


def bn_auxiliary(arch: Arch) -> Arch:
    """The fully connected layer of the auxiliary classifier is batch-normalised too."""
    return dataclasses.replace(arch, aux=(figure_8(hidden=768, batch_norm=True),))


Change = Callable[[Arch], Arch] | Recipe


def _cumulative(first: Entry, *rows: tuple[str, Change, Reported]) -> tuple[Entry, ...]:
    """Each row is the row above with one thing changed: the network, by a function, or the recipe, by a value."""
    entries = [first]
    for name, change, reported in rows:
        above = entries[-1]
        recipe = change if isinstance(change, Recipe) else above.recipe
        changed = above.arch if isinstance(change, Recipe) else change(above.arch)
        arch = dataclasses.replace(changed, name=f"{first.arch.name}_{name}")
        summary = f"Table 3, cumulative: + {name.replace('_', ' ')}"
        entries.append(Entry(arch=arch, summary=summary, reported=reported, recipe=recipe))
    return tuple(entries)


TABLE_3 = _cumulative(
    Entry(
        arch=INCEPTION_V2,
        summary="Table 3: Inception-v2, trained with momentum",
        reported=Reported(top1_error=23.4, multiply_adds_billions=3.8),
        recipe=_MOMENTUM,
    ),
    ("rmsprop", _RMSPROP, Reported(top1_error=23.1, top5_error=6.3, multiply_adds_billions=3.8)),
    ("label_smoothing", PAPER_2015, Reported(top1_error=22.8, top5_error=6.1, multiply_adds_billions=3.8)),
    ("factorized_7x7", factorized_7x7, Reported(top1_error=21.6, top5_error=5.8, multiply_adds_billions=4.8)),
    ("bn_auxiliary", bn_auxiliary, Reported(top1_error=21.2, top5_error=5.6, multiply_adds_billions=4.8)),
)

# "We are referring to the model in the last row of Table 3 as Inception-v3" (section 9 of the paper).
INCEPTION_V3 = dataclasses.replace(TABLE_3[-1].arch, name="inception_v3")

# -- Table 2: smaller inputs at about the same cost --------------------------------------------------------------------


def table_2(input_size: int) -> Arch:
    """Inception-v3 for 151 pixels (first stride 1) or 79 (first stride 1, and no pool after the first layers)."""
    first, second, third, pool, *rest = stem_with_three_3x3().layers
    assert isinstance(first, Conv)
    unstrided = dataclasses.replace(first, stride=(1, 1))
    kept = (pool,) if input_size > 79 else ()
    arch = change_stage(INCEPTION_V3, stem=chain(unstrided, second, third, *kept, *rest))
    return dataclasses.replace(arch, name=f"inception_v3_{input_size}", input_size=input_size)


# -- the others of that name -------------------------------------------------------------------------------------------


def lucid() -> Arch:
    """The review's network as changes to Table 1: a 1x1 in the stem, maximum pools, biases, epsilon, branch order."""
    epsilon = BatchNorm(epsilon=1e-5)

    def restyle(layer: Layer) -> Layer:
        if isinstance(layer, Conv):
            return dataclasses.replace(layer, bias=True, batch_norm=epsilon)
        if isinstance(layer, Pool) and layer.kind == "average":
            return dataclasses.replace(layer, kind="max")
        if isinstance(layer, Concat) and layer.branches[-1][0] == "pool":
            order = ("doubled", "single", "pool", "point")
            return Concat(tuple(sorted(layer.branches, key=lambda branch: order.index(branch[0]))))
        return layer

    def in_stem(layer: Layer) -> Layer:
        return dataclasses.replace(layer, batch_norm=epsilon) if isinstance(layer, Conv) else layer

    stem = chain(valid(32, 3, 2), valid(32, 3), conv(64, 3), valid_max(3, 2), conv(80), valid(192, 3, 2), conv(288, 3))
    head = chain(
        AdaptivePool(output=(5, 5)),
        conv(128, bias=True, batch_norm=epsilon),
        valid(1024, 5, bias=True, batch_norm=None),
    )
    arch = change_stage(change_layers(TABLE_1, restyle), stem=as_chain(rebuild(stem, in_stem)))
    aux = Aux(at="grid17", body=head, dropout=0.7)
    return dataclasses.replace(arch, name="inception_v3_lucid", dropout=0.5, aux=(aux,))


def fid() -> Arch:
    """The graph of December 2015 behind FID: 1008 outputs, no head, and a maximum pool in the very last module."""
    *modules, last = figure_7(), figure_7()
    branches = dict(last.branches)
    branches["pool"] = chain(maximum(3, 1), conv(192))
    grid8 = chain(*modules, Concat(tuple(branches.items())))
    arch = change_stage(INCEPTION_V3, grid8=grid8)
    return dataclasses.replace(arch, name="inception_v3_fid", num_classes=1008, aux=())
