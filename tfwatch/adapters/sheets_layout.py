"""Which row of the log lies where in the spreadsheet, and how rows are cut into requests. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tfwatch.model import Status

ROWS_PER_WORKSHEET: Final = 500_000
GROWTH: Final = 50_000
"""Rows by which a worksheet grows: each growth is a request, and 18 columns of them are 0.9 of 10 M cells."""

MAX_CELL: Final = 50_000
MAX_REQUEST_BYTES: Final = 1_900_000
"""Google advises 2 MB (developers.google.com/sheets/api/limits); the rest is for what surrounds the rows."""

_CUT_MARK: Final = "… [cut]"

COLOURS: Final[Mapping[Status, tuple[float, float, float]]] = {
    Status.WAITING: (0.93, 0.93, 0.93),
    Status.SENDING: (0.81, 0.89, 0.95),
    Status.SUBMITTED: (1.0, 0.95, 0.8),
    Status.DELIVERED: (0.85, 0.92, 0.83),
    Status.REJECTED: (0.96, 0.8, 0.8),
    Status.UNKNOWN: (0.99, 0.9, 0.8),
}
"""Background of a status cell: red, green, blue, 0 to 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Neighbouring log rows on one worksheet: `count` of them from sheet row `top` (the header is row 1)."""

    title: str
    top: int
    first_seq: int
    count: int


def spans(worksheet: str, first_seq: int, count: int) -> Iterator[Span]:
    """Where log rows `first_seq` … `first_seq + count - 1` lie: row ((n-1) mod 500,000) + 2 of `log`, `log-2`, …"""
    end = first_seq + count
    while first_seq < end:
        number, offset = divmod(first_seq - 1, ROWS_PER_WORKSHEET)
        here = min(end - first_seq, ROWS_PER_WORKSHEET - offset)
        title = worksheet if number == 0 else f"{worksheet}-{number + 1}"
        yield Span(title=title, top=offset + 2, first_seq=first_seq, count=here)
        first_seq += here


def pieces(rows: Sequence[Sequence[str]]) -> Iterator[tuple[int, list[Sequence[str]]]]:
    """`(offset, rows)`: as many rows at a time as one request may hold, at least one."""
    offset, piece, size = 0, list[Sequence[str]](), 0
    for row in rows:
        bytes_of_row = len(json.dumps(row)) + 2
        if piece and size + bytes_of_row > MAX_REQUEST_BYTES:
            yield offset, piece
            offset, piece, size = offset + len(piece), [], 0
        piece.append(row)
        size += bytes_of_row
    if piece:
        yield offset, piece


def fitted(cell: str) -> str:
    """A cell as Google takes it: at most 50,000 characters (the end is cut, and marked), all of them real ones."""
    if len(cell) > MAX_CELL:
        cell = cell[: MAX_CELL - len(_CUT_MARK)] + _CUT_MARK
    return cell if cell.isascii() else cell.encode("utf-8", "backslashreplace").decode("utf-8")


def missing_colours(sheet_id: int, column: int, present: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Requests that add a colour rule for each status word that has none on this column yet."""
    coloured = {word for rule in present for word in _words(rule, column)}
    missing = [status for status in COLOURS if status not in coloured]
    return [
        {"addConditionalFormatRule": {"rule": _rule(sheet_id, column, status), "index": len(present) + number}}
        for number, status in enumerate(missing)
    ]


def _words(rule: Mapping[str, Any], column: int) -> Iterator[str]:
    condition = rule.get("booleanRule", {}).get("condition", {})
    # Google leaves a range's open ends and zeros out.
    on_column = any(
        area.get("startColumnIndex", 0) <= column < area.get("endColumnIndex", column + 1)
        for area in rule.get("ranges", [])
    )
    if on_column and condition.get("type") == "TEXT_EQ":
        for value in condition.get("values", []):
            yield value.get("userEnteredValue", "")


def _rule(sheet_id: int, column: int, status: Status) -> dict[str, Any]:
    red, green, blue = COLOURS[status]
    colour = {"red": red, "green": green, "blue": blue}
    area = {"sheetId": sheet_id, "startRowIndex": 1, "startColumnIndex": column, "endColumnIndex": column + 1}
    condition = {"type": "TEXT_EQ", "values": [{"userEnteredValue": status.value}]}
    return {"ranges": [area], "booleanRule": {"condition": condition, "format": {"backgroundColor": colour}}}
