"""Each fault shows on the wire as it is named, and as often as it was told to."""

from __future__ import annotations

import hashlib
import json
import random
import socket
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import pytest

from tfwatch.sandbox.faults import Fault, FaultKind, Faults, Target
from tfwatch.sandbox.server import Sandbox

AUTH = {"Authorization": "Bearer sandbox-key"}
HTTP = httpx.Client()


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as running:
        yield running


def deliver(sandbox: Sandbox, zipped: bytes = b"PK-one", timeout: float = 5.0) -> httpx.Response:
    sha256 = hashlib.sha256(zipped).hexdigest()
    return HTTP.post(
        f"{sandbox.url}/deliveries",
        data={"job_id": "j", "version": "1", "sha256": sha256, "client_reference": sha256, "meta[trace_id]": "t"},
        files={"package": ("j_v1.zip", zipped, "application/zip")},
        headers={**AUTH, "Idempotency-Key": f'"{sha256}"'},
        timeout=timeout,
    )


def test_latency(sandbox: Sandbox) -> None:
    """Latency delays the reply and changes nothing else."""
    sandbox.set_faults(Fault(kind=FaultKind.LATENCY, seconds=0.15), Fault(kind=FaultKind.LATENCY, seconds=0.1))
    began = time.monotonic()
    assert 201 == deliver(sandbox).status_code
    assert time.monotonic() - began >= 0.25


@pytest.mark.parametrize("status", [302, 400, 401, 402, 403, 404, 409, 422, 500, 503])
def test_fixed_status(sandbox: Sandbox, status: int) -> None:
    """A status fault answers with that status in the portal's own error shape, and no order is made."""
    sandbox.set_faults(Fault(kind=FaultKind.STATUS, status=status, message="on purpose"))
    reply = deliver(sandbox)
    assert (status, "on purpose") == (reply.status_code, reply.json()["detail"])
    assert [] == sandbox.orders()


def test_too_many_requests_names_when(sandbox: Sandbox) -> None:
    """A 429 carries Retry-After, and after `times` hits the service is well again."""
    sandbox.set_faults(Fault(kind=FaultKind.STATUS, status=429, retry_after=7, times=2))
    replies = [deliver(sandbox) for _ in range(3)]
    assert [429, 429, 201] == [reply.status_code for reply in replies]
    assert ["7", "7", None] == [reply.headers.get("retry-after") for reply in replies]


def test_error_after_accepting(sandbox: Sandbox) -> None:
    """With `accept` the order is made although the reply says otherwise; the key then finds it again."""
    sandbox.set_faults(Fault(kind=FaultKind.STATUS, status=500, accept=True, times=1))
    assert 500 == deliver(sandbox).status_code
    (order,) = sandbox.orders()
    assert order["id"] == deliver(sandbox).json()["id"]


@pytest.mark.parametrize("accept", [False, True])
def test_hang(sandbox: Sandbox, accept: bool) -> None:
    """A hung request is never answered; whether it took effect is chosen."""
    sandbox.set_faults(Fault(kind=FaultKind.HANG, accept=accept))
    with pytest.raises(httpx.ReadTimeout):
        deliver(sandbox, timeout=2)
    assert int(accept) == len(sandbox.orders())


def test_reset_after_accepting(sandbox: Sandbox) -> None:
    """The client sees a reset connection, though the order exists."""
    sandbox.set_faults(Fault(kind=FaultKind.RESET))
    with pytest.raises(httpx.ReadError) as caught:
        deliver(sandbox)
    assert "reset" in str(caught.value).lower()
    assert 1 == len(sandbox.orders())


def test_reset_before_the_body_is_read(sandbox: Sandbox) -> None:
    """The connection is reset while the body is still being sent; nothing is ordered."""
    sandbox.set_faults(Fault(kind=FaultKind.RESET_EARLY))
    address = urlsplit(sandbox.url)
    head = b"POST /deliveries HTTP/1.1\r\nHost: x\r\nContent-Length: 1073741824\r\n\r\n"
    with socket.create_connection((str(address.hostname), address.port or 0), timeout=5) as client:
        client.sendall(head)
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            client.sendall(bytes(2**30))
    with pytest.raises(httpx.TransportError):
        deliver(sandbox, bytes(32 * 2**20))
    assert [] == sandbox.orders()


