"""One decoding process: encoded images in on standard input, squares of pixels out on standard output."""

from __future__ import annotations

import functools
import json
import os
import resource
import signal
import struct
import sys
from typing import BinaryIO

from reinception.data.images.crops import evaluation_pixels
from reinception.data.images.decode import decode
from reinception.errors import BadImage
from reinception.preprocess import Preprocessing
from reinception.serve.priority import lower_priority

ASK = struct.Struct("<III")
"""Bytes of the preprocessing as JSON, bytes of the image, most pixels."""

ANSWER = struct.Struct("<BIII")
"""1 for pixels or 0 for a reason, width and height of the upright image, bytes that follow."""

STARTED = b"ready"
"""What a process says when it has loaded all it needs."""

MEMORY_BYTES = 4 << 30


def main() -> None:
    """Answers until standard input ends. Signals for the whole group are the parent's to act on."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    lower_priority()
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not end up among the pixels
    out.write(STARTED)
    out.flush()
    while head := sys.stdin.buffer.read(ASK.size):
        if len(head) < ASK.size:
            break
        _answer(sys.stdin.buffer, out, *ASK.unpack(head))


def _answer(given: BinaryIO, out: BinaryIO, num_json: int, num_bytes: int, max_pixels: int) -> None:
    preprocessing = _preprocessing(given.read(num_json))
    try:
        image = decode(given.read(num_bytes), max_pixels=max_pixels, keep_grey=True, preprocessing=preprocessing)
        square = evaluation_pixels(image, preprocessing).tobytes()
        head = ANSWER.pack(1, image.shape[1], image.shape[0], len(square))
    except MemoryError:
        head, square = _refusal(BadImage("", "memory", "needs more memory than a decoder may use: shrink it"))
    except BadImage as bad:
        head, square = _refusal(bad)
    out.write(head + square)
    out.flush()


def _refusal(bad: BadImage) -> tuple[bytes, bytes]:
    text = json.dumps([bad.kind, bad.reason]).encode()
    return ANSWER.pack(0, 0, 0, len(text)), text


@functools.lru_cache(maxsize=64)
def _preprocessing(document: bytes) -> Preprocessing:
    return Preprocessing.from_json(json.loads(document))


if __name__ == "__main__":
    main()
