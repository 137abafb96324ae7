"""A part of a JPEG as a JPEG of its own, cut out of the file without decoding a pixel: only the part is then decoded.

The decoder's work on a JPEG is mostly reading its Huffman codes, one after another, from the first. Here those outside
the part are stepped over several at a time (jpeg_walk.py), and those inside are copied as they are, behind a header
with the part's size. So the decoder gives the same pixels as of the whole file, and the tests hold it to that. At 1/4
and 1/8, where a block is four pixels or one, those of colours stored at full size are computed here, to the same bits.
"""

from __future__ import annotations

import io
import sys
from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from reinception.data.images.decode import Pixels
from reinception.data.images.jpeg_header import Header, Scan, read_header

Box = tuple[int, int, int, int]

_START, _END = b"\xff\xd8", b"\xff\xd9"
_PROGRESSIVE = 0xC2
# What ends the order of a sequential scan: all 64 coefficients, in one go.
_SEQUENTIAL = b"\x00\x3f\x00"
# Colours that are stored at half the size are interpolated from their neighbours when they are brought to full size;
# but not in a picture of up to four pixels across.
_NEIGHBOURS, _NOT_INTERPOLATED = 2, 4
# Of the time that decoding takes a walk takes about a quarter; what saves less than a tenth is not worth the copying.
_WALK = 0.25
_WORTH = 0.9


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """A part of a picture: where it begins at the scale that was asked for, and its size before it is scaled.

    `file` is a JPEG of it; or else there are `planes`, one for each colour: its pixels, or a grey JPEG which, decoded
    at twice the scale, has them.
    """

    left: int
    top: int
    width: int
    height: int
    file: bytes | None
    planes: list[bytes | Pixels]


def prepare() -> None:
    """Load what is compiled, where numba is installed: a second, and some ten when it is compiled for the first time.

    So it is for the process that starts the others, and not for each of them while a picture is waiting. Where it was
    not done nothing is cut.
    """
    try:
        import reinception.data.images.jpeg_walk  # noqa: F401
    except ImportError:  # the extra `fast` is not installed: whole pictures are decoded, the same pixels, slower
        return
    file = io.BytesIO()
    Image.new("RGB", (64, 64)).save(file, "JPEG", quality=90)
    header = read_header(file.getvalue())
    assert header is not None
    for shrink in (1, 8):
        cut(file.getvalue(), header, (0, 0, 1, 1), shrink)
    in_rgb([np.zeros((1, 1), dtype=np.uint8)] * 3)


