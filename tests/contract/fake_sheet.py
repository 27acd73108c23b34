"""A spreadsheet in memory that keeps the contract of `SheetPort`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from tfwatch.errors import ServiceFailure
from tfwatch.ports import Reach


@dataclass(slots=True, kw_only=True)
class FakeSheet:
    """Rows by their seq. `failures`: raised one by one, before anything else, by the next calls of `mirror`, and told
    by those of `probe`."""

    width: int
    rows: dict[int, list[str]] = field(default_factory=dict)
    failures: list[ServiceFailure] = field(default_factory=list)
    calls: int = 0
    closed: bool = False

    def mirror(self, first_seq: int, rows: Sequence[Sequence[str]]) -> None:
        self.calls += 1
        if self.failures:
            raise self.failures.pop(0)
        self.rows.update({seq: list(row) for seq, row in enumerate(rows, first_seq)})

    def read(self, first_seq: int, count: int) -> Sequence[Sequence[str]]:
        self.calls += 1
        return [self.rows.get(seq, [""] * self.width) for seq in range(first_seq, first_seq + count)]

    def probe(self) -> Reach:
        now, failure = datetime.now(UTC), self.failures.pop(0) if self.failures else None
        return Reach(proven="" if failure else "it is here", failure=failure, date=now, asked_at=now, answered_at=now)

    def close(self) -> None:
        self.closed = True
