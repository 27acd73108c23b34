"""The S3 adapter where things go wrong: refused keys, silent servers, short tempers."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import botocore.auth
import pytest

from tests.support import s3_servers
from tests.support.forwarder import Forwarder
from tests.support.http import refusing_address
from tests.support.s3_servers import ACCESS_KEY, REGION, SECRET_KEY, S3Server
from tfwatch.adapters import s3
from tfwatch.adapters.s3_reading import STRETCH
from tfwatch.errors import ServiceError, ServiceFailure, Stopping, TransientError
from tfwatch.model import Backup, Package, Sha256, TraceId

MIB = 1024 * 1024
BUCKET = "adapter"


def backup_of(content: bytes, key: str | None = None) -> Backup:
    sha256 = Sha256(hashlib.sha256(content).hexdigest())
    return Backup(
        package=Package(name="a.zip", sha256=sha256, bytes=len(content), trace_id=TraceId("t")),
        key=key or f"k/{sha256[:12]}-a.zip",
        order_id="o",
        open_zip=lambda: io.BytesIO(content),
        stopping=lambda: False,
        progress=lambda _: None,
    )


def settings_for(server: S3Server) -> s3.S3Settings:
    return s3.S3Settings(
        endpoint_url=server.url,
        region=REGION,
        bucket=BUCKET,
        prefix="k/",
        access_key=ACCESS_KEY,
        secret_key=SECRET_KEY,
        part_size_mib=5,
        verify=server.verify,
    )


@pytest.fixture(scope="session")
def seaweed() -> S3Server:
    server = s3_servers.seaweed("http")
    client = server.client()
    with contextlib.suppress(client.exceptions.BucketAlreadyOwnedByYou):
        client.create_bucket(Bucket=BUCKET)
    return server


REFUSALS = [
    ({"access_key": "NOSUCHKEY"}, "InvalidAccessKeyId", "access_key"),
    ({"secret_key": "not-the-secret"}, "SignatureDoesNotMatch", "secret_key"),
    ({"bucket": "no-such-bucket"}, "NoSuchBucket", "create the bucket"),
    ({"access_key": "READERKEY", "secret_key": "reader-secret"}, "AccessDenied", "s3:PutObject"),
]


@pytest.mark.parametrize("size", [100, 6 * MIB])
@pytest.mark.parametrize(("changes", "code", "hint"), REFUSALS)
def test_what_a_person_must_mend_says_so(
    seaweed: S3Server, changes: dict[str, str], code: str, hint: str, size: int
) -> None:
    """Credentials, rights and addresses are `ServiceError`s whose hint names the setting, and hold no key."""
    settings = replace(settings_for(seaweed), **changes)

    with pytest.raises(ServiceError) as raised:
        s3.connect(settings).store(backup_of(os.urandom(size)))

    assert code in raised.value.message
    assert hint in raised.value.hint
    assert settings.access_key not in f"{raised.value!r} {raised.value.message}"
    assert settings.secret_key not in f"{raised.value!r} {raised.value.message}"


@pytest.mark.parametrize("years", [10, -10])
def test_a_clock_years_off_finds_no_backup_whole(
    seaweed: S3Server, monkeypatch: pytest.MonkeyPatch, years: int
) -> None:
    """S3 compares its clock with the signature's, so retention removes nothing from delivered/ by a wrong one."""
    backup, storage = backup_of(b"kept"), s3.connect(settings_for(seaweed))
    storage.store(backup)
    assert "found" == storage.verify(backup.key, backup.package.sha256, backup.package.bytes)
    now = botocore.auth.get_current_datetime
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda *words: now(*words) + timedelta(days=365 * years))

    with pytest.raises(ServiceError):
        storage.verify(backup.key, backup.package.sha256, backup.package.bytes)


def test_an_unknown_certificate_is_a_service_error() -> None:
    """A server whose certificate nobody vouches for gets nothing, and the hint says what is missing."""
    settings = replace(settings_for(s3_servers.seaweed("https")), verify=True)

    with pytest.raises(ServiceError) as raised:
        s3.connect(settings).store(backup_of(b"x"))

    assert "CA" in raised.value.hint


def test_nobody_listening_is_transient() -> None:
    """A server that is down is tried a few times, then left to the caller's minutes."""
    dead = S3Server(name="dead", url=refusing_address(), verify=True)

    with pytest.raises(TransientError):
        s3.connect(settings_for(dead)).store(backup_of(b"x"))


