"""The thread that serves: off, on, changed, and what it does when something in it breaks."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from loguru import logger

from tests.support.daemon import PATIENCE, wait_until
from tests.support.ports import reserve_port
from tests.support.web import SERVING, connect, site_of, wait_until_served
from tests.unit.house import House
from tfwatch.web import listener, server
from tfwatch.web.server import WebServer
from tfwatch.web.site import Serving

_OFF = """
import sys, threading
from tfwatch.web.server import WebServer
from tfwatch.web.site import Serving
off = Serving(enabled=False, host="127.0.0.1", port=1, is_exposed=False, token="", hosts=frozenset(),
              requests_per_second=1)
companion = WebServer(None, lambda: off)
companion.configure()
companion.start()
companion.configure()
companion.stop(0.0)
print(sorted({name.partition(".")[0] for name in sys.modules} & {"starlette", "uvicorn"}), threading.active_count())
"""


class Here:
    """A web server in this process, and the section `web` that it is told of."""

    def __init__(self, house: House) -> None:
        self.wanted = replace(SERVING, port=reserve_port())
        self.companion = WebServer(site_of(house.desk), self._read)
        self.companion.configure()
        self.companion.start()

    def _read(self) -> Serving:
        return self.wanted

    def want(self, serving: Serving) -> None:
        self.wanted = serving
        self.companion.configure()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.wanted.port}"


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path / "spool")
    yield made
    made.close()


@pytest.fixture
def told() -> Iterator[list[str]]:
    """What is logged as a warning or worse, with its kind."""
    records: list[str] = []
    handler = logger.add(records.append, level="WARNING", format="{extra} {message}")
    yield records
    logger.remove(handler)


def stop(here: Here) -> None:
    here.companion.stop(time.monotonic() + PATIENCE)
    wait_until(lambda: "web" not in {thread.name for thread in threading.enumerate()}, "its thread has ended")


def test_a_server_that_is_off_is_not_even_imported() -> None:
    """No library of the web, and no thread: an idle daemon stays small."""
    done = subprocess.run([sys.executable, "-c", _OFF], capture_output=True, text=True, check=True)
    assert "[] 1" == done.stdout.strip()


def test_a_change_elsewhere_touches_no_connection(house: House) -> None:
    """Told of the same settings again, it goes on as it is; told of others, it begins anew."""
    here = Here(house)
    wait_until_served(here.url)
    with connect(here.url) as caller:
        here.companion.configure()
        caller.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert caller.recv(65536).startswith(b"HTTP/1.1 200")
        here.want(replace(here.wanted, hosts=frozenset(("a.example",))))
        while caller.recv(65536):
            pass
    wait_until_served(here.url)
    stop(here)


def test_what_breaks_in_it_is_told_once_and_served_again(
    house: House, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug ends neither the process nor the server: its traceback, and another go after a pause."""
    failures = [RuntimeError("a bug"), SystemExit(3), MemoryError()]
    run = listener.Listener.run

    def break_first(each: listener.Listener) -> None:
        if failures:
            each._socket.close()
            raise failures.pop(0)
        run(each)

    monkeypatch.setattr(listener.Listener, "run", break_first)
    monkeypatch.setattr(server, "_AFTER_A_BUG_SECONDS", 0.05)
    here = Here(house)
    wait_until_served(here.url)
    wait_until(lambda: not here.companion.problems, "nothing is wrong any more")
    stop(here)
    assert 3 == sum("Traceback" in record for record in told)
    assert any("RuntimeError: a bug" in record for record in told)


def test_a_server_that_ends_by_itself_is_served_again(
    house: House, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An end that nobody asked for is a bug, too."""
    monkeypatch.setattr(server, "_AFTER_A_BUG_SECONDS", 0.05)
    listeners: list[listener.Listener] = []
    run = listener.Listener.run

    def remember(each: listener.Listener) -> None:
        listeners.append(each)
        run(each)

    monkeypatch.setattr(listener.Listener, "run", remember)
    here = Here(house)
    wait_until_served(here.url)
    listeners[0].end()
    wait_until(lambda: len(listeners) > 1, "it serves again")
    wait_until_served(here.url)
    stop(here)
    assert "it ended by itself" in told[0]


def test_an_address_that_is_not_ours_is_not_listened_on(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where `localhost` leads elsewhere, nothing is opened to others; the problem says so."""
    found = [(2, 1, 6, "", ("0.0.0.0", 0))]
    monkeypatch.setattr(listener.socket, "getaddrinfo", lambda *_, **__: found)
    here = Here(house)
    wait_until(lambda: here.companion.problems, "it is refused")
    assert "127.0.0.1 is not this machine's own address" in here.companion.problems[0]
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{here.url}/healthz")
    stop(here)
