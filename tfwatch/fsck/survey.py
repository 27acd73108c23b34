"""All comparisons of one spool, in order: the log first, since everything else is held against it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Final

from tfwatch.errors import ServiceError
from tfwatch.fsck import backup_check, index_check, log_chain
from tfwatch.fsck.difference import Difference, Progress
from tfwatch.fsck.folder_check import FolderCheck
from tfwatch.fsck.index_check import Rebuilt, Snapshot
from tfwatch.fsck.log_chain import Chain
from tfwatch.fsck.sheet_check import SheetCheck
from tfwatch.fsck.tally import Tally
from tfwatch.ledger.log import Position
from tfwatch.look import View
from tfwatch.model import Stage
from tfwatch.story import sheet_row

_LOOKS: Final = 4
_BETWEEN_LOOKS_SECONDS: Final = 0.7
"""A running daemon moves files a moment after it logged that: what is really wrong is wrong at every look."""

_UNTRUSTED: Final = "the folders, the index, the backups and the sheet were not compared: the log can't be believed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What to compare. `deep`: hash every ZIP and make the index anew. `local`: ask neither S3 nor the sheet."""

    deep: bool = False
    local: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What one survey found. `compared`: the names of the comparisons made; `notes`: what is no difference."""

    rows: int
    packages: int
    compared: tuple[str, ...]
    differences: tuple[Difference, ...]
    notes: tuple[str, ...]


class Survey:
    """One look at everything, changing nothing. Use `find`, then `close`."""

    def __init__(self, view: View, scope: Scope, progress: Progress) -> None:
        self._view = view
        self._folders = view.folders
        self._scope = scope
        self._progress = progress
        self._running = view.running
        self._tally = Tally()
        self._chain = Chain(view.folders.log, live=view.running)
        self._seen = index_check.snapshot(view.folders.index)
        self._rebuilt = Rebuilt() if scope.deep else None
        self._has_row_of_index: bool | None = None
        self._compared: list[str] = []
        self._notes: list[str] = []

    def close(self) -> None:
        """Let go of what was read."""
        self._tally.close()
        self._seen.close()
        if self._rebuilt is not None:
            self._rebuilt.index.close()

    def find(self) -> Findings:
        """Compare everything. Raises OSError for what can't be read."""
        differences = tuple(self._find())
        return Findings(
            rows=self._chain.end.seq,
            packages=len(self._tally.packages),
            compared=tuple(self._compared),
            differences=differences,
            notes=tuple(self._notes),
        )

    def _find(self) -> Iterator[Difference]:
        if not os.path.lexists(self._folders.log):
            if self._seen.position is None:
                self._notes.append("there is no log yet; it begins with the first package")
                yield from self._in_folders()
            else:
                yield from log_chain.against_index(self._chain, self._seen.position, matches=None)
            return
        of_index = list(self._read_log())
        wrong = list(self._in_log())
        self._compared.append("log")
        yield from wrong
        if wrong and not self._chain.torn:
            self._notes.append(_UNTRUSTED)
            return
        yield from self._of_index(of_index)
        yield from self._in_folders()
        if not self._scope.local:
            yield from self._in_s3()
            yield from self._in_sheet()

    # --- the log, and on the way the index ---------------------------------------------------------------------------

    def _read_log(self) -> Iterator[Difference]:
        """Read it once. The index is compared when its own position is reached: a daemon's log has grown since."""
        self._progress.begin("reading log.csv, bytes", os.path.getsize(self._folders.log))
        seen = self._seen.position or Position.start()
        told = 0
        for record in self._chain.rows():
            self._tally.add(record)
            end = self._chain.end
            if self._rebuilt is not None and end.seq <= seen.seq:
                self._rebuilt.add(record, end)
            if end.seq == seen.seq:
                self._has_row_of_index = end == seen
                yield from self._compare_index(end)
            if end.seq % 1000 == 0:
                self._progress.advance(end.offset - told)
                told = end.offset
        self._progress.advance(self._chain.end.offset - told)

    def _compare_index(self, end: Position) -> Iterator[Difference]:
        index = self._seen.index
        if index is None or not self._has_row_of_index:
            return
        found = list(index_check.compare(index, self._tally))
        if not found and self._rebuilt is not None:
            self._rebuilt.flush(end)
            found = list(index_check.compare_all(index, self._rebuilt))
        yield from found

    def _in_log(self) -> Iterator[Difference]:
        """Its own breaks, else what the index remembers of it."""
        seen = self._seen.position or Position.start()
        if seen.seq > self._chain.end.seq:
            # These rows were whole once: no crash tore them.
            self._chain.torn = 0
        if self._chain.breaks:
            yield from log_chain.differences(self._chain, running=self._running, sheet_row=self._sheet_row())
        else:
            yield from log_chain.against_index(self._chain, seen, matches=self._has_row_of_index)

    def _of_index(self, wrong: Iterable[Difference]) -> Iterator[Difference]:
        seen: Snapshot = self._seen
        self._compared.append("index")
        if seen.index is None:
            if self._chain.end.seq:
                yield from index_check.unreadable(seen)
            return
        yield from wrong
        if not self._running:
            yield from index_check.behind(seen.position, self._chain.end)

    def _sheet_row(self) -> str:
        """Where the sheet shows the first bad row; empty when no sheet is in use."""
        sheets = self._view.settings.config.integrations.sheets
        first = self._chain.breaks[0].seq if self._chain.breaks else 0
        return sheet_row(first, sheets.worksheet) if first and sheets.enabled else ""

    # --- the folders -------------------------------------------------------------------------------------------------

    def _in_folders(self) -> Iterator[Difference]:
        self._progress.begin("comparing folders, packages", len(self._tally.packages))
        check = FolderCheck(self._folders, self._tally, running=self._running)
        found = list(check.differences())
        looks = _LOOKS if self._running else 1
        while found and looks > 1:
            time.sleep(_BETWEEN_LOOKS_SECONDS)
            for record in self._chain.rows():
                self._tally.add(record)
            check = FolderCheck(self._folders, self._tally, running=True)
            again = set(check.differences())
            found = [difference for difference in found if difference in again]
            looks -= 1
        self._progress.advance(len(self._tally.packages))
        self._compared.append("folders")
        yield from found
        if self._scope.deep:
            yield from check.contents(self._progress)
            self._compared.append("contents")

    # --- outside -----------------------------------------------------------------------------------------------------

    def _in_s3(self) -> Iterator[Difference]:
        config = self._view.settings.config
        if not config.integrations.s3.enabled:
            return
        # The services' libraries are not needed by any other comparison.
        from tfwatch.connections import connect_s3

        storage = connect_s3(config)
        assert storage is not None
        with closing(storage):
            yield from backup_check.compare(storage, self._tally, self._progress, has_zip=self._is_delivered)
        self._compared.append("backups")
        pending = sum(entry.stage is Stage.DELIVERED and not entry.backed_up for entry in self._tally.packages.values())
        if pending:
            self._notes.append(f"{pending} delivered package(s) have no backup yet; the running daemon makes it")

    def _is_delivered(self, name: str) -> bool:
        return self._folders.look(Stage.DELIVERED, name) is not None

    def _in_sheet(self) -> Iterator[Difference]:
        config = self._view.settings.config
        if not config.integrations.sheets.enabled:
            return
        from tfwatch.connections import connect_sheets

        try:
            sheet = connect_sheets(config, threading.Event())
        except ServiceError as error:
            yield Difference(
                kind="sheet", what=f"the sheet can't be compared: {error}", where="sheet", mend=error.hint
            )  # fmt: skip
            return
        if sheet is None:
            self._notes.append("the sheet was not compared: it has no service account")
            return
        name, index = config.integrations.sheets.cursor_name, self._seen.index
        cursor = index.sheet_cursor(name) if index is not None else None
        check = SheetCheck(
            sheet,
            self._folders.log,
            last=self._chain.end,
            written=cursor.seq if cursor else 0,
            worksheet=config.integrations.sheets.worksheet,
            sleep=time.sleep,
        )
        with closing(sheet):
            yield from check.differences(self._progress, running=self._running)
        self._compared.append("sheet")
        if check.erased:
            self._notes.append(f"{check.erased} row(s) of the sheet have cells that a person erased")
        if check.pending:
            self._notes.append(f"{check.pending} row(s) are not in the sheet yet; the running daemon writes them")
