"""The sheet against the log, row for row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Final

from tfwatch.errors import ServiceFailure, TransientError
from tfwatch.fsck.difference import Difference, Progress
from tfwatch.ledger.log import Position, read_log
from tfwatch.ledger.rows import COLUMNS, ERASED, cells, shows
from tfwatch.ports import SheetPort
from tfwatch.spool.names import printable
from tfwatch.story import sheet_row

_BATCH_ROWS: Final = 5000
_MOST_LISTED: Final = 20
_BEYOND_ROWS: Final = 100
_TRIES: Final = 3
_PAUSE_SECONDS: Final = 2.0
_LONGEST_PAUSE_SECONDS: Final = 60.0
_UNDO: Final = "undo it in the sheet's version history, or rename the worksheet: a new one is filled from the log"
_REFILLED: Final = "nothing: the running daemon fills them again with the log's next row"


class SheetCheck:
    """One comparison. `written`: up to which row the sheet showed the log before. `pending`: rows it has yet to show;
    `erased`: rows in which a person erased what names somebody.

    `worksheet`: the name of the first one. `sleep` waits some seconds where the quota, which a daemon shares, asks.
    """

    def __init__(
        self,
        sheet: SheetPort,
        log_path: str,
        *,
        last: Position,
        written: int,
        worksheet: str,
        sleep: Callable[[float], object],
    ) -> None:
        self._sheet = sheet
        self._sleep = sleep
        self._log_path = log_path
        self._last = last
        self._written = written
        self._worksheet = worksheet
        self._empty: list[int] = []
        self._wrong = 0
        self.pending = 0
        self.erased = 0

    def differences(self, progress: Progress, *, running: bool) -> Iterator[Difference]:
        """All of them; those of a kind are summed up after the first few."""
        progress.begin("comparing the sheet, rows", self._last.seq)
        try:
            yield from self._compare(progress)
            if not running:
                yield from self._beyond()
        except ServiceFailure as failure:
            hint = failure.hint or "try again later"
            yield Difference(kind="sheet", what=f"the sheet can't be compared: {failure}", where="sheet", mend=hint)

    def _compare(self, progress: Progress) -> Iterator[Difference]:
        rows, first = read_log(self._log_path, end=self._last), 1
        while batch := [cells(record) for record, _ in islice(rows, _BATCH_ROWS)]:
            for seq, (meant, shown) in enumerate(zip(batch, self._read(first, len(batch)), strict=True), first):
                yield from self._row(seq, meant, shown)
            first += len(batch)
            progress.advance(len(batch))
        if self._wrong > _MOST_LISTED:
            more = f"{self._wrong - _MOST_LISTED} more rows differ from the log"
            yield Difference(kind="sheet", what=more, where=f"worksheet {self._worksheet}", mend=_UNDO)
        yield from self._absent()

    def _read(self, first: int, count: int) -> Sequence[Sequence[str]]:
        for _ in range(_TRIES - 1):
            try:
                return self._sheet.read(first, count)
            except TransientError as failure:
                self._sleep(min(failure.retry_after or _PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS))
        return self._sheet.read(first, count)

    def _row(self, seq: int, meant: Sequence[str], shown: Sequence[str]) -> Iterator[Difference]:
        if not any(shown):
            self._empty.append(seq)
            return
        if self._empty:
            # Rows follow, so these were not yet to come: somebody emptied them.
            yield from self._emptied(_UNDO)
        if not shows(shown, meant):
            self._wrong += 1
            if self._wrong <= _MOST_LISTED:
                yield self._difference(seq, _words(meant, shown), _UNDO)
        elif ERASED in shown:
            self.erased += 1

    def _absent(self) -> Iterator[Difference]:
        """Rows missing at its end: emptied if it has shown them before, else not written yet."""
        self.pending = sum(seq > self._written for seq in self._empty)
        self._empty = [seq for seq in self._empty if seq <= self._written]
        if self._empty:
            yield from self._emptied(_REFILLED)

    def _emptied(self, mend: str) -> Iterator[Difference]:
        first, last = self._empty[0], self._empty[-1]
        what = f"row {first} of the log is" if first == last else f"rows {first} to {last} of the log are"
        yield self._difference(first, f"{what} not there any more", mend)
        self._empty = []

    def _beyond(self) -> Iterator[Difference]:
        for seq, row in enumerate(self._read(self._last.seq + 1, _BEYOND_ROWS), self._last.seq + 1):
            if any(row):
                yield self._difference(seq, "it holds something, and the log has no such row", _UNDO)
                return

    def _difference(self, seq: int, what: str, mend: str) -> Difference:
        return Difference(kind="sheet", what=what, where=sheet_row(seq, self._worksheet), mend=mend)


def _words(meant: Sequence[str], shown: Sequence[str]) -> str:
    if shown[-1] != meant[-1]:
        return f"another row stands here (seq {_cell(shown[0])}); the log has row {meant[0]}"
    at = next(n for n, cell in enumerate(meant) if shown[n] != cell)
    return f"{COLUMNS[at]} is {_cell(shown[at])}, in the log {_cell(meant[at])}"


def _cell(text: str) -> str:
    return f"'{printable(text if len(text) <= 60 else text[:59] + '…')}'"
