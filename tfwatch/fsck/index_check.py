"""The index against the log it was made of."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from tfwatch.fsck.difference import Difference, RebuildIndex
from tfwatch.fsck.tally import Entry, Tally
from tfwatch.ledger.database import TABLES
from tfwatch.ledger.index import Index
from tfwatch.ledger.log import Position
from tfwatch.model import DeliveryRecord
from tfwatch.spool.names import printable

_APPLY_ROWS: Final = 5000
_SAMPLES: Final = 5
_COLUMNS: Final = ("sha256", "name", "stage", "status", "bytes", "backed_up", "backup_key")


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The index as it was at one moment, copied into memory; None with what kept it from being read."""

    index: Index | None
    trouble: str = ""

    @property
    def position(self) -> Position | None:
        """Up to which row it has read the log."""
        return self.index.position if self.index is not None else None

    def close(self) -> None:
        """Let go of the copy."""
        if self.index is not None:
            self.index.close()


def snapshot(path: str) -> Snapshot:
    """Copy an index, a running daemon's too, without touching it."""
    if not os.path.lexists(path):
        return Snapshot(index=None, trouble="it is missing")
    try:
        opened = Index(path, read_only=True)
    except sqlite3.Error as error:
        return Snapshot(index=None, trouble=f"it can't be read: {error}")
    copy = None
    try:
        copy = opened.in_memory()
        if not copy.is_sound():
            copy.close()
            return Snapshot(index=None, trouble="it is damaged")
        return Snapshot(index=copy)
    except (sqlite3.Error, KeyError, ValueError) as error:
        if copy is not None:
            copy.close()
        return Snapshot(index=None, trouble=f"it can't be read: {error}")
    finally:
        opened.close()


class Rebuilt:
    """An index made anew from the rows of the log, to compare all of it."""

    def __init__(self) -> None:
        self.index = Index(":memory:")
        self._rows: list[DeliveryRecord] = []

    def add(self, record: DeliveryRecord, end: Position) -> None:
        """Take the next row, which ends at `end`."""
        self._rows.append(record)
        if len(self._rows) >= _APPLY_ROWS:
            self.flush(end)

    def flush(self, end: Position) -> None:
        """Bring it up to the last row taken."""
        self.index.apply(self._rows, end)
        self._rows = []


def unreadable(found: Snapshot) -> Iterator[Difference]:
    """An index that isn't there, or is no index."""
    if found.index is None:
        yield _difference(found.trouble)


def behind(seen: Position | None, last: Position) -> Iterator[Difference]:
    """An index that has not read the whole log."""
    read = seen.seq if seen else 0
    if read < last.seq:
        yield _difference(f"it has read {read} of {last.seq} rows of the log")


def compare(index: Index, tally: Tally) -> Iterator[Difference]:
    """What the index says of each package and integration against what the log's rows up to its position add up to."""
    wrong = []
    missing = dict(tally.packages)
    for sha256, name, *said in index.table("package", _COLUMNS):
        entry = missing.pop((sha256, os.fsdecode(name)), None)
        if entry is None:
            wrong.append(f"{_name(name)}: the log has no such package")
        elif tuple(said) != (meant := _cells(entry)):
            at = next(n for n, (ours, theirs) in enumerate(zip(said, meant, strict=True)) if ours != theirs)
            wrong.append(f"{_name(name)}: {_COLUMNS[at + 2]} {_word(said[at])}, by the log {_word(meant[at])}")
    wrong += [f"{printable(name)}: the index doesn't know it" for _, name in missing]
    if wrong:
        listed = "; ".join(wrong[:_SAMPLES]) + ("; …" if len(wrong) > _SAMPLES else "")
        yield _difference(f"it is wrong about {len(wrong)} package(s): {listed}")
    if index.table("integration") != tally.switches.table("integration"):
        yield _difference("it is wrong about which integrations are switched off")


def compare_all(index: Index, rebuilt: Rebuilt) -> Iterator[Difference]:
    """All of it against one made anew from the same rows."""
    tables = [name for name in TABLES if index.table(name) != rebuilt.index.table(name)]
    if tables:
        yield _difference(f"made anew from the log it has other rows in: {', '.join(tables)}")


def _cells(entry: Entry) -> tuple[object, ...]:
    stage, status = entry.stage, entry.status
    return (
        stage.value if stage else None,
        status.value if status else None,
        entry.bytes,
        int(entry.backed_up),
        entry.backup_key,
    )


def _difference(what: str) -> Difference:
    mend = "tfwatch fsck --repair, or delete it with the daemon stopped: it is rebuilt from the log"
    return Difference(kind="index", what=what, where="index (.tfwatch/index.sqlite)", mend=mend, action=RebuildIndex())


def _name(raw: bytes) -> str:
    return printable(os.fsdecode(raw))


def _word(value: object) -> str:
    return "none" if value is None else str(value)
