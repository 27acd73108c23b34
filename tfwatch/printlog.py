"""log.csv for eyes and programs: as it is, as Brazilian Excel opens it, or as JSON lines. Reads only."""

from __future__ import annotations

import csv
import io
import json
import os
import time
from collections.abc import Iterator
from datetime import datetime, tzinfo
from enum import Enum, StrEnum, auto
from typing import BinaryIO, Final

from tfwatch.ledger.rows import COLUMNS, HEADER, BadRow, cells, decode
from tfwatch.model import rfc3339
from tfwatch.spool.names import printable

_BLOCK: Final = 1 << 16
_FOLLOW_SECONDS: Final = 0.2
_AT: Final = COLUMNS.index("at")


class Unprintable(Exception):
    """The log can't be shown any further: which file, and why."""


class Shape(Enum):
    """How the log is shown."""

    CSV = auto()
    EXCEL = auto()
    JSON = auto()


def shaped(
    path: str, shape: Shape, zone: tzinfo | None, *, last: int | None = None, follow: bool = False
) -> Iterator[bytes]:
    """The log in one of its shapes, row by row; see `lines`. Raises `Unprintable`, OSError."""
    rows = lines(path, last=last, follow=follow)
    if shape is Shape.CSV:
        yield HEADER
        yield from rows
        return
    if shape is Shape.EXCEL:
        yield excel_header().encode()
    for row in rows:
        try:
            yield (as_excel(row, zone) if shape is Shape.EXCEL else as_json(row) + "\n").encode()
        except BadRow as bad:
            raise Unprintable(f"{path}: a row can't be read: {bad}; the last one shown is the one before it") from bad


def lines(path: str, *, last: int | None = None, follow: bool = False) -> Iterator[bytes]:
    """Whole rows as they stand in the file, with their line ends; `last`: only so many from the end.

    `follow`: go on with new rows as they are written, for ever. Raises `Unprintable`, OSError.
    """
    with open(path, "rb", buffering=_BLOCK) as file:
        file.seek(len(HEADER) if last is None else _tail(file, last))
        while True:
            at = file.tell()
            line = file.readline()
            if line.endswith(b"\n"):
                yield line
                continue
            # Half a row is one that is being written.
            file.seek(at)
            if not follow:
                return
            if os.fstat(file.fileno()).st_ino != os.stat(path).st_ino:
                raise Unprintable(f"{path} was replaced by another file")
            time.sleep(_FOLLOW_SECONDS)


def _tail(file: BinaryIO, count: int) -> int:
    """Where the last `count` whole rows begin."""
    at = file.seek(0, os.SEEK_END)
    left = count
    while at > len(HEADER):
        step = min(_BLOCK, at - len(HEADER))
        at -= step
        file.seek(at)
        block = file.read(step)
        end = step
        while (found := block.rfind(b"\n", 0, end)) >= 0:
            if left == 0:
                return at + found + 1
            left, end = left - 1, found
    return len(HEADER)


def excel_header() -> str:
    """BOM and column names, `;` between them: what Excel in Portuguese takes for a table."""
    return "\ufeff" + _semicolons(COLUMNS)


def as_excel(line: bytes, zone: tzinfo | None) -> str:
    """One row for Excel: `;` between cells, `dd/mm/yyyy hh:mm:ss` in `zone` (None: the machine's own).

    Cells keep the mark that stops a spreadsheet from running them. Raises `tfwatch.ledger.rows.BadRow`.
    """
    record = decode(line)
    row = list(cells(record))
    row[_AT] = local(record.at, zone, "%d/%m/%Y %H:%M:%S")
    return _semicolons(row)


def as_json(line: bytes) -> str:
    """One row as an object with the log's columns: numbers are numbers, empty cells null, names printable."""
    record = decode(line)
    shown: dict[str, object] = {column: getattr(record, column) for column in COLUMNS}
    for column, value in shown.items():
        if isinstance(value, datetime):
            shown[column] = rfc3339(value)
        elif isinstance(value, StrEnum):
            shown[column] = value.value
        elif isinstance(value, str):
            shown[column] = printable(value) or None
    return json.dumps(shown, ensure_ascii=False)


def local(moment: datetime, zone: tzinfo | None, form: str = "%Y-%m-%d %H:%M:%S") -> str:
    """A moment for people's eyes, in their time zone."""
    return moment.astimezone(zone).strftime(form)


def _semicolons(row: list[str] | tuple[str, ...]) -> str:
    text = io.StringIO()
    csv.writer(text, delimiter=";", lineterminator="\r\n").writerow(row)
    return text.getvalue()
