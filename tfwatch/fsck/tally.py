"""What the log says of each package, and nothing more: a second reading of it, by which the index is judged.

It is kept apart from the index on purpose, and is several times quicker than making one anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tfwatch.ledger.index import Index
from tfwatch.ledger.log import Position
from tfwatch.model import DeliveryRecord, Event, Stage, Status, read_detail

_SWITCHING = frozenset((Event.ROLLBACK, Event.ENABLED, Event.DISABLED))


@dataclass(slots=True)
class Entry:
    """One package by the log. `stage` None: in no folder. `detail`: of the last row that says more than a move.

    `backup_key` None: it never had a verified copy; `backed_up` false: a new one is due.
    """

    stage: Stage | None = None
    status: Status | None = None
    bytes: int = 0
    event: Event | None = None
    detail: str = ""
    backed_up: bool = False
    backup_key: str | None = None


Key = tuple[str, str]
"""A package's SHA-256 and name."""


class Tally:
    """What the rows given so far add up to."""

    def __init__(self) -> None:
        self.packages: dict[Key, Entry] = {}
        self.switches = Index(":memory:")

    def close(self) -> None:
        """Let go of it."""
        self.switches.close()

    def add(self, record: DeliveryRecord) -> None:
        """Take the next row of the log."""
        if record.event in _SWITCHING:
            self.switches.apply([record], Position.start())
        if record.package:
            self._add_package(record)

    def at(self, stage: Stage) -> Iterator[tuple[str, str, Entry]]:
        """SHA-256, name and entry of all packages the log has at a stage."""
        return ((sha256, name, entry) for (sha256, name), entry in self.packages.items() if entry.stage is stage)

    def _add_package(self, record: DeliveryRecord) -> None:
        key = before = (record.sha256, record.package)
        if "was=" in record.detail:
            facts, _ = read_detail(record.detail)
            before = (record.sha256, facts.get("was", record.package))
        entry = self.packages.pop(before, None) if before != key else self.packages.get(key)
        if entry is None:
            entry = Entry()
        self.packages[key] = entry
        entry.stage = record.to_stage
        entry.status = record.status or entry.status
        entry.bytes = entry.bytes if record.bytes is None else record.bytes
        if record.event is not Event.RECOVERED or entry.event is None:
            entry.event = record.event
            # Only a reason file is ever made of it.
            entry.detail = record.detail if record.to_stage is Stage.REJECTED else ""
        if record.event is Event.BACKED_UP:
            entry.backed_up, entry.backup_key = True, read_detail(record.detail)[0].get("key")
        elif record.event is Event.BACKUP_FAILED:
            entry.backed_up = False
