"""The harmless calls that prove a service: what is told when it refuses, is silent, or has another time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from tests.support import s3_servers
from tests.support.google import google_sheets
from tests.support.gotranscript import API_KEY, Make, Sleeper, clients
from tests.support.http import ScriptedServer, Step, refusing_address, reply
from tests.support.s3_servers import ACCESS_KEY, REGION, SECRET_KEY
from tfwatch.adapters import s3
from tfwatch.model import Profile
from tfwatch.ports import Reach
from tfwatch.sandbox.faults import Fault, FaultKind, Target

NOON = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


@pytest.fixture
def make() -> Iterator[Make]:
    with clients(Sleeper()) as made:
        yield made


# --- the clock ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "ahead"),
    [(0, 0.0), (-1, 0.0), (2, 0.0), (-2, -1.0), (3, 1.0), (-3600, -3599.0), (3602, 3600.0)],
)
def test_a_clock_is_ahead_by_what_is_certain(told: int, ahead: float) -> None:
    """A service tells whole seconds, and an answer takes its time: only what neither explains counts."""
    reach = Reach(date=NOON + timedelta(seconds=told), asked_at=NOON, answered_at=NOON + timedelta(seconds=2))

    assert ahead == reach.clock_ahead_seconds


def test_a_service_without_a_clock_tells_none() -> None:
    """No Date header, no opinion."""
    assert Reach(asked_at=NOON, answered_at=NOON).clock_ahead_seconds is None


def test_a_refusal_tells_the_time_too(make: Make) -> None:
    """A clock that is an hour off is seen although the key is refused: it may be why."""
    date = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    with ScriptedServer(Step(send=reply(401, {"detail": "Who are you?"}, Date=date))) as server:
        reach = make(server.url).probe()

    assert reach.failure is not None
    assert 401 == reach.failure.code
    assert 3000 < (reach.clock_ahead_seconds or 0) <= 3600


# --- the transcription service --------------------------------------------------------------------------------------


def test_a_lookup_of_nothing_is_asked(make: Make) -> None:
    """One GET with the key and a client reference that no package has."""
    with ScriptedServer(Step(send=reply(200, {"items": []}))) as server:
        assert make(server.url).probe().proven

    (seen,) = server.seen
    assert ("GET", f"/deliveries?client_reference={'0' * 64}") == (seen.method, seen.target)
    assert f"Bearer {API_KEY}" == seen.headers["authorization"]


def test_the_public_api_is_only_reached(make: Make) -> None:
    """It has no harmless call: its token is not sent, and a 404 is an answer like any other."""
    with ScriptedServer(Step(send=reply(404))) as server:
        reach = make(server.url, profile=Profile.GOTRANSCRIPT_V4).probe()

    assert reach.failure is None
    assert "not tried" in reach.proven
    assert API_KEY not in f"{server.seen[0].target} {server.seen[0].headers} {bytes(server.seen[0].body)!r}"


@pytest.mark.parametrize("profile", Profile)
def test_nobody_there_is_a_failure(make: Make, profile: Profile) -> None:
    """An address at which nothing listens can't be reached, in either profile."""
    reach = make(refusing_address(), profile=profile).probe()

    assert "can't be reached" in str(reach.failure)
    assert reach.date is None


# --- S3 -------------------------------------------------------------------------------------------------------------


def storage_probe(bucket: str, *, access_key: str = ACCESS_KEY, secret_key: str = SECRET_KEY) -> Reach:
    server = s3_servers.seaweed("http")
    client = server.client()
    with contextlib.suppress(client.exceptions.BucketAlreadyOwnedByYou):
        client.create_bucket(Bucket="reach")
    storage = s3.connect(
        s3.S3Settings(
            endpoint_url=server.url, region=REGION, bucket=bucket, prefix="p/", access_key=access_key,
            secret_key=secret_key,
        )
    )  # fmt: skip
    try:
        return storage.probe()
    finally:
        storage.close()


def test_a_missing_bucket_is_named() -> None:
    """The operator is told which bucket isn't there, and what to do."""
    reach = storage_probe("no-such-bucket")

    assert "S3: there is no bucket no-such-bucket" == str(reach.failure)
    assert reach.failure is not None
    assert "create the bucket" in reach.failure.hint


def test_a_key_that_may_only_read_is_found_out() -> None:
    """Listing and reading are allowed, writing is not: found before the first backup fails."""
    reach = storage_probe("reach", access_key="READERKEY", secret_key="reader-secret")

    assert reach.failure is not None
    assert 403 == reach.failure.code
    assert "s3:PutObject" in reach.failure.hint


def test_a_wrong_secret_is_refused_with_a_date() -> None:
    """The refusal comes with the server's time, and without the secret."""
    reach = storage_probe("reach", secret_key="not-the-secret-CANARY")

    assert reach.failure is not None
    assert 403 == reach.failure.code
    assert reach.date is not None
    assert "CANARY" not in f"{reach!r} {reach.failure.hint}"


# --- the sheet ------------------------------------------------------------------------------------------------------


def test_a_sheet_that_is_not_shared_is_named() -> None:
    """Google's refusal says with whom the sheet must be shared, and tells the time."""
    with google_sheets() as google:
        google.sandbox.set_faults(Fault(kind=FaultKind.STATUS, status=403, target=Target.SHEETS))
        reach = google.connect().probe()

    assert reach.failure is not None
    assert 403 == reach.failure.code
    assert "share the sheet with" in reach.failure.hint
    assert reach.date is not None
