"""The preprocessing as an ONNX graph: uint8 images of any size become the network's input with Pillow's own integers.

Pillow resizes in two passes. Each output value is a sum of 8-bit values times whole multiples of 2^-22, and is rounded
to 8 bits after each pass. ONNX's `Resize` rounds its weights otherwise, so here each pass is one product with a matrix
that the graph computes from the image's size. A weight's 22 bits are split into two numbers of 11: all sums are then
whole numbers below 2^24, exact in float32 on any runtime and in any order of addition.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import onnx
from onnx import NodeProto
from PIL import Image

from reinception.data.loading.loader import LEAST_STD
from reinception.errors import ReinceptionError
from reinception.preprocess import Preprocessing
from reinception.rewrite.program import Program

# Whole numbers only: a weight is room / sum, and its 22 bits come from two divisions, as by hand.
_BILINEAR = """
    {a}_room = Max({a}_zero, {a}_reach_minus)
    {a}_sum = ReduceSum({a}_room, {a}_down)
    {a}_step = Constant<value = int64 {{2048}}>()
    {a}_w0 = Mul({a}_room, {a}_step)
    {a}_w1 = Div({a}_w0, {a}_sum)
    {a}_w2 = Mul({a}_w1, {a}_sum)
    {a}_w3 = Sub({a}_w0, {a}_w2)
    {a}_w4 = Mul({a}_w3, {a}_step)
    {a}_w5 = Div({a}_sum, {a}_whole2)
    {a}_w6 = Add({a}_w4, {a}_w5)
    {a}_w7 = Div({a}_w6, {a}_sum)
    {a}_high = Cast<to=1>({a}_w1)
    {a}_low = Cast<to=1>({a}_w7)
"""
# Keys' cubic with a = -0.5, as Pillow has it; ONNX's default is -0.75.
_BICUBIC = """
    {a}_t0 = Cast<to=11>({a}_far)
    {a}_t1 = Cast<to=11>({a}_reach)
    {a}_t2 = Div({a}_t0, {a}_t1)
    {a}_two = Constant<value = double {{2.0}}>()
    {a}_t = Min({a}_t2, {a}_two)
    {a}_tt = Mul({a}_t, {a}_t)
    {a}_near = Constant<value = double {{1.5}}>()
    {a}_near1 = Constant<value = double {{2.5}}>()
    {a}_one = Constant<value = double {{1.0}}>()
    {a}_n0 = Mul({a}_near, {a}_t)
    {a}_n1 = Sub({a}_n0, {a}_near1)
    {a}_n2 = Mul({a}_n1, {a}_tt)
    {a}_n3 = Add({a}_n2, {a}_one)
    {a}_five = Constant<value = double {{5.0}}>()
    {a}_eight = Constant<value = double {{8.0}}>()
    {a}_four = Constant<value = double {{4.0}}>()
    {a}_minus_half = Constant<value = double {{-0.5}}>()
    {a}_q0 = Sub({a}_t, {a}_five)
    {a}_q1 = Mul({a}_q0, {a}_t)
    {a}_q2 = Add({a}_q1, {a}_eight)
    {a}_q3 = Mul({a}_q2, {a}_t)
    {a}_q4 = Sub({a}_q3, {a}_four)
    {a}_q5 = Mul({a}_q4, {a}_minus_half)
    {a}_is_near = Less({a}_t, {a}_one)
    {a}_raw = Where({a}_is_near, {a}_n3, {a}_q5)
    {a}_sum = ReduceSum({a}_raw, {a}_down)
    {a}_weight = Div({a}_raw, {a}_sum)
    {a}_bits = Constant<value = double {{4194304.0}}>()
    {a}_half = Constant<value = double {{0.5}}>()
    {a}_w0 = Mul({a}_weight, {a}_bits)
    {a}_w1 = Abs({a}_w0)
    {a}_w2 = Add({a}_w1, {a}_half)
    {a}_w3 = Floor({a}_w2)
    {a}_w4 = Sign({a}_w0)
    {a}_w5 = Mul({a}_w3, {a}_w4)
    {a}_w = Cast<to=1>({a}_w5)
    {a}_h0 = Div({a}_w, {a}_shift)
    {a}_high = Floor({a}_h0)
    {a}_h1 = Mul({a}_high, {a}_shift)
    {a}_low = Sub({a}_w, {a}_h1)
