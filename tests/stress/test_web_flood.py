"""Callers who mean no good, thousands of them: deliveries go on as if nobody had called."""

from __future__ import annotations

import random
import selectors
import socket
import threading
import time
from collections import Counter

import httpx
import psutil
import pytest

from tests.support.daemon import Spool, wait_until
from tests.support.extent import Extent
from tests.support.portal import ordered
from tests.support.web import read_all, serve, wait_until_served
from tfwatch.sandbox.server import Sandbox
from tfwatch.web.listener import MOST_CONNECTIONS

MALFORMED = 10_000
SLOW = 500
CALLERS = 8
"""Threads that send malformed requests, each from an address of its own: callers are told apart by it."""

LONGEST_SECONDS = 240.0
MEMORY_BYTES = 64 * 1024**2
SPARE_FILES = 128
"""What deliveries open and close meanwhile, and connections on their way in and out that are not among the counted."""

GOOD = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: */*\r\nContent-Length: 3\r\n\r\nabc"


def malformed(rng: random.Random) -> bytes:
    """Bytes that are no request, or hardly one."""
    kind = rng.randrange(8)
    if kind == 0:
        return rng.randbytes(rng.randrange(1, 4000))
    if kind == 1:
        at = rng.randrange(len(GOOD))
        return GOOD[:at] + rng.randbytes(rng.randrange(1, 9)) + GOOD[at + 1 :]
    if kind == 2:
        return b"GET /" + b"a" * rng.randrange(70_000) + b" HTTP/1.1\r\n\r\n"
    if kind == 3:
        headers = b"".join(b"X-%d: 1\r\n" % number for number in range(rng.randrange(3000)))
        return b"GET / HTTP/1.1\r\n" + headers + b"\r\n"
    if kind == 4:
        return b"POST /webhooks/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + rng.randbytes(40)
    if kind == 5:
        return b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n" % rng.choice((-1, 10**6, 10**30))
    if kind == 6:
        return GOOD.replace(b"GET", rng.choice((b"TRACE", b"\x00", b"CONNECT", b"get", b"G" * 9000)))
    return GOOD * rng.randrange(2, 40) + b"\r\n" * rng.randrange(40) + b"\xff"


class Flood:
    """Callers in threads of their own, until they are through or the time is up."""

    def __init__(self, port: int, extent: Extent) -> None:
        self.planned = max(400, MALFORMED // extent.share)
        self.sent = 0
        self.slow = 0
        self.over = threading.Event()
        self._port = port
        self._extent = extent
        self._lock = threading.Lock()
        self._left = self.planned
        self._until = time.monotonic() + LONGEST_SECONDS
        self._malformed = [threading.Thread(target=self._call, args=(number,)) for number in range(CALLERS)]
        self._dripping = threading.Thread(target=self._drip)

    def __enter__(self) -> Flood:
        for thread in (*self._malformed, self._dripping):
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        for thread in (*self._malformed, self._dripping):
            thread.join()

    @property
    def is_through(self) -> bool:
        """Whether all malformed requests are sent."""
        return not any(thread.is_alive() for thread in self._malformed)

    def _goes_on(self) -> bool:
        return not self.over.is_set() and time.monotonic() < self._until

    def _call(self, number: int) -> None:
        rng = self._extent.rng(f"malformed requests {number}")
        while self._goes_on():
            with self._lock:
                if not self._left:
                    return
                self._left -= 1
            try:
                with self._connect(f"127.0.1.{number + 1}") as caller:
                    caller.settimeout(0.2)  # some are so little of a request that they are waited for
                    caller.sendall(malformed(rng))
                    read_all(caller)
            except OSError:
                pass
            with self._lock:
                self.sent += 1

    def _connect(self, source: str) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self._port), timeout=5.0, source_address=(source, 0))

    def _drip(self) -> None:
        """`SLOW` callers who send a byte now and then; who is shown out comes again."""
        with selectors.DefaultSelector() as selector:
            for number in range(SLOW):
                self._come(selector, number)
            while self._goes_on() and not self.is_through:
                for key, _ in selector.select(timeout=0.1):
                    assert isinstance(key.fileobj, socket.socket)
                    if not _is_open(key.fileobj):
                        selector.unregister(key.fileobj)
                        key.fileobj.close()
                        self.over.wait(0.005)
                        self._come(selector, key.data)
                for key in list(selector.get_map().values()):
                    _say_a_byte(key.fileobj)
            for key in list(selector.get_map().values()):
                assert isinstance(key.fileobj, socket.socket)
                key.fileobj.close()

    def _come(self, selector: selectors.BaseSelector, number: int) -> None:
        try:
            caller = self._connect(f"127.0.2.{1 + number % 250}")
            caller.sendall(GOOD[: 1 + number % (len(GOOD) - 1)])
        except OSError:
            return
        self.slow += 1
        caller.setblocking(False)
        selector.register(caller, selectors.EVENT_READ, number)


def _is_open(caller: socket.socket) -> bool:
    try:
        return bool(caller.recv(65536))
    except BlockingIOError:
        return True
    except OSError:
        return False


def _say_a_byte(caller: object) -> None:
    assert isinstance(caller, socket.socket)
    try:
        caller.send(b"x")
    except OSError:
        pass  # it is closed; that is seen when it is read


@pytest.fixture
def url(spool: Spool) -> str:
    """A daemon that serves with the limits it has by default."""
    address = serve(spool)
    spool.start()
    wait_until_served(address)
    return address


@pytest.mark.timeout(600)
def test_ten_thousand_malformed_requests_and_five_hundred_slow_ones(
    sandbox: Sandbox, spool: Spool, extent: Extent, url: str
) -> None:
    """All packages are delivered once, whoever asks properly is answered, and neither memory nor files grow."""
    assert spool.process is not None
    daemon = psutil.Process(spool.process.pid)
    packages = max(20, extent.packages // 50)
    names = [f"p{number:04}.zip" for number in range(packages)]
    spool.drop("first.zip", seed=packages)
    spool.wait_for("delivered", "first.zip")
    assert 200 == httpx.get(f"{url}/healthz").status_code
    files, memory = daemon.num_fds(), daemon.memory_info().rss
    most_files = most_memory = answered = 0
    began = time.monotonic()
    with Flood(int(url.rpartition(":")[2]), extent) as flood:
        wait_until(lambda: flood.slow >= SLOW // 2, "the slow ones sit there")
        dropped = 0
        while not flood.is_through or not set(names) <= spool.names("delivered"):
            assert time.monotonic() < began + LONGEST_SECONDS, spool.picture()
            while dropped < packages and dropped * flood.planned <= flood.sent * packages:
                spool.drop(names[dropped], seed=dropped)
                dropped += 1
            most_files = max(most_files, daemon.num_fds())
            most_memory = max(most_memory, daemon.memory_info().rss)
            answered += _is_healthy(url)
            time.sleep(0.05)
    seconds = time.monotonic() - began
    print(
        f"\n{flood.sent} malformed and {flood.slow} slow requests in {seconds:.0f} s; {packages} packages delivered; "
        f"{answered} proper ones answered meanwhile; files {files} -> {most_files}, "
        f"memory {memory / 2**20:.0f} -> {most_memory / 2**20:.0f} MiB"
    )
    assert flood.planned == flood.sent
    assert answered > 0
    assert most_files <= files + MOST_CONNECTIONS + SPARE_FILES
    assert most_memory <= memory + MEMORY_BYTES
    wait_until(lambda: daemon.num_fds() <= files + 16, "the connections are let go")
    wait_until(lambda: _is_healthy(url), "it answers as before")
    assert [] == [line for line in spool.output.read_text().splitlines() if "web server" in line or "Traceback" in line]
    assert 0 == spool.stop()
    assert [1] * (packages + 1) == list(ordered(sandbox).values())
    assert Counter(names) + Counter(["first.zip"]) == Counter(spool.names("delivered"))
    spool.assert_sound()


def _is_healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz").status_code == 200
    except httpx.TransportError:
        return False  # shown out with those around it
