"""The daemon's own web server, and callers who speak to it well or badly, all over real sockets on loopback."""

from __future__ import annotations

import socket
import threading
import urllib.parse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from tests.support.daemon import PATIENCE, Spool, wait_until
from tests.support.ports import reserve_port
from tfwatch.observe.present import Inside
from tfwatch.web.listener import Listener
from tfwatch.web.site import Serving, Site


def serve(spool: Spool, **settings: Any) -> str:
    """Let the daemon serve, on a port of its own unless one is given; gives the address."""
    spool.configure(web={"enabled": True, "port": reserve_port(), **settings})
    web = spool.settings["web"]
    host = web.get("host", "127.0.0.1")
    return f"http://127.0.0.1:{web['port']}" if host == "0.0.0.0" else f"http://{host}:{web['port']}"


def wait_until_served(url: str, seconds: float = PATIENCE) -> None:
    """Wait until somebody listens there."""

    def answers() -> bool:
        try:
            return httpx.get(f"{url}/healthz").status_code < 600
        except httpx.TransportError:
            return False

    wait_until(answers, f"{url} is served", seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back for raw bytes: the first answer, and whether the connection was closed behind it."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def connect(url: str) -> socket.socket:
    """A bare connection to it; whatever it does, the test waits no longer than its patience."""
    place = urllib.parse.urlsplit(url)
    return socket.create_connection((place.hostname or "", place.port or 0), timeout=PATIENCE)


def say(url: str, data: bytes) -> Answer | None:
    """Send bytes, whatever they are, and read until the connection is closed; None when nothing came back."""
    with connect(url) as caller:
        try:
            caller.sendall(data)
        except OSError:
            pass  # it was closed in our face; what it said may still be there
        return parse(read_all(caller))


def read_all(caller: socket.socket) -> bytes:
    """Everything until the other side closes or resets."""
    said = b""
    try:
        while piece := caller.recv(65536):
            said += piece
    except ConnectionError:
        pass
    return said


def parse(said: bytes) -> Answer | None:
    """The first answer in these bytes."""
    head, found, body = said.partition(b"\r\n\r\n")
    if not found:
        return None
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return Answer(status=int(first.split()[1]), headers=headers, body=body)


@dataclass
class Pretended:
    """A daemon as far as health asks: its desk, and a loop that beat so many seconds ago."""

    desk: Any = None
    beat_age: float = 0.0


def site_of(desk: Any, beat_age: float = 0.0) -> Site:
    """What is served of a house that has this desk. Nobody asks it for the page, nor calls in."""
    running: Any = Pretended(desk=desk, beat_age=beat_age)
    nobody: Any = None
    return Site(running=running, figures=Inside(running), sight=nobody, callers=nobody)


SERVING = Serving(
    enabled=True, host="127.0.0.1", port=0, is_exposed=False, token="", hosts=frozenset(), requests_per_second=10_000
)


@contextmanager
def listening(site: Site, serving: Serving = SERVING) -> Iterator[str]:
    """The server alone, in this process, on a port that the kernel chooses; gives its address."""
    listener = Listener(site, serving)
    thread = threading.Thread(target=listener.run)
    thread.start()
    try:
        yield listener.url
    finally:
        listener.end()
        thread.join(PATIENCE)
        assert not thread.is_alive()
