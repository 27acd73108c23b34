"""Read log.csv, believing nothing: every row's chain is verified as it streams by."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final

from tfwatch import disk
from tfwatch.ledger.rows import (
    CHAIN_BYTES,
    GENESIS,
    HEADER,
    MAX_ROW_BYTES,
    BadRow,
    chained,
    chained_part,
    decode,
    escape,
)
from tfwatch.model import DeliveryRecord

_BUFFER_BYTES: Final = 256 * 1024
_LINE_END: Final = b"\r\n"


class LogDamaged(Exception):
    """A log.csv that can't be trusted. Nothing was changed and nothing may be appended.

    `seq` is the number the bad row should have, `line` its line in the file (the header is 1), `offset` its first byte.
    """

    def __init__(self, path: str, problem: str, *, seq: int, offset: int) -> None:
        self.path = path
        self.problem = problem
        self.seq = seq
        self.line = seq + 1
        self.offset = offset
        where = f"row {seq} (line {self.line}, byte {offset})" if seq else "its header"
        super().__init__(f"{escape(path)}, {where}: {problem}. Nothing was changed; run: tfwatch fsck")


class PositionMismatch(LogDamaged):
    """The row that should end at a remembered position is not the one remembered: the log was edited or replaced."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """A place right after a row: its end in bytes from the start of the file, its number, its chain."""

    offset: int
    seq: int
    chain: str

    @classmethod
    def start(cls) -> Position:
        """Right after the header, before the first row."""
        return cls(offset=len(HEADER), seq=0, chain=GENESIS)


def read_log(
    path: str, start: Position | None = None, *, end: Position | None = None, live: bool = False
) -> Iterator[tuple[DeliveryRecord, Position]]:
    """Stream the rows after `start` (from the first when None), each with the position right after it.

    Stops at `end` if given. `live`: a daemon may be writing, so stop quietly before an unterminated last line; rows
    past the daemon's own position may not be on disk yet. Raises `LogDamaged` at the first row that doesn't belong,
    `PositionMismatch` when the row before `start` isn't the one remembered, OSError when the file can't be read.
    """
    start = start or Position.start()
    with disk.about(path), open(path, "rb", buffering=_BUFFER_BYTES) as file:
        check_position(file.fileno(), path, start)
        for line, position in verified_lines(file, path, start, live=live):
            if end is not None and position.offset > end.offset:
                return
            yield decode_at(line, position, path), position


def decode_at(line: bytes, position: Position, path: str) -> DeliveryRecord:
    """Decode the line that ends at `position`; raises `LogDamaged` when a right chain stands behind no row of ours."""
    try:
        return decode(line)
    except BadRow as error:
        raise LogDamaged(path, str(error), seq=position.seq, offset=position.offset - len(line)) from error


def verified_lines(
    file: BinaryIO, path: str, start: Position, *, live: bool = False
) -> Iterator[tuple[bytes, Position]]:
    """Stream lines whose chain follows from `start`, undecoded: a right chain proves that the row is as written."""
    file.seek(start.offset)
    offset, seq, chain = start.offset, start.seq, start.chain
    while line := file.readline(MAX_ROW_BYTES):
        if live and not line.endswith(b"\n") and len(line) < MAX_ROW_BYTES:
            return
        seq += 1
        expected = chained(chain, chained_part(line))
        if line[-CHAIN_BYTES - 3 :] != b",%b\r\n" % expected.encode() or not line.startswith(b"%d," % seq):
            raise LogDamaged(path, _problem(line, seq), seq=seq, offset=offset)
        offset, chain = offset + len(line), expected
        yield line, Position(offset=offset, seq=seq, chain=chain)


def check_position(fd: int, path: str, position: Position) -> DeliveryRecord | None:
    """The row that ends at `position`, None before the first row.

    Raises `PositionMismatch` when it isn't the one remembered, `LogDamaged` when the header is wrong.
    """
    if position.seq == 0:
        if os.pread(fd, len(HEADER), 0) != HEADER:
            raise LogDamaged(path, "it is not that of a tfwatch log", seq=0, offset=0)
        if position != Position.start():
            raise PositionMismatch(path, "no log begins at the remembered place", seq=0, offset=position.offset)
        return None
    try:
        return _row_before(fd, position)
    except BadRow as error:
        problem = f"the row that ended at byte {position.offset} was edited, or the file replaced ({error})"
        raise PositionMismatch(path, problem, seq=position.seq, offset=position.offset) from error


def _row_before(fd: int, position: Position) -> DeliveryRecord:
    """Decode it and verify its chain against the row before it, which says what it chained onto."""
    begin = max(position.offset - 2 * MAX_ROW_BYTES, len(HEADER))
    window = os.pread(fd, max(position.offset - begin, 0), begin)
    if len(window) != position.offset - begin:
        raise BadRow("the file is shorter now")
    before, line = window.removesuffix(_LINE_END).rpartition(_LINE_END)[::2]
    record = decode(line + window[-2:])
    previous = GENESIS if position.seq == 1 else before[-CHAIN_BYTES:].decode("latin-1")
    if (record.seq, record.chain) != (position.seq, position.chain):
        raise BadRow(f"row {record.seq} ends there, with another chain")
    if record.chain != chained(previous, chained_part(line + _LINE_END)):
        raise BadRow("its chain does not follow from the row before it")
    return record


def _problem(line: bytes, seq: int) -> str:
    """What is wrong with a line whose chain does not follow, in words for an operator."""
    try:
        record = decode(line)
    except BadRow as error:
        return str(error)
    if record.seq != seq:
        return f"seq {record.seq} stands where {seq} belongs: rows were removed, added or reordered"
    return "its chain does not follow: this row, or the one before it, was edited"
