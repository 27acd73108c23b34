"""A service in trouble: it gives us nothing for now, and is asked again by itself. Nothing is switched off."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from tfwatch.errors import ServiceError, ServiceFailure, SheetDrift


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """An episode: why, since when (UTC), and whether it lasts until a person acts."""

    words: str
    since: datetime
    needs_person: bool = False

    @classmethod
    def of(cls, words: str, *, before: Trouble | None, failure: ServiceFailure | None = None) -> Trouble:
        """The episode goes on, or begins now. `failure`: what the service did, if it was the service."""
        since = before.since if before is not None else datetime.now(UTC)
        return cls(words=words, since=since, needs_person=isinstance(failure, ServiceError | SheetDrift))
