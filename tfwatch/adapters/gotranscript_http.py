"""HTTP to a transcription service: one request, one reply, and what is known when there is none.

The only importer of httpx. A request whose body did not leave in full was not sent; once it left in full, silence
means that the outcome is unknown.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
import socket
import ssl
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol
from urllib.parse import urlencode, urlsplit
from urllib.request import getproxies, proxy_bypass

import httpcore
import httpx

from tfwatch import __version__
from tfwatch.adapters.gotranscript_replies import Reply
from tfwatch.errors import ContentChanged, OutcomeUnknown, ServiceError, Stopping, TransientError
from tfwatch.language import tr
from tfwatch.model import Submission

_CHUNK_BYTES = 64 * 1024
"""Read, hashed and sent at a time. Larger chunks were no faster: 0.6 GB/s of loopback on one core, hash included."""

_MOST_REPLY_BYTES = 1024 * 1024
_CONNECT_SECONDS = 5.0
_KEEPALIVE_SECONDS = 4.0
"""Common servers drop an idle connection after 5 s or more; sending into a dropped one is an unknown outcome."""

_HEADER_UNSAFE = re.compile(r'["\x00-\x1f\x7f]')


class Body(Protocol):
    """What a request carries: its exact length in octets, and whether all of it was handed to the network."""

    content_type: str
    length: int
    handed_over: bool

    def __iter__(self) -> Iterator[bytes]: ...


class FormBody:
    """A small `application/x-www-form-urlencoded` body."""

    content_type = "application/x-www-form-urlencoded"

    def __init__(self, fields: Mapping[str, str]) -> None:
        self._content = urlencode(fields, errors="replace").encode("ascii")
        self.length = len(self._content)
        self.handed_over = False

    def __iter__(self) -> Iterator[bytes]:
        yield self._content
        self.handed_over = True


class PackageBody:
    """A `multipart/form-data` body (RFC 7578) with one streamed ZIP, hashed once more as its bytes leave.

    Iterating raises `Stopping` between chunks, and `ContentChanged` before the closing boundary when the bytes are
    not those that were inspected: either way the request stays incomplete, so nothing can be accepted.
    """

    def __init__(self, submission: Submission, fields: Mapping[str, str]) -> None:
        boundary = os.urandom(16).hex()
        self.content_type = f"multipart/form-data; boundary={boundary}"
        self._submission = submission
        self._head = _multipart_head(boundary, fields, submission.package.name)
        self._tail = f"\r\n--{boundary}--\r\n".encode()
        self.length = len(self._head) + submission.package.bytes + len(self._tail)
        self.handed_over = False

    def __iter__(self) -> Iterator[bytes]:
        yield self._head
        yield from self._package()
        yield self._tail
        self.handed_over = True
        self._submission.progress(self._submission.package.bytes)  # the answer has its time from here

    def _package(self) -> Iterator[bytes]:
        expected, sent, digest = self._submission.package, 0, hashlib.sha256()
        with self._submission.open_zip() as reader:
            while chunk := reader.read(_CHUNK_BYTES):
                if self._submission.stopping():
                    raise Stopping("the daemon is stopping")
                sent += len(chunk)
                if sent > expected.bytes:
                    break
                digest.update(chunk)
                yield chunk
                self._submission.progress(sent)
        if sent != expected.bytes or digest.hexdigest() != expected.sha256:
            raise ContentChanged(tr("the ZIP changed while it was sent"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """One request to be sent: an absolute URL, headers beside the common ones, and a body unless it only reads."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: Body | None = None


class Door:
    """Sends requests over kept connections. Thread-safe."""

    def __init__(
        self, base_url: str, *, timeout_seconds: float, max_connections: int, secrets: Iterable[str | None] = ()
    ) -> None:
        self._secrets = tuple(secret for secret in secrets if secret)
        limits = httpx.Limits(
            max_connections=max_connections,
            max_keepalive_connections=max_connections,
            keepalive_expiry=_KEEPALIVE_SECONDS,
        )
        self._client = httpx.Client(
            transport=_PromptTransport(limits=limits, proxy=_proxy_for(base_url)),
            timeout=httpx.Timeout(timeout_seconds, connect=min(_CONNECT_SECONDS, timeout_seconds)),
            follow_redirects=False,
            headers={
                "User-Agent": f"tfwatch/{__version__}",
                "Accept": "application/json",
                "Accept-Encoding": "identity",
            },
        )

    def exchange(self, outgoing: Outgoing, *secrets: str) -> Reply:
        """Send one request and read its reply, at most 1 MiB of it, within the timeout after the last byte left.

        Raises `TransientError` when the request can't have taken effect, `OutcomeUnknown` when it may have, and
        what iterating the body raises. `secrets`: more strings that no message may repeat.
        """
        try:
            with contextlib.closing(self._send(outgoing)) as response:
                body = _read(response)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError) as error:
            raise TransientError(tr("the service can't be reached: {error}", error=_plain(error))) from error
        except (httpx.LocalProtocolError, httpx.UnsupportedProtocol, httpx.InvalidURL):
            # Their texts quote what was to be sent, the API key among it: not chained.
            raise ServiceError(
                tr("the request can't be written as HTTP"),
                hint=tr("check integrations.gotranscript.base_url and api_key for stray characters"),
            ) from None
        except httpx.TransportError as error:
            raise _silence(error, outgoing.body) from error
        except RuntimeError as error:
            if not self._client.is_closed:
                raise
            raise TransientError(tr("the connection to the service was closed by us")) from error
        headers = {name.lower(): value for name, value in response.headers.items()}
        return Reply(
            code=response.status_code,
            headers=headers,
            body=body,
            at=datetime.now(UTC),
            secrets=(*self._secrets, *secrets),
        )

    def close(self) -> None:
        """Close all connections; requests under way fail."""
        self._client.close()

    def _send(self, outgoing: Outgoing) -> httpx.Response:
        headers, body = dict(outgoing.headers), outgoing.body
        if body is not None:
            headers |= {"Content-Type": body.content_type, "Content-Length": str(body.length)}
        request = self._client.build_request(outgoing.method, outgoing.url, headers=headers, content=body)
        return self._client.send(request, stream=True)


