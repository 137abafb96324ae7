"""From a record to its picture: the bytes of a file or of a part of a tar file, whole or as small as training needs."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from reinception.data.images.decode import MAX_PIXELS, Pixels, allowed_bytes, decode
from reinception.data.images.jpeg import TrainingImage, open_jpeg
from reinception.data.images.png import open_png
from reinception.data.sources.records import Record
from reinception.data.sources.remote import MissingError, read_part
from reinception.errors import BadImage

# As decode.allowed_bytes has it for files here.
_MOST_BYTES = 8 * MAX_PIXELS + (64 << 20)


def pixels_of(record: Record) -> Pixels:
    """The decoded picture, (h, w, 3) or (h, w) uint8: the reference. `BadImage` under the record's name."""
    with under_the_name_of(record):
        is_whole_file = record.offset is None and record.address is None
        return decode(record.path if is_whole_file else bytes_of(record), keep_grey=True)


def training_image(record: Record) -> TrainingImage:
    """What training augments: the same pixels as `pixels_of`, or a large JPEG to be decoded at the scale it needs.

    JPEG is decoded by libjpeg-turbo where simplejpeg is installed and PNG by libspng where pyspng is; whatever they are
    not sure of, and every other format, by `decode`. `BadImage` under the record's name.
    """
    with under_the_name_of(record):
        data = bytes_of(record)
        if (jpeg := open_jpeg(data)) is not None:
            return jpeg if jpeg.is_large else jpeg.pixels(1)
        pixels = open_png(data)
        return decode(data, keep_grey=True) if pixels is None else pixels


@contextlib.contextmanager
def under_the_name_of(record: Record) -> Iterator[None]:
    """A `BadImage` from inside the block leaves it under the name by which people know the picture."""
    try:
        yield
    except BadImage as error:
        raise error.named(record.name) from error.__cause__


def bytes_of(record: Record) -> bytes:
    """The encoded picture. `BadImage` when it is not there or larger than any picture we accept.

    ReinceptionError where it lies elsewhere and the connection is lost: that is no fault of the picture's.
    """
    if record.address is not None:
        return _bytes_elsewhere(record, record.address)
    if record.offset is None or record.size is None:
        return allowed_bytes(record.path, MAX_PIXELS)
    try:
        with record.path.open("rb", buffering=0) as file:
            data = os.pread(file.fileno(), record.size, record.offset)
    except OSError as error:
        raise BadImage(
            record.name, "unreadable", f"{record.path} cannot be read ({error.strerror}): check it"
        ) from error
    if len(data) < record.size:
        raise BadImage(record.name, "truncated", f"{record.path} ends inside it: get a fresh copy of that file")
    return data


def _bytes_elsewhere(record: Record, address: str) -> bytes:
    try:
        size = record.num_bytes()
        if size > _MOST_BYTES:
            raise BadImage(
                record.name, "too_large", f"{size:,} bytes are more than the {_MOST_BYTES:,} allowed: shrink it"
            )
        data = read_part(address, record.offset or 0, size)
    except MissingError as error:
        raise BadImage(record.name, "missing", f"{address}: there is no such file: check the address") from error
    if len(data) < size:
        raise BadImage(record.name, "truncated", f"{address} ends inside it: get a fresh copy of that file")
    return data
