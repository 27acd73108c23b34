"""The sandbox's v4 profile and its callbacks, against a real HTTP server that plays the client."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from standardwebhooks import Webhook

from tfwatch.sandbox.outbound import NotLoopback
from tfwatch.sandbox.server import Sandbox
from tfwatch.sandbox.settings import CallbackScheme, PortalSettings, SandboxSettings

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
HTTP = httpx.Client()
ZIPPED = b"PK" + bytes(300_000)


@dataclass
class Peer:
    """A client of the portal: serves a package, takes callbacks and answers them with `answers` in turn."""

    url: str = ""
    calls: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    answers: list[tuple[int, bytes]] = field(default_factory=list)


@pytest.fixture
def peer() -> Iterator[Peer]:
    state = Peer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = self.path.startswith("/bucket/")
            self._reply(200 if found else 403, ZIPPED if found else b"denied")

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            state.calls.append(({name.lower(): value for name, value in self.headers.items()}, body))
            self._reply(*state.answers[min(len(state.calls), len(state.answers)) - 1])

        def _reply(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


def running(**portal: Any) -> Sandbox:
    quick = {"verdict_delay": 0.02, "callback_retry_seconds": 0.01}
    return Sandbox(SandboxSettings(portal=PortalSettings(**{**quick, **portal})))


def order(sandbox: Sandbox, peer: Peer, **changes: str) -> httpx.Response:
    form = {
        "api_token": "sandbox-key",
        "mode": "test",
        "url": f"{peer.url}/bucket/job_v1.zip?X-Amz-Signature=s",
        "language": "en",
        "callback_url": f"{peer.url}/webhooks/gotranscript",
    }
    return HTTP.post(f"{sandbox.url}/api/v4/transcriptions", data={**form, **changes})


def deliver(sandbox: Sandbox) -> str:
    sha256 = hashlib.sha256(ZIPPED).hexdigest()
    reply = HTTP.post(
        f"{sandbox.url}/deliveries",
        data={"job_id": "j", "version": "1", "sha256": sha256, "client_reference": sha256, "meta[trace_id]": "t"},
        files={"package": ("j_v1.zip", ZIPPED)},
        headers={"Authorization": "Bearer sandbox-key", "Idempotency-Key": '"k"'},
    )
    return str(reply.json()["id"])


def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.005)


def test_v4_fetches_the_package_itself(peer: Peer) -> None:
    """An order is made from the presigned URL's bytes, and the answer has the documented shape."""
    peer.answers = [(200, b"ok")]
    with running() as sandbox:
        reply = order(sandbox, peer)
        assert 200 == reply.status_code
        assert {"mode", "status", "order_id", "order_total", "seconds", "in_wallet"} == set(reply.json())
        (made,) = sandbox.orders()
        assert (hashlib.sha256(ZIPPED).hexdigest(), len(ZIPPED)) == (made["sha256"], made["bytes"])
        until(lambda: bool(sandbox.orders()[0]["callback_taken"]))
        body = json.loads(peer.calls[0][1])
        assert ("test", reply.json()["order_id"], "en") == (body["mode"], body["order_id"], body["language"])
        assert 200 == HTTP.get(body["transcription_url"] + "&format=text").status_code


def test_v4_repeats_until_ok(peer: Peer) -> None:
    """A callback answered by anything but the body `ok` is repeated, ten times at most."""
    peer.answers = [(200, b"OK"), (500, b"ok?"), (200, b"ok")]
    with running() as sandbox:
        order(sandbox, peer)
        until(lambda: bool(sandbox.orders()[0]["callback_taken"]))
        assert 3 == len(peer.calls)
        peer.answers = [(200, b"thanks")]
        order(sandbox, peer)
        until(lambda: sandbox.orders()[1]["callbacks"] == 10)
        assert sandbox.orders()[1]["callback_taken"] is False


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"api_token": "wrong"}, "api_token"),
        ({"mode": "wild"}, "mode"),
        ({"url": ""}, "url"),
        ({"url": "http://127.0.0.1:1/gone"}, "fetched"),
        ({"url": "http://192.0.2.1/bucket/x"}, "this machine"),
        ({"url": "https://127.0.0.1/bucket/x"}, "http://"),
        ({"mode": "live"}, "balance"),
    ],
)
def test_v4_refuses_with_400(peer: Peer, changes: dict[str, str], word: str) -> None:
    """Bad credentials, an empty wallet and an unusable URL are all a 400 with `error`, and no order."""
    with running(wallet=0.0) as sandbox:
        reply = order(sandbox, peer, **changes)
        assert 400 == reply.status_code
        assert word in reply.json()["error"]
        assert "X-Amz" not in reply.text
        assert [] == sandbox.orders()


