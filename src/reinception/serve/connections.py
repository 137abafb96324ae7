"""Connections: how many there may be, how long the head of a request may take, how they end when the server stops."""

from __future__ import annotations

import asyncio
import socket
from typing import Any, ClassVar, cast

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from reinception.serve.early_refusal import EarlyRefusal
from reinception.serve.limits import DISCARD_BYTES, DISCARD_SECONDS, HEADER_SECONDS

_BODY = b'{"error": {"code": "connections", "message": "too many connections; try again"}}'
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\nconnection: close\r\n"
    b"content-length: %d\r\n\r\n%s" % (len(_BODY), _BODY)
)
# A client that has connected sends its first request later than one whose connection is known sends the next.
_FIRST_SECONDS, _LAST_SECONDS = 2.0, 0.3


class LimitedProtocol(H11Protocol):
    """The protocol of `limited_protocol`, which sets how many connections there may be and what refuses early."""

    most: ClassVar[int]
    refused: ClassVar[EarlyRefusal]

    _timer: asyncio.TimerHandle | None = None
    _is_stopping = False
    _discarded: int | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        given = cast(asyncio.Transport, transport)
        super().connection_made(given)
        if len(self.connections) > self.most:
            given.write(_FULL)
            given.close()
        else:
            self._timer = self.loop.call_later(HEADER_SECONDS, self._end_if_idle)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._discarded is not None:
            self._discard(data)
            return
        if self.conn.their_state is h11.IDLE and not self.conn.trailing_data[0]:
            answer = self.refused(data)
            if answer is not None:
                self._end_with(answer, data)
                return
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
            self.loop.call_later(_FIRST_SECONDS if self.cycle is None else _LAST_SECONDS, self._end_if_idle)

    def _end_with(self, answer: bytes, data: bytes) -> None:
        """The last answer of this connection. What the client still sends is read, or the answer would be lost."""
        self._stop_timer()
        self.transport.write(answer)
        self.transport.write_eof()
        self._discarded = 0
        self._timer = self.loop.call_later(DISCARD_SECONDS, self.transport.close)
        self._discard(data)

    def _discard(self, data: bytes) -> None:
        assert self._discarded is not None
        self._discarded += len(data)
        if self._discarded > DISCARD_BYTES:
            self.transport.close()

    def _is_busy(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _end_if_idle(self) -> None:
        if not self._is_busy() and not self.transport.is_closing():
            self.transport.close()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class DrainingServer(uvicorn.Server):
    """uvicorn's server, which when it stops also answers who has connected and waits to be let in.

    The system connects clients before the server knows of them; closing the listener would reset them.
    """

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Lets in who waits, closes the listeners and answers what was asked."""
        waiting = [one for listener in sockets or [] for one in _waiting(listener)]
        for server in self.servers:
            server.close()
        loop, protocol = asyncio.get_running_loop(), cast(Any, self.config.http_protocol_class)
        given = {"config": self.config, "server_state": self.server_state, "app_state": self.lifespan.state}
        for one in waiting:
            await loop.connect_accepted_socket(lambda: protocol(**given), one)
        await super().shutdown(sockets)


def _waiting(listener: socket.socket) -> list[socket.socket]:
    """The connections that the system has made for `listener` and nobody has taken."""
    found: list[socket.socket] = []
    while True:
        try:
            found.append(listener.accept()[0])
        except OSError:  # none is left; BlockingIOError is one
            return found


def limited_protocol(most: int, refused: EarlyRefusal) -> type[H11Protocol]:
    """uvicorn's HTTP/1.1 with at most `most` connections, and a deadline for the head of every request.

    `refused` sees the first bytes of a request, and may answer in place of everything behind.
    """

    return type("Limited", (LimitedProtocol,), {"most": most, "refused": staticmethod(refused)})
