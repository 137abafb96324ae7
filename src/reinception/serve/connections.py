"""Connections: how many there may be, how long the head of a request may take, and how they end when the server stops."""

from __future__ import annotations

import asyncio
from typing import cast

from uvicorn.protocols.http.h11_impl import H11Protocol

from reinception.serve.limits import HEADER_SECONDS

_BODY = b'{"error": {"code": "connections", "message": "too many connections; try again"}}'
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\nconnection: close\r\n"
    b"content-length: %d\r\n\r\n%s" % (len(_BODY), _BODY)
)
_LAST_SECONDS = 0.3


def limited_protocol(most: int) -> type[H11Protocol]:
    """uvicorn's HTTP/1.1 with at most `most` connections, and a deadline for the head of every request."""

    class LimitedProtocol(H11Protocol):
        _timer: asyncio.TimerHandle | None = None
        _is_stopping = False

        def connection_made(self, transport: asyncio.BaseTransport) -> None:  # pyrefly: ignore[bad-override]
            given = cast(asyncio.Transport, transport)
            super().connection_made(given)
            if len(self.connections) > most:
                given.write(_FULL)
                given.close()
            else:
                self._timer = self.loop.call_later(HEADER_SECONDS, self._end_if_idle)

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_timer()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self._is_busy():
                self._stop_timer()
                self.cycle.keep_alive = self.cycle.keep_alive and not self._is_stopping
            elif self._timer is None:
                self._timer = self.loop.call_later(HEADER_SECONDS, self._end_if_idle)

        def shutdown(self) -> None:
            """A request that is on its way when the server stops is still answered."""
            self._is_stopping = True
            if self._is_busy():
                super().shutdown()
            else:
                self.loop.call_later(_LAST_SECONDS, self._end_if_idle)

        def _is_busy(self) -> bool:
            return self.cycle is not None and not self.cycle.response_complete

        def _end_if_idle(self) -> None:
            if not self._is_busy() and not self.transport.is_closing():
                self.transport.close()

        def _stop_timer(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    return LimitedProtocol
