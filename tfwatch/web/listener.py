"""uvicorn on a socket of ours, in whichever thread runs it; ended from any other."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
import threading
import time
from functools import partial
from typing import Final

import uvicorn
from loguru import logger

from tfwatch.web.app import create_app
from tfwatch.web.guard import MOST_HEAD_BYTES
from tfwatch.web.rate import Rate
from tfwatch.web.site import Serving, Site
from tfwatch.web.wire import Connection, Doorman

MOST_CONNECTIONS: Final = 64
KEEP_ALIVE_SECONDS: Final = 5
GRACE_SECONDS: Final = 0.5
_AT_ONCE: Final = 16
"""Connections that are taken in before those that came earlier are looked at again."""

_BACKLOG: Final = 512


class Listener:
    """A bound port and the server behind it. Making one raises OSError when the port can't be had."""

    def __init__(self, site: Site, serving: Serving) -> None:
        # What uvicorn says of callers' mistakes is of no use to anybody; what fails in here the guard has told.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL + 1)
        self._socket = _listen(serving)
        host, port = self._socket.getsockname()[:2]
        self.url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        rate = Rate(serving.requests_per_second, time.monotonic)
        config = uvicorn.Config(
            create_app(site, serving, rate),
            http=partial(Connection, doorman=Doorman(MOST_CONNECTIONS), rate=rate),  # type: ignore[arg-type]
            ws="none",
            lifespan="off",
            loop="asyncio",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            h11_max_incomplete_event_size=MOST_HEAD_BYTES,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            backlog=_AT_ONCE,
        )
        self._server = _Server(config)

    def run(self) -> None:
        """Serve until told to end. Whatever is raised, the port is free again."""
        try:
            asyncio.run(self._server.serve(sockets=[self._socket]))
        finally:
            self._socket.close()

    def end(self) -> None:
        """Stop serving: what is being answered has a moment, the rest is cut. Any thread may call this, also twice."""
        self._server.end()


class _Server(uvicorn.Server):
    """uvicorn without its clock: it sleeps until it is told to end."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._over: asyncio.Event | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: logger.debug("web: {}", context.get("message")))
        await super().startup(sockets=sockets)
        for listener in sockets or ():
            listener.listen(_BACKLOG)  # asyncio has but one number for this and for `_AT_ONCE`
        with self._lock:
            self._loop, self._over = loop, asyncio.Event()
            if self.should_exit:
                self._over.set()

    async def main_loop(self) -> None:
        assert self._over is not None
        await self._over.wait()

    def end(self) -> None:
        with self._lock:
            self.should_exit = True
            if self._loop is not None and self._over is not None and not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._over.set)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        connections, tasks = list(self.server_state.connections), set(self.server_state.tasks)
        for connection in connections:
            connection.shutdown()
        if tasks:
            await asyncio.wait(tasks, timeout=GRACE_SECONDS)
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await asyncio.sleep(0)  # connections learn that they are lost before their tasks are cancelled
        for task in self.server_state.tasks:
            task.cancel()


def _listen(serving: Serving) -> socket.socket:
    """The first address of that name that can be had. Raises OSError."""
    found = socket.getaddrinfo(serving.host, serving.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    failure: OSError | None = None
    for family, kind, protocol, _, address in found:
        if not serving.is_exposed and not ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback:
            failure = failure or OSError(f"{serving.host} is not this machine's own address")
            continue
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(_BACKLOG)
        except OSError as error:
            listener.close()
            failure = error
        else:
            return listener
    raise failure or OSError(f"{serving.host} has no address")