def _silence(error: httpx.TransportError, body: Body | None) -> TransientError | OutcomeUnknown:
    if body is None:
        return TransientError(tr("the service gave no answer: {error}", error=_plain(error)))
    if not body.handed_over:
        words = tr("the connection broke before everything was sent: {error}", error=_plain(error))
        return TransientError(words)
    return OutcomeUnknown(
        tr("everything was sent, but no answer came back: {error}", error=_plain(error)),
        hint=tr("ask the service whether it has this package"),
    )


def _read(response: httpx.Response) -> bytes:
    """The body, as much of it as comes. A status whose body breaks off still counts."""
    body = bytearray()
    with contextlib.suppress(httpx.TransportError, httpx.DecodingError):
        for chunk in response.iter_bytes():
            body += chunk
            if len(body) >= _MOST_REPLY_BYTES:
                break
    return bytes(body[:_MOST_REPLY_BYTES])


def _plain(error: Exception) -> str:
    kind = type(error).__name__
    said = str(error)
    return f"{said} ({kind})" if said else kind


def _multipart_head(boundary: str, fields: Mapping[str, str], filename: str) -> bytes:
    """Everything before the ZIP. Undecodable bytes become `?`; what would end a header is percent-encoded."""
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    ]
    safe = _HEADER_UNSAFE.sub(lambda found: f"%{ord(found[0]):02X}", filename)
    parts.append(
        f'--{boundary}\r\nContent-Disposition: form-data; name="package"; filename="{safe}"\r\n'
        "Content-Type: application/zip\r\n\r\n"
    )
    return "".join(parts).encode("utf-8", "replace")


def _proxy_for(base_url: str) -> str | None:
    """The proxy the environment names for this address (`https_proxy`, `no_proxy`), as other programs find it."""
    target = urlsplit(base_url)
    if proxy_bypass(target.netloc.rpartition("@")[2]):
        return None
    proxies = getproxies()
    return proxies.get(target.scheme) or proxies.get("all")


@functools.cache
def _trusted() -> ssl.SSLContext:
    """Whom we trust, `SSL_CERT_FILE` heeded. Once for all: reading the certificates takes 30 ms."""
    return httpx.create_ssl_context()


# --- answers that drip ------------------------------------------------------------------------------------------------


class _PromptTransport(httpx.HTTPTransport):
    """httpx's transport, except that a read timeout bounds the whole answer, not each of its bytes.

    httpx offers no place for this, so the backend of its pool is wrapped; an httpx that keeps it elsewhere fails here
    at once.
    """

    def __init__(self, *, limits: httpx.Limits, proxy: str | None) -> None:
        super().__init__(verify=_trusted(), limits=limits, proxy=proxy)
        self._pool._network_backend = _PromptBackend(self._pool._network_backend)


class _PromptBackend(httpcore.NetworkBackend):
    def __init__(self, backend: httpcore.NetworkBackend) -> None:
        self._backend = backend

    def connect_tcp(self, *args: Any, **kwargs: Any) -> httpcore.NetworkStream:
        return _PromptStream(self._backend.connect_tcp(*args, **kwargs))


class _PromptStream(httpcore.NetworkStream):
    """A connection whose peer must finish its answer within the timeout that began with our first read of it."""

    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream
        self._due: float | None = None

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if timeout is None:
            return self._stream.read(max_bytes)
        now = time.monotonic()
        if self._due is None:
            self._due = now + timeout
        if now >= self._due:
            raise httpcore.ReadTimeout("the answer took too long")
        return self._stream.read(max_bytes, self._due - now)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._due = None
        self._stream.write(buffer, timeout)

    def close(self) -> None:
        # Closing a socket does not wake a thread that waits in it; shutting it down does.
        with contextlib.suppress(OSError):
            self._stream.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _PromptStream(self._stream.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
