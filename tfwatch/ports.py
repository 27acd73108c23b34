"""What the house asks of the services outside. Each docstring is the contract; one test suite runs against
every implementation, fake and real."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, Protocol

from tfwatch.errors import ServiceFailure
from tfwatch.model import (
    AlertMessage,
    Backup,
    Destination,
    OrderId,
    Receipt,
    Sha256,
    StatusReport,
    StoredObject,
    Submission,
)

Kept = Literal["found", "missing", "differs"]
"""What a look at a stored object shows: it is there and whole, it isn't there, or it is another one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """What a harmless call to a service showed.

    `proven`: what its answers prove, in words; empty when they prove nothing. `failure`: why the service can't be used
    as it is configured; None when it can. `date`: the service's clock, in whole seconds, if it told; `asked_at` and
    `answered_at`: ours, around the answer that told it.
    """

    proven: str = ""
    failure: ServiceFailure | None = None
    date: datetime | None = None
    asked_at: datetime
    answered_at: datetime

    @property
    def clock_ahead_seconds(self) -> float | None:
        """By how much the service's clock is ahead of ours at least; negative when it is behind, None if unknown."""
        if self.date is None:
            return None
        if self.date > self.answered_at:
            return (self.date - self.answered_at) / timedelta(seconds=1)
        return min(0.0, (self.date + timedelta(seconds=1) - self.asked_at) / timedelta(seconds=1))


class TranscriptionPort(Protocol):
    """A service that takes packages and gives verdicts.

    Every method may raise `TransientError` (later), `ServiceError` (nobody, until a person acts).
    Methods are safe to call from several threads at once.
    """

    @property
    def destination(self) -> Destination:
        """Which service this is: profile and base URL, as written into the log."""
        ...

    @property
    def needs_source_url(self) -> bool:
        """True when the service fetches the package itself, so `Submission.source_url` must be set."""
        ...

    def submit_package(self, submission: Submission) -> Receipt:
        """Deliver one package; calling again with the same idempotency key is the same delivery.

        Retries within this attempt by its own settings. Also raises `PermanentError` (this package, never),
        `OutcomeUnknown` (may have been accepted), `Stopping` (cut before it could be accepted), `StoppedInDoubt`
        (cut by our own stop, so it says nothing about the service; it may have been accepted) and `ContentChanged`.
        Streams: memory does not grow with the package. When an earlier try may have reached the service, a refusal
        is believed only after a lookup found no order.
        """
        ...

    def fetch_status(self, order_id: OrderId, destination: Destination) -> StatusReport:
        """Ask about an order at the service that accepted it. Reading only; one HTTP request, no retry.

        An unknown status word is PENDING. A 404 raises `TransientError`: it is no verdict.
        """
        ...

    def probe(self) -> Reach:
        """One harmless request that proves, as far as the service allows, that it is there and knows us.

        Orders and sends nothing; no retry. Raises none of these errors: a failure is part of what was found.
        """
        ...

    def close(self) -> None:
        """Let go of connections. Calls under way fail with `TransientError` or `OutcomeUnknown`."""
        ...


class BackupStoragePort(Protocol):
    """A place that keeps copies of packages.

    Methods may raise `TransientError` and `ServiceError`, and are safe to call from several threads at once.
    """

    def store(self, backup: Backup) -> StoredObject:
        """Store a package under its key and read back size and checksum before returning.

        Calling twice is once: an object there with this size and SHA-256 is kept as it is (`existed`). A multipart
        upload that does not finish is aborted. Streams. Also raises `Stopping` and `ContentChanged`.
        """
        ...

    def verify(self, key: str, sha256: Sha256, size: int) -> Kept:
        """Look at an object without fetching or changing it: size in bytes, and the SHA-256 as the storage tells it.

        A storage that computes no SHA-256 of its own is believed the one that was stored beside the object.
        A bucket that isn't there is a `ServiceError`: not each of its objects is missing.
        """
        ...

    def fetch(
        self,
        key: str,
        sha256: Sha256,
        size: int,
        *,
        write: Callable[[bytes], object],
        stopping: Callable[[], bool],
    ) -> Kept:
        """Read an object to its end, giving its bytes in order to `write`, at most a MiB at a time.

        `found`: what was given has this size in bytes and this SHA-256. `missing`, `differs`: whatever was given is
        worth nothing. A connection that breaks is taken up where it broke; memory does not grow with the object. Also
        raises `Stopping`, and whatever `write` raises. A bucket that isn't there is a `ServiceError`.
        """
        ...

    def presign(self, key: str, *, expires_seconds: int) -> str:
        """A URL that lets its holder read the object until it expires. Makes no request."""
        ...

    def abort_abandoned(self, *, older_than_seconds: float) -> int:
        """Abort multipart uploads under our prefix that were begun longer ago; returns how many."""
        ...

    def probe(self) -> Reach:
        """A few harmless requests that prove that the bucket is there and may be listed, read and written by us.

        Nothing stays: an upload is begun and aborted, no object is made. No retry. Raises none of these errors: a
        failure is part of what was found.
        """
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...


class SheetPort(Protocol):
    """A spreadsheet that shows the log: log row n always has the same place.

    Methods may raise `TransientError` and `ServiceError`. Used by one thread only.
    """

    def mirror(self, first_seq: int, rows: Sequence[Sequence[str]]) -> None:
        """Write log rows `first_seq`, `first_seq + 1`, … to their places. Calling twice is once.

        Makes worksheets, header, frozen row and colours as needed and grows the grid first. Waits as the quota
        asks. One call to the service for each 2 MB or 50,000-row crossing; values are taken as text, never run.
        """
        ...

    def read(self, first_seq: int, count: int) -> Sequence[Sequence[str]]:
        """The cells now at those rows' places, padded to the full width; rows that don't exist are all empty."""
        ...

    def probe(self) -> Reach:
        """One reading request that proves that we may log in and that the spreadsheet is there for us.

        Whether it may also be written shows only in writing. No retry. Raises none of these errors: a failure is part
        of what was found.
        """
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...


class AlertPort(Protocol):
    """One address that people are told at: a mailbox, a chat, a pager. Used by one thread only."""

    @property
    def shown_as(self) -> str:
        """The address for people's eyes, without what is secret in it: `alerts.urls[0] (mailto)`."""
        ...

    def send(self, message: AlertMessage) -> None:
        """Tell it. Calling twice tells twice. Raises `TransientError`, whose words hold nothing of the address.

        One try, each step of which (connect, write, read) is bounded.
        """
        ...