def cut(data: bytes, header: Header, box: Box, shrink: int) -> Part | None:
    """At least the box (left, top, right, bottom) of the stored picture at 1/`shrink`.

    Inside the box its pixels are those of the whole picture at that scale. None where that can't be had (a progressive
    file, a damaged one, nothing is prepared) or wouldn't pay.
    """
    scan, walker = header.scan, _walker()
    layout = _layout(scan.frame[1], scan.frame[9:], scan.order[4:], shrink)
    if walker is None or layout is None or data.rfind(_END, scan.start) < 0:
        return None
    unit_width, unit_height = 8 * layout.across, 8 * layout.down
    units_across, units_down = -(-header.width // unit_width), -(-header.height // unit_height)
    neighbours = 0 if layout.has_planes else _NEIGHBOURS
    left, right = _units(box[0] - neighbours, box[2] + neighbours, unit_width // shrink, units_across)
    top, bottom = _units(box[1] - neighbours, box[3] + neighbours, unit_height // shrink, units_down)
    if neighbours and min(right * unit_width, header.width) - left * unit_width <= shrink * _NOT_INTERPOLATED:
        left, right = max(0, left - 1), min(units_across, right + 1)
    share = (right - left) * (bottom - top) / (units_across * units_down)
    if shrink < 8 and share + _WALK * bottom / units_down > _WORTH:
        return None
    walked = _walk(walker, data, scan, layout, units_across, (left, top, right, bottom))
    if walked is None:
        return None
    planes, streams = walked
    width = min(right * unit_width, header.width) - left * unit_width
    height = min(bottom * unit_height, header.height) - top * unit_height
    file, colours = None, list[bytes | Pixels]()
    if not layout.has_planes:
        file = _file(scan, scan.frame[9:], scan.order[4:], (width, height), streams[0])
    for colour, component in enumerate(layout.components if layout.has_planes else ()):
        if component.stream >= 0:
            frame = bytes((1, component.name, 0x11, component.quantiser))
            order = bytes((1, component.name, component.tables, *_SEQUENTIAL))
            size = -(-width // 2), -(-height // 2)
            colours.append(_file(scan, frame, order, size, streams[component.stream]))
        else:
            colours.append(planes[colour, : -(-height // shrink), : -(-width // shrink)])
    return Part(
        left=left * unit_width // shrink,
        top=top * unit_height // shrink,
        width=width,
        height=height,
        file=file,
        planes=colours,
    )


def in_rgb(planes: list[Pixels]) -> Pixels:
    """The picture of a `Part`'s planes, (h, w) for one and (h, w, 3) for three."""
    from reinception.data.images import jpeg_pixels

    return jpeg_pixels.in_rgb(*map(np.ascontiguousarray, planes)) if len(planes) == 3 else planes[0]


def _walker() -> ModuleType | None:
    """The compiled functions, once `prepare` has loaded them."""
    return sys.modules.get("reinception.data.images.jpeg_walk")


def _walk(  # noqa: PLR0917 - one file's codes, and where in them
    walker: ModuleType, data: bytes, scan: Scan, layout: _Layout, units_across: int, window: Box
) -> tuple[Pixels, list[bytes]] | None:
    """(the pixels of each colour that has no stream, the codes of each stream) of the units in the window."""
    from reinception.data.images.jpeg_tables import factors_of, tables_of

    tables = tables_of(scan.tables)
    if tables is None:
        return None
    left, top, right, bottom = window
    shape, factors = (0, 0, 0), np.zeros((0, 0), dtype=np.int64)
    if layout.has_planes:
        shape = (
            len(layout.components),
            layout.side * (bottom - top) * layout.down,
            layout.side * (right - left) * layout.across,
        )
        factors = factors_of(scan.quantisers, tuple(component.quantiser for component in layout.components))
    planes = np.empty(shape, dtype=np.uint8)
    out = np.empty((layout.num_streams, (len(data) - scan.start) // 4 + 1024), dtype=np.uint32)
    read, written = np.zeros((2, 4), dtype=np.int64)
    writers = np.zeros((layout.num_streams, 3), dtype=np.uint64)
    outcome = walker.walk(
        np.frombuffer(data, dtype=np.uint8),
        scan.start,
        tables.lookup.reshape(-1),
        tables.last_codes,
        tables.offsets,
        tables.symbols,
        tables.codes,
        layout.blocks,
        units_across,
        window,
        scan.interval,
        read,
        written,
        layout.side,
        factors,
        tables.single,
        np.zeros(36, dtype=np.int64),
        planes,
        out,
        writers,
    )
    if outcome == walker.FAILED:
        return None
    sizes = writers[:, 0].tolist()
    return planes, [out[row].view(np.uint8)[:size].tobytes() for row, size in enumerate(sizes)]


def _units(start: int, end: int, size: int, num: int) -> tuple[int, int]:
    """The units of `size` pixels that hold start to end, as far as there are such."""
    return max(0, start) // size, min(num, -(-end // size))


def _file(scan: Scan, frame: bytes, order: bytes, size: tuple[int, int], codes: bytes) -> bytes:
    """A JPEG of that width and height; `frame` and `order` are what the segments SOF and SOS say of its colours."""
    width, height = size
    sof = scan.frame[:2] + (7 + len(frame)).to_bytes(2) + b"\x08" + height.to_bytes(2) + width.to_bytes(2) + frame
    sos = scan.order[:2] + (2 + len(order)).to_bytes(2) + order
    return b"".join((_START, scan.before, sof, sos, codes.replace(b"\xff", b"\xff\x00"), _END))


@dataclass(frozen=True, kw_only=True)
class _Component:
    """A colour: its name, the numbers of its tables, and the stream its codes go to; -1 where means are enough."""

    name: int
    quantiser: int
    tables: int
    stream: int


@dataclass(frozen=True, kw_only=True, eq=False)
class _Layout:
    """How the codes of a file are laid out: in units of `across` by `down` blocks of the finest colour.

    `blocks` has a row for each block of a unit, as `walk` wants it. With `has_planes` each colour goes its own way: to
    pixels, `side` by `side` for a block, or where it is stored at half the size to a stream of its own.
    """

    across: int
    down: int
    has_planes: bool
    side: int
    num_streams: int
    components: tuple[_Component, ...]
    blocks: NDArray[np.int64]


@lru_cache(maxsize=64)
def _layout(kind: int, frame: bytes, order: bytes, shrink: int) -> _Layout | None:
    """None where the file is progressive, has its colours one after another, or is damaged.

    At 1/8 a block of a colour that is stored at full size becomes one pixel, its mean, and at 1/4 four: that is less
    work than writing a file for the decoder. Where a colour is stored at less than half the size, or at half of one
    side, the decoder has to have them all; at 1/8 too little is won by that.
    """
    num = frame[0]
    if kind == _PROGRESSIVE or len(frame) != 1 + 3 * num or len(order) != 4 + 2 * num or order[0] != num:
        return None
    # A single colour is stored block by block, whatever its factors say.
    factors = [(sampling >> 4, sampling & 15) if num > 1 else (1, 1) for sampling in frame[2::3]]
    across, down = max(x for x, _ in factors), max(y for _, y in factors)
    is_plain = all((x, y) in ((across, down), (across / 2, down / 2)) for x, y in factors)
    has_planes = shrink >= 4 and is_plain and frame[1::3] != b"RGB"  # by these names they may not be JFIF's colours
    if order[-3:] != _SEQUENTIAL or not min(min(pair) for pair in factors) >= 1 or (shrink == 8 and not has_planes):
        return None
    components, rows, num_streams = list[_Component](), list[tuple[int, ...]](), 0
    for colour, (factor_across, factor_down) in enumerate(factors):
        name, _, quantiser = frame[1 + 3 * colour : 4 + 3 * colour]
        chosen, tables = order[1 + 2 * colour : 3 + 2 * colour]
        if chosen != name or max(factor_across, factor_down) > 4 or tables & 0xCC:
            return None
        stream = 0
        if has_planes:
            stream = -1 if (factor_across, factor_down) == (across, down) else num_streams
        num_streams = max(num_streams, stream + 1)
        components.append(_Component(name=name, quantiser=quantiser, tables=tables, stream=stream))
        rows += [
            (colour, tables >> 4, 4 + (tables & 15), stream, x, y, factor_across, factor_down)
            for y in range(factor_down)
            for x in range(factor_across)
        ]
    return _Layout(
        across=across,
        down=down,
        has_planes=has_planes,
        side=8 // shrink,
        num_streams=num_streams,
        components=tuple(components),
        blocks=np.array(rows, dtype=np.int64),
    )
