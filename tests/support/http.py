"""A small HTTP server over real sockets that answers as told, and misbehaves as told."""

from __future__ import annotations

import json
import socket
import ssl
import struct
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Self

from tests.support.ports import reserve_port

_KEPT_BODY = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What happens to one request.

    `read`: how much of it is read before anything is sent. `send`: raw bytes of the reply. `drip`: seconds between
    its bytes. `then`: what becomes of the connection; `hang` leaves it open, silent, until the server stops.
    """

    send: bytes = b""
    read: Literal["nothing", "head", "all"] = "all"
    drip: float = 0.0
    then: Literal["keep", "close", "reset", "hang"] = "keep"


@dataclass(slots=True, kw_only=True)
class Seen:
    """One request as it came. `headers`: lower-case names. `body`: its first MiB; `length`: all of it, in octets."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytearray = field(default_factory=bytearray)
    length: int = 0


def reply(code: int, body: object = b"", **headers: str) -> bytes:
    """A raw HTTP reply; anything but bytes is sent as JSON. `Retry_After="3"` is the header `Retry-After`."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {code} Said So", f"Content-Length: {len(content)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + content


class ScriptedServer:
    """Takes one step of its script for each request, the last one over and over: `with ScriptedServer(…) as server:`"""

    def __init__(self, *script: Step, tls: ssl.SSLContext | None = None) -> None:
        self.seen: list[Seen] = []
        self.closed = 0
        self._script: Sequence[Step] = script
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._connections: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self._tls = tls
        self._acceptor = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Self:
        self._acceptor.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        # closing alone does not wake a thread that waits in accept
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._acceptor.join()
        with self._lock:
            for connection in self._connections:
                connection.close()

    @property
    def methods(self) -> list[str]:
        """The methods seen so far, in order."""
        return [seen.method for seen in self.seen]

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self._connections.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
                with self._lock:
                    self._connections.append(connection)
            while self._one(connection):
                pass
        except OSError:
            pass  # the client cut it, or the server stopped
        connection.close()
        self.closed += 1

    def _one(self, connection: socket.socket) -> bool:
        """Serve one request; False when the connection ends with it."""
        first = connection.recv(1)
        if not first:
            return False
        step = self._next()
        if step.read != "nothing":
            seen = _read_head(connection, first)
            with self._lock:
                self.seen.append(seen)
            if step.read == "all" and not _read_body(connection, seen):
                return False
        self._answer(connection, step)
        if step.then == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if step.then == "hang":
            self._stopped.wait()
        return step.then == "keep"

    def _next(self) -> Step:
        with self._lock:
            step, *rest = self._script
            self._script = rest or [step]
            return step

    def _answer(self, connection: socket.socket, step: Step) -> None:
        if not step.drip:
            connection.sendall(step.send)
            return
        for byte in step.send:
            connection.sendall(bytes([byte]))
            if self._stopped.wait(step.drip):
                return


def refusing_address() -> str:
    """A base URL at which nothing listens, nor will while these tests run."""
    return f"http://127.0.0.1:{reserve_port()}"


def _read_head(connection: socket.socket, first_byte: bytes) -> Seen:
    head = bytearray(first_byte)
    while not head.endswith(b"\r\n\r\n"):
        byte = connection.recv(1)
        if not byte:
            raise ConnectionError
        head += byte
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ")
    headers = dict(line.split(": ", 1) for line in lines if line)
    return Seen(method=method, target=target, headers={name.lower(): value for name, value in headers.items()})


def _read_body(connection: socket.socket, seen: Seen) -> bool:
    """Read as much as was announced; False when the client leaves before."""
    announced = int(seen.headers.get("content-length", "0"))
    while seen.length < announced:
        chunk = connection.recv(min(256 * 1024, announced - seen.length))
        if not chunk:
            return False
        seen.length += len(chunk)
        seen.body += chunk[: _KEPT_BODY - len(seen.body)]
    return True
