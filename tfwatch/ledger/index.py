"""The projection of log.csv in SQLite: what the facts add up to. Delete it and it is rebuilt.

It is written by the log's committer, one transaction for each group commit, and never trusted over the log: the
position stored with it says up to which row it has read.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final

from tfwatch.ledger import figures
from tfwatch.ledger.calls import Calls
from tfwatch.ledger.database import (
    BESIDE_BYTES,
    TABLES,
    IndexUnusable,
    IndexUnwritable,
    begin_anew,
    checkpoint,
    connect,
    connect_read_only,
    finish_anew,
    on_disk,
    open_or_make,
    remove,
    spelled_out,
)
from tfwatch.ledger.log import Position
from tfwatch.ledger.projection import Projector
from tfwatch.ledger.settled import Settled
from tfwatch.ledger.states import (
    COLUMNS,
    ContentState,
    IntegrationState,
    PackageState,
    destination_of,
    moment_of,
    state_of,
)
from tfwatch.model import DeliveryRecord, Integration, Stage, rfc3339

__all__ = ["ContentState", "Index", "IndexUnusable", "IndexUnwritable", "IntegrationState", "PackageState"]

_SELECT: Final = f"SELECT {', '.join(COLUMNS)} FROM package"  # noqa: S608  our own column names

_HAS_ORDER: Final = "AND order_id != ''"
"""The term of the index `package_order`: without it, SQLite reads the whole table."""

_UNBACKED: Final = "INDEXED BY package_unbacked WHERE stage = 'delivered' AND backed_up = 0"
"""Few, where SQLite would go through all of delivered/."""


class Index:
    """The projection. Safe to use from several threads: one connection writes, one reads; neither waits for the other.

    `no_room`: why rows of the log wait to be applied, as whoever waits with them says; empty while none do.
    `changed` is called after rows came in and after the sheet's cursor moved, by the thread that did it: so briefly.
    """

    def __init__(self, path: str, *, read_only: bool = False) -> None:
        """Open or make it; a file of another version, or one that is damaged, is replaced by an empty one.

        `read_only`: nothing is made or changed, not even a side file; raises sqlite3.Error when that can't be done.
        """
        self.no_room = ""
        self.changed: Callable[[], None] = lambda: None
        self._path = path
        self._writing = threading.RLock()
        # Without a connection of their own, readers take turns with whoever writes.
        self._reading = self._writing if read_only or path == ":memory:" else threading.RLock()
        self._mistrusted = False
        self._is_ours = not read_only
        self._rows_in = 0
        self._delivered: tuple[tuple[int, datetime], int] | None = None
        self.calls = Calls(self._all)
        self.settled = Settled(self._all)
        with on_disk(path):
            if read_only:
                self._writer = self._reader = connect_read_only(path)
            else:
                self._open()

    def _open(self) -> None:
        self._writer = open_or_make(self._path)
        self._reader = connect(self._path) if self._path != ":memory:" else self._writer

    def in_memory(self) -> Index:
        """A copy that goes with the process, to be brought up to date without touching the file."""
        copy = Index(":memory:")
        with self._using(self._reading):
            self._reader.backup(copy._writer)
        return copy

    def close(self) -> None:
        """Close both connections. A file that failed once is not believed again: it is removed, and made anew."""
        with self._writing, self._reading:
            if self._is_ours and not self._mistrusted:
                self._mistrusted = not self._is_whole_on_disk()
            self._reader.close()
            self._writer.close()
        if self._mistrusted and self._is_ours:
            with contextlib.suppress(OSError):
                remove(self._path)

    # --- reading the log -------------------------------------------------------------------------------------------

    @property
    def position(self) -> Position | None:
        """Up to where the log was read; None for a new projection."""
        values = dict(self._all("SELECT key, value FROM meta"))
        if "seq" not in values:
            return None
        return Position(offset=int(values["offset"]), seq=int(values["seq"]), chain=values["chain"])

    def clear(self) -> None:
        """Forget everything: it will be read again from the log's first row."""
        with self._using(self._writing), self._writer:
            for table in ("meta", *TABLES):
                self._writer.execute(f"DELETE FROM {table}")  # noqa: S608  our own table names

    @contextmanager
    def made_anew(self) -> Iterator[None]:
        """Inside, all rows of the log are applied, to an empty file beside this one, that then takes its place.

        Much faster than into the file itself, and what is cut short leaves no trace but that file, which the next one
        begins with. Nobody else may use this meanwhile.
        """
        path = f"{self._path}.new"
        with self._using(self._writing):
            self._reader.close()
            self._writer.close()
            self._writer = self._reader = begin_anew(path)
        yield
        with self._using(self._writing):
            finish_anew(self._writer, path, self._path)
            self._open()

    def apply(self, records: Iterable[DeliveryRecord], position: Position) -> None:
        """Add records in the log's order, then `position`, in one transaction."""
        with self._using(self._writing), self._writer:
            projector = Projector(self._writer)
            for record in records:
                projector.apply(record)
            projector.finish()
            self._writer.executemany(
                "INSERT OR REPLACE INTO meta VALUES (?, ?)",
                (("offset", str(position.offset)), ("seq", str(position.seq)), ("chain", position.chain)),
            )
        self._rows_in += 1
        # They are in already: without room to bring them from beside the file into it, that is done a later time.
        with contextlib.suppress(IndexUnwritable), self._using(self._writing):
            checkpoint(self._writer, self._path, beyond=BESIDE_BYTES)
        self.changed()

    # --- asking ----------------------------------------------------------------------------------------------------

    def package(self, sha256: str, name: str) -> PackageState | None:
        """One package under one name."""
        return next(self._states("WHERE sha256 = ? AND name = ?", sha256, os.fsencode(name)), None)

    def packages_of(self, sha256: str) -> list[PackageState]:
        """Every name this content has had, the latest first."""
        return list(self._states("WHERE sha256 = ? ORDER BY changed_at DESC", sha256))

    def named(self, name: str) -> list[PackageState]:
        """Every content that has had this name, the latest first."""
        return list(self._states("WHERE name = ? ORDER BY changed_at DESC", os.fsencode(name)))

    def search(self, word: str) -> list[PackageState]:
        """Packages by name, SHA-256 (or at least 8 digits of one), trace id or order id; the latest first."""
        if not word:
            return []
        name = _file_name(word)
        found = list(
            self._states(
                "WHERE name = ? OR trace_id = ? OR (order_id = ? AND order_id != '') OR sha256 = ? "
                "OR sha256 IN (SELECT sha256 FROM receipt WHERE order_id = ?) ORDER BY changed_at DESC",
                name, spelled_out(word), spelled_out(word), spelled_out(word), spelled_out(word),
            )
        )  # fmt: skip
        if not found and len(word) >= 8 and all(digit in "0123456789abcdef" for digit in word):
            found = list(self._states("WHERE sha256 >= ? AND sha256 < ? ORDER BY changed_at DESC", word, word + "g"))
        return found

    def at_stage(self, stage: Stage) -> list[PackageState]:
        """All packages the log has at a stage, the longest unchanged first."""
        return list(self._states("WHERE stage = ? ORDER BY changed_at", stage.value))

    def names_at(self, stage: Stage) -> dict[str, str]:
        """Name → SHA-256 of all packages the log has at a stage: cheaper than `at_stage`."""
        rows = self._all("SELECT name, sha256 FROM package WHERE stage = ?", stage.value)
        return {os.fsdecode(name): sha256 for name, sha256 in rows}

    def content(self, sha256: str) -> ContentState:
        """What is known of a SHA-256; all defaults when nothing is."""
        rows = self._all(
            "SELECT generation, ended, unknown, profile, base_url, accepted_as, accepted_at, order_id FROM content "
            "WHERE sha256 = ?",
            sha256,
        )
        if not rows:
            return ContentState()
        generation, ended, unknown, profile, base_url, accepted_as, accepted_at, order_id = rows[0]
        return ContentState(
            generation=generation,
            ended=bool(ended),
            unknown=bool(unknown),
            destination=destination_of(profile, base_url),
            accepted_as=os.fsdecode(accepted_as) if accepted_as is not None else None,
            accepted_at=moment_of(accepted_at),
            order_id=order_id or "",
        )

    def with_order(self, order_id: str) -> PackageState | None:
        """The package that was last accepted under an order id."""
        return next(
            self._states(f"WHERE order_id = ? {_HAS_ORDER} ORDER BY changed_at DESC", spelled_out(order_id)), None
        )

    def knows_order(self, order_id: str) -> bool:
        """Whether an order id stands in the log already."""
        return bool(self._all("SELECT 1 FROM receipt WHERE order_id = ?", spelled_out(order_id)))

    def integration(self, integration: Integration) -> IntegrationState:
        """What the log says of an integration."""
        rows = self._all(
            "SELECT state, since, reason, exec_id, package, configured FROM integration WHERE name = ?",
            integration.value,
        )
        if not rows:
            return IntegrationState()
        state, since, reason, exec_id, package, configured = rows[0]
        return IntegrationState(
            state=state,
            since=moment_of(since),
            reason=reason,
            exec_id=exec_id,
            package=os.fsdecode(package),
            configured=None if configured is None else bool(configured),
        )

    def unbacked(self) -> list[PackageState]:
        """Delivered packages without a verified backup, the longest waiting first."""
        return list(self._states(f"{_UNBACKED} ORDER BY changed_at"))

    def rolled_back(self) -> list[PackageState]:
        """Packages that lie in rejected/ because of a rollback."""
        return list(self._states("WHERE stage = 'rejected' AND by_rollback = 1 ORDER BY changed_at"))

    def stage_counts(self) -> dict[Stage, int]:
        """How many packages the log has at each stage."""
        with self._using(self._reading):
            return figures.stage_counts(self._reader)

    def figures(self, now: datetime) -> figures.Figures:
        """Everything the log's rows count up to, as of one row. `now`: when the last 24 h end."""
        with self._using(self._reading), self._one_state():
            seq = self._reader.execute("SELECT value FROM meta WHERE key = 'seq'").fetchone()
            return figures.read(self._reader, log_seq=int(seq[0]) if seq else 0, now=now)

    def oldest_at(self, stage: Stage) -> datetime | None:
        """Since when the longest unchanged package of a stage has been there."""
        return moment_of(self._all("SELECT min(changed_at) FROM package WHERE stage = ?", stage.value)[0][0])

    def oldest(self, stage: Stage) -> PackageState | None:
        """The longest unchanged package of a stage."""
        return next(self._states("WHERE stage = ? ORDER BY changed_at LIMIT 1", stage.value), None)

    def unbacked_count(self) -> int:
        """How many delivered packages have no verified backup yet."""
        return int(self._all(f"SELECT count(*) FROM package {_UNBACKED}")[0][0])  # noqa: S608  our own words

    def settled_since(self, moment: datetime) -> int:
        """How many packages were delivered since a moment. Asked at each beat: counted again when rows came in."""
        seen, known = (self._rows_in, moment), self._delivered
        if known is None or known[0] != seen:
            count = int(self._all("SELECT count(*) FROM package WHERE settled_at >= ?", rfc3339(moment))[0][0])
            known = self._delivered = seen, count
        return known[1]

    def parked(self) -> list[PackageState]:
        """Packages in rejected/ whose outcome nobody knows: a person decides. The longest waiting first."""
        return list(self._states("WHERE stage = 'rejected' AND status = 'unknown' ORDER BY changed_at"))

    def recent_problems(self, limit: int) -> list[PackageState]:
        """The packages that last came to harm and still are: rejected, unknown or waiting to be tried again."""
        return list(
            self._states(
                "WHERE stage = 'rejected' OR (stage IN ('outbox', 'claimed') AND (failures > 0 OR status = 'unknown')) "
                "ORDER BY changed_at DESC LIMIT ?",
                limit,
            )
        )

    # --- comparing two of them ---------------------------------------------------------------------------------------

    def table(self, name: str, columns: Sequence[str] = ("*",)) -> list[Any]:
        """All rows of one of `TABLES`, in the order of what tells them apart."""
        return self._all(f"SELECT {', '.join(columns)} FROM {name} ORDER BY {TABLES[name]}")  # noqa: S608  our own names

    def is_sound(self) -> bool:
        """Whether SQLite finds its file in order."""
        return self._all("PRAGMA quick_check(1)") == [("ok",)]

    # --- the sheet's cursor: where mirroring goes on -----------------------------------------------------------------

    def sheet_cursor(self, sheet: str) -> Position | None:
        """Up to which row a sheet shows the log; None when that isn't known."""
        rows = self._all("SELECT value FROM meta WHERE key = ?", f"sheet:{sheet}")
        if not rows:
            return None
        offset, seq, chain = rows[0][0].split()
        return Position(offset=int(offset), seq=int(seq), chain=chain)

    def move_sheet_cursor(self, sheet: str, position: Position) -> None:
        """Remember it. Losing it costs reading the sheet again, nothing else."""
        with self._using(self._writing), self._writer:
            self._writer.execute(
                "INSERT OR REPLACE INTO meta VALUES (?, ?)",
                (f"sheet:{sheet}", f"{position.offset} {position.seq} {position.chain}"),
            )
        self.changed()

    # --- plumbing --------------------------------------------------------------------------------------------------

    def _all(self, sql: str, *values: object) -> list[Any]:
        with self._using(self._reading):
            return self._reader.execute(sql, values).fetchall()

    @contextmanager
    def _using(self, connection: threading.RLock) -> Iterator[None]:
        """One thread at a time, and what the disk does to SQLite told in our words."""
        with connection:
            try:
                with on_disk(self._path):
                    yield
            except IndexUnusable:
                self._mistrusted = True
                raise

    @contextmanager
    def _one_state(self) -> Iterator[None]:
        """What is read inside is of one moment, whoever else writes to the file."""
        self._reader.execute("BEGIN")
        try:
            yield
        finally:
            self._reader.rollback()

    def _is_whole_on_disk(self) -> bool:
        try:
            checkpoint(self._writer, self._path, beyond=0)
        except sqlite3.Error:
            return False
        return True

    def _states(self, where: str, *values: object) -> Iterator[PackageState]:
        return map(state_of, self._all(f"{_SELECT} {where}", *values))


def _file_name(word: str) -> bytes:
    """A word as a file's name; empty when no file can be called so (half a character, as JSON may hold it)."""
    try:
        return os.fsencode(word)
    except UnicodeEncodeError:
        return b""
