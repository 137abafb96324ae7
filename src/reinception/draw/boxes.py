"""The box of one layer: label, kernel and colour, in the notation of Table 1."""

from __future__ import annotations

from dataclasses import dataclass

from reinception.draw.drawing import GLYPH, Box, Glyph, Kind, Text, even, text_width
from reinception.spec import (
    AdaptivePool,
    Chain,
    ChannelRange,
    Concat,
    Conv,
    Layer,
    LocalResponseNorm,
    Pool,
    Shape,
    Size,
    Step,
)

BOX_HEIGHT = 26
_EDGE, _BEFORE_NOTE, _BEFORE_COUNT = 7, 5, 8
_START = _EDGE + GLYPH + 5  # where every label begins, with a glyph before it or without


@dataclass(frozen=True, kw_only=True)
class LayerLabel:
    """The texts of a box: `3x3/2`, a small `V` beside it, and at its end the number of output channels."""

    kind: Kind
    label: str
    note: str = ""
    count: str = ""
    window: Size | None = None
    output: Shape | None = None
    fact: str = ""
    path: str = ""

    @property
    def width(self) -> int:
        """The least width of the box, in pixels."""
        width = _START + text_width(self.label, "label") + _EDGE
        width += _BEFORE_NOTE + text_width(self.note, "note") if self.note else 0
        width += _BEFORE_COUNT + text_width(self.count, "count") if self.count else 0
        return even(width)

    def box(self, width: int) -> Box:
        """The box, its upper left corner at the origin."""
        middle = BOX_HEIGHT / 2
        texts = [Text(x=_START, y=middle, text=self.label, style="label")]
        if self.note:
            x = _START + text_width(self.label, "label") + _BEFORE_NOTE
            texts.append(Text(x=x, y=middle, text=self.note, style="note"))
        if self.count:
            texts.append(Text(x=width - _EDGE, y=middle, text=self.count, style="count", anchor="end"))
        glyph = None
        if self.window is not None:
            glyph = Glyph(x=_EDGE + GLYPH / 2, y=middle, window=self.window, hollow=self.kind == "pool")
        return Box(
            left=0,
            top=0,
            width=width,
            height=BOX_HEIGHT,
            kind=self.kind,
            texts=tuple(texts),
            glyph=glyph,
            output=self.output,
            facts=(self.fact,) if self.fact else (),
            paths=(self.path,) if self.path else (),
        )


def layer_label(step: Step, *, mark_unnormalised: bool = False, with_channels: bool = False) -> LayerLabel:
    """The label of a layer. A convolution shows its channels; a pool, which keeps their number, `with_channels` only.

    `mark_unnormalised` marks a convolution without batch normalisation, where the network has others with it.
    """
    layer, count = step.layer, str(step.output.channels)
    if isinstance(layer, Conv):
        remarks = [_padding(layer), f"{layer.groups} groups" if layer.groups > 1 else ""]
        remarks.append("linear" if layer.activation == "linear" else "")
        remarks.append("no BN" if mark_unnormalised and layer.batch_norm is None else "")
        return LayerLabel(
            kind=_conv_kind(layer.kernel),
            label=by(layer.kernel) + _over(layer.stride),
            note=" ".join(filter(None, remarks)),
            count=count,
            window=layer.kernel,
            output=step.output,
            fact=_fact(step),
            path=step.path,
        )
    if isinstance(layer, Pool):
        kind = "avg" if layer.kind == "average" else "max"
        note = f"{kind} {by(layer.kernel)}{_over(layer.stride)} {_padding(layer)}".strip()
        window: Size | None = layer.kernel
    elif isinstance(layer, AdaptivePool):
        note, window = f"avg to {by(layer.output)}", None
    else:
        assert isinstance(layer, LocalResponseNorm | ChannelRange)
        label = "Slice" if isinstance(layer, ChannelRange) else "LocalRespNorm"
        return LayerLabel(kind="plain", label=label, output=step.output, fact=_fact(step), path=step.path)
    return LayerLabel(
        kind="pool",
        label="Pool",
        note=note,
        count=count if with_channels else "",
        window=window,
        output=step.output,
        fact=_fact(step),
        path=step.path,
    )


