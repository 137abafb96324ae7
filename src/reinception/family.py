"""The family: Table 1 and Table 3 as values, a row as a change to the row above, and every network by its name.

Figures are in `figures.py`; where a number comes from and where the paper contradicts itself is in docs/paper-map.md.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from reinception.errors import UsageError
from reinception.experiments import EXPERIMENT_SUMMARIES, experiments_on
from reinception.figures import (
    avg,
    chain,
    concat,
    conv,
    figure_4,
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
    Chain,
    Concat,
    Conv,
    Layer,
    LocalResponseNorm,
    Pool,
    change_layers,
    change_stage,
    minimum_input_size,
    rebuild,
    scale_width,
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


def _as_chain(layer: Layer) -> Chain:
    assert isinstance(layer, Chain)
    return layer


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
    grid17 = chain(*(figure_6(channels, double_starts="7x1") for channels in (128, 160, 160, 192)))
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


def _lucid() -> Arch:
    """The review's network as changes to Table 1: a 1x1 in the stem, maximum pools, biases, epsilon, branch order."""
    epsilon = BatchNorm(epsilon=1e-5)

    def restyle(layer: Layer) -> Layer:
        if isinstance(layer, Conv):
            return dataclasses.replace(layer, bias=True, batch_norm=epsilon)
        if isinstance(layer, Pool) and layer.kind == "average":
            return dataclasses.replace(layer, kind="max")
        if isinstance(layer, Concat) and layer.branches[-1][0] == "pool":
            order = ("double", "single", "pool", "point")
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
    arch = change_stage(change_layers(TABLE_1, restyle), stem=_as_chain(rebuild(stem, in_stem)))
    aux = Aux(at="grid17", body=head, dropout=0.7)
    return dataclasses.replace(arch, name="inception_v3_lucid", dropout=0.5, aux=(aux,))


def _fid() -> Arch:
    """The graph of December 2015 behind FID: 1008 outputs, no head, and a maximum pool in the very last module."""
    *modules, last = figure_7(), figure_7()
    branches = dict(last.branches)
    branches["pool"] = chain(maximum(3, 1), conv(192))
    grid8 = chain(*modules, Concat(tuple(branches.items())))
    arch = change_stage(INCEPTION_V3, grid8=grid8)
    return dataclasses.replace(arch, name="inception_v3_fid", num_classes=1008, aux=())


# -- before it: GoogLeNet and batch normalisation ----------------------------------------------------------------------


def _side_head(name: str, at: str) -> Aux:
    """GoogLeNet's: 5x5/3 average pool, 1x1 128, fully connected 1024, 70 % dropout."""
    body = chain(Pool(kind="average", kernel=(5, 5), stride=(3, 3)), conv(128), valid(1024, 4, init_stddev=0.01))
    return Aux(name=name, at=at, body=body, dropout=0.7)


_BN_GOOGLENET = Arch(
    name="bn_googlenet",
    input_size=224,
    stages=(
        ("stem", chain(conv(64, 7, 2), maximum(3, 2), conv(64), conv(192, 3), maximum(3, 2))),
        ("grid28", chain(figure_4(64, (96, 128), (16, 32), 32), figure_4(128, (128, 192), (32, 96), 64))),
        ("reduce28", chain(maximum(3, 2))),
        (
            "grid14",
            chain(
                figure_4(192, (96, 208), (16, 48), 64),
                figure_4(160, (112, 224), (24, 64), 64),
                figure_4(128, (128, 256), (24, 64), 64),
                figure_4(112, (144, 288), (32, 64), 64),
                figure_4(256, (160, 320), (32, 128), 128),
            ),
        ),
        ("reduce14", chain(maximum(3, 2))),
        ("grid7", chain(figure_4(256, (160, 320), (32, 128), 128), figure_4(384, (192, 384), (48, 128), 128))),
    ),
    aux=(_side_head("aux_4a", "grid14.0"), _side_head("aux_4d", "grid14.3")),
    dropout=0.4,
)


def _googlenet() -> Arch:
    """GoogLeNet itself has biases where its batch-normalised version has norms, and two response normalisations."""

    def change(layer: Layer) -> Layer:
        return dataclasses.replace(layer, batch_norm=None, bias=True) if isinstance(layer, Conv) else layer

    arch = change_layers(_BN_GOOGLENET, change)
    first, pool, *middle, last = _as_chain(arch.stages[0][1]).layers
    stem = chain(first, pool, LocalResponseNorm(), *middle, LocalResponseNorm(), last)
    return dataclasses.replace(change_stage(arch, stem=stem), name="googlenet")


def _double(
    point: int, single: tuple[int, int], double: tuple[int, int], pool: int, *, last: Pool | None = None
) -> Concat:
    """BN-Inception's module: the 5x5 of Figure 4 as two 3x3, the pool an average (a maximum in the very last one)."""
    return concat(
        point=[conv(point)],
        single=[conv(single[0]), conv(single[1], 3)],
        double=[conv(double[0]), conv(double[1], 3), conv(double[1], 3)],
        pool=[avg(3) if last is None else last, conv(pool)],
    )


def _halve(single: tuple[int, int], double: tuple[int, int]) -> Concat:
    """BN-Inception's stride-2 module: no 1x1 branch, and the pool passes through."""
    return concat(
        single=[conv(single[0]), conv(single[1], 3, 2)],
        double=[conv(double[0]), conv(double[1], 3), conv(double[1], 3, 2)],
        pool=[maximum(3, 2)],
    )


