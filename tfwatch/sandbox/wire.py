"""The edge of the sandbox: when a request's first byte came, and replies that no well-behaved server sends."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import time
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HANG_SECONDS = 120.0
"""Longest that a hung or dripping reply may take."""

_PHRASES = {int(status): status.phrase for status in HTTPStatus}
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # struct linger: on, 0 s; close() then sends RST instead of FIN


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """A request's first byte: `time.time()` and `time.monotonic()` when it was read, and where it came from."""

    at: float
    monotonic: float
    transport: asyncio.Transport


class SandboxProtocol(HttpToolsProtocol):
    """HTTP/1.1 as uvicorn speaks it, noting when each request's first byte arrived."""

    def on_message_begin(self) -> None:
        """Called by the parser at a request's first byte."""
        super().on_message_begin()
        arrival = Arrival(at=time.time(), monotonic=time.monotonic(), transport=self.transport)
        self.scope["state"]["arrival"] = arrival


class TooLarge(Exception):
    """A request's body is longer than this endpoint takes."""


def arrival_of(scope: Scope) -> Arrival:
    """When and where this request came in."""
    arrival = scope["state"]["arrival"]
    assert isinstance(arrival, Arrival)
    return arrival


async def read_body(request: Request, limit: int) -> bytes:
    """The whole body; raises `TooLarge` past `limit` bytes and `ClientDisconnect` when it stays incomplete."""
    parts, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise TooLarge(f"the body is longer than {limit} bytes")
        parts.append(chunk)
    return b"".join(parts)


async def drain(request: Request) -> None:
    """Read the body and forget it; raises `ClientDisconnect` when it stays incomplete."""
    async for _ in request.stream():
        pass


async def until_gone(receive: Receive) -> None:
    """Wait until the client's connection is closed, by either side."""
    while (await receive())["type"] != "http.disconnect":
        pass


class JSON(Response):
    """A compact JSON reply."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Encode the content; lone surrogates stay escaped."""
        return json.dumps(content, separators=(",", ":")).encode()


def problem(status: int, detail: str, headers: dict[str, str] | None = None) -> Response:
    """An RFC 9457 problem document."""
    title = _PHRASES.get(status, "Error")
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    return JSON(body, status_code=status, media_type="application/problem+json", headers=headers)


class Reset(Response):
    """No reply: the connection is reset (RST)."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Reset the connection now, whatever has been read of the request."""
        transport = arrival_of(scope).transport
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        transport.abort()
        await until_gone(receive)


class Hang(Response):
    """No reply until the client gives up, at most `MAX_HANG_SECONDS`; then the connection is closed."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Wait; never answer."""
        try:
            await asyncio.wait_for(until_gone(receive), MAX_HANG_SECONDS)
        except TimeoutError:
            arrival_of(scope).transport.abort()
            await until_gone(receive)


class Drip(Response):
    """A true reply, sent one byte every `pause` seconds; given up after `MAX_HANG_SECONDS`."""

    def __init__(self, reply: Response, pause: float) -> None:
        super().__init__()
        self.reply = reply
        self.pause = pause

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the head at once, then drip the body until the client has it or is gone."""
        gone = asyncio.create_task(until_gone(receive))
        give_up = time.monotonic() + MAX_HANG_SECONDS
        body = bytes(self.reply.body)
        await _send_head(self.reply, send)
        for at in range(len(body)):
            await asyncio.wait({gone}, timeout=self.pause)
            if gone.done() or time.monotonic() > give_up:
                break
            await send({"type": "http.response.body", "body": body[at : at + 1], "more_body": at + 1 < len(body)})
        else:
            gone.cancel()
            return
        arrival_of(scope).transport.abort()
        await gone


class Truncated(Response):
    """A true reply's head and the first half of its body; then the connection is closed."""

    def __init__(self, reply: Response) -> None:
        super().__init__()
        self.reply = reply

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Promise the whole length, send half, close."""
        body = bytes(self.reply.body)
        await _send_head(self.reply, send)
        await send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
        arrival_of(scope).transport.close()
        await until_gone(receive)


async def _send_head(reply: Response, send: Send) -> None:
    await send({"type": "http.response.start", "status": reply.status_code, "headers": reply.raw_headers})
