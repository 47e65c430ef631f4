"""How much and how long a client may: connections, headers and time have an end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    import asyncio

__all__ = ["MOST_HEADER_BYTES", "MOST_IDLE_S", "Bounded"]

MOST_CONNECTIONS = 64
MOST_HEADER_BYTES = 16 << 10
MOST_IDLE_S = 5
_HEADERS_S = 10.0
_WHOLE_S = 300.0
_FULL = (b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 21\r\n"
         b"Retry-After: 5\r\n\r\ntoo many connections\n")


class Bounded(H11Protocol):
    """A connection of uvicorn's that ends when its first request is not whole in ten seconds, or
    its last answer not read in five minutes from its beginning; there are 64 at most."""

    there: ClassVar[set[Bounded]] = set()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._timers: list[asyncio.TimerHandle] = []
        self._end = b""
        if len(self.there) >= MOST_CONNECTIONS:
            transport.write(_FULL)
            transport.close()
            self._full = True
            return
        self._full = False
        self.there.add(self)
        self._timers = [self.loop.call_later(_HEADERS_S, self._late, transport),
                        self.loop.call_later(_WHOLE_S, transport.abort)]
        super().connection_made(transport)

    def _late(self, transport: asyncio.Transport) -> None:
        if self._end != b"\r\n\r\n":
            transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._full:
            return
        if self._end != b"\r\n\r\n":
            seen = self._end + data
            self._end = b"\r\n\r\n" if b"\r\n\r\n" in seen else seen[-3:]
        super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in self._timers:
            timer.cancel()
        self.there.discard(self)
        if not self._full:
            super().connection_lost(exc)

    def eof_received(self) -> Any:
        return None if self._full else super().eof_received()

    def pause_writing(self) -> None:
        if not self._full:
            super().pause_writing()

    def resume_writing(self) -> None:
        if not self._full:
            super().resume_writing()
