"""The transcription adapter over real HTTP: exchanges that break, drip or never end, and changing bytes."""

from __future__ import annotations

import hashlib
import io
import ssl
import threading
import time
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import BinaryIO

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.support.gotranscript import (
    ACCEPTED,
    LOST,
    SILENT,
    Make,
    Sleeper,
    clients,
    wait_until,
)
from tests.support.http import ScriptedServer, Step, refusing_address, reply
from tests.support.submissions import TRACE, submission_of
from tfwatch.adapters.gotranscript_http import _trusted
from tfwatch.errors import (
    ContentChanged,
    OutcomeUnknown,
    PermanentError,
    ServiceFailure,
    Stopping,
    TransientError,
)
from tfwatch.model import OrderId, Package, Receipt, Submission


@pytest.fixture
def sleeper() -> Sleeper:
    return Sleeper()


@pytest.fixture
def client(sleeper: Sleeper) -> Iterator[Make]:
    with clients(sleeper) as make:
        yield make


# --- not sent, or unknown? --------------------------------------------------------------------------------------------

BIG = b"\x00" * (8 * 1024 * 1024)
"""More than the socket buffers of loopback hold."""


@pytest.mark.parametrize(
    ("step", "content", "error"),
    [
        pytest.param(Step(then="reset"), b"small", OutcomeUnknown, id="reset after the whole body"),
        pytest.param(Step(then="close"), b"small", OutcomeUnknown, id="closed after the whole body"),
        pytest.param(Step(then="hang"), b"small", OutcomeUnknown, id="silence after the whole body"),
        pytest.param(
            Step(send=b"HTTP/1.1 201 C", then="close"), b"small", OutcomeUnknown, id="cut within the status line"
        ),
        pytest.param(
            Step(send=reply(201, {"id": "x" * 90})[:-20], then="close"), b"small", OutcomeUnknown, id="cut in the body"
        ),
        pytest.param(Step(send=b"\x16\x03\x01 no HTTP\r\n\r\n"), b"small", OutcomeUnknown, id="no HTTP"),
        pytest.param(Step(read="head", then="reset"), BIG, TransientError, id="reset within the body"),
        pytest.param(Step(read="nothing", then="reset"), BIG, TransientError, id="reset at once"),
        pytest.param(Step(read="head", then="close"), BIG, TransientError, id="closed within the body"),
        pytest.param(Step(read="head", then="hang"), BIG, TransientError, id="stuck within the body"),
        pytest.param(
            Step(read="head", send=reply(413, {"detail": "Too big."}), then="hang"),
            b"small",
            PermanentError,
            id="answered early",
        ),
    ],
)
def test_what_a_broken_exchange_means(client: Make, step: Step, content: bytes, error: type[ServiceFailure]) -> None:
    """Cut before the body was complete: not sent. Cut or silent afterwards: unknown. A status that came counts."""
    with ScriptedServer(step) as server, pytest.raises(error) as raised:
        client(server.url, attempts=1, timeout_seconds=0.5).submit_package(submission_of(content))
    assert error is type(raised.value)
    assert 1 == raised.value.tries


def test_early_refusal_of_a_large_body_is_heard(client: Make) -> None:
    """A service that refuses and closes while the body still comes is heard, though the body was cut."""
    refusal = Step(read="head", send=reply(413, {"detail": "Too big."}, Connection="close"), then="close")
    with ScriptedServer(refusal) as server, pytest.raises((PermanentError, TransientError)) as raised:
        client(server.url, attempts=1).submit_package(submission_of(BIG))
    # the reset that follows may overtake the answer: then nothing was heard, and nothing was sent either
    assert isinstance(raised.value, TransientError) or "Too big." == raised.value.message


def test_nothing_listens(client: Make) -> None:
    """A refused connection is tried again, and never an unknown outcome."""
    with pytest.raises(TransientError) as raised:
        client(refusing_address(), attempts=3).submit_package(submission_of())
    assert 3 == raised.value.tries


@pytest.mark.parametrize("drip", [0.02, 0.2])
@pytest.mark.parametrize("sent", [reply(201, {"id": "slow"}), b"HTTP/1.1 201 " + b"x" * 10_000])
def test_dripping_answers_end(client: Make, drip: float, sent: bytes) -> None:
    """An answer that drips is given up when the timeout is over, headers and body alike."""
    with ScriptedServer(Step(send=sent, drip=drip)) as server:
        began = time.monotonic()
        with pytest.raises(OutcomeUnknown):
            client(server.url, attempts=1, timeout_seconds=0.6).submit_package(submission_of())
    assert time.monotonic() - began < 30


def test_endless_answers_end(client: Make) -> None:
    """Of an answer no more than a MiB is read."""
    endless = reply(503, b"x" * (64 * 1024 * 1024))
    with ScriptedServer(Step(send=endless, then="close")) as server:
        tracemalloc.start()
        with pytest.raises(TransientError):
            client(server.url, attempts=1).submit_package(submission_of())
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 16 * 1024 * 1024


