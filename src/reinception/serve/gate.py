"""The gate before every route: who may ask (Host, Origin, token), what every answer carries, refusals as JSON."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import ipaddress
import json
import re
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from reinception.errors import first_line
from reinception.serve.counters import Counters
from reinception.serve.limits import DISCARD_BYTES, DISCARD_SECONDS, ServeConfig
from reinception.serve.refusal import ClientGoneError, Refusal

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?", re.ASCII)
_CONTENT = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": _CONTENT,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
    "cache-control": "no-store",
}
_OPEN_PATHS = frozenset({"/", "/healthz", "/readyz", "/openapi.json", "/api", "/v2/health/live", "/v2/health/ready"})
"""What needs no token: the page itself, which holds no data, and what load balancers ask."""


@dataclass
class _Exchange:
    """What is known of one request: whether its body has been read, and what was answered when."""

    is_read: bool
    started: float
    status: int = 0


class Gate:
    """Pure ASGI around the routes, so that they see a client leave."""

    def __init__(
        self, app: ASGIApp, config: ServeConfig, counters: Counters, token: bytes | None, draining: Callable[[], bool]
    ) -> None:
        self._app, self._config, self._counters, self._token, self._draining = app, config, counters, token, draining
        listed = [name.strip().lower() for name in (config.allowed_hosts or "").split(",")]
        self._hosts = {"localhost", config.host.lower(), *filter(None, listed)}
        self._origins = {one.strip().lower().rstrip("/") for one in (config.origin or "").split(",")} - {""}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(
            reversed([(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]])
        )
        has_body = "transfer-encoding" in headers or headers.get("content-length", "0") != "0"
        exchange = _Exchange(is_read=not has_body, started=time.monotonic())

        async def reading() -> Message:
            message = await receive()
            exchange.is_read = exchange.is_read or not message.get("more_body", False)
            return message

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                own = {name for name, _ in message["headers"]}
                more = [(k.encode(), v.encode()) for k, v in HEADERS.items() if k.encode() not in own]
                close = [] if exchange.is_read and not self._draining() else [(b"connection", b"close")]
                message = {**message, "headers": [*message["headers"], *more, *close]}
            elif not exchange.is_read and not message.get("more_body"):
                # The whole answer first; closing with unread data would destroy it on its way.
                await send({**message, "more_body": True})
                if "expect" not in headers:
                    await _discard(receive)
                message = {"type": "http.response.body", "body": b""}
            await send(message)

        scope = {**scope, "app": self, "headers_by_name": headers}
        try:
            self._check(scope, headers)
            await self._app(scope, reading, sending)
        except ClientGoneError:
            self._counters.cancelled.inc()
            exchange.status = 499
        except Exception as error:
            await _answer(sending, _refusal(error, exchange.status), scope)
        finally:
            route = getattr(scope.get("endpoint"), "__name__", "unmatched")
            seconds = time.monotonic() - exchange.started
            self._counters.answered(route.strip("_"), scope["method"], exchange.status, seconds)

    # -- who may ask ---------------------------------------------------------------------------------------------------

    def _check(self, scope: Scope, headers: Mapping[str, str]) -> None:
        """Raises the Refusal of a request that may not be answered, and takes the root path off its path."""
        names = [name for name, _ in scope["headers"]]
        if names.count(b"host") != 1:
            raise Refusal(400, "host", "a request names its Host once")
        if b"transfer-encoding" in names and b"content-length" in names:
            raise Refusal(400, "framing", "a body has either a Content-Length or a Transfer-Encoding")
        self._check_host(headers["host"], scope)
        self._check_origin(headers, scope)
        root = self._config.root_path
        if root and (scope["path"] + "/").startswith(root + "/"):
            if scope["path"] == root:
                raise Refusal(308, "moved", "the page is at this address with / at its end", {"Location": root + "/"})
            scope["path"] = scope["path"][len(root) :]
        is_open = scope["path"] in _OPEN_PATHS or scope["path"].startswith("/page/")
        if self._token is not None and not is_open:
            given = headers.get("authorization", "")
            if not hmac.compare_digest(given.encode("latin-1"), b"Bearer " + self._token):
                raise Refusal(401, "token", "send Authorization: Bearer SECRET", {"WWW-Authenticate": "Bearer"})

    def _check_host(self, host: str, scope: Scope) -> None:
        match = _HOST.fullmatch(host)
        if match is None or int(match[2] or 0) > 65535:
            raise Refusal(400, "host", "the Host of the request is not a name or address with or without a port")
        name = match[1].strip("[]").lower()
        if name in self._hosts:
            return
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            address = None
        # A foreign page can give our address a name of its own, but not the address itself.
        own = (scope.get("server") or ("",))[0]
        if address is None or not (address.is_loopback or str(address) == own):
            raise Refusal(421, "host", "this server does not answer to that Host; add it with --allowed-hosts")

    def _check_origin(self, headers: Mapping[str, str], scope: Scope) -> None:
        origin = headers.get("origin")
        own = f"{scope['scheme']}://{headers['host']}".lower()
        if origin is not None and origin.lower() not in {own, *self._origins}:
            shown = origin if origin.isascii() and origin.isprintable() and len(origin) < 200 else "?"
            known = " or ".join(sorted({own, *self._origins}))
            raise Refusal(403, "origin", f"the request comes from a page of {shown}, not of {known}; see --origin")
        site, is_page = headers.get("sec-fetch-site", "none"), headers.get("sec-fetch-dest") == "document"
        if site not in ("none", "same-origin") and not (is_page and scope["method"] in ("GET", "HEAD")):
            raise Refusal(403, "origin", "the request comes from a page of another site")


def _refusal(error: Exception, status: int) -> Refusal:
    """What an exception is answered with. It is raised again where an answer is under way."""
    if status:
        raise error
    if isinstance(error, Refusal):
        return error
    if isinstance(error, HTTPException):
        code = {404: "no_such_address", 405: "method"}.get(error.status_code, "request")
        words = {404: "there is no such address; see /api", 405: "this address does not take that method"}
        return Refusal(error.status_code, code, words.get(error.status_code, "bad request"), error.headers)
    traceback.print_exception(error)
    print(f"reinception: serve: {type(error).__name__}: {first_line(error)}", file=sys.stderr, flush=True)
    return Refusal(500, "internal", "the server failed; its log says why")


async def _answer(send: Send, refusal: Refusal, scope: Scope) -> None:
    document = refusal.document_v2 if scope["path"].startswith("/v2") else refusal.document
    body = json.dumps(document, ensure_ascii=False).encode()
    headers = {"content-type": "application/json", "content-length": str(len(body)), **refusal.headers}
    encoded = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": refusal.status, "headers": encoded})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


async def _discard(receive: Receive) -> None:
    """Reads what is left of a body, for a bounded time and amount."""
    num = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DISCARD_SECONDS):
            while num < DISCARD_BYTES:
                message = await receive()
                num += len(message.get("body", b""))
                if not message.get("more_body"):
                    return
