"""Every figure tfwatch shows of itself, from one place: endpoints, file, `status --json` and page show the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any, Protocol

from tfwatch.ledger.figures import Figures, Histogram, Hour
from tfwatch.ledger.index import Index

__all__ = ["Histogram", "Hour", "Metrics", "Present", "Source", "snapshot_metrics"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Present:
    """What is so at this moment and no longer: gauges. None: not known, or there is no such thing now.

    `packages`: by stage; `oldest_seconds`: of each stage that has any, how long its oldest package has been there.
    `in_flight`: packages that are being worked on. `sheet_sync_latency_seconds`: how long the oldest row of the last
    batch had to wait for its place in the sheet. `watch_latency_seconds`: how long the last canary's event took.
    """

    packages: Mapping[str, int]
    oldest_seconds: Mapping[str, float]
    in_flight: int
    backup_pending: int
    sheet_sync_latency_seconds: float | None
    sheet_pending_rows: int
    integration_enabled: Mapping[str, bool]
    watch_latency_seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics(Figures):
    """One look at all figures: those the log's rows add up to (`Figures`), and those of the present (`Present`).

    `snapshot_at`: when that was, UTC.
    """

    snapshot_at: datetime
    packages: Mapping[str, int]
    oldest_seconds: Mapping[str, float]
    in_flight: int
    backup_pending: int
    sheet_sync_latency_seconds: float | None
    sheet_pending_rows: int
    integration_enabled: Mapping[str, bool]
    watch_latency_seconds: float | None


class Source(Protocol):
    """Where figures come from: a daemon that runs, or a spool seen from outside."""

    @property
    def index(self) -> Index:
        """What the log adds up to."""
        ...

    def present(self, now: datetime) -> Present:
        """What is so now."""
        ...


def snapshot_metrics(source: Source, now: datetime | None = None) -> Metrics:
    """All figures at this moment (`now`: at another, for tests). What the log adds up to is of one row, `log_seq`.

    Takes no longer the longer the log is. Any thread may call this.
    """
    now = now or datetime.now(UTC)
    return Metrics(snapshot_at=now, **_values(source.index.figures(now)), **_values(source.present(now)))


def _values(part: Figures | Present) -> dict[str, Any]:
    return {field.name: getattr(part, field.name) for field in fields(part)}