def test_abort_spares_young_and_foreign_uploads(seaweed: S3Server) -> None:
    """Only uploads begun longer ago, and only those under our prefix, are aborted."""
    client = seaweed.client()
    young = client.create_multipart_upload(Bucket=BUCKET, Key="k/young")["UploadId"]
    foreign = client.create_multipart_upload(Bucket=BUCKET, Key="elsewhere")["UploadId"]
    storage = s3.connect(settings_for(seaweed))

    assert storage.abort_abandoned(older_than_seconds=3600) == 0
    assert storage.abort_abandoned(older_than_seconds=-5) == 1

    left = [upload["UploadId"] for upload in client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])]
    assert foreign in left
    assert young not in left
    client.abort_multipart_upload(Bucket=BUCKET, Key="elsewhere", UploadId=foreign)


def test_storing_again_clears_what_a_crash_left(seaweed: S3Server) -> None:
    """An unfinished upload of the very package is gone once it is stored, without waiting for the sweep."""
    client = seaweed.client()
    backup = backup_of(os.urandom(6 * MIB))
    client.create_multipart_upload(Bucket=BUCKET, Key=backup.key)

    s3.connect(settings_for(seaweed)).store(backup)

    assert [] == client.list_multipart_uploads(Bucket=BUCKET, Prefix=backup.key).get("Uploads", [])


def test_order_and_trace_travel_as_metadata(seaweed: S3Server) -> None:
    """Any text comes through a header, percent-encoded where it isn't visible ASCII."""
    backup = backup_of(os.urandom(10))
    package = replace(backup.package, trace_id=TraceId("a b\n\u00e7\udcff"))

    s3.connect(settings_for(seaweed)).store(replace(backup, package=package, order_id="42/7"))

    metadata = seaweed.client().head_object(Bucket=BUCKET, Key=backup.key)["Metadata"]
    assert {"sha256": package.sha256, "trace-id": "a%20b%0A%C3%A7%ED%B3%BF", "order-id": "42/7"} == metadata


def test_a_stopping_daemon_stores_nothing(seaweed: S3Server) -> None:
    """Stopping is obeyed before anything is sent."""
    with pytest.raises(Stopping):
        s3.connect(settings_for(seaweed)).store(replace(backup_of(b"x"), stopping=lambda: True))


def test_nothing_of_the_users_own_settings_is_read(seaweed: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """With keys of our own, profiles and endpoints in the environment change nothing."""
    monkeypatch.setenv("AWS_PROFILE", "no-such-profile")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "stale")

    assert not s3.connect(settings_for(seaweed)).store(backup_of(os.urandom(10))).existed


def test_settings_hide_the_keys() -> None:
    """A repr of the settings shows no secret."""
    shown = repr(s3.S3Settings(bucket="bbb", access_key="the-access", secret_key="the-secret"))

    assert "the-access" not in shown
    assert "the-secret" not in shown


# --- a server with a script -------------------------------------------------------------------------------------------

Answer = tuple[int, str]
"""A status and an S3 error code; 0 hangs up without a word."""


class Moody:
    """An S3 server that gives the PUTs in turn the answers it was told, then 200s; it keeps the last body."""

    def __init__(self, answers: list[Answer], retry_after: str | None = None) -> None:
        self.answers = answers
        self.retry_after = retry_after
        self.puts = 0
        self.stored: tuple[bytes, str] | None = None

    def on_put(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers["Content-Length"]))
        self.puts += 1
        status, code = self.answers.pop(0) if self.answers else (200, "")
        if status == 0:
            handler.close_connection = True
            return
        if status == 200:
            self.stored = body, handler.headers["x-amz-meta-sha256"]
            _answer(handler, 200, b"", {"ETag": '"no md5 here"'})
        else:
            words = f"{ACCESS_KEY} may not"
            text = f"<Error><Code>{code}</Code><Message>{words}</Message></Error>"
            _answer(handler, status, text.encode(), {"Retry-After": self.retry_after} if self.retry_after else {})

    def on_get(self, handler: BaseHTTPRequestHandler) -> None:
        if self.stored is None:
            _answer(handler, 404, b"")
        else:
            body, sha256 = self.stored
            _answer(handler, 200, body, {"ETag": '"no md5 here"', "x-amz-meta-sha256": sha256})


