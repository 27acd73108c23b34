"""The transcription service behind `TranscriptionPort`, in either profile."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal, Protocol

import backoff

from tfwatch.adapters.gotranscript_attempt import Attempt, OnUnknown, Pacing
from tfwatch.adapters.gotranscript_deliveries import Deliveries, ask_status
from tfwatch.adapters.gotranscript_http import Door, Outgoing
from tfwatch.adapters.gotranscript_replies import Reply, read_status
from tfwatch.adapters.gotranscript_v4 import PublicApi
from tfwatch.adapters.http_date import moment
from tfwatch.errors import ServiceFailure
from tfwatch.model import Destination, OrderId, Profile, Receipt, StatusReport, Submission, Verdict
from tfwatch.ports import Reach, TranscriptionPort

__all__ = ["GotranscriptClient", "GotranscriptSettings", "connect"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GotranscriptSettings:
    """How to reach the service, and how patient to be.

    `timeout_seconds` bounds connecting (5 s at most), each write, and the whole answer. `attempts`: tries within one
    delivery attempt, with pauses by full jitter below a ceiling that doubles from `initial_seconds` to `max_seconds`.
    `mode`, `language`, `callback_url`: profile `gotranscript-v4` only, which always leaves unknown outcomes to a
    person, whatever `on_unknown` says.
    """

    profile: Profile
    base_url: str
    api_key: str = field(repr=False)
    timeout_seconds: float = 30.0
    attempts: int = 4
    initial_seconds: float = 0.5
    max_seconds: float = 15.0
    on_unknown: OnUnknown = "retry"
    max_connections: int = 8
    mode: Literal["test", "live"] = "test"
    language: str | None = None
    callback_url: str | None = field(default=None, repr=False)


class Dialect(Protocol):
    """What differs between the profiles: one request each, no retry."""

    @property
    def profile(self) -> Profile:
        """Which profile this is."""
        ...

    @property
    def needs_source_url(self) -> bool:
        """Whether the service fetches the package itself."""
        ...

    def post(self, submission: Submission) -> Receipt:
        """Send the package; raises any error of `TranscriptionPort.submit_package`."""
        ...

    def look_up(self, submission: Submission) -> Receipt | None:
        """The order the service holds for this package; raises `ServiceError` where there is no lookup."""
        ...

    def harmless(self) -> Outgoing:
        """A request that changes nothing; raises `ServiceError` when there is no key to send."""
        ...

    def proven_by(self, reply: Reply) -> str:
        """What the reply to it proves, in words; raises the failure that it stands for."""
        ...


class GotranscriptClient:
    """A `TranscriptionPort` over HTTP. Thread-safe."""

    def __init__(self, settings: GotranscriptSettings, door: Door, dialect: Dialect, pacing: Pacing) -> None:
        self._api_key = settings.api_key
        self._destination = Destination(profile=dialect.profile, base_url=settings.base_url.rstrip("/"))
        self._on_unknown: OnUnknown = "ask" if dialect.profile is Profile.GOTRANSCRIPT_V4 else settings.on_unknown
        self._door = door
        self._dialect = dialect
        self._pacing = pacing

    @property
    def destination(self) -> Destination:
        """Which service this is; the base URL without a slash at its end."""
        return self._destination

    @property
    def needs_source_url(self) -> bool:
        """True for `gotranscript-v4`, which fetches the package by a presigned URL."""
        return self._dialect.needs_source_url

    def submit_package(self, submission: Submission) -> Receipt:
        """Deliver one package: see `TranscriptionPort.submit_package`."""
        attempt = Attempt(
            submission,
            post=lambda: self._dialect.post(submission),
            look_up=lambda: self._dialect.look_up(submission),
            on_unknown=self._on_unknown,
            pacing=self._pacing,
        )
        return attempt.run()

    def fetch_status(self, order_id: OrderId, destination: Destination) -> StatusReport:
        """Ask about an order where it was accepted. `gotranscript-v4` has no status: pending, without a request."""
        if destination.profile is Profile.GOTRANSCRIPT_V4:
            return StatusReport(verdict=Verdict.PENDING)
        base_url = destination.base_url.rstrip("/")
        return read_status(self._door.exchange(ask_status(base_url, order_id, self._api_key)))

    def probe(self) -> Reach:
        """See `TranscriptionPort.probe`. `gotranscript-v4` has no harmless call: only that somebody answers."""
        asked_at, date, proven, failure = datetime.now(UTC), None, "", None
        try:
            reply = self._door.exchange(self._dialect.harmless())
            date = moment(reply.headers.get("date"))
            proven = self._dialect.proven_by(reply)
        except ServiceFailure as error:
            failure = error
        answered_at = datetime.now(UTC)
        return Reach(proven=proven, failure=failure, date=date, asked_at=asked_at, answered_at=answered_at)

    def close(self) -> None:
        """Close all connections: calls under way fail with `TransientError` or `OutcomeUnknown`."""
        self._door.close()


def connect(
    settings: GotranscriptSettings,
    *,
    sleep: Callable[[float], None] = time.sleep,
    jitter: Callable[[float], float] = backoff.full_jitter,
) -> TranscriptionPort:
    """A client for these settings; makes no request. `jitter`: the seconds to wait below a ceiling of seconds."""
    base_url = settings.base_url.rstrip("/")
    door = Door(
        base_url,
        timeout_seconds=settings.timeout_seconds,
        max_connections=settings.max_connections,
        secrets=(settings.api_key, settings.callback_url),
    )
    pacing = Pacing(
        attempts=settings.attempts,
        initial_seconds=settings.initial_seconds,
        max_seconds=settings.max_seconds,
        sleep=sleep,
        jitter=jitter,
    )
    return GotranscriptClient(settings, door, _dialect(settings, door, base_url), pacing)


def _dialect(settings: GotranscriptSettings, door: Door, base_url: str) -> Dialect:
    if settings.profile is Profile.DELIVERIES:
        return Deliveries(door, base_url, settings.api_key)
    return PublicApi(
        door,
        base_url,
        settings.api_key,
        mode=settings.mode,
        language=settings.language,
        callback_url=settings.callback_url,
    )
