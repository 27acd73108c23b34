"""What the house asks of the services outside. Each docstring is the contract; one test suite runs against
every implementation, fake and real."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from tfwatch.model import Backup, Destination, OrderId, Receipt, Sha256, StatusReport, StoredObject, Submission

Kept = Literal["found", "missing", "differs"]
"""What a look at a stored object shows: it is there and whole, it isn't there, or it is another one."""


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
        `OutcomeUnknown` (may have been accepted), `Stopping` (cut before it could be accepted) and
        `ContentChanged`. Streams: memory does not grow with the package. When an earlier try may have reached the
        service, a refusal is believed only after a lookup found no order.
        """
        ...

    def fetch_status(self, order_id: OrderId, destination: Destination) -> StatusReport:
        """Ask about an order at the service that accepted it. Reading only; one HTTP request, no retry.

        An unknown status word is PENDING. A 404 raises `TransientError`: it is no verdict.
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

    def presign(self, key: str, *, expires_seconds: int) -> str:
        """A URL that lets its holder read the object until it expires. Makes no request."""
        ...

    def abort_abandoned(self, *, older_than_seconds: float) -> int:
        """Abort multipart uploads under our prefix that were begun longer ago; returns how many."""
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

    def close(self) -> None:
        """Let go of connections."""
        ...
