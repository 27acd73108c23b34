"""The sandbox's portal, profile `deliveries`, over real HTTP."""

from __future__ import annotations

import hashlib
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tfwatch.sandbox.server import Sandbox
from tfwatch.sandbox.settings import PortalSettings, SandboxSettings

AUTH = {"Authorization": "Bearer sandbox-key"}
HTTP = httpx.Client()


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(SandboxSettings(portal=PortalSettings(verdict_delay=0.05))) as running:
        yield running


def deliver(
    sandbox: Sandbox,
    zipped: bytes = b"PK-one",
    *,
    job: str = "job",
    key: str | None = None,
    auth: dict[str, str] = AUTH,
    **fields: str,
) -> httpx.Response:
    sha256 = hashlib.sha256(zipped).hexdigest()
    form = {"job_id": job, "version": "1", "sha256": sha256, "client_reference": sha256, "meta[trace_id]": "t1"}
    headers = {**auth, "Idempotency-Key": f'"{sha256}"' if key is None else key, "traceparent": "00-t-s-01"}
    return HTTP.post(
        f"{sandbox.url}/deliveries",
        data={**form, **fields},
        files={"package": ("job_v1.zip", zipped, "application/zip")},
        headers={name: value for name, value in headers.items() if value},
    )


def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.005)


def test_order_carries_what_was_sent(sandbox: Sandbox) -> None:
    """An order is exactly what the client sent, found by id and by client reference."""
    before = time.time()
    reply = deliver(sandbox)
    sha256 = hashlib.sha256(b"PK-one").hexdigest()
    order_id = reply.json()["id"]

    assert (201, "received") == (reply.status_code, reply.json()["status"])
    (order,) = sandbox.orders()
    expected = {
        "id": order_id,
        "client_reference": sha256,
        "sha256": sha256,
        "bytes": 6,
        "job_id": "job",
        "version": "1",
        "filename": "job_v1.zip",
        "trace_id": "t1",
        "idempotency_key": f'"{sha256}"',
        "traceparent": "00-t-s-01",
        "requests": 1,
    }
    assert expected == {name: order[name] for name in expected}
    assert before <= order["first_byte_at"] <= order["created_at"]  # type: ignore[operator]
    found = HTTP.get(f"{sandbox.url}/deliveries", params={"client_reference": sha256}, headers=AUTH)
    assert [order_id] == [item["id"] for item in found.json()["items"]]
    none = HTTP.get(f"{sandbox.url}/deliveries", params={"client_reference": "other"}, headers=AUTH)
    assert {"items": []} == none.json()


def test_verdict_falls_after_its_delay(sandbox: Sandbox) -> None:
    """An order is pending until its delay is over, then completed, or rejected where the job id says so."""
    good = deliver(sandbox).json()["id"]
    bad = deliver(sandbox, b"PK-two", job="please-reject-me").json()["id"]

    def word(order_id: str) -> str:
        return str(HTTP.get(f"{sandbox.url}/deliveries/{order_id}", headers=AUTH).json()["status"])

    until(lambda: word(good) == "completed")
    until(lambda: word(bad) == "rejected")
    assert 404 == HTTP.get(f"{sandbox.url}/deliveries/none", headers=AUTH).status_code


def test_immediate_verdict_and_own_words(sandbox: Sandbox) -> None:
    """With `immediate` the POST itself has the final word, in the words that are set."""
    sandbox.set_settings(portal={"verdict": "immediate", "completed_word": "transcribed", "accepted_status": 200})
    reply = deliver(sandbox)
    assert (200, "transcribed") == (reply.status_code, reply.json()["status"])


