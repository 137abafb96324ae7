"""What clients send: bodies within limits, images one by one or as multipart parts, and whether they still wait."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.types import Receive, Scope

from reinception.serve.limits import BODIES_BYTES, BODY_SECONDS, STALL_SECONDS, ServeConfig
from reinception.serve.refusal import ClientGoneError, Refusal, bad_request

T = TypeVar("T")
_MAX_BOUNDARY = 70
_FORMS = ("application/x-www-form-urlencoded", "text/plain")


@dataclass(frozen=True, kw_only=True)
class Upload:
    """One image as it was sent; `name` is the client's, and goes nowhere but back to it."""

    name: str
    data: bytes


@dataclass
class _Size:
    num: int = 0


class Bodies:
    """Reads bodies, and keeps those in memory together below a limit."""

    def __init__(self, config: ServeConfig) -> None:
        self._limit = config.max_body_bytes
        self.num_bytes = 0

    @asynccontextmanager
    async def read(self, scope: Scope, receive: Receive) -> AsyncIterator[bytes]:
        """The whole body, which counts as in memory until the block ends.

        Refusal where it is too large, too slow, compressed, or memory is short now.
        """
        headers = scope["headers_by_name"]
        if headers.get("content-encoding", "identity") != "identity":
            raise Refusal(415, "encoding", "send the body as it is, without Content-Encoding")
        if int(headers.get("content-length", "0")) > self._limit:
            raise self._too_large()
        size = _Size()
        try:
            yield await self._whole(receive, size)
        finally:
            self.num_bytes -= size.num

    async def _whole(self, receive: Receive, size: _Size) -> bytes:
        parts: list[bytes] = []
        try:
            async with asyncio.timeout(BODY_SECONDS):
                while True:
                    message = await asyncio.wait_for(receive(), STALL_SECONDS)
                    if message["type"] == "http.disconnect":
                        raise ClientGoneError
                    parts.append(message["body"])
                    size.num += len(message["body"])
                    self.num_bytes += len(message["body"])
                    if size.num > self._limit:
                        raise self._too_large()
                    if self.num_bytes > BODIES_BYTES:
                        raise Refusal.busy(503, "memory", "too many bodies at a time; try again")
                    if not message.get("more_body"):
                        return b"".join(parts)
        except TimeoutError:
            raise Refusal(408, "slow", "the body did not come in time") from None

    def _too_large(self) -> Refusal:
        return Refusal(413, "too_large", f"the body is larger than the {self._limit >> 20} MiB allowed")


def uploads_of(content_type: str, body: bytes, most: int) -> tuple[list[Upload], bool]:
    """The images in a body, and whether it was multipart: several, that is, even where there is one."""
    kind, options = parse_options_header(content_type)
    kind = kind.decode("latin-1").strip().lower()
    if kind == "multipart/form-data":
        return _parts(options.get(b"boundary", b""), body, most), True
    if kind in _FORMS or kind.startswith("multipart/"):
        raise Refusal(415, "content_type", "send an image as the body, with its Content-Type, or multipart/form-data")
    if not body:
        raise bad_request("empty", "the body is empty; send an image as the body")
    return [Upload(name="", data=body)], False


@dataclass
class _Parts:
    """Collects the parts of a multipart body, in memory."""

    most: int
    found: list[Upload] = field(default_factory=list)
    headers: dict[bytes, bytes] = field(default_factory=dict)
    name: bytearray = field(default_factory=bytearray)
    value: bytearray = field(default_factory=bytearray)
    content: bytearray = field(default_factory=bytearray)
    is_ended: bool = False

    def begin(self) -> None:
        self.headers, self.content = {}, bytearray()
        if len(self.found) == self.most:
            raise Refusal(413, "too_many", f"more than {self.most} images in one request")

    def end_header(self) -> None:
        self.headers[bytes(self.name).lower()] = bytes(self.value)
        self.name, self.value = bytearray(), bytearray()

    def end_part(self) -> None:
        _, options = parse_options_header(self.headers.get(b"content-disposition", b""))
        if not options.get(b"name"):
            raise bad_request("multipart", "a part of the multipart body has no name")
        name = options.get(b"filename", options[b"name"]).decode("utf-8", "replace")
        self.found.append(Upload(name=name[:300], data=bytes(self.content)))

    def finish(self) -> None:
        self.is_ended = True


def _parts(boundary: bytes, body: bytes, most: int) -> list[Upload]:
    if not 0 < len(boundary) <= _MAX_BOUNDARY:
        raise bad_request("multipart", f"the Content-Type names no boundary of 1 to {_MAX_BOUNDARY} characters")
    parts = _Parts(most)
    parser = MultipartParser(
        boundary,
        {
            "on_part_begin": parts.begin,
            "on_header_field": lambda data, start, end: parts.name.extend(data[start:end]),
            "on_header_value": lambda data, start, end: parts.value.extend(data[start:end]),
            "on_header_end": parts.end_header,
            "on_part_data": lambda data, start, end: parts.content.extend(data[start:end]),
            "on_part_end": parts.end_part,
            "on_end": parts.finish,
        },
    )
    try:
        parser.write(body)
        parser.finalize()
    except (FormParserError, ValueError):
        raise bad_request("multipart", "the multipart body is malformed") from None
    if not parts.is_ended or not parts.found:
        raise bad_request("multipart", "the multipart body is truncated, or has no part")
    return parts.found


async def while_connected(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled as soon as the client leaves; then ClientGoneError."""
    task, leaving = asyncio.create_task(work), asyncio.create_task(_until_gone(receive))
    try:
        await asyncio.wait({task, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGoneError
        return task.result()
    finally:
        task.cancel()
        leaving.cancel()
        await asyncio.gather(task, leaving, return_exceptions=True)


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
