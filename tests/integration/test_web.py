"""The web server beside the real daemon, over real sockets: what it answers, and what becomes of it."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator

import httpx
import pytest

from tests.support.daemon import Spool, wait_until
from tests.support.daemon import spool as make_spool
from tests.support.web import Answer, connect, read_all, say, serve, wait_until_served
from tfwatch.sandbox.server import Sandbox

TOKEN = "a-token-of-16-or-more"
SECURITY = {
    "content-security-policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a daemon that serves to callers in a hurry, until all of them are through."""
    with Sandbox() as sandbox, make_spool(tmp_path_factory.mktemp("web"), sandbox.url, sandbox.api_key) as spool:
        address = serve(spool, requests_per_second=10_000)
        spool.start()
        wait_until_served(address)
        yield address
        # Whatever they did: no traceback, not a word of it, and a clean stop.
        assert 0 == spool.stop()
        assert [] == re.findall(".*(?:web server|uvicorn|asyncio|Traceback).*", spool.output.read_text())


def request(line: str = "GET /healthz HTTP/1.1", *headers: str, body: str = "") -> bytes:
    """A request that is answered and then closed."""
    head = "\r\n".join((line, "Host: 127.0.0.1", "Connection: close", *headers))
    return f"{head}\r\n\r\n{body}".encode("latin-1")


def status(answer: Answer | None) -> int:
    assert answer is not None, "nothing came back"
    return answer.status


# --- what is answered -------------------------------------------------------------------------------------------------


def test_a_healthy_daemon_says_so(url: str) -> None:
    """Health is 200, JSON, and says nothing about the machine."""
    answer = httpx.get(f"{url}/healthz")
    assert (200, {"status": "ok", "reasons": []}) == (answer.status_code, answer.json())
    assert "application/json" == answer.headers["content-type"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("GET /healthz HTTP/1.1", 200),
        ("HEAD /healthz HTTP/1.1", 200),
        ("OPTIONS /healthz HTTP/1.1", 204),
        ("POST /healthz HTTP/1.1", 405),
        ("DELETE /healthz HTTP/1.1", 405),
        ("TRACE /healthz HTTP/1.1", 405),
        ("CONNECT 127.0.0.1:80 HTTP/1.1", 405),
        ("BREW /healthz HTTP/1.1", 501),
        ("get /healthz HTTP/1.1", 501),
        ("PRI * HTTP/2.0", 501),
        ("GET /healthz/ HTTP/1.1", 404),
        ("GET //healthz HTTP/1.1", 404),
        ("GET /../etc/passwd HTTP/1.1", 404),
        ("GET /%2e%2e%2fetc%2fpasswd HTTP/1.1", 404),
        ("GET /%ff%00 HTTP/1.1", 404),
        ("OPTIONS * HTTP/1.1", 404),
        ("GET http://127.0.0.1/healthz HTTP/1.1", 404),
        ("GET /healthz HTTP/1.0", 200),
        ("GET /healthz", 400),
        ("GET /hea lthz HTTP/1.1", 400),
        ("nonsense", 400),
        ("\x16\x03\x01\x02", 400),
        ("", 400),
    ],
)
def test_every_request_has_its_answer_and_every_answer_its_headers(url: str, line: str, expected: int) -> None:
    """Right, wrong or no request at all: the fitting status, the headers of them all, and not a word of the server."""
    answer = say(url, request(line))
    assert expected == status(answer)
    assert answer is not None
    assert SECURITY == {name: answer.headers.get(name) for name in SECURITY}
    assert set() == {"server", "x-powered-by"} & set(answer.headers)
    assert "date" in answer.headers
    if expected >= 400:
        assert re.fullmatch(rb'{"type":"about:blank","title":"[A-Za-z ]+","status":%d}' % expected, answer.body)
    if line.startswith(("HEAD", "OPTIONS /")):
        assert b"" == answer.body


def test_a_wrong_method_is_told_the_right_ones(url: str) -> None:
    """405 and OPTIONS name what the path takes."""
    for line in ("POST /healthz HTTP/1.1", "OPTIONS /healthz HTTP/1.1"):
        answer = say(url, request(line))
        assert answer is not None
        assert "GET, HEAD, OPTIONS" == answer.headers["allow"]


