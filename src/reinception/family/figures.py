"""The paper's figures as functions: each returns the module it shows, as a value.

`conv` is zero-padded, `valid` is not ("padded" in Table 1's words); both mean convolution + batch normalisation + ReLU
unless a field differs. Branch names are the drawing's labels and, later, the parameter paths.
"""

from __future__ import annotations

from typing import Any, Literal

from reinception.spec import Aux, BatchNorm, Chain, Concat, Conv, Layer, Pool, Size

# -- the words ---------------------------------------------------------------------------------------------------------


def conv(channels: int, kernel: int | Size = 1, stride: int = 1, **fields: Any) -> Conv:
    """A zero-padded convolution: with stride 1 the grid stays as it is."""
    size = _pair(kernel)
    padding = (size[0] // 2, size[1] // 2)
    return Conv(channels=channels, kernel=size, stride=_pair(stride), padding=padding, **fields)


def valid(channels: int, kernel: int | Size, stride: int = 1, **fields: Any) -> Conv:
    """A convolution without padding: the grid shrinks by what the window overhangs."""
    return Conv(channels=channels, kernel=_pair(kernel), stride=_pair(stride), **fields)


def avg(kernel: int, stride: int = 1) -> Pool:
    """A padded average pool; the border is not counted (TensorFlow's SAME), see `spec.count_border`."""
    return Pool(kind="average", kernel=_pair(kernel), stride=_pair(stride), padding=_pair(kernel // 2))


def maximum(kernel: int, stride: int) -> Pool:
    """A padded maximum pool."""
    return Pool(kind="max", kernel=_pair(kernel), stride=_pair(stride), padding=_pair(kernel // 2))


def valid_max(kernel: int, stride: int) -> Pool:
    """A maximum pool without padding."""
    return Pool(kind="max", kernel=_pair(kernel), stride=_pair(stride))


def chain(*layers: Layer) -> Chain:
    """Layers one after another."""
    return Chain(layers)


def concat(**branches: list[Layer]) -> Concat:
    """Named branches side by side, concatenated in this order."""
    return Concat(tuple((name, Chain(tuple(layers))) for name, layers in branches.items()))


def cross(channels: int) -> Concat:
    """The expanded filter bank of Figure 7: 1x3 beside 3x1 on the same input."""
    return concat(wide=[conv(channels, (1, 3))], tall=[conv(channels, (3, 1))])


def _pair(value: int | Size) -> Size:
    return (value, value) if isinstance(value, int) else value


# -- the figures -------------------------------------------------------------------------------------------------------


def figure_4(point: int, single: tuple[int, int], large: tuple[int, int], pool: int) -> Concat:
    """The original module of GoogLeNet: 1x1, 1x1-3x3, 1x1-5x5 and pool-1x1 branches."""
    return concat(
        point=[conv(point)],
        single=[conv(single[0]), conv(single[1], 3)],
        large=[conv(large[0]), conv(large[1], 5)],
        pool=[maximum(3, 1), conv(pool)],
    )


def figure_5(pool: int) -> Concat:
    """35x35: the 5x5 gives way to two 3x3 (section 3.1, principle 3)."""
    return concat(
        point=[conv(64)],
        single=[conv(48), conv(64, 3)],
        doubled=[conv(64), conv(96, 3), conv(96, 3)],
        pool=[avg(3), conv(pool)],
    )


def figure_5_as_released(pool: int) -> Concat:
    """35x35 as in every released Inception-v3: Figure 5's two 3x3 are there, and the other 3x3 is a 5x5."""
    return concat(
        point=[conv(64)],
        single=[conv(48), conv(64, 5)],
        doubled=[conv(64), conv(96, 3), conv(96, 3)],
        pool=[avg(3), conv(pool)],
    )


def figure_5_at_17(channels: int) -> Concat:
    """17x17 before "Factorized 7x7": Figure 5's plain 3x3 branches at Figure 6's widths (our choice; decision 0003)."""
    return concat(
        point=[conv(192)],
        single=[conv(channels), conv(192, 3)],
        doubled=[conv(channels), conv(channels, 3), conv(192, 3)],
        pool=[avg(3), conv(192)],
    )


def figure_6(channels: int, *, doubled_starts: Literal["1x7", "7x1"] = "1x7") -> Concat:
    """17x17: nxn factorised into 1xn and nx1, n = 7 (section 3.2). The released network's doubled branch starts 7x1."""
    wide, tall = (1, 7), (7, 1)
    first, second = (wide, tall) if doubled_starts == "1x7" else (tall, wide)
    return concat(
        point=[conv(192)],
        single=[conv(channels), conv(channels, wide), conv(192, tall)],
        doubled=[
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
        doubled=[conv(448), conv(384, 3), cross(384)],
        pool=[avg(3), conv(192)],
    )


def figure_8(*, hidden: int, batch_norm: bool, at: str = "grid17", dropout: float = 0.0) -> Aux:
    """The auxiliary classifier on the last 17x17: 5x5 average pool, 1x1, fully connected, classifier.

    The fully connected layer is written as what it is on a 5x5 grid, a 5x5 convolution without padding. `batch_norm`
    on that layer, "not just the convolutions", is the last row of Table 3.
    """
    norm = BatchNorm() if batch_norm else None
    fully_connected = valid(hidden, 5, batch_norm=norm, bias=norm is None, init_stddev=0.01)
    body = chain(Pool(kind="average", kernel=(5, 5), stride=(3, 3)), conv(128), fully_connected)
    return Aux(at=at, body=body, dropout=dropout)


def figure_10(*, single: list[Layer], doubled: list[Layer]) -> Concat:
    """Efficient grid size reduction: stride-2 convolutions beside a stride-2 pool, concatenated (section 5)."""
    return concat(single=single, doubled=doubled, pool=[valid_max(3, 2)])


def reduce_35() -> Concat:
    """35x35 to 17x17 as released: Figure 10 with plain 3x3."""
    return figure_10(single=[valid(384, 3, 2)], doubled=[conv(64), conv(96, 3), valid(96, 3, 2)])


def reduce_17() -> Concat:
    """17x17 to 8x8 as released: Figure 10 with the 7x7 factorised."""
    return figure_10(
        single=[conv(192), valid(320, 3, 2)],
        doubled=[conv(192), conv(192, (1, 7)), conv(192, (7, 1)), valid(192, 3, 2)],
    )


def stem_with_7x7() -> Chain:
    """The traditional stem: 7x7 with stride 2, then as released."""
    return chain(valid(64, 7, 2), valid_max(3, 2), conv(80), valid(192, 3), valid_max(3, 2))


def stem_with_three_3x3() -> Chain:
    """The stem as released: "we factorized the traditional 7x7 convolution into three 3x3" (section 6)."""
    return chain(valid(32, 3, 2), valid(32, 3), conv(64, 3), valid_max(3, 2), conv(80), valid(192, 3), valid_max(3, 2))