"""
KERNELS = {"bilinear": _BILINEAR, "bicubic": _BICUBIC}

# In units of a half pixel times the resized side D the distance between a pixel's centre and that of an output pixel is
# (2 x + 1 - 2 first) D - (2 o + 1) L, with L the length that is resized: whole numbers all the way.
_AXIS = """
    {a}_zero = Constant<value = int64 {{0}}>()
    {a}_whole1 = Constant<value = int64 {{1}}>()
    {a}_whole2 = Constant<value = int64 {{2}}>()
    {a}_size = Constant<value = int64 {{{size}}}>()
    {box}
    {a}_twice = Mul({a}_first, {a}_whole2)
    {a}_length = Sub({a}, {a}_twice)
    {a}_x = Range({a}_zero, {a}, {a}_whole1)
    {a}_o = Range({a}_zero, {a}_size, {a}_whole1)
    {a}_o1 = Add({a}_o, {a}_offset)
    {a}_x2 = Mul({a}_x, {a}_whole2)
    {a}_x3 = Add({a}_x2, {a}_whole1)
    {a}_x4 = Sub({a}_x3, {a}_twice)
    {a}_x5 = Mul({a}_x4, {a}_side)
    {a}_p2 = Mul({a}_o1, {a}_whole2)
    {a}_p3 = Add({a}_p2, {a}_whole1)
    {a}_p4 = Mul({a}_p3, {a}_length)
    {a}_down = Constant<value = int64[1] {{0}}>()
    {a}_across = Constant<value = int64[1] {{1}}>()
    {a}_x6 = Unsqueeze({a}_x5, {a}_across)
    {a}_signed = Sub({a}_x6, {a}_p4)
    {a}_far = Abs({a}_signed)
    {a}_wider = Max({a}_length, {a}_side)
    {a}_reach = Mul({a}_wider, {a}_whole2)
    {a}_reach_minus = Sub({a}_reach, {a}_far)
    {a}_shift = Constant<value = float {{2048.0}}>()
    {kernel}
    {a}_matrix = Concat<axis=1>({a}_high, {a}_low)
"""
# floor((2048 high + low + 2^21) / 2^22), cut to 8 bits, as Pillow's shift does it.
_PASS = """
    {p}_high, {p}_low = Split<axis={axis}, num_outputs=2>({p}_sums)
    {p}_c0 = Div({p}_low, {name}_shift)
    {p}_c1 = Floor({p}_c0)
    {p}_c2 = Add({p}_high, {p}_c1)
    {p}_nearest = Constant<value = float {{1024.0}}>()
    {p}_c3 = Add({p}_c2, {p}_nearest)
    {p}_c4 = Div({p}_c3, {name}_shift)
    {p}_c5 = Floor({p}_c4)
    {p}_black = Constant<value = float {{0.0}}>()
    {p}_white = Constant<value = float {{255.0}}>()
    {p} = Clip({p}_c5, {p}_black, {p}_white)
"""
# Since some version Pillow begins with the columns where that leaves less to do for the rows; the rule was found by
# trying. The images go through one of two paths, and none through the other: OpenVINO gave wrong values for an `If`.
_CHOICE = """
    rows_less = Sub(height, height_side)
    columns_less = Sub(width, width_side)
    columns_twice = Mul(columns_less, width_whole2)
    is_lower = Greater(rows_less, height_zero)
    is_much_lower = Greater(rows_less, columns_twice)
    begins_with_columns = And(is_lower, is_much_lower)
    nowhere = Constant<value = int64[1] {{0}}>()
    num = Gather<axis=0>(shape, nowhere)
    num_columns_first = Where(begins_with_columns, num, nowhere)
    num_rows_first = Sub(num, num_columns_first)
    columns_bytes = Slice(images, nowhere, num_columns_first, nowhere)
    rows_bytes = Slice(images, nowhere, num_rows_first, nowhere)
    {columns}
    {rows}
    pixels = Concat<axis=0>(a_pixels, b_pixels)
"""
_BOX_OF_FRACTION = """
    {a}_side = Identity({a}_size)
    {a}_offset = Identity({a}_zero)
    {a}_f0 = Cast<to=11>({a})
    {a}_fraction = Constant<value = double {{{fraction!r}}}>()
    {a}_f1 = Mul({a}_f0, {a}_fraction)
    {a}_f2 = Sub({a}_f0, {a}_f1)
    {a}_f3 = Constant<value = double {{2.0}}>()
    {a}_f4 = Div({a}_f2, {a}_f3)
    {a}_f5 = Floor({a}_f4)
    {a}_first = Cast<to=7>({a}_f5)
"""
# The offset is round((side - size) / 2), half to even, as Python rounds.
_BOX_OF_SIDE = """
    {a}_first = Identity({a}_zero)
    {a}_shorter = Min(height, width)
    {a}_resized = Constant<value = int64 {{{resized}}}>()
    {a}_b0 = Mul({a}_resized, {a})
    {a}_side = Div({a}_b0, {a}_shorter)
    {a}_b1 = Sub({a}_side, {a}_size)
    {a}_b2 = Cast<to=11>({a}_b1)
    {a}_b3 = Constant<value = double {{2.0}}>()
    {a}_b4 = Div({a}_b2, {a}_b3)
    {a}_b5 = Round({a}_b4)
    {a}_offset = Cast<to=7>({a}_b5)
"""
_GRAPH = """
preprocess (uint8[n, h, w, 3] images) => (float[n, 3, {size}, {size}] values) {{
    shape = Shape(images)
    at_height = Constant<value = int64 {{1}}>()
    at_width = Constant<value = int64 {{2}}>()
    height = Gather<axis=0>(shape, at_height)
    width = Gather<axis=0>(shape, at_width)
    {width}
    {height}
    {resized}
    {scaled}
}}
"""
# One axis after the other: told to reduce three at once, ONNX Runtime adds up tens of thousands of float32 values in a
# row, which is wrong in the fifth digit.
_MEAN = """
    {name}_by_row = ReduceMean({of}, along_width)
    {name}_by_channel = ReduceMean({name}_by_row, along_height)
    {name} = ReduceMean({name}_by_channel, along_channels)
