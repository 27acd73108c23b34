"""A small house to test in: a real spool on a real disk, with its log, its projection and its desk."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tfwatch.delivery.desk import Desk
from tfwatch.delivery.whereabouts import Whereabouts
from tfwatch.ledger.index import Index
from tfwatch.ledger.log import Log, read_log
from tfwatch.model import (
    DeliveryRecord,
    Event,
    Fact,
    OrderId,
    Package,
    Sha256,
    Stage,
    Status,
    TraceId,
    write_detail,
)
from tfwatch.spool.folders import Folders

NOON = datetime(2025, 11, 13, 12, 0, tzinfo=UTC)
EXEC_ID = "20251113T103533Z_MSJTU6"
HERE = {"profile": "deliveries", "base_url": "https://here.example"}


class Clock:
    """A clock that goes when it is told to: seconds, monotonic."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def go(self, seconds: float) -> None:
        self.now += seconds


def package(name: str = "call_v1.zip", data: bytes | None = None) -> Package:
    """A package of that name; its bytes are its name unless given."""
    content = os.fsencode(name) if data is None else data
    sha256 = Sha256(hashlib.sha256(content).hexdigest())
    return Package(name=name, sha256=sha256, bytes=len(content), trace_id=TraceId("trace"))


def fact(about: Package, event: Event, source: Stage | None, target: Stage | None, **words: object) -> Fact:
    """One fact about a package, as the desk would write it."""
    return Fact(
        event=event, package=about.name, sha256=about.sha256, trace_id=about.trace_id, bytes=about.bytes,
        from_stage=source, to_stage=target, **words,
    )  # type: ignore[arg-type]  # fmt: skip


class House:
    """One run in a spool. Each row is a second later than the one before it."""

    def __init__(self, root: Path) -> None:
        root.mkdir(exist_ok=True)
        self.folders = Folders(str(root))
        self.folders.prepare()
        self.index = Index(self.folders.index)
        self.stopping = False
        self._at = NOON
        self.log = Log.open(
            self.folders.log, torn_path=self.folders.torn(EXEC_ID), exec_id=EXEC_ID, clock=self._tick,
            on_commit=self.index.apply, start=self.index.position,
        )  # fmt: skip
        self.desk = Desk(self.folders, self.log, self.index, stopping=lambda: self.stopping)

    def _tick(self) -> datetime:
        self._at += timedelta(seconds=1)
        return self._at

    def close(self) -> None:
        self.log.close()
        self.index.close()

    def record(self, *facts: Fact) -> tuple[DeliveryRecord, ...]:
        """Put facts into the log without moving anything."""
        return self.desk.record(*facts)

    def records(self) -> list[DeliveryRecord]:
        """Everything the log holds."""
        return [record for record, _ in read_log(self.folders.log)]

    def events(self, about: Package | None = None) -> list[str]:
        """The events of the log, all or those about one content."""
        return [record.event for record in self.records() if about is None or record.sha256 == about.sha256]

    def last(self) -> DeliveryRecord:
        return self.records()[-1]

    # --- packages ---------------------------------------------------------------------------------------------------

    def lay(self, about: Package, stage: Stage) -> Package:
        """Put its file into a stage's folder, as a person would."""
        Path(self.folders.path(stage, about.name)).write_bytes(os.fsencode(about.name))
        return about

    def stages(self, about: Package) -> list[Stage]:
        """Where a file of its name lies."""
        return [stage for stage in Stage if self.folders.look(stage, about.name)]

    def lies_in(self, stage: Stage) -> set[str]:
        return self.folders.names(stage)

    def attempt(self, about: Package, *, generation: int = 1) -> Whereabouts:
        """Claim it and log the attempt, as a lane does."""
        if self.folders.look(Stage.OUTBOX, about.name):
            self.folders.move(Stage.OUTBOX, about.name, Stage.CLAIMED)
        state = self.index.package(about.sha256, about.name)
        detail = write_detail(generation=generation, **HERE)
        where = Whereabouts.of(state, file=Stage.CLAIMED)
        return self.desk.settle(about, Event.ATTEMPTED, where, attempt=1, detail=detail)

    def accept(self, about: Package, order_id: str = "4711") -> Whereabouts:
        """Deliver it: it lies in submitted/."""
        where = self.attempt(about)
        return self.desk.settle(
            about, Event.ACCEPTED, where, order_id=OrderId(order_id), code=201, detail=write_detail(**HERE)
        )

    def complete(self, about: Package, order_id: str = "4711") -> Whereabouts:
        """Deliver it and have it completed: it lies in delivered/."""
        return self.desk.settle(about, Event.COMPLETED, self.accept(about, order_id), order_id=OrderId(order_id))


@contextmanager
def house(root: Path) -> Iterator[House]:
    """A house, closed at the end."""
    made = House(root)
    try:
        yield made
    finally:
        made.close()


def waiting(about: Package, file: Stage = Stage.OUTBOX) -> Whereabouts:
    """A package nothing is known of yet."""
    return Whereabouts(file=file, log=Stage.OUTBOX, status=Status.WAITING)


def dump(path: str) -> Sequence[str]:
    """All a projection holds, as SQL."""
    connection = sqlite3.connect(path)
    try:
        return list(connection.iterdump())
    finally:
        connection.close()
