"""`spreadsheets.values`: reading and writing cells by A1 ranges. A request is checked whole before a cell changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from tfwatch.sandbox import a1, cells
from tfwatch.sandbox.cells import Cell
from tfwatch.sandbox.grid import GridFull, Spreadsheet, Worksheet

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Write:
    """One checked block of values and its place."""

    sheet: Worksheet
    top: int
    left: int
    rows: list[list[Cell | None]]

    @property
    def width(self) -> int:
        return max((len(row) for row in self.rows), default=0)


class Values:
    """The `values` methods on one spreadsheet. All raise ValueError with Google's words for a bad request."""

    def __init__(self, book: Spreadsheet) -> None:
        self._book = book

    def get(self, text: str, *, major: str, render: str) -> Json:
        """A `ValueRange`; no `values` when the range is empty."""
        sheet, span = self._place(text)
        if span.top >= sheet.rows or span.left >= sheet.columns:
            raise ValueError(_beyond(sheet, text))
        top, left, bottom, right = span.within(sheet.rows, sheet.columns)
        rows = sheet.read(top, left, min(bottom, sheet.used_rows()), right)
        values = [[cells.shown(cell, render) for cell in row] for row in rows]
        if major == "COLUMNS":
            values = [_trimmed(column) for column in zip_longest(*values, fillvalue="")]
        written = a1.write(sheet.title, top, left, bottom, right)
        reply: Json = {"range": written, "majorDimension": major}
        return {**reply, "values": values} if values else reply

    def update(self, data: Sequence[Json], option: str | None, *, prefix: bool) -> list[Json]:
        """Write every `ValueRange` or none; an `UpdateValuesResponse` for each."""
        writes = []
        for number, item in enumerate(data):
            try:
                writes.append(self._checked(item, option))
            except ValueError as error:
                raise ValueError(f"Invalid data[{number}]: {error}" if prefix else str(error)) from error
        return [self._carry_out(write) for write in writes]

    def batch_update(self, data: Sequence[Json], option: str | None) -> Json:
        """A `BatchUpdateValuesResponse`."""
        replies = self.update(data, option, prefix=True)
        return {
            "spreadsheetId": self._book.id,
            "totalUpdatedRows": sum(reply["updatedRows"] for reply in replies),
            "totalUpdatedColumns": sum(reply["updatedColumns"] for reply in replies),
            "totalUpdatedCells": sum(reply["updatedCells"] for reply in replies),
            "totalUpdatedSheets": len({reply["updatedRange"].rpartition("!")[0] for reply in replies}),
            "responses": replies,
        }

    def append(self, text: str, item: Json, option: str | None) -> Json:
        """Write below the last row that holds anything, growing the grid. Twice is twice, as with Google."""
        sheet, span = self._place(text)
        rows = _rows(item, _taker(option))
        top = sheet.used_rows()
        width = span.left + max((len(row) for row in rows), default=0)
        old = sheet.rows, sheet.columns
        sheet.resize(max(sheet.rows, top + len(rows)), max(sheet.columns, width))
        try:
            self._book.check_size()
        except GridFull as error:
            sheet.resize(*old)
            raise ValueError(str(error)) from error
        reply = self._carry_out(_Write(sheet=sheet, top=top, left=span.left, rows=rows))
        return {"spreadsheetId": self._book.id, "updates": reply}

    def clear(self, texts: Sequence[str]) -> list[str]:
        """Empty the ranges; returns them as Google writes them."""
        places = [self._place(text) for text in texts]
        cleared = []
        for sheet, span in places:
            top, left, bottom, right = span.within(sheet.rows, sheet.columns)
            sheet.clear(top, left, bottom, right)
            cleared.append(a1.write(sheet.title, top, left, bottom, right))
        return cleared

    def _place(self, text: str) -> tuple[Worksheet, a1.Span]:
        title, span = a1.parse(text, self._book.titles())
        return self._book.by_title(title), span

    def _checked(self, item: Json, option: str | None) -> _Write:
        text = str(item.get("range", ""))
        sheet, span = self._place(text)
        rows = _rows(item, _taker(option))
        if not span.fits(sheet.rows, sheet.columns):
            raise ValueError(_beyond(sheet, text))
        write = _Write(sheet=sheet, top=span.top, left=span.left, rows=rows)
        bottom, right = span.top + len(rows), span.left + write.width
        if span.bottom is not None and (span.bottom, span.right) != (span.top + 1, span.left + 1):
            if bottom > span.bottom:
                raise ValueError(
                    f"Requested writing within range [{text}], but tried writing to row [{span.bottom + 1}]"
                )
            if span.right is not None and right > span.right:
                column = a1.column_letters(span.right)
                raise ValueError(f"Requested writing within range [{text}], but tried writing to column [{column}]")
        if bottom > sheet.rows or right > sheet.columns:
            raise ValueError(_beyond(sheet, a1.write(sheet.title, span.top, span.left, bottom, right)))
        return write

    def _carry_out(self, write: _Write) -> Json:
        written = write.sheet.write(write.top, write.left, write.rows)
        bottom, right = write.top + max(1, len(write.rows)), write.left + max(1, write.width)
        return {
            "spreadsheetId": self._book.id,
            "updatedRange": a1.write(write.sheet.title, write.top, write.left, bottom, right),
            "updatedRows": len(write.rows),
            "updatedColumns": write.width,
            "updatedCells": written,
        }


def _taker(option: str | None) -> Any:
    if option == "RAW":
        return cells.raw
    if option == "USER_ENTERED":
        return cells.typed
    raise ValueError("'valueInputOption' is required but not specified")


def _rows(item: Json, take: Any) -> list[list[Cell | None]]:
    values = item.get("values", [])
    if not isinstance(values, list) or not all(isinstance(row, list) for row in values):
        raise ValueError("Invalid value at 'data.values': must be a list of lists")
    rows = [[None if value is None else take(value) for value in row] for row in values]
    if item.get("majorDimension", "ROWS") == "COLUMNS":
        return [list(row) for row in zip_longest(*rows)]
    return rows


def _trimmed(column: Sequence[Any]) -> list[Any]:
    kept = list(column)
    while kept and kept[-1] == "":
        kept.pop()
    return kept


def _beyond(sheet: Worksheet, text: str) -> str:
    return f"Range ({text}) exceeds grid limits. Max rows: {sheet.rows}, max columns: {sheet.columns}"
