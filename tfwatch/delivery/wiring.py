"""What the use cases are given: the services as configured now, and the settings they follow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from tfwatch.ports import BackupStoragePort, SheetPort, TranscriptionPort
from tfwatch.spool.intake import Limits


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The settings the use cases follow, as config.yaml has them; seconds where not named.

    `delivered_days`, `rejected_days`: after so many days retention removes a settled ZIP; None: never.
    """

    verify: Literal["full", "structure"]
    duplicates: Literal["reject", "deliver"]
    limits: Limits
    on_unknown: Literal["retry", "lookup", "ask"]
    when_disabled: Literal["hold", "backup"]
    timeout_seconds: float
    poll_seconds: float
    s3_prefix: str
    batch_seconds: float
    batch_rows: int
    settle_seconds: float
    rescan_seconds: float
    incomplete_timeout_seconds: float
    min_free_bytes: int
    watch: Literal["auto", "inotify", "polling"]
    delivered_days: int | None
    rejected_days: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wiring:
    """One configuration, connected. Replaced whole when config.yaml changes; None: that integration is off."""

    policy: Policy
    transcription: TranscriptionPort | None
    storage: BackupStoragePort | None
    sheet: SheetPort | None
    sheet_name: str


class Wired(Protocol):
    """Where the wiring in force is found."""

    @property
    def wiring(self) -> Wiring:
        """The services and settings in force."""
        ...

    @property
    def workers(self) -> int:
        """Submissions in flight."""
        ...

    @property
    def backup_workers(self) -> int:
        """Backups in flight."""
        ...