def test_close_ends_calls_under_way(client: Make) -> None:
    """Closing the port wakes a call that waits for its answer: the outcome is unknown."""
    with ScriptedServer(SILENT) as server:
        port = client(server.url, attempts=3, timeout_seconds=60)
        failures: list[BaseException] = []

        def deliver() -> None:
            try:
                port.submit_package(submission_of())
            except ServiceFailure as failure:
                failures.append(failure)

        lane = threading.Thread(target=deliver)
        lane.start()
        wait_until(lambda: server.seen and server.seen[0].length > 0)
        port.close()
        lane.join(10)
    assert [OutcomeUnknown] == [type(failure) for failure in failures]
    with pytest.raises(TransientError):
        port.fetch_status(OrderId("o-1"), port.destination)


# --- the bytes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sends", [b"exchanged", b"inspecteD", b"inspected and more", b"insp", b"", BIG])
def test_changed_bytes_never_complete_a_request(client: Make, sends: bytes) -> None:
    """Bytes that are not those inspected, longer or shorter, leave the request incomplete."""
    with ScriptedServer(ACCEPTED) as server:
        with pytest.raises(ContentChanged):
            client(server.url).submit_package(submission_of(b"inspected", sends=sends))
        wait_until(lambda: server.seen)
    (seen,) = server.seen
    assert seen.length < int(seen.headers["content-length"])


def test_change_in_doubt_stays_unknown(client: Make) -> None:
    """A file that changed says nothing about what an earlier try sent."""
    contents = iter([b"inspected", b"exchanged"])
    submission = submission_of(b"inspected", open_zip=lambda: io.BytesIO(next(contents)))
    with ScriptedServer(LOST, ACCEPTED) as server, pytest.raises(OutcomeUnknown):
        client(server.url).submit_package(submission)


def test_stop_between_chunks_leaves_the_request_incomplete(client: Make) -> None:
    """A stop within the upload cuts it before it could be accepted."""
    told: list[int] = []
    submission = submission_of(BIG, progress=told.append, stopping=lambda: bool(told) and told[-1] > 1_000_000)
    with ScriptedServer(ACCEPTED) as server, pytest.raises(Stopping):
        client(server.url).submit_package(submission)
    assert told[-1] < len(BIG)


class Zeros(io.RawIOBase):
    """A file of zeros that takes no memory."""

    def __init__(self, size: int) -> None:
        self._left = size

    def read(self, size: int = -1) -> bytes:
        size = min(size, self._left)
        self._left -= size
        return bytes(size)


def test_memory_does_not_grow_with_the_package(client: Make) -> None:
    """A package of 64 MiB is sent in less than 4."""
    size, digest = 64 * 1024 * 1024, hashlib.sha256()
    for _ in range(64):
        digest.update(bytes(1024 * 1024))
    small = submission_of()

    def zeros() -> BinaryIO:
        return Zeros(size)  # type: ignore[return-value]

    package = Package(name="big.zip", sha256=digest.hexdigest(), bytes=size, trace_id=TRACE)  # type: ignore[arg-type]
    submission = Submission(
        package=package,
        open_zip=zeros,
        idempotency_key="big",
        maybe_sent=False,
        known_order=small.known_order,
        stopping=small.stopping,
        progress=small.progress,
    )
    with ScriptedServer(ACCEPTED) as server:
        port = client(server.url)
        port.submit_package(small)
        tracemalloc.start()
        receipt = port.submit_package(submission)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert isinstance(receipt, Receipt)
    assert size < server.seen[-1].length
    assert peak < 4 * 1024 * 1024


# --- TLS --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def tls(tmp_path: Path) -> Iterator[ssl.SSLContext]:
    """A certificate for 127.0.0.1 that nobody has signed but itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sandbox")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = tmp_path / "pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    pem.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    _trusted.cache_clear()
    yield context
    _trusted.cache_clear()


def test_strangers_get_nothing(client: Make, tls: ssl.SSLContext) -> None:
    """A server whose certificate nobody vouches for gets no request: not sent."""
    with ScriptedServer(ACCEPTED, tls=tls) as server, pytest.raises(TransientError, match="certificate"):
        client(server.url, attempts=1).submit_package(submission_of())
    assert [] == server.seen


@pytest.mark.parametrize(
    ("step", "error"),
    [
        (Step(read="head", then="reset"), TransientError),
        (LOST, OutcomeUnknown),
        (SILENT, OutcomeUnknown),
        (Step(send=reply(201, {"id": "slow"}), drip=0.05), OutcomeUnknown),
    ],
)
def test_the_same_over_tls(
    client: Make, tls: ssl.SSLContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: Step,
    error: type[ServiceFailure],
) -> None:  # fmt: skip
    """Over TLS too a cut body was not sent, silence is unknown, and a dripping answer ends."""
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "pem"))
    with ScriptedServer(ACCEPTED, step, tls=tls) as server:
        port = client(server.url, attempts=1, timeout_seconds=1)
        assert "gt-1" == port.submit_package(submission_of()).order_id
        with pytest.raises(error) as raised:
            port.submit_package(submission_of(BIG))
    assert error is type(raised.value)
