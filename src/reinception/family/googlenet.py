"""Before Inception-v3: GoogLeNet, the same with batch normalisation, and BN-Inception, from figures and as changes."""

from __future__ import annotations

import dataclasses

from reinception.family.figures import avg, chain, concat, conv, figure_4, maximum, valid
from reinception.spec import (
    Arch,
    Aux,
    Concat,
    Conv,
    Layer,
    LocalResponseNorm,
    Pool,
    as_chain,
    change_layers,
    change_stage,
)


def _side_head(name: str, at: str) -> Aux:
    """GoogLeNet's: 5x5/3 average pool, 1x1 128, fully connected 1024, 70 % dropout."""
    body = chain(Pool(kind="average", kernel=(5, 5), stride=(3, 3)), conv(128), valid(1024, 4, init_stddev=0.01))
    return Aux(name=name, at=at, body=body, dropout=0.7)


BN_GOOGLENET = Arch(
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


def googlenet() -> Arch:
    """GoogLeNet itself has biases where its batch-normalised version has norms, and two response normalisations."""

    def change(layer: Layer) -> Layer:
        return dataclasses.replace(layer, batch_norm=None, bias=True) if isinstance(layer, Conv) else layer

    arch = change_layers(BN_GOOGLENET, change)
    first, pool, *middle, last = as_chain(arch.stages[0][1]).layers
    stem = chain(first, pool, LocalResponseNorm(), *middle, LocalResponseNorm(), last)
    return dataclasses.replace(change_stage(arch, stem=stem), name="googlenet")


def _doubled(
    point: int, single: tuple[int, int], doubled: tuple[int, int], pool: int, *, last: Pool | None = None
) -> Concat:
    """BN-Inception's module: the 5x5 of Figure 4 as two 3x3, the pool an average (a maximum in the very last one)."""
    return concat(
        point=[conv(point)],
        single=[conv(single[0]), conv(single[1], 3)],
        doubled=[conv(doubled[0]), conv(doubled[1], 3), conv(doubled[1], 3)],
        pool=[avg(3) if last is None else last, conv(pool)],
    )


def _halve(single: tuple[int, int], doubled: tuple[int, int]) -> Concat:
    """BN-Inception's stride-2 module: no 1x1 branch, and the pool passes through."""
    return concat(
        single=[conv(single[0]), conv(single[1], 3, 2)],
        doubled=[conv(doubled[0]), conv(doubled[1], 3), conv(doubled[1], 3, 2)],
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
        ("grid28", chain(_doubled(64, (64, 64), (64, 96), 32), _doubled(64, (64, 96), (64, 96), 64))),
        ("reduce28", _halve((128, 160), (64, 96))),
        (
            "grid14",
            chain(
                _doubled(224, (64, 96), (96, 128), 128),
                _doubled(192, (96, 128), (96, 128), 128),
                _doubled(160, (128, 160), (128, 160), 96),
                _doubled(96, (128, 192), (160, 192), 96),
            ),
        ),
        ("reduce14", _halve((128, 192), (192, 256))),
        (
            "grid7",
            chain(
                _doubled(352, (192, 320), (160, 224), 128),
                _doubled(352, (192, 320), (192, 224), 128, last=maximum(3, 1)),
            ),
        ),
    ),
    dropout=0.0,
)
