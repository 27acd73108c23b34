"""One connection: HTTP/1.1 as uvicorn and h11 speak it, with a limit to everything that a caller can draw out.

uvicorn has one clock, for idle connections, and each byte stops it. Here every step has its time, however bytes drip.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any, Final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from tfwatch.web.answers import raw_refusal
from tfwatch.web.rate import Rate, caller

HEAD_SECONDS: Final = 10.0
"""From a connection's first moment, or its last answer, until the next request's head is there."""

REQUEST_SECONDS: Final = 30.0
"""From a request's head until its answer is out, the body in between included."""

_LEAST_TAKEN_BYTES: Final = 16 * 1024
"""Who takes so much of an answer in `HEAD_SECONDS` has a slow line, and is given as long again."""

_LINGER_SECONDS: Final = 1.0
"""A connection that is closed has so long to take what was written to it."""


class Doorman:
    """Counts connections. When all are taken, the one that has kept its own waiting longest makes room."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.connections: dict[Connection, None] = {}

    def came(self, connection: Connection) -> None:
        """One more; at most `most` stay."""
        self.connections[connection] = None
        if len(self.connections) > self.most:
            slowest = next((one for one in self.connections if one.is_waiting), connection)
            self.gone(slowest)
            slowest.transport.abort()

    def gone(self, connection: Connection) -> None:
        """One less. Calling twice is once."""
        self.connections.pop(connection, None)

    def moved(self, connection: Connection) -> None:
        """It has done something of use, so others have waited longer."""
        if connection in self.connections:
            self.connections[connection] = self.connections.pop(connection)


class Connection(H11Protocol):
    """One caller's connection."""

    def __init__(self, *args: Any, doorman: Doorman, rate: Rate, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._doorman = doorman
        self._rate = rate
        self._timer: asyncio.TimerHandle | None = None
        self._unsent = 0

    @property
    def is_waiting(self) -> bool:
        """Whether the next thing to come is the caller's: a head, the rest of a body."""
        return self.cycle is None or self.cycle.response_complete or self.cycle.more_body

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A caller has come."""
        super().connection_made(transport)
        self._expect(HEAD_SECONDS)
        self._doorman.came(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """It has gone, or was shown out."""
        self._doorman.gone(self)
        if self._timer is not None:
            self._timer.cancel()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Some bytes came. Nothing in them may do more than end this connection."""
        if self.transport.is_closing():
            return
        before = self.cycle
        try:
            super().data_received(data)
        except h11.ProtocolError:
            self.transport.abort()
            return
        if self.cycle is not before:
            self._expect(REQUEST_SECONDS)

    def on_response_complete(self) -> None:
        """An answer is out."""
        before = self.cycle
        super().on_response_complete()
        if not self.transport.is_closing():
            # What was sent behind it may have begun the next one.
            self._expect(HEAD_SECONDS if self.cycle is before else REQUEST_SECONDS)
            self._unsent = self.transport.get_write_buffer_size()
            self._doorman.moved(self)

    def send_400_response(self, msg: str) -> None:
        """What came is no request; h11 knows what to call it."""
        error = sys.exc_info()[1]
        self._refuse(getattr(error, "error_status_hint", 400))

    def _refuse(self, status: int) -> None:
        """Say so, if nothing else was begun, and close."""
        if self.cycle is None or self.cycle.response_complete:
            wait = self._rate.take(caller(self.client[0] if self.client else ""))
            self.transport.write(raw_refusal(429, {"retry-after": str(wait)}) if wait else raw_refusal(status))
        elif not self.cycle.response_started:
            self.transport.write(raw_refusal(status))
        self.transport.close()
        self._expect(_LINGER_SECONDS)

    def _expect(self, seconds: float) -> None:
        """From now on the next step has so long."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_later(seconds, self._on_time)

    def _on_time(self) -> None:
        before, self._unsent = self._unsent, self.transport.get_write_buffer_size()
        if 0 < self._unsent <= before - _LEAST_TAKEN_BYTES:
            self._expect(HEAD_SECONDS)
        elif self.transport.is_closing():
            self.transport.abort()
        else:
            self._refuse(408 if self.is_waiting else 503)
