"""Reads a record's image: its bytes from a file, a tar file or an address, and its decoded pixels."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from reinception.data.images.crops import evaluation_pixels
from reinception.data.images.decode import AS_DECLARED, MAX_PIXELS, Pixels, allowed_bytes, decode, max_file_bytes
from reinception.data.images.jpeg import TrainingImage, open_jpeg
from reinception.data.images.png import open_png
from reinception.data.loading.watchdog import Watchdog
from reinception.data.sources.records import Record
from reinception.data.sources.remote import MissingError, Pause, read_part
from reinception.errors import BadImage
from reinception.preprocess import Preprocessing


def pixels_of(
    record: Record, pause: Pause = contextlib.nullcontext, *, preprocessing: Preprocessing = AS_DECLARED
) -> Pixels:
    """The decoded image, (h, w, 3) or (h, w) uint8: the reference. `BadImage` under the record's name.

    `pause` is a context manager for the time spent waiting for a network (`Watchdog.pause`); of `preprocessing` the
    background and the range of deep greys are used.
    """
    with errors_named(record):
        is_whole_file = record.offset is None and record.address is None
        source = record.path if is_whole_file else bytes_of(record, pause)
        return decode(source, keep_grey=True, preprocessing=preprocessing)


def evaluation_square(record: Record, preprocessing: Preprocessing, pause: Pause = contextlib.nullcontext) -> Pixels:
    """The single crop of the image, (s, s, 3) uint8: what `evaluation_pixels` makes of `pixels_of`, to the bit.

    A plain JPEG is decoded by libjpeg-turbo where simplejpeg is installed: half the time, a third for 12 megapixels.
    `BadImage` under the record's name.
    """
    with errors_named(record):
        data = bytes_of(record, pause)
        jpeg = open_jpeg(data)
        image = None if jpeg is None else jpeg.image()
        if image is None:
            image = decode(data, keep_grey=True, preprocessing=preprocessing)
        return evaluation_pixels(image, preprocessing)


def training_image(
    record: Record, pause: Pause = contextlib.nullcontext, *, preprocessing: Preprocessing = AS_DECLARED
) -> TrainingImage:
    """What training augments: the same pixels as `pixels_of`, or a large JPEG to be decoded at the scale it needs.

    JPEG is decoded by libjpeg-turbo where simplejpeg is installed and PNG by libspng where pyspng is; whatever they are
    not sure of, and every other format, by `decode`. `BadImage` under the record's name.
    """
    with errors_named(record):
        data = bytes_of(record, pause)
        if (jpeg := open_jpeg(data)) is not None:
            return jpeg if jpeg.is_large else jpeg.pixels(1)
        pixels = open_png(data)
        return decode(data, keep_grey=True, preprocessing=preprocessing) if pixels is None else pixels


@contextlib.contextmanager
def errors_named(record: Record) -> Iterator[None]:
    """A `BadImage` from inside the block leaves it under the record's name."""
    try:
        yield
    except BadImage as error:
        raise error.named(record.name) from error.__cause__


@contextlib.contextmanager
def watched(record: Record, index: int, watchdog: Watchdog) -> Iterator[Record]:
    """The record, marked as the `index` that this process is working on; errors inside the block bear its name."""
    with errors_named(record):
        watchdog.mark_current(index)
        yield record


def bytes_of(record: Record, pause: Pause = contextlib.nullcontext) -> bytes:
    """The encoded image. `BadImage` when it is not there or larger than any image that is accepted.

    ReinceptionError where it is at an address and the connection is lost: then the image is not to blame.
    """
    if record.address is not None:
        return _bytes_at_address(record, record.address, pause)
    if record.offset is None or record.size is None:
        return allowed_bytes(record.path, MAX_PIXELS)
    try:
        with record.path.open("rb", buffering=0) as file:
            data = os.pread(file.fileno(), record.size, record.offset)
    except OSError as error:
        reason = f"{record.path} cannot be read ({error.strerror}): check it"
        raise BadImage(record.name, "unreadable", reason) from error
    if len(data) < record.size:
        raise BadImage(record.name, "truncated", f"{record.path} ends inside it: get a fresh copy of that file")
    return data


def _bytes_at_address(record: Record, address: str, pause: Pause) -> bytes:
    try:
        size = record.num_bytes(pause)
        if size > (limit := max_file_bytes(MAX_PIXELS)):
            reason = f"{size:,} bytes are more than the {limit:,} allowed: shrink it"
            raise BadImage(record.name, "too_large", reason)
        data = read_part(address, record.offset or 0, size, pause)
    except MissingError as error:
        raise BadImage(record.name, "missing", f"{address}: there is no such file: check the address") from error
    if len(data) < size:
        raise BadImage(record.name, "truncated", f"{address} ends inside it: get a fresh copy of that file")
    return data
