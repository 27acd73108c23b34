"""Keep the team's sheet a mirror of the log: rows in batches, in order, each to its own place."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Final

from loguru import logger

from tfwatch.delivery.journal import fields
from tfwatch.delivery.progress import SLOW_CALL_SECONDS, Board
from tfwatch.delivery.trouble import Trouble
from tfwatch.delivery.wiring import Wiring
from tfwatch.errors import ServiceFailure, SheetDrift
from tfwatch.language import tr
from tfwatch.ledger.index import Index, IndexUnwritable
from tfwatch.ledger.log import Position, read_log
from tfwatch.ledger.rows import cells, shows
from tfwatch.model import DeliveryRecord, Integration
from tfwatch.ports import SheetPort
from tfwatch.retry import Backoff
from tfwatch.spool.names import printable

BETWEEN_TRIES: Final = Backoff(initial=5.0, maximum=300.0)
"""After a failed batch, seconds."""

_COMPARE_ROWS: Final = 5000


@dataclass(frozen=True, slots=True)
class _Batch:
    """Rows for the sheet, where they end, and since when the first of them has been in the log."""

    records: list[DeliveryRecord]
    end: Position
    since: datetime | None = None

    @property
    def rows(self) -> list[tuple[str, ...]]:
        return [cells(record) for record in self.records]


class MirrorLog:
    """The use case of the sheet's lane. Used by one thread.

    The cursor is a hint: when it is lost, the sheet itself is compared with the log from the first row on.
    `latency_seconds`: how long the oldest row of the last batch had waited when it was in the sheet; None before it.
    """

    def __init__(
        self,
        log_path: str,
        index: Index,
        board: Board,
        *,
        rng: random.Random | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._log_path = log_path
        self._index = index
        self._board = board
        self._rng = rng or random.Random()  # noqa: S311  spreads retries, protects nothing
        self._verified: SheetPort | None = None
        self._failures = 0
        self._now = now
        self.latency_seconds: float | None = None
        self.episode: Trouble | None = None

    @property
    def trouble(self) -> str:
        """Why the sheet doesn't follow the log, in words; empty while it does."""
        return self.episode.words if self.episode else ""

    def pending(self, wiring: Wiring, last_seq: int) -> int:
        """How many rows of the log the sheet doesn't show yet."""
        cursor = self._index.sheet_cursor(wiring.sheet_name)
        return last_seq - (cursor.seq if cursor else 0)

    def run(self, wiring: Wiring, stopping: Callable[[], bool]) -> float:
        """Mirror all rows there are; returns seconds after which to look again."""
        sheet = wiring.sheet
        if sheet is None:
            return float("inf")
        try:
            with self._board.working("log.csv", "mirroring", 0, timeout=SLOW_CALL_SECONDS) as progress:
                self._drain(sheet, wiring, stopping, progress)
        except FileNotFoundError:
            return wiring.policy.batch_seconds  # the spool is away; what waits is mirrored when it is back
        except SheetDrift as drift:
            self._note(drift.in_words, drift)
            return BETWEEN_TRIES.maximum
        except IndexUnwritable as error:
            # The rows are in the sheet; that this can't be remembered costs writing them again to the same places.
            self._failures += 1
            self._note(str(error))
            return BETWEEN_TRIES.delay(self._failures, self._rng)
        except ServiceFailure as failure:
            self._failures += 1
            self._note(failure.in_words, failure)
            return BETWEEN_TRIES.delay(self._failures, self._rng)
        self._failures = 0
        self.episode = None
        return wiring.policy.batch_seconds

    def _drain(
        self, sheet: SheetPort, wiring: Wiring, stopping: Callable[[], bool], progress: Callable[[int], None]
    ) -> None:
        cursor = self._index.sheet_cursor(wiring.sheet_name)
        batch = self._next(cursor, wiring.policy.batch_rows)
        if not batch.records:
            return
        if self._verified is not sheet or not self._shows(sheet, cursor):
            self._verified = None
            cursor = self._compare(sheet, wiring, progress)
            self._verified = sheet
            batch = self._next(cursor, wiring.policy.batch_rows)
        while batch.records and not stopping():
            sheet.mirror((cursor.seq if cursor else 0) + 1, batch.rows)
            cursor = batch.end
            progress(cursor.offset)
            if batch.since is not None:
                self.latency_seconds = max(0.0, (self._now() - batch.since) / timedelta(seconds=1))
            self._index.move_sheet_cursor(wiring.sheet_name, cursor)
            _tell(batch.records, most=wiring.policy.batch_rows)
            batch = self._next(cursor, wiring.policy.batch_rows)

    def _next(self, cursor: Position | None, count: int) -> _Batch:
        records: list[DeliveryRecord] = []
        end, since = cursor or Position.start(), None
        on_disk = self._index.position
        if on_disk is None:
            return _Batch(records, end)
        for record, position in islice(read_log(self._log_path, cursor, end=on_disk, live=True), count):
            records.append(record)
            end, since = position, since or record.at
        return _Batch(records, end, since)

    def _shows(self, sheet: SheetPort, cursor: Position | None) -> bool:
        """Whether the last row we wrote is where we wrote it: a sheet that was sorted or emptied shows another."""
        if cursor is None:
            return True
        shown = sheet.read(cursor.seq, 1)[0]
        return shown[-1] == cursor.chain and shown[0] == str(cursor.seq)

    def _compare(self, sheet: SheetPort, wiring: Wiring, progress: Callable[[int], None]) -> Position | None:
        """Hold the sheet against the log from the first row; returns the last row that is there already."""
        cursor: Position | None = None
        while True:
            batch = self._next(cursor, _COMPARE_ROWS)
            rows = batch.rows
            if not rows:
                break
            first = (cursor.seq if cursor else 0) + 1
            shown = [tuple(row) for row in sheet.read(first, len(rows))]
            there = next((n for n, row in enumerate(shown) if not any(row)), len(shown))
            if any(any(row) for row in shown[there:]):
                raise _drift(tuple(first + n for n in range(there, len(shown)) if not any(shown[n]))[:10])
            wrong = tuple(first + n for n in range(there) if not shows(shown[n], rows[n]))
            if wrong:
                raise _drift(wrong[:10])
            if there < len(rows):
                cursor = self._next(cursor, there).end if there else cursor
                break
            cursor = batch.end
            progress(cursor.offset)
        if cursor is not None:
            self._index.move_sheet_cursor(wiring.sheet_name, cursor)
        return cursor

    def _note(self, trouble: str, failure: ServiceFailure | None = None) -> None:
        if trouble != self.trouble:
            logger.bind(INTEGRATION="sheets").info("{}", tr("sheets: {why}", why=trouble))
        self.episode = Trouble.of(trouble, before=self.episode, failure=failure)


def _tell(records: Sequence[DeliveryRecord], *, most: int) -> None:
    """Its rows in the sheet belong to a package's story. A backlog, which fills its batches, is told whole."""
    first, last = records[0].seq, records[-1].seq
    of_sheets = logger.bind(EVENT="MIRRORED", INTEGRATION=Integration.SHEETS.value)
    if len(records) >= most:
        of_sheets.info("sheets: log rows {} to {} are in the sheet", first, last)
        return
    orders = {record.sha256: record.order_id for record in records if record.order_id}
    for record in {record.sha256: record for record in records if record.package and record.sha256}.values():
        of_sheets.bind(**fields(record, record.package, order_id=orders.get(record.sha256, ""))).info(
            "{}: in the sheet up to log row {}", printable(record.package), record.seq
        )


def _drift(rows: tuple[int, ...]) -> SheetDrift:
    listed = ", ".join(map(str, rows))
    return SheetDrift(
        tr("the sheet differs from the log in row(s) with seq {rows}: somebody sorted or edited it", rows=listed),
        rows=rows,
        hint=tr("undo it in the sheet's version history, or rename the worksheet and a new one is filled"),
    )