def test_garbage(sandbox: Sandbox) -> None:
    """A 200 whose body is not JSON, though the order exists."""
    sandbox.set_faults(Fault(kind=FaultKind.GARBAGE))
    reply = deliver(sandbox)
    assert 200 == reply.status_code
    with pytest.raises((json.JSONDecodeError, UnicodeDecodeError)):
        reply.json()
    assert 1 == len(sandbox.orders())


def test_reply_without_an_id(sandbox: Sandbox) -> None:
    """A 201 that forgot to say which order it made."""
    sandbox.set_faults(Fault(kind=FaultKind.NO_ID))
    reply = deliver(sandbox)
    assert (201, {"status": "received", "message": ""}) == (reply.status_code, reply.json())
    assert 1 == len(sandbox.orders())


def test_dripping_reply(sandbox: Sandbox) -> None:
    """A dripped reply is whole and right, but takes its time."""
    sandbox.set_faults(Fault(kind=FaultKind.DRIP, seconds=0.005, times=1))
    began = time.monotonic()
    dripped = deliver(sandbox)
    assert time.monotonic() - began >= 0.005 * len(dripped.content)
    assert dripped.content == deliver(sandbox).content


def test_dripping_stops_when_the_client_leaves(sandbox: Sandbox) -> None:
    """No one drips to a client that is gone."""
    sandbox.set_faults(Fault(kind=FaultKind.DRIP, seconds=30.0))
    with pytest.raises(httpx.ReadTimeout):
        deliver(sandbox, timeout=2)
    sandbox.set_faults()
    assert 201 == deliver(sandbox).status_code


def test_truncated_reply(sandbox: Sandbox) -> None:
    """The reply breaks off in the middle of its body."""
    sandbox.set_faults(Fault(kind=FaultKind.TRUNCATED))
    with pytest.raises(httpx.RemoteProtocolError):
        deliver(sandbox)
    assert 1 == len(sandbox.orders())


def test_targets_are_told_apart(sandbox: Sandbox) -> None:
    """A fault strikes its own endpoint only."""
    order_id = deliver(sandbox).json()["id"]
    urls = {
        Target.STATUS: f"{sandbox.url}/deliveries/{order_id}",
        Target.LOOKUP: f"{sandbox.url}/deliveries?client_reference=x",
        Target.SHEETS: f"{sandbox.url}/v4/spreadsheets/x",
    }
    for target in urls:
        sandbox.set_faults(Fault(kind=FaultKind.STATUS, status=418, target=target))
        hit = {other for other, url in urls.items() if HTTP.get(url, headers=AUTH).status_code == 418}
        assert {target} == hit
    sandbox.set_faults(Fault(kind=FaultKind.STATUS, status=500, target=Target.TOKEN))
    reply = HTTP.post(f"{sandbox.url}/token", data={})
    assert (500, "internal_failure") == (reply.status_code, reply.json()["error"])
    sandbox.set_faults(Fault(kind=FaultKind.STATUS, status=503, target=Target.SHEETS))
    assert "UNAVAILABLE" == HTTP.get(urls[Target.SHEETS]).json()["error"]["status"]


def test_faults_are_set_over_the_control_api(sandbox: Sandbox) -> None:
    """PUT puts faults in force, GET counts their hits, nonsense is refused and changes nothing."""
    url = f"{sandbox.url}/_sandbox/faults"
    put = HTTP.put(url, json=[{"kind": "status", "status": 500, "times": 1}])
    assert 200 == put.status_code
    assert [500, 201] == [deliver(sandbox).status_code for _ in range(2)]
    assert [1] == [fault["hits"] for fault in HTTP.get(url).json()]
    for nonsense in ([{"kind": "earthquake"}], [{"kind": "hang", "colour": "red"}], {"kind": "hang"}):
        assert 422 == HTTP.put(url, json=nonsense).status_code
    assert [1] == [fault["hits"] for fault in HTTP.get(url).json()]


def test_same_seed_same_luck() -> None:
    """Probabilities are drawn from the given rng, so a seed makes a run repeatable."""
    fault = Fault(kind=FaultKind.RESET, probability=0.3)

    def run(seed: int) -> list[bool]:
        faults = Faults([fault], random.Random(seed))
        return [bool(faults.draw(Target.SUBMIT)) for _ in range(1000)]

    assert run(7) == run(7)
    assert 230 < sum(run(7)) < 370
