"""Early refusals: while the queue is full an image's request is answered from its first line alone."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from reinception.serve.admission import HEADERS
from reinception.serve.batcher import Batcher
from reinception.serve.counters import Counters
from reinception.serve.refusal import Refusal

EarlyRefusal = Callable[[bytes], bytes | None]
_REASONS = {429: "Too Many Requests", 503: "Service Unavailable"}


def early_refusal(batcher: Batcher, counters: Counters, root: str | None) -> EarlyRefusal:
    """A function of the first bytes of a request: the whole answer where it must wait for a place, else None.

    Parsing a request and starting its task takes a hundred times as long as this, and under overload most requests
    are refused. The answer says only that the queue is full, so it may come before the Host and the token are checked.
    """
    start = re.escape((root or "").encode())
    wanted = re.compile(
        rb"(?:POST|PUT) (?:%s)?/(?:v1/(predict|features)|v2/models/[^/? ]+(?:/versions/[^/? ]+)?/infer)[? ]" % start
    )

    def refused(data: bytes) -> bytes | None:
        match = wanted.match(data)
        if match is None:
            return None
        try:
            batcher.check_room()
        except Refusal as refusal:
            counters.answered("v2_infer" if match[1] is None else match[1].decode(), "POST", refusal.status, 0.0)
            return _whole(refusal, is_v2=match[1] is None)
        return None

    return refused


def _whole(refusal: Refusal, *, is_v2: bool) -> bytes:
    body = json.dumps(refusal.document_v2 if is_v2 else refusal.document).encode()
    headers = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        "connection": "close",
        **{name.lower(): value for name, value in refusal.headers.items()},
        **HEADERS,
    }
    lines = [f"HTTP/1.1 {refusal.status} {_REASONS[refusal.status]}", *(f"{k}: {v}" for k, v in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body