def test_v4_takes_json_too_and_live_orders_cost(peer: Peer) -> None:
    """JSON does as well as a form, and a live order is paid from the wallet."""
    peer.answers = [(200, b"ok")]
    form = {"api_token": "sandbox-key", "mode": "live", "language": "en", "callback_url": peer.url}
    with running(wallet=1.5) as sandbox:
        url = f"{sandbox.url}/api/v4/transcriptions"
        assert 0.5 == HTTP.post(url, json={**form, "url": f"{peer.url}/bucket/x.zip"}).json()["in_wallet"]
        refused = HTTP.post(url, json={**form, "url": f"{peer.url}/denied.zip"})
        assert "balance" in refused.json()["error"]


def test_callback_is_signed_by_standard_webhooks(peer: Peer) -> None:
    """Every try is signed and carries the same message id, until a 2xx."""
    peer.answers = [(503, b""), (200, b"{}")]
    with running(callback_url=peer.url, callback_secret=SECRET) as sandbox:
        order_id = deliver(sandbox)
        until(lambda: bool(sandbox.orders()[0]["callback_taken"]))
    assert 2 == len(peer.calls)
    bodies = [Webhook(SECRET).verify(body, headers) for headers, body in peer.calls]
    assert (order_id, "completed", "t") == (bodies[0]["id"], bodies[0]["status"], bodies[0]["trace_id"])
    assert 1 == len({headers["webhook-id"] for headers, _ in peer.calls})


def test_callback_is_signed_the_older_way(peer: Peer) -> None:
    """The older scheme signs the body alone, in hex."""
    peer.answers = [(200, b"{}")]
    with running(callback_url=peer.url, callback_secret="s3cret", callback_scheme=CallbackScheme.LEGACY) as sandbox:
        deliver(sandbox)
        until(lambda: bool(sandbox.orders()[0]["callback_taken"]))
    headers, body = peer.calls[0]
    assert hmac.new(b"s3cret", body, hashlib.sha256).hexdigest() == headers["x-signature"]
    assert "gotranscript" == headers["x-integration-id"]
    assert abs(time.time() - int(headers["x-signature-timestamp"])) < 10


def test_callback_comes_even_if_someone_asked_first(peer: Peer) -> None:
    """Polling an order that is due does not eat its callback; a verdict by hand is told once."""
    peer.answers = [(200, b"{}")]
    with running(callback_url=peer.url, verdict_delay=0.2) as sandbox:
        order_id = deliver(sandbox)
        url = f"{sandbox.url}/deliveries/{order_id}"
        auth = {"Authorization": "Bearer sandbox-key"}
        until(lambda: HTTP.get(url, headers=auth).json()["status"] == "completed")
        until(lambda: len(peer.calls) == 1)
        sandbox.give_verdict(order_id, "rejected", "changed our mind")
        until(lambda: len(peer.calls) == 2)
    assert ["completed", "rejected"] == [json.loads(body)["status"] for _, body in peer.calls]


def test_calls_stay_on_this_machine(peer: Peer) -> None:
    """No callback address elsewhere is taken, at the start or later."""
    with pytest.raises(NotLoopback):
        running(callback_url="http://192.0.2.1/hook")
    with running() as sandbox:
        change = {"portal": {"callback_url": "http://example.org/hook"}}
        assert 422 == HTTP.put(f"{sandbox.url}/_sandbox/settings", json=change).status_code
