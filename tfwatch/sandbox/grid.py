"""Spreadsheets in memory: sparse, each row one JSON text, so that 500,000 log rows fit."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from tfwatch.sandbox.cells import Cell, sort_key

DEFAULT_ROWS = 1000
DEFAULT_COLUMNS = 26


class GridFull(Exception):
    """The spreadsheet would have more cells than it may."""


class Worksheet:
    """One sheet of a spreadsheet: a grid of fixed size, its cells and its looks. Rows and columns count from 0."""

    def __init__(self, sheet_id: int, title: str, rows: int = DEFAULT_ROWS, columns: int = DEFAULT_COLUMNS) -> None:
        self.sheet_id = sheet_id
        self.title = title
        self.rows = rows
        self.columns = columns
        self.frozen_rows = 0
        self.frozen_columns = 0
        self.conditional_formats: list[dict[str, Any]] = []
        self._rows: dict[int, str] = {}

    def copy(self) -> Worksheet:
        """A copy that may be changed without changing this one."""
        twin = Worksheet(self.sheet_id, self.title, self.rows, self.columns)
        twin.frozen_rows, twin.frozen_columns = self.frozen_rows, self.frozen_columns
        twin.conditional_formats = list(self.conditional_formats)
        twin._rows = dict(self._rows)
        return twin

    def row(self, number: int) -> list[Cell]:
        """One row's cells, without trailing empty ones."""
        kept = self._rows.get(number)
        return json.loads(kept) if kept else []

    def put_row(self, number: int, cells: list[Cell]) -> None:
        """Replace one row."""
        _trim(cells)
        if cells:
            self._rows[number] = json.dumps(cells, separators=(",", ":"))
        else:
            self._rows.pop(number, None)

    def read(self, top: int, left: int, bottom: int, right: int) -> list[list[Cell]]:
        """The cells of a rectangle, trailing empty cells and rows left out, as Google answers."""
        rows = []
        for number in range(top, bottom):
            cells = self.row(number)[left:right]
            _trim(cells)
            rows.append(cells)
        while rows and not rows[-1]:
            rows.pop()
        return rows

    def write(self, top: int, left: int, rows: Sequence[Sequence[Cell | None]]) -> int:
        """Put values at a place; None leaves a cell as it is. Returns how many cells were written."""
        written = 0
        for number, values in enumerate(rows, top):
            cells = self.row(number)
            cells.extend("" for _ in range(left + len(values) - len(cells)))
            for at, value in enumerate(values, left):
                if value is not None:
                    cells[at] = value
                    written += 1
            self.put_row(number, cells)
        return written

    def clear(self, top: int, left: int, bottom: int, right: int) -> None:
        """Empty a rectangle."""
        for number in [n for n in self._rows if top <= n < bottom]:
            cells = self.row(number)
            for at in range(left, min(right, len(cells))):
                cells[at] = ""
            self.put_row(number, cells)

    def sort(self, top: int, left: int, bottom: int, right: int, keys: Sequence[tuple[int, bool]]) -> None:
        """Sort a rectangle's rows by `(column, descending)` keys, the first one first; empty cells come last."""
        width = right - left
        block = [_padded(self.row(number)[left:right], width) for number in range(top, bottom)]
        for column, descending in reversed(keys):
            at = column - left
            filled = [cells for cells in block if cells[at] != ""]
            empty = [cells for cells in block if cells[at] == ""]
            block = sorted(filled, key=lambda cells: sort_key(cells[at]), reverse=descending) + empty
        self.write(top, left, block)

    def delete_rows(self, first: int, count: int) -> None:
        """Take rows away; those below move up."""
        moved = {
            n if n < first else n - count: text for n, text in self._rows.items() if not first <= n < first + count
        }
        self._rows = moved
        self.rows -= count

    def insert_rows(self, first: int, count: int) -> None:
        """Make room for rows; those at and below `first` move down."""
        self._rows = {n if n < first else n + count: text for n, text in self._rows.items()}
        self.rows += count

    def resize(self, rows: int, columns: int) -> None:
        """Grow or shrink the grid; cells outside are gone."""
        if rows < self.rows:
            self._rows = {number: text for number, text in self._rows.items() if number < rows}
        if columns < self.columns:
            for number in list(self._rows):
                self.put_row(number, self.row(number)[:columns])
        self.rows, self.columns = rows, columns

    def used_rows(self) -> int:
        """The number of the last row that holds anything, plus one."""
        return max(self._rows, default=-1) + 1

    def formulas(self) -> Iterator[tuple[int, int, str]]:
        """Every cell that was taken as a formula: row, column, text."""
        for number in sorted(self._rows):
            if '{"formula"' in self._rows[number]:
                for column, cell in enumerate(self.row(number)):
                    if isinstance(cell, dict):
                        yield number, column, cell["formula"]

    def properties(self, index: int) -> dict[str, Any]:
        """The sheet's `SheetProperties` as the API shows them."""
        grid = {"rowCount": self.rows, "columnCount": self.columns}
        if self.frozen_rows:
            grid["frozenRowCount"] = self.frozen_rows
        if self.frozen_columns:
            grid["frozenColumnCount"] = self.frozen_columns
        return {
            "sheetId": self.sheet_id,
            "title": self.title,
            "index": index,
            "sheetType": "GRID",
            "gridProperties": grid,
        }


class Spreadsheet:
    """Some worksheets in their order. `max_cells` bounds all grids together."""

    def __init__(self, spreadsheet_id: str, title: str, max_cells: int) -> None:
        self.id = spreadsheet_id
        self.title = title
        self.max_cells = max_cells
        self.sheets = [Worksheet(0, "Sheet1")]

    def titles(self) -> list[str]:
        """The sheets' titles."""
        return [sheet.title for sheet in self.sheets]

    def by_title(self, title: str) -> Worksheet:
        """The sheet of this title; raises KeyError."""
        for sheet in self.sheets:
            if sheet.title == title:
                return sheet
        raise KeyError(title)

    def by_id(self, sheet_id: int) -> Worksheet:
        """The sheet of this id; raises KeyError."""
        for sheet in self.sheets:
            if sheet.sheet_id == sheet_id:
                return sheet
        raise KeyError(sheet_id)

    def check_size(self) -> None:
        """Raise `GridFull` when the grids hold too many cells."""
        if sum(sheet.rows * sheet.columns for sheet in self.sheets) > self.max_cells:
            limit = self.max_cells
            raise GridFull(
                f"This action would increase the number of cells in the workbook above the limit of {limit} cells."
            )

    def metadata(self) -> dict[str, Any]:
        """The `Spreadsheet` resource without grid data."""
        sheets = []
        for index, sheet in enumerate(self.sheets):
            shown: dict[str, Any] = {"properties": sheet.properties(index)}
            if sheet.conditional_formats:
                shown["conditionalFormats"] = sheet.conditional_formats
            sheets.append(shown)
        return {
            "spreadsheetId": self.id,
            "properties": {"title": self.title, "locale": "en_US", "autoRecalc": "ON_CHANGE", "timeZone": "Etc/GMT"},
            "sheets": sheets,
        }


def _trim(cells: list[Cell]) -> None:
    while cells and cells[-1] == "":
        cells.pop()


def _padded(cells: list[Cell], width: int) -> list[Cell]:
    return cells + [""] * (width - len(cells))