# Channels as in TF-slim's inception_v2.py, which is this network and not Table 3's Inception-v2. The first convolution
# is separable, "with depth multiplier 8" (1502.03167, appendix): 7x7 on each colour, then 1x1 with a bias and no norm.
BN_INCEPTION = Arch(
    name="bn_inception",
    input_size=224,
    stages=(
        (
            "stem",
            chain(
                conv(24, 7, 2, groups=3, batch_norm=None, activation="linear", init_stddev=1.0),
                conv(64, batch_norm=None, bias=True),
                maximum(3, 2),
                conv(64),
                conv(192, 3),
                maximum(3, 2),
            ),
        ),
        ("grid28", chain(_double(64, (64, 64), (64, 96), 32), _double(64, (64, 96), (64, 96), 64))),
        ("reduce28", _halve((128, 160), (64, 96))),
        (
            "grid14",
            chain(
                _double(224, (64, 96), (96, 128), 128),
                _double(192, (96, 128), (96, 128), 128),
                _double(160, (128, 160), (128, 160), 96),
                _double(96, (128, 192), (160, 192), 96),
            ),
        ),
        ("reduce14", _halve((128, 192), (192, 256))),
        (
            "grid7",
            chain(
                _double(352, (192, 320), (160, 224), 128),
                _double(352, (192, 320), (192, 224), 128, last=maximum(3, 1)),
            ),
        ),
    ),
    dropout=0.0,
)

# -- by name -----------------------------------------------------------------------------------------------------------

_ENTRIES: tuple[Entry, ...] = (
    Entry(
        arch=_googlenet(),
        summary="GoogLeNet (1409.4842), with its two auxiliary classifiers",
        reported=Reported(top1_error=29.0, top5_error=9.2, multiply_adds_billions=1.5),
    ),
    Entry(
        arch=_BN_GOOGLENET,
        summary="GoogLeNet with batch normalisation in place of biases and response normalisation",
        reported=Reported(top1_error=26.8, multiply_adds_billions=1.5),
    ),
    Entry(
        arch=BN_INCEPTION,
        summary="BN-Inception (1502.03167); TF-slim calls this network inception_v2",
        reported=Reported(top1_error=25.2, top5_error=7.8, multiply_adds_billions=2.0),
    ),
    *TABLE_3,
    Entry(
        arch=INCEPTION_V3,
        summary="the last row of Table 3 and the released network, whose weights exist",
        reported=TABLE_3[-1].reported,
    ),
    Entry(arch=TABLE_1, summary="Table 1 of the paper, read literally"),
    Entry(arch=_lucid(), summary="the network of the review's code"),
    Entry(
        arch=table_2(151),
        summary="Table 2: for 151 pixels, first stride 1",
        reported=Reported(top1_error=23.6, source="Table 2"),
    ),
    Entry(
        arch=table_2(79),
        summary="Table 2: for 79 pixels, first stride 1 and no first pool",
        reported=Reported(top1_error=24.8, source="Table 2"),
    ),
    Entry(arch=_fid(), summary="the graph of 2015 behind FID: 1008 outputs, a maximum pool in its last module"),
)

NETWORKS: Mapping[str, Entry] = MappingProxyType({entry.arch.name: entry for entry in _ENTRIES})

# The paper's small experiments: experiment -> variant -> Inception-v3 with one part exchanged.
EXPERIMENTS = experiments_on(INCEPTION_V3)
VARIANTS: Mapping[str, Entry] = MappingProxyType(
    {
        arch.name: Entry(arch=arch, summary=f"{EXPERIMENT_SUMMARIES[experiment]}: {variant.replace('_', ' ')}")
        for experiment, variants in EXPERIMENTS.items()
        for variant, arch in variants.items()
    }
)


def entry(name: str) -> Entry:
    """The network, or variant of an experiment, called `name`; UsageError lists the names there are."""
    found = NETWORKS.get(name) or VARIANTS.get(name)
    if found is None:
        raise UsageError(
            f"unknown network {name!r}; known: {', '.join(NETWORKS)}, and those of `reinception models --experiments`"
        )
    return found


AuxChoice = Literal["own", "strict", "adaptive", "none"]


def network(
    name: str,
    *,
    num_classes: int | None = None,
    width: float = 1.0,
    input_size: int | None = None,
    aux: AuxChoice = "own",
    dropout: float | None = None,
) -> Arch:
    """The network, or variant of an experiment, called `name`.

    It is for `num_classes` and `input_size` pixels, `width` times as wide (TF-slim's depth_multiplier).
    aux: "own" keeps the network's auxiliary classifiers; "strict" refuses an `input_size` they cannot take; "adaptive"
    lets them take any grid; "none" leaves them out. What is None is the network's own.
    """
    arch = scale_width(entry(name).arch, width)
    heads: Iterable[Aux] = arch.aux
    if aux == "none":
        heads = ()
    elif aux == "adaptive":
        heads = (adaptive(head) for head in arch.aux)
    chosen = dataclasses.replace(
        arch,
        num_classes=arch.num_classes if num_classes is None else num_classes,
        input_size=arch.input_size if input_size is None else input_size,
        aux=tuple(heads),
        dropout=arch.dropout if dropout is None else dropout,
    )
    check_input_size(chosen, with_aux=aux == "strict")
    return chosen


def check_input_size(arch: Arch, *, with_aux: bool) -> None:
    """UsageError, naming the smallest size that fits, when `arch.input_size` is too small for trunk or heads."""
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
    """The head with its first pool adaptive, to the grid its fully connected layer covers: any input will do.

    On the grid it was made for its windows are not quite the fixed pool's (17 to 5: 4 or 5 wide, not always 5).
    """
    first, *rest = head.body.layers
    if isinstance(first, Pool):
        fully_connected = rest[-1]
        assert isinstance(fully_connected, Conv)
        first = AdaptivePool(output=fully_connected.kernel)
    return dataclasses.replace(head, body=Chain((first, *rest)))