def _answer(handler: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
    handler.send_response(status)
    for name, value in {"Content-Length": str(len(body)), "Date": _http_date(), **(headers or {})}.items():
        handler.send_header(name, value)
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(body)


def _http_date() -> str:
    return datetime.now(UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")


@pytest.fixture
def serve() -> Iterator[Callable[[Moody], S3Server]]:
    servers: list[ThreadingHTTPServer] = []

    def serve(moody: Moody) -> S3Server:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_PUT(self) -> None:
                moody.on_put(self)

            def do_GET(self) -> None:
                moody.on_get(self)

            def do_HEAD(self) -> None:
                moody.on_get(self)

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return S3Server(name="moody", url=f"http://127.0.0.1:{server.server_port}", verify=True)

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def test_short_trouble_is_sat_out(serve: Callable[[Moody], S3Server]) -> None:
    """5xx, throttling and cut connections are tried again within one store; without checksums the object is read."""
    moody = Moody([(503, "SlowDown"), (0, ""), (500, "InternalError")])

    stored = s3.connect(settings_for(serve(moody))).store(backup_of(b"precious"))

    assert 4 == moody.puts
    assert 8 == stored.bytes
    assert b"precious" == moody.stored[0]


def test_long_trouble_is_the_callers(serve: Callable[[Moody], S3Server]) -> None:
    """After a few tries it is `TransientError`, without the key that the server blurted out."""
    moody = Moody([(503, "SlowDown")] * 9)

    with pytest.raises(TransientError) as raised:
        s3.connect(settings_for(serve(moody))).store(backup_of(b"precious"))

    assert 4 == moody.puts
    assert ACCESS_KEY not in raised.value.message
    assert raised.value.__cause__ is None


def test_retry_after_of_minutes_is_not_sat_out(serve: Callable[[Moody], S3Server]) -> None:
    """A server that asks for a minute is not asked again at once; the caller is told how long."""
    moody = Moody([(503, "SlowDown")] * 9, retry_after="60")

    with pytest.raises(TransientError) as raised:
        s3.connect(settings_for(serve(moody))).store(backup_of(b"precious"))

    assert (1, 60.0) == (moody.puts, raised.value.retry_after)


def test_a_server_that_lies_is_found_out(serve: Callable[[Moody], S3Server]) -> None:
    """An object that reads back other than it was sent is no backup."""

    class Liar(Moody):
        def on_get(self, handler: BaseHTTPRequestHandler) -> None:
            if self.stored:
                self.stored = b"garbled!", self.stored[1]
            super().on_get(handler)

    with pytest.raises(TransientError) as raised:
        s3.connect(settings_for(serve(Liar([])))).store(backup_of(b"precious"))

    assert "does not read back" in raised.value.message


ANSWERS = [
    (403, "RequestTimeTooSkewed", ServiceError, "clock"),
    (301, "PermanentRedirect", ServiceError, "region"),
    (400, "AuthorizationHeaderMalformed", ServiceError, "region"),
    (501, "NotImplemented", ServiceError, ""),
    (409, "OperationAborted", TransientError, ""),
    (400, "RequestTimeout", TransientError, ""),
    (507, "XMinioStorageFull", TransientError, ""),
]


@pytest.mark.parametrize(("status", "code", "kind", "hint"), ANSWERS)
def test_answers_are_sorted_by_whom_they_concern(
    serve: Callable[[Moody], S3Server], status: int, code: str, kind: type[ServiceFailure], hint: str
) -> None:
    """Time mends some refusals, a person others."""
    moody = Moody([(status, code)] * 9)

    with pytest.raises(kind) as raised:
        s3.connect(settings_for(serve(moody))).store(backup_of(b"precious"))

    assert status == raised.value.code
    assert hint in raised.value.hint


def test_a_fetch_that_breaks_goes_on_where_it_broke(seaweed: S3Server) -> None:
    """However often the line is cut, once in each stretch at least: every byte comes once, and in order."""
    content = os.urandom(STRETCH + 2 * MIB)
    backup = backup_of(content)
    s3.connect(settings_for(seaweed)).store(backup)
    got, cuts = bytearray(), [MIB, STRETCH // 2, STRETCH + MIB]
    with Forwarder(seaweed.url) as way:
        storage = s3.connect(settings_for(replace(seaweed, url=way.url)))

        def write(piece: bytes) -> None:
            got.extend(piece)
            if cuts and len(got) >= cuts[0]:
                cuts.pop(0)
                way.shut()
                way.open()

        kept = storage.fetch(backup.key, backup.package.sha256, len(content), write=write, stopping=lambda: False)

    assert ("found", []) == (kept, cuts)
    assert content == bytes(got)


def test_a_fetch_that_never_gets_on_gives_up(seaweed: S3Server) -> None:
    """The line is gone for good: a `TransientError` after a few tries, not an endless wait."""
    backup = backup_of(os.urandom(12 * MIB))
    s3.connect(settings_for(seaweed)).store(backup)
    with Forwarder(seaweed.url) as way:
        storage = s3.connect(settings_for(replace(seaweed, url=way.url)))

        def write(piece: bytes) -> None:
            way.shut()

        with pytest.raises(TransientError):
            storage.fetch(backup.key, backup.package.sha256, 12 * MIB, write=write, stopping=lambda: False)
        way.open()
