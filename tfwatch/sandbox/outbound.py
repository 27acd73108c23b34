"""HTTP requests the sandbox makes itself: fetching a v4 package, calling back. Loopback only, cancellable, bounded."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable, Mapping
from urllib.parse import SplitResult, urlsplit

import h11


class NotLoopback(ValueError):
    """The address is not on this machine; the sandbox neither listens nor calls anywhere else."""


class CallFailed(Exception):
    """No complete answer came back."""


def require_loopback(host: str | None) -> str:
    """The host if it is a loopback address or `localhost`; raises `NotLoopback`."""
    if host == "localhost":
        return "127.0.0.1"
    try:
        if host and ipaddress.ip_address(host).is_loopback:
            return host
    except ValueError:
        pass
    raise NotLoopback(f"{host or 'no host'}: the sandbox only speaks to this machine; use 127.0.0.1")


def require_loopback_url(url: str) -> None:
    """Raise `NotLoopback` for an address on another machine."""
    require_loopback(urlsplit(url).hostname)


async def call(
    method: str,
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    timeout: float,
    sink: Callable[[bytes], None],
) -> int:
    """Make one HTTP/1.1 request within `timeout` seconds; hand the answer's body to `sink`; return the status.

    Redirects are not followed. What `sink` raises ends the call. Raises `NotLoopback` and `CallFailed`.
    """
    parts = urlsplit(url)
    host = require_loopback(parts.hostname)
    if parts.scheme != "http":
        raise CallFailed(f"{parts.scheme or 'no scheme'}: the sandbox calls http:// addresses only")
    try:
        async with asyncio.timeout(timeout):
            return await _exchange(host, parts.port or 80, _request(method, parts, headers or {}, body), body, sink)
    except (OSError, TimeoutError, h11.ProtocolError) as error:
        raise CallFailed(f"no answer: {type(error).__name__}") from error


def _request(method: str, parts: SplitResult, headers: Mapping[str, str], body: bytes) -> h11.Request:
    own = {"Host": parts.netloc, "Connection": "close", "Content-Length": str(len(body))}
    return h11.Request(
        method=method,
        target=(parts.path or "/") + (f"?{parts.query}" if parts.query else ""),
        headers=[*own.items(), *headers.items()],
    )


async def _exchange(host: str, port: int, request: h11.Request, body: bytes, sink: Callable[[bytes], None]) -> int:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        connection = h11.Connection(h11.CLIENT)
        parts: list[h11.Event] = [request, *([h11.Data(data=body)] if body else []), h11.EndOfMessage()]
        for part in parts:
            writer.write(connection.send(part) or b"")
        await writer.drain()
        status = 0
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(await reader.read(256 * 1024))
            elif isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                sink(event.data)
            elif isinstance(event, h11.EndOfMessage | h11.ConnectionClosed):
                return status
    finally:
        writer.close()