def test_verdict_by_hand(sandbox: Sandbox) -> None:
    """A verdict given over the control API is what the portal says from then on."""
    sandbox.set_settings(portal={"verdict": "never"})
    order_id = deliver(sandbox).json()["id"]
    given = HTTP.post(
        f"{sandbox.url}/_sandbox/orders/{order_id}/verdict", json={"status": "failed", "message": "silence"}
    )
    assert 200 == given.status_code
    shown = HTTP.get(f"{sandbox.url}/deliveries/{order_id}", headers=AUTH).json()
    assert ("failed", "silence") == (shown["status"], shown["message"])
    assert 404 == HTTP.post(f"{sandbox.url}/_sandbox/orders/no/verdict", json={"status": "x"}).status_code


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"auth": {"Authorization": "Bearer wrong"}}, 401),
        ({"auth": {}}, 401),
        ({"key": ""}, 400),
        ({"key": "unquoted"}, 400),
        ({"sha256": "0" * 64}, 422),
        ({"job_id": ""}, 422),
        ({"meta[trace_id]": ""}, 422),
    ],
)
def test_bad_requests_make_no_order(sandbox: Sandbox, changes: dict[str, object], status: int) -> None:
    """What breaks the protocol is answered with a problem document and leaves no order and no used-up key."""
    reply = deliver(sandbox, **changes)  # type: ignore[arg-type]
    assert (status, "application/problem+json") == (reply.status_code, reply.headers["content-type"])
    assert status == reply.json()["status"]
    assert [] == sandbox.orders()
    assert 201 == deliver(sandbox).status_code


def test_not_a_form_is_a_400(sandbox: Sandbox) -> None:
    """A body that is no multipart form, or a torn one, is refused."""
    headers = {**AUTH, "Idempotency-Key": '"k"'}
    assert 400 == HTTP.post(f"{sandbox.url}/deliveries", content=b"PK", headers=headers).status_code
    headers["content-type"] = "multipart/form-data; boundary=b"
    torn = b'--b\r\nContent-Disposition: form-data; name="job_id"\r\n\r\njob'
    assert 400 == HTTP.post(f"{sandbox.url}/deliveries", content=torn, headers=headers).status_code
    nameless = b"--b\r\nContent-Disposition: form-data\r\n\r\njob\r\n--b--\r\n"
    assert 400 == HTTP.post(f"{sandbox.url}/deliveries", content=nameless, headers=headers).status_code


def test_same_key_is_the_same_order(sandbox: Sandbox) -> None:
    """A second POST with the same key replays the saved answer, and nothing else happens."""
    first, second = deliver(sandbox), deliver(sandbox)
    assert (first.status_code, first.content) == (second.status_code, second.content)
    assert [2] == [order["requests"] for order in sandbox.orders()]
    until(lambda: sandbox.orders()[0]["status"] == "completed")
    assert first.content == deliver(sandbox).content


def test_same_key_with_another_payload_is_a_422(sandbox: Sandbox) -> None:
    """A key is bound to the payload it was first used with."""
    deliver(sandbox, key='"k"')
    assert 422 == deliver(sandbox, b"PK-two", key='"k"').status_code
    assert 1 == len(sandbox.orders())


def test_running_key_is_a_409(sandbox: Sandbox) -> None:
    """While the first request with a key is being worked on, a second one is told so."""
    sandbox.set_settings(portal={"work_seconds": 0.5})
    replies: list[httpx.Response] = []
    first = threading.Thread(target=lambda: replies.append(deliver(sandbox)))
    first.start()
    until(lambda: len(sandbox.requests()["requests"]) == 1)  # type: ignore[arg-type]
    second = deliver(sandbox)
    first.join()
    assert (409, 201) == (second.status_code, replies[0].status_code)
    assert "Idempotency-Key" in second.json()["detail"]
    assert 1 == len(sandbox.orders())


def test_without_idempotency_each_post_is_an_order(sandbox: Sandbox) -> None:
    """A portal without idempotency shows every double delivery; lookup can be off too."""
    sandbox.set_settings(portal={"idempotency": False, "lookup": False})
    assert deliver(sandbox, key="").json()["id"] != deliver(sandbox).json()["id"]
    assert 2 == len(sandbox.orders())
    assert 404 == HTTP.get(f"{sandbox.url}/deliveries?client_reference=x", headers=AUTH).status_code