# --- limits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (request("GET /healthz?" + "x" * 4096 + " HTTP/1.1"), 414),
        (request("GET /healthz HTTP/1.1", "X: " + "x" * 16_384), 431),
        (request("GET /healthz HTTP/1.1", *(f"X-{n}: 1" for n in range(63))), 431),
        (request("GET /healthz HTTP/1.1", *(f"X-{n}: 1" for n in range(62))), 200),
        (b"GET /healthz HTTP/1.1\r\nX: " + b"x" * 1_000_000, 431),
        (b"x" * 1_000_000, 431),
        (b"\r\n" * 100_000, 400),
        (request("POST /healthz HTTP/1.1", "Content-Length: 65537"), 413),
        (request("POST /healthz HTTP/1.1", "Content-Length: 99999999999999999999"), 413),
        (request("POST /healthz HTTP/1.1", "Content-Length: -1"), 400),
        (request("POST /healthz HTTP/1.1", "Content-Length: 1", "Content-Length: 2"), 400),
        (request("POST /healthz HTTP/1.1", "Transfer-Encoding: gzip"), 501),
        (request("POST /healthz HTTP/1.1", "Content-Length: 4", "Transfer-Encoding: chunked", body="0\r\n\r\n"), 400),
        (request("POST /healthz HTTP/1.1", "Transfer-Encoding: chunked", body="zz\r\n"), 400),
        (b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nBad Name: x\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX: a\x00b\r\n\r\n", 400),
    ],
    ids=lambda value: value[:40] if isinstance(value, bytes) else None,
)  # fmt: skip
def test_what_is_too_large_or_no_request_is_refused(url: str, said: bytes, expected: int) -> None:
    """Each limit has its status, and the connection is closed: whatever follows is not taken for a request."""
    answer = say(url, said)
    # What is still being sent when we close may cost the caller our answer; that is between it and its kernel.
    assert answer is None or expected == answer.status
    assert len(said) > 100_000 or answer is not None


# --- beside the daemon ------------------------------------------------------------------------------------------------


def alerts(spool: Spool) -> list[str]:
    return re.findall(r"the web server.*?(?=  EVENT=)", spool.output.read_text())


def test_a_port_that_is_taken_holds_up_nothing(spool: Spool) -> None:
    """Packages are delivered; it is told once and shown in status, and served as soon as the port is free."""
    url = serve(spool)
    port = int(url.rpartition(":")[2])
    with socket.create_server(("127.0.0.1", port)):
        spool.start()
        spool.drop("p.zip")
        spool.wait_for("delivered", "p.zip")
        problem = f"the web server can't serve 127.0.0.1 port {port}: Address already in use"
        spool.wait_for_state(lambda state: any(each.startswith(problem) for each in state["problems"]), "it is shown")
    wait_until_served(url)
    spool.wait_for_state(lambda state: "the web server" not in str(state["problems"]), "it is over")
    wait_until(lambda: len(alerts(spool)) > 1, "the journal says that it is over")
    first, second = alerts(spool)
    assert first.startswith(f"{problem}; deliveries go on, and it is tried again")
    assert second.startswith("the web server: it listens again")


def test_the_section_web_is_taken_over_while_running(spool: Spool) -> None:
    """Off, on, another port, a token: each change counts within moments, and no package notices."""
    spool.start()
    spool.drop("p.zip")
    url = serve(spool)
    wait_until_served(url)
    other = serve(spool)
    wait_until_served(other)
    assert_refused(url)
    assert 404 == httpx.get(f"{other}/nothing").status_code
    serve(spool, port=int(other.rpartition(":")[2]), token=TOKEN)
    wait_until(lambda: status_of(other) == 401, "the token is asked for")
    spool.configure(web={"enabled": False})
    assert_refused(other)
    spool.wait_for("delivered", "p.zip")
    assert [] == alerts(spool)
    assert 0 == spool.stop()


def status_of(url: str) -> int | None:
    try:
        return httpx.get(f"{url}/nothing").status_code
    except httpx.TransportError:
        return None


def assert_refused(url: str) -> None:
    """Nobody listens there any more."""
    wait_until(lambda: status_of(url) is None, f"{url} is closed")


def test_callers_do_not_hold_up_a_stop(spool: Spool) -> None:
    """With callers that sit there, in every step of a request, it ends as fast as without."""
    url = serve(spool)
    spool.start()
    wait_until_served(url)
    said = (b"", b"GET", b"GET /healthz HTTP/1.1\r\n", request("POST /healthz HTTP/1.1", "Content-Length: 9"))
    callers = [connect(url) for _ in range(40)]
    for number, caller in enumerate(callers):
        caller.sendall(said[number % len(said)])
    assert 0 == spool.stop()
    for caller in callers:
        caller.close()


def test_health_is_known_while_the_spool_is_away(spool: Spool) -> None:
    """A spool that is renamed away makes health 503 with the reason, and its return makes it 200 again."""
    url = serve(spool)
    spool.start()
    wait_until_served(url)
    away = spool.home / "away"
    spool.root.rename(away)
    answer = httpx.get(f"{url}/healthz")
    assert (503, ["the spool is unmounted, moved away or another folder now"]) == (
        answer.status_code,
        answer.json()["reasons"],
    )
    assert str(spool.home) not in answer.text
    away.rename(spool.root)
    assert 200 == httpx.get(f"{url}/healthz").status_code


def test_who_asks_too_often_is_told_when_to_come_back(spool: Spool) -> None:
    """429 with the seconds to wait, and after these it is answered; a malformed request counts as any other."""
    url = serve(spool, requests_per_second=1)
    spool.start()
    wait_until_served(url)
    many = 9 * b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" + request()
    with connect(url) as caller:
        caller.sendall(many)
        said = read_all(caller)
    assert {b"200", b"429"} >= set(re.findall(rb"HTTP/1.1 (\d+)", said))
    assert {b"1"} == set(re.findall(rb"retry-after: (\d+)\r\n", said))
    wait_until(lambda: status(say(url, b"nonsense\r\n\r\n")) == 429, "it counts, too")
    wait_until(lambda: status(say(url, request())) == 200, "it is answered again")
