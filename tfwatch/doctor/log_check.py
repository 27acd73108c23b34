"""The end of log.csv and the index beside it: a cheap look; `tfwatch fsck` reads all of it."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Final

from tfwatch.doctor.case import Case
from tfwatch.doctor.finding import Finding, failure, ok, skipped, warning
from tfwatch.ledger.index import Index
from tfwatch.ledger.log import LogDamaged, Position, read_log
from tfwatch.ledger.reading import check_position
from tfwatch.ledger.rows import HEADER, BadRow, decode
from tfwatch.model import Integration

_TAIL_BYTES: Final = 256 * 1024
_CATCH_UP_SECONDS: Final = 5.0
_FSCK: Final = "tfwatch fsck names every damaged row; docs/OPERATIONS.md, Log damaged, says what then"
_ANEW: Final = "stop the daemon, delete .tfwatch/index.sqlite*, start it: it is made anew from the log"


def log(case: Case) -> Iterator[Finding]:
    """The chain of the last rows."""
    path = case.folders.log
    if not os.path.lexists(path):
        if _remembered(case) is None:
            yield ok("log", "there is no log yet; it begins with the first start")
        else:
            yield failure("log", f"{path} is gone, and the index knows rows of it", _FSCK)
        return
    try:
        rows, end = _read_tail(path)
    except LogDamaged as error:
        yield failure("log", f"{path}, row {error.seq} (byte {error.offset}): {error.problem}", _FSCK)
        return
    except BadRow as error:
        yield failure("log", f"{path}: a row near its end is damaged: {error}", _FSCK)
        return
    if not case.is_running and (rest := os.stat(path).st_size - end.offset):
        seen = f"its last {rest} bytes are no whole row, as a crash leaves them"
        yield warning("log", seen, "nothing: the next start cuts them off, keeps them in .tfwatch/torn-… and goes on")
        return
    yield ok("log", f"{end.seq:,} rows; the chain of the last {rows:,} holds")


def _read_tail(path: str) -> tuple[int, Position]:
    """How many of the last rows were verified, and where they end. Raises `LogDamaged`, `BadRow`."""
    begin, rows = _begin(path), 0
    end = begin
    for _, end in read_log(path, begin, live=True):  # noqa: B007  the last one counts
        rows += 1
    return rows + (begin.seq > 0), end


def _begin(path: str) -> Position:
    """Right after a row near the end; that row is verified against the one before it."""
    size = os.stat(path).st_size
    start = size - _TAIL_BYTES
    if start <= len(HEADER):
        return Position.start()
    with open(path, "rb") as file:
        file.seek(start)
        file.readline()
        line = file.readline()
        record = decode(line)
        return Position(offset=file.tell(), seq=record.seq, chain=record.chain)


def index(case: Case) -> Iterator[Finding]:
    """Whether the index is that of this log, and how far behind it is."""
    path = case.folders.index
    if not os.path.exists(path):
        yield skipped("index", "there is none yet; it is made from the log when the daemon starts")
        return
    deadline = time.monotonic() + _CATCH_UP_SECONDS
    try:
        while behind := _rows_behind(case):
            if not case.is_running:
                yield ok("index", f"{behind:,} row(s) behind the log; they are read at the start")
                return
            if time.monotonic() > deadline:
                yield warning("index", f"{behind:,} row(s) behind the log, and a daemon is running", "tfwatch status")
                return
            time.sleep(0.2)
    except sqlite3.Error as error:
        yield failure("index", f"{path} can't be read: {error}", _ANEW)
    except LogDamaged as error:
        yield failure("index", f"it was made from another log: {error.problem}", _FSCK)
    except FileNotFoundError:
        yield failure("index", "it knows rows of a log that is gone", _FSCK)
    except BadRow as error:
        yield skipped("index", f"the log can't be read: {error}")
    else:
        yield ok("index", "it is at the log's last row")


def _rows_behind(case: Case) -> int:
    seen = _remembered(case) or Position.start()
    with open(case.folders.log, "rb") as file:
        check_position(file.fileno(), case.folders.log, seen)
    return sum(1 for _ in read_log(case.folders.log, seen, live=True))


def _remembered(case: Case) -> Position | None:
    """The row that the index was last brought up to. Raises sqlite3.Error."""
    if not os.path.exists(case.folders.index):
        return None
    with closing(Index(case.folders.index, read_only=True)) as projection:
        return projection.position


def switches(case: Case) -> Iterator[Finding]:
    """What a rollback, a pause or a person has switched off."""
    if not os.path.exists(case.folders.index):
        yield skipped("switches", "there is no index yet that would tell")
        return
    try:
        with closing(Index(case.folders.index, read_only=True)) as projection:
            held = [(each, projection.integration(each)) for each in Integration]
    except sqlite3.Error:
        yield skipped("switches", "the index tells, and it can't be read")
        return
    found = [(each, state) for each, state in held if state.held]
    for each, state in found:
        since = f" since {state.since:%Y-%m-%d %H:%M} UTC" if state.since else ""
        do = f"mend the cause, then: tfwatch enable {each.value}"
        yield warning("switches", f"{each.value} is {state.state}{since}: {state.reason}", do)
    if not found:
        yield ok("switches", "nothing was switched off by a rollback, a pause or a person")