def test_cut_upload_makes_no_order(sandbox: Sandbox) -> None:
    """A client that goes away in mid-body has ordered nothing, and its key is still new."""
    address = urlsplit(sandbox.url)
    sha256 = hashlib.sha256(b"PK-one").hexdigest()
    with socket.create_connection((str(address.hostname), address.port or 0)) as client:
        client.sendall(
            b"POST /deliveries HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sandbox-key\r\nContent-Length: 1000\r\n"
            b'Idempotency-Key: "'
            + sha256.encode()
            + b'"\r\nContent-Type: multipart/form-data; boundary=b\r\n\r\n--b\r\n'
        )
        until(lambda: len(sandbox.requests()["requests"]) == 1)  # type: ignore[arg-type]
    until(lambda: sandbox.requests()["by_status"] == {"none": 1})
    assert [] == sandbox.orders()
    assert 201 == deliver(sandbox).status_code


def test_upload_takes_constant_memory(sandbox: Sandbox) -> None:
    """300 MB streamed in leave no trace in memory, and the hash is right."""
    block = bytes(range(256)) * 4096
    digest = hashlib.sha256()
    for _ in range(300):
        digest.update(block)
    sha256 = digest.hexdigest()
    fields = {"job_id": "big", "version": "1", "sha256": sha256, "client_reference": sha256, "meta[trace_id]": "t"}

    def body() -> Iterator[bytes]:
        for name, value in fields.items():
            yield f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        yield b'--b\r\nContent-Disposition: form-data; name="package"; filename="big.zip"\r\n\r\n'
        for _ in range(300):
            yield block
        yield b"\r\n--b--\r\n"

    headers = {**AUTH, "Idempotency-Key": '"big"', "Content-Type": "multipart/form-data; boundary=b"}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    reply = HTTP.post(f"{sandbox.url}/deliveries", content=body(), headers=headers, timeout=60)
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before

    assert 201 == reply.status_code
    assert [300 * 2**20] == [order["bytes"] for order in sandbox.orders()]
    assert grown_kib < 64 * 1024


def test_portal_takes_no_more_orders_than_it_may() -> None:
    """A full portal refuses instead of growing."""
    with Sandbox(SandboxSettings(portal=PortalSettings(max_orders=1))) as sandbox:
        assert 201 == deliver(sandbox).status_code
        assert 507 == deliver(sandbox, b"PK-two").status_code
        assert 201 == deliver(sandbox).status_code


def test_secrets_are_not_shown(sandbox: Sandbox) -> None:
    """Neither the request log nor the settings nor a repr gives the API key away."""
    deliver(sandbox)
    shown = str(sandbox.requests()) + HTTP.get(f"{sandbox.url}/_sandbox/settings").text + repr(PortalSettings())
    assert "sandbox-key" not in shown
    assert "Bearer <redacted>" in shown


def test_journal_remembers_the_last_thousand(sandbox: Sandbox) -> None:
    """The request log is bounded, its counters are not."""
    with httpx.Client(base_url=sandbox.url) as client:
        for _ in range(1010):
            client.get("/deliveries/x")
    journal = sandbox.requests()
    assert 1000 == len(journal["requests"])  # type: ignore[arg-type]
    assert {"401": 1010} == journal["by_status"]


@pytest.fixture(scope="module")
def shared() -> Iterator[Sandbox]:
    with Sandbox() as running:
        yield running


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    zipped=st.binary(max_size=200_000)
    | st.lists(st.sampled_from([b"\r\n", b"--", b"boundary", b"\r\n--boundary", b"-", b"\r"])).map(b"".join)
)
def test_any_bytes_arrive_as_they_are(shared: Sandbox, zipped: bytes) -> None:
    """Whatever a package holds, boundary look-alikes too, the portal hashes exactly those bytes."""
    sha256 = hashlib.sha256(zipped).hexdigest()
    assert 201 == deliver(shared, zipped).status_code
    assert sha256 in {order["sha256"] for order in shared.orders()}
