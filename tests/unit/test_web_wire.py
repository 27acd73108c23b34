"""What a connection may draw out, over real sockets: times, places, and what is left when it is gone."""

from __future__ import annotations

import itertools
import socket
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.support.daemon import PATIENCE, wait_until
from tests.support.web import connect, listening, parse, read_all, site_of
from tests.unit.house import House
from tfwatch.web import listener, wire
from tfwatch.web.site import Site

HEAD = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n"
BIG = 32 * 1024 * 1024


@pytest.fixture
def site(tmp_path: Any) -> Iterator[Site]:
    """What is served: the health of a house in which all is well."""
    house = House(tmp_path / "spool")
    yield site_of(house.desk)
    house.close()


def drip(caller: socket.socket, data: bytes) -> bytes:
    """Send a byte now and then until the other side has had enough; gives what it said."""
    caller.settimeout(0.02)
    said = b""
    deadline = time.monotonic() + PATIENCE
    for byte in itertools.cycle(data):
        try:
            caller.sendall(bytes((byte,)))
            if not (piece := caller.recv(65536)):
                return said
            said += piece
        except TimeoutError:
            assert time.monotonic() < deadline, "it is still listened to"
        except ConnectionError:
            return said
    raise AssertionError("nothing to send")


def test_a_head_that_drips_is_not_waited_for(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """No byte gives it more time: the connection is closed, with 408."""
    monkeypatch.setattr(wire, "HEAD_SECONDS", 0.3)
    with listening(site) as url, connect(url) as caller:
        caller.sendall(HEAD + b"X: ")
        answer = parse(drip(caller, b"x"))
        assert answer is None or 408 == answer.status


def test_a_silent_caller_is_told_and_closed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever connects and says nothing gets 408."""
    monkeypatch.setattr(wire, "HEAD_SECONDS", 0.3)
    with listening(site) as url, connect(url) as caller:
        answer = parse(read_all(caller))
        assert answer is not None
        assert (408, "close") == (answer.status, answer.headers["connection"])


def test_a_body_that_drips_is_not_waited_for(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body has its time, too, however it comes. Here nobody reads it, and it is done with just the same."""
    monkeypatch.setattr(wire, "HEAD_SECONDS", 0.3)
    monkeypatch.setattr(wire, "REQUEST_SECONDS", 0.3)
    with listening(site) as url, connect(url) as caller:
        caller.sendall(HEAD + b"Content-Length: 60000\r\n\r\n")
        answer = parse(drip(caller, b"x"))
        assert answer is None or answer.status in (200, 408)


def test_a_body_that_is_waited_for_has_its_time(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """An application that reads the body gets no more of it than came in time; the caller gets 408."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    monkeypatch.setattr(wire, "REQUEST_SECONDS", 0.3)
    monkeypatch.setattr(listener, "create_app", lambda *_: application)
    with listening(site) as url, connect(url) as caller:
        caller.sendall(HEAD + b"Content-Length: 60000\r\n\r\n")
        answer = parse(drip(caller, b"x"))
        assert answer is None or 408 == answer.status


def test_an_answer_that_takes_too_long_is_given_up(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that was all there and has no answer in time gets 503, and what works on it is told to stop."""
    stopped = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        while (message := await receive())["type"] != "http.disconnect":
            pass
        stopped.append(message)

    monkeypatch.setattr(wire, "REQUEST_SECONDS", 0.3)
    monkeypatch.setattr(listener, "create_app", lambda *_: application)
    with listening(site) as url, connect(url) as caller:
        caller.sendall(HEAD + b"\r\n")
        answer = parse(read_all(caller))
        assert answer is not None
        assert 503 == answer.status
        wait_until(lambda: stopped, "the application is told")


@pytest.fixture
def places(monkeypatch: pytest.MonkeyPatch) -> list[wire.Doorman]:
    """Who counts the connections of each server that is made."""
    found: list[wire.Doorman] = []
    make = wire.Doorman.__init__

    def remember(doorman: wire.Doorman, most: int) -> None:
        make(doorman, most)
        found.append(doorman)

    monkeypatch.setattr(wire.Doorman, "__init__", remember)
    return found


async def big(scope: Any, receive: Any, send: Any) -> None:
    """An application that says more than fits on the way to a caller."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % BIG)]})
    await send({"type": "http.response.body", "body": bytes(BIG)})


def ask_for_it(caller: socket.socket) -> None:
    """Ask, with a small place for what comes, and wait for its first byte."""
    caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    caller.sendall(HEAD + b"\r\n")
    assert caller.recv(1)


def test_a_caller_that_does_not_read_is_cut_off(
    site: Site, places: list[wire.Doorman], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer that nobody takes is not kept for longer than the time of a request and a moment."""
    monkeypatch.setattr(wire, "HEAD_SECONDS", 0.3)
    monkeypatch.setattr(wire, "_LINGER_SECONDS", 0.1)
    monkeypatch.setattr(listener, "create_app", lambda *_: big)
    with listening(site) as url, connect(url) as caller:
        ask_for_it(caller)
        wait_until(lambda: not places[0].connections, "the connection is let go")
        assert len(read_all(caller)) < BIG


def test_a_caller_with_a_slow_line_is_waited_for(
    site: Site, places: list[wire.Doorman], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as it takes some of the answer each time that its time is up, it gets more of both."""
    monkeypatch.setattr(wire, "HEAD_SECONDS", 10 * PATIENCE)
    monkeypatch.setattr(wire, "_LINGER_SECONDS", 10 * PATIENCE)
    monkeypatch.setattr(listener, "create_app", lambda *_: big)
    with listening(site) as url, connect(url) as caller:
        ask_for_it(caller)
        (connection,) = places[0].connections
        wait_until(lambda: connection.transport.get_write_buffer_size() > BIG // 2, "the answer is on its way")
        for _ in range(3):
            before = connection.transport.get_write_buffer_size()
            while connection.transport.get_write_buffer_size() > before - 2**20:
                assert caller.recv(65536)
            connection.loop.call_soon_threadsafe(connection._on_time)
        left = connection.transport.get_write_buffer_size()
        while connection.transport.get_write_buffer_size() > left - 2**20:
            assert caller.recv(65536)
        assert [connection] == list(places[0].connections)


def test_slow_callers_make_room_for_others(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many sit there, whoever asks properly is answered; those that have waited longest go first."""
    monkeypatch.setattr(listener, "MOST_CONNECTIONS", 8)
    monkeypatch.setattr(wire, "HEAD_SECONDS", PATIENCE)
    with listening(site) as url:
        slow = []
        for number in range(20):
            caller = connect(url)
            caller.sendall(HEAD)
            slow.append(caller)
            if number >= 8:
                # The one that came eight before has been closed by the time this one is known.
                assert b"" == read_all(slow[number - 8])
        for _ in range(20):
            assert 200 == httpx.get(f"{url}/healthz").status_code
        for caller in slow:
            caller.close()


def test_one_connection_may_ask_again_and_again(site: Site) -> None:
    """Connections are kept for the next request, which may come with the one before."""
    with listening(site) as url, connect(url) as caller:
        for _ in range(3):
            caller.sendall(3 * (HEAD + b"\r\n"))
            said = b""
            while said.count(b'{"status":"ok","reasons":[]}') < 3:
                said += (piece := caller.recv(65536))
                assert piece, said
        caller.sendall(HEAD + b"Connection: close\r\n\r\n")
        answer = parse(read_all(caller))
        assert answer is not None
        assert (200, "close") == (answer.status, answer.headers["connection"])


def test_a_stop_waits_for_nobody(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Callers that sit there, and answers under way, are cut."""
    monkeypatch.setattr(wire, "HEAD_SECONDS", PATIENCE)
    with listening(site) as url:
        slow = [connect(url) for _ in range(10)]
        for caller in slow:
            caller.sendall(HEAD)
        assert 200 == httpx.get(f"{url}/healthz").status_code
    for caller in slow:
        assert b"" == read_all(caller)
        caller.close()
