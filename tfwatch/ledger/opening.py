"""log.csv as it is opened: made when there is none, its end written again, verified, and a torn tail cut."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from tfwatch import disk
from tfwatch.ledger.reading import (
    LogDamaged,
    Position,
    PositionMismatch,
    check_position,
    decode_at,
    verified_lines,
)
from tfwatch.ledger.rows import HEADER, MAX_ROW_BYTES
from tfwatch.ledger.tail import cut_torn_tail
from tfwatch.model import DeliveryRecord

PIECE_BYTES: Final = 64 * 1024
"""Written between two syncs, about: what a crash can tear stays far below what is accepted as a torn tail."""

_ROWS_AT_ONCE: Final = 5000
_MODE: Final = 0o640
Found = Callable[[Sequence[DeliveryRecord], Position], None]
"""Told of rows that are verified and on disk, so many at once, and of the position right after them."""

_LONG_AGO: Final = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A log that may be appended to: where its good rows end, when the last happened, bytes of torn tail cut off."""

    fd: int
    position: Position
    last_at: datetime
    cut: int


def open_verified(path: str, start: Position, *, torn_path: str, sync: Callable[[int], None], found: Found) -> Opened:
    """Open a log, verified from `start`; the caller closes its `fd`. Raises what `Log.open` says."""
    with disk.about(path):
        fd = _open_or_create(path, start)
    try:
        with disk.about(path):
            # Rows that a killed process left in the page cache count only once they are on disk.
            _write_again(fd, path)
            disk.sync(fd, path, sync)
            position, last_at, cut = _verify(fd, path, start, torn_path, found)
    except BaseException:
        os.close(fd)
        raise
    return Opened(fd=fd, position=position, last_at=last_at, cut=cut)


def write_all(fd: int, data: bytes) -> None:
    """Write all of it, however many calls that takes."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


def _open_or_create(path: str, start: Position) -> int:
    """Open for appending. A missing or half-made log is made anew, unless rows of it are remembered."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
    except FileNotFoundError as error:
        if start.seq:
            raise PositionMismatch(path, "the file is gone", seq=start.seq, offset=start.offset) from error
    else:
        head = os.pread(fd, len(HEADER), 0)
        if start.seq or head == HEADER or not HEADER.startswith(head):
            return fd
        os.close(fd)
    _create(path)
    return os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)


def _write_again(fd: int, path: str) -> None:
    """Make the log's end dirty once more, byte for byte as it is read, so that the next sync puts it on disk.

    Had an earlier process's fdatasync failed, the kernel may show its last piece as if it were on disk, and a sync
    alone would do nothing. More than one piece was never at stake.
    """
    size = os.fstat(fd).st_size
    begin = max(0, size - PIECE_BYTES - MAX_ROW_BYTES)
    # A descriptor opened to append can't write anywhere else.
    again = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        while chunk := os.pread(fd, min(PIECE_BYTES, size - begin), begin):
            begin += os.pwrite(again, chunk, begin)
    finally:
        os.close(again)


def _create(path: str) -> None:
    temporary = f"{path}.new"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, _MODE)
    try:
        with disk.about(temporary):
            os.fchmod(fd, _MODE)
            write_all(fd, HEADER)
        disk.sync(fd, temporary)
    finally:
        os.close(fd)
    os.rename(temporary, path)
    disk.sync_folder(os.path.dirname(path))


def _verify(fd: int, path: str, start: Position, torn_path: str, found: Found) -> tuple[Position, datetime, int]:
    """Where the good rows end, when the last of them happened, and how many bytes of torn tail were cut."""
    last, position, rows, cut = check_position(fd, path, start), start, [], 0
    with open(fd, "rb", closefd=False) as file:
        lines = verified_lines(file, path, start)
        while True:
            try:
                line, position = next(lines)
            except StopIteration:
                break
            except LogDamaged as damage:
                cut = cut_torn_tail(fd, damage, chain=position.chain, torn_path=torn_path)
                break
            last = decode_at(line, position, path)
            rows.append(last)
            if len(rows) == _ROWS_AT_ONCE:
                found(rows, position)
                rows = []
    if rows:
        found(rows, position)
    return position, last.at if last else _LONG_AGO, cut
