"""Small logs to test with, on a real disk."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from tfwatch.ledger.log import Log, Position, read_log
from tfwatch.model import DeliveryRecord, Event, Fact

NOON = datetime(2025, 11, 13, 12, 0, tzinfo=UTC)
EXEC_ID = "20251113T103533Z_MSJTU6"


def no_sync(fd: int) -> None:
    """For tests that open hundreds of logs and prove nothing about syncing."""


def ignore(records: Sequence[DeliveryRecord], position: Position) -> None:
    """For tests without a projection."""


@contextmanager
def opened(
    path: Path,
    *,
    start: Position | None = None,
    clock: Callable[[], datetime] = lambda: NOON,
    on_commit: Callable[[Sequence[DeliveryRecord], Position], None] = ignore,
    sync: Callable[[int], None] = os.fdatasync,
) -> Iterator[Log]:
    """A log for as long as the block lasts; a torn tail goes to `torn` beside it."""
    log = Log.open(
        str(path),
        torn_path=str(path.with_name("torn")),
        exec_id=EXEC_ID,
        clock=clock,
        on_commit=on_commit,
        start=start,
        sync=sync,
    )
    try:
        yield log
    finally:
        log.close()


def moved(name: str, detail: str = "") -> Fact:
    """A fact to append."""
    return Fact(event=Event.MOVED, package=name, detail=detail)


def names(path: Path) -> list[str]:
    """The packages named in a log, row by row; fails when any row is damaged."""
    return [record.package for record, _ in read_log(str(path))]


def five_rows(path: Path) -> list[bytes]:
    """Make a log with five rows of different shapes; returns its lines, header first."""
    with opened(path) as log:
        log.append([moved(name, detail) for name, detail in (("a", ""), ("b", 'x, "y"'), ("é", "\n"), ("d", ""))])
        log.append([moved("e")])
    return path.read_bytes().splitlines(keepends=True)
