"""A way to a server that can be shut and opened again, and that breaks now and then, as networks do."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time
from typing import Self
from urllib.parse import urlsplit


class Forwarder:
    """Passes TCP connections on to `url` while it is open: `with Forwarder(server.url) as way: … way.url …`

    `breaks`: of what is passed on, in either direction, one piece in so many is kept back and its connection cut;
    0 for none. `broken`: how often that was. `pause`: seconds before each piece, of 64 KiB at most.
    """

    def __init__(self, url: str, *, breaks: int = 0, seed: int = 0) -> None:
        self.breaks = breaks
        self.broken = 0
        self.pause = 0.0
        self._passing = threading.Event()
        self._passing.set()
        self._rng = random.Random(seed)
        parts = urlsplit(url)
        self._target = (parts.hostname, parts.port)
        self._lock = threading.Lock()
        self._connections: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._address = self._listener.getsockname()
        self.url = f"http://127.0.0.1:{self._address[1]}"
        self._listen()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.shut()

    def shut(self) -> None:
        """Refuse new connections and cut all there are."""
        self.let_go()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        with self._lock:
            for connection in self._connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
                connection.close()
            self._connections.clear()

    def hold(self) -> None:
        """Pass nothing on until `let_go`; connections stay open, and new ones are taken."""
        self._passing.clear()

    def let_go(self) -> None:
        """Pass on what was held, and everything after it."""
        self._passing.set()

    def open(self) -> None:
        """Take connections again, at the same address."""
        self._listener = socket.create_server(self._address)
        self._listen()

    def _listen(self) -> None:
        self._thread = threading.Thread(target=self._accept, args=(self._listener,), daemon=True)
        self._thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            far = socket.create_connection(self._target)
            with self._lock:
                self._connections += [near, far]
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(65536):
                if self.breaks and self._rng.randrange(self.breaks) == 0:
                    self.broken += 1
                    source.shutdown(socket.SHUT_RDWR)
                    break
                time.sleep(self.pause)
                self._passing.wait()
                sink.sendall(chunk)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