def classifier_labels(path: str, before: Shape, dropout: float, num_classes: int) -> tuple[LayerLabel, ...]:
    """The last layers of a classifier: average over the remaining grid, dropout if any, one fully connected layer."""
    found = []
    grid = before[:2]
    if grid != (1, 1):
        after = Shape(1, 1, before.channels)
        fact = f"global average, {by(before)} to {by(after)}"
        found.append(
            LayerLabel(kind="pool", label="Pool", note=f"avg {by(grid)}", window=grid, output=after, fact=fact)
        )
    if dropout > 0:
        fact = f"dropout while training, probability {dropout:g}"
        found.append(LayerLabel(kind="plain", label="Dropout", note=f"{dropout:g}", fact=fact))
    fact = f"{path}: fully connected, {before.channels} to {num_classes} logits"
    found.append(LayerLabel(kind="linear", label="Linear", count=str(num_classes), fact=fact, path=path))
    return tuple(found)


def bar(kind: Kind, width: int, label: str, shape: Shape, *, fact: str = "") -> Box:
    """A bar as wide as what is on it: its name in the middle, its output shape at its end."""
    middle = BOX_HEIGHT / 2
    texts = (
        Text(x=width / 2, y=middle, text=label, style="label", anchor="middle"),
        Text(x=width - _EDGE, y=middle, text=by(shape), style="count", anchor="end"),
    )
    facts = (fact,) if fact else ()
    return Box(left=0, top=0, width=width, height=BOX_HEIGHT, kind=kind, texts=texts, output=shape, facts=facts)


def bar_width(label: str, shape: Shape) -> int:
    """The least width of a bar, in pixels, with its name in the middle and clear of the shape."""
    return even(text_width(label, "label") + 2 * (text_width(by(shape), "count") + _EDGE + _BEFORE_COUNT))


def source(label: str, shape: Shape, least_width: int = 0) -> Box:
    """The start of a column of boxes: a short bar with the name and the shape of the input."""
    middle = BOX_HEIGHT / 2
    name, size = text_width(label, "label"), text_width(by(shape), "count")
    width = max(least_width, even(name + size + 2 * _EDGE + _BEFORE_COUNT))
    texts = (
        Text(x=_EDGE, y=middle, text=label, style="label"),
        Text(x=width - _EDGE, y=middle, text=by(shape), style="count", anchor="end"),
    )
    return Box(left=0, top=0, width=width, height=BOX_HEIGHT, kind="base", texts=texts, output=shape)


def by(size: tuple[int, ...]) -> str:
    """3x3 for (3, 3)."""
    return "x".join(map(str, size))


def _conv_kind(kernel: Size) -> Kind:
    if kernel == (1, 1):
        return "pointwise"
    return "square" if kernel[0] == kernel[1] else "asymmetric"


def _over(stride: Size) -> str:
    if stride == (1, 1):
        return ""
    return f"/{stride[0]}" if stride[0] == stride[1] else f"/{by(stride)}"


def _padding(layer: Conv | Pool) -> str:
    """V for no padding, nothing for zero padding that keeps the grid, else the padding in words."""
    if layer.padding == (0, 0):
        overhangs = isinstance(layer, Pool) and layer.ceil_mode
        return "" if layer.kernel == (1, 1) or overhangs else "V"
    if layer.padding == (layer.kernel[0] // 2, layer.kernel[1] // 2):
        return ""
    return f"pad {layer.padding[0] if layer.padding[0] == layer.padding[1] else by(layer.padding)}"


def _fact(step: Step) -> str:
    return f"{step.path}: {_what(step.layer)}, {by(step.input)} to {by(step.output)}"


def _what(layer: Layer) -> str:
    assert not isinstance(layer, Chain | Concat)
    if isinstance(layer, LocalResponseNorm):
        return f"local response normalisation over {layer.size} channels"
    if isinstance(layer, ChannelRange):
        return f"channels {layer.start} to {layer.stop}{', ReLU' if layer.activation == 'relu' else ''}"
    if isinstance(layer, AdaptivePool):
        return f"average pool to {by(layer.output)}"
    window = f"{by(layer.kernel)}, stride {by(layer.stride)}, padding {by(layer.padding)}"
    if isinstance(layer, Pool):
        return f"{'maximum' if layer.kind == 'max' else 'average'} pool {window}"
    after = ["" if layer.groups == 1 else f", {layer.groups} groups"]
    after.append("" if layer.batch_norm is None else ", batch normalisation")
    after.append("" if layer.activation == "linear" else ", ReLU")
    return f"convolution {window}{''.join(after)}"