"""
_PER_IMAGE = f"""
    along_width = Constant<value = int64[1] {{{{3}}}}>()
    along_height = Constant<value = int64[1] {{{{2}}}}>()
    along_channels = Constant<value = int64[1] {{{{1}}}}>()
    {_MEAN.format(name="mean", of="pixels")}
    centred = Sub(pixels, mean)
    squares = Mul(centred, centred)
    {_MEAN.format(name="variance", of="squares")}
    deviation = Sqrt(variance)
    least = Constant<value = float {{{{{{least}}}}}}>()
    std = Max(deviation, least)
    values = Div(centred, std)
"""
_FIXED = """
    mean = Constant<value = float[1, 3, 1, 1] {{{mean}}}>()
    std = Constant<value = float[1, 3, 1, 1] {{{std}}}>()
    centred = Sub(pixels, mean)
    values = Div(centred, std)
"""


def require_exportable(preprocessing: Preprocessing) -> None:
    """ReinceptionError for an interpolation that no exported file has."""
    if preprocessing.interpolation not in KERNELS:
        raise ReinceptionError(
            f"export: the model resizes with {preprocessing.interpolation!r}; exported files know bilinear and bicubic"
        )


def preprocessing_nodes(preprocessing: Preprocessing, program: Program) -> Sequence[NodeProto]:
    """The nodes from `images` (n, h, w, 3) uint8 to `values` (n, 3, size, size) float32, what `program` reads."""
    require_exportable(preprocessing)
    size = preprocessing.input_size
    parts = {}
    for name in ("width", "height"):
        if preprocessing.resize == "shorter_side":
            box = _BOX_OF_SIDE.format(a=name, resized=preprocessing.resized_side)
        else:
            fraction = preprocessing.crop_fraction if preprocessing.resize == "central_crop" else 1.0
            box = _BOX_OF_FRACTION.format(a=name, fraction=fraction)
        kernel = KERNELS[preprocessing.interpolation].format(a=name)
        parts[name] = _AXIS.format(a=name, size=size, box=box, kernel=kernel)
    rows = _passes("b_", first="width", of="rows_bytes")
    if begins_with_columns_sometimes():
        parts["resized"] = _CHOICE.format(columns=_passes("a_", first="height", of="columns_bytes"), rows=rows)
    else:
        parts["resized"] = f"    rows_bytes = Identity(images)\n{rows}\n    pixels = Identity(b_pixels)"
    if preprocessing.scaling == "per_image":
        scaled = _PER_IMAGE.format(least=LEAST_STD)
    else:
        mean, std = program.mean or preprocessing.mean, program.std or preprocessing.std
        levels = {name: ", ".join(repr(255 * one) for one in values) for name, values in (("mean", mean), ("std", std))}
        scaled = _FIXED.format(**levels)
    return list(onnx.parser.parse_graph(_GRAPH.format(size=size, scaled=scaled, **parts)).node)


def _passes(prefix: str, *, first: str, of: str) -> str:
    """Both passes over the images `of` (n, h, w, 3) uint8, along the `first` side before the other.

    The result is called `prefix` and pixels, (n, 3, size, size) float32. The side that is resized is the last one and
    the matrix the right operand, and between a transposition and a product stands something else, or the two would be
    fused to one with the sides swapped: ONNX Runtime 1.30 cannot compute that for no images.
    """
    second = "height" if first == "width" else "width"
    order = "0,3,1,2" if first == "width" else "0,3,2,1"
    text = f"""
    {prefix}planes = Transpose<perm=[{order}]>({of})
    {prefix}floats = Cast<to=1>({prefix}planes)
    {prefix}products = MatMul({prefix}floats, {first}_matrix)
    {prefix}one_sums = Transpose<perm=[0,1,3,2]>({prefix}products)
    {_PASS.format(p=f"{prefix}one", axis=2, name=first)}
    {prefix}two_sums = MatMul({prefix}one, {second}_matrix)
    {_PASS.format(p=f"{prefix}two", axis=3, name=second)}
    """
    end = f"Transpose<perm=[0,1,3,2]>({prefix}two)" if first == "width" else f"Identity({prefix}two)"
    return text + f"{prefix}pixels = {end}"


@cache
def begins_with_columns_sometimes() -> bool:
    """Whether the Pillow that is installed resizes the columns first where that pays; older ones never do."""
    probe = np.random.default_rng(0).integers(0, 256, (64, 8), dtype=np.uint8)
    square = np.asarray(Image.fromarray(probe).resize((8, 8), Image.Resampling.BICUBIC, box=(0, 0, 7, 64)))
    columns = Image.fromarray(probe).resize((8, 8), Image.Resampling.BICUBIC)
    return bool((square == np.asarray(columns.resize((8, 8), Image.Resampling.BICUBIC, box=(0, 0, 7, 8)))).all())
