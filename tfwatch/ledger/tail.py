"""What a crash leaves at the end of log.csv, told apart from damage, saved and cut."""

from __future__ import annotations

import os
import re
from typing import Final

from tfwatch import disk
from tfwatch.ledger.reading import LogDamaged
from tfwatch.ledger.rows import CHAIN_BYTES, BadRow, chained, decode

MAX_TORN_BYTES: Final = 1024 * 1024
"""More than a crash can tear: the log is written in much smaller pieces, each synced before the next."""

MAX_TORN_ROWS: Final = 1000

# A row ends after its chain, even when one byte of its line end is wrong. Not at "\r\0": that is a row torn between
# the two, with the zeros some file systems leave after a power cut.
_LINE_ENDS: Final = re.compile(rb"(?<=,[0-9a-f]{64})(?:\r[^\0]|[^\r]\n)|\r?\n", re.DOTALL)


def cut_torn_tail(fd: int, damage: LogDamaged, *, chain: str, torn_path: str) -> int:
    """Cut everything from `damage` on, after saving it in `torn_path`; returns how many bytes.

    `chain`: that of the last good row. Raises `damage` itself, with nothing changed, when this is no torn tail:
    a good row follows, or there is too much of it.
    """
    length = os.fstat(fd).st_size - damage.offset
    if length > MAX_TORN_BYTES:
        raise damage
    tail = os.pread(fd, length, damage.offset)
    if tail.count(b"\n") > MAX_TORN_ROWS or _holds_good_row(tail, chain):
        raise damage
    _save(torn_path, tail)
    os.ftruncate(fd, damage.offset)
    disk.sync(fd, damage.path)
    return length


def _holds_good_row(tail: bytes, chain: str) -> bool:
    """Whether, after the first bad row, some row is well-formed and chains onto one before it.

    Onto it as written, or as it should have been written: either way, somebody changed what lies before that row.
    """
    previous, known = chain, {chain}
    *rows, _unterminated = _LINE_ENDS.split(tail)
    for n, line in enumerate(rows):
        row, written = line[: -CHAIN_BYTES - 1], line[-CHAIN_BYTES:].decode("latin-1")
        if n > 0 and _well_formed(line) and any(chained(before, row) == written for before in known):
            return True
        known |= {written, chained(previous, row)}
        previous = written
    return False


def _well_formed(line: bytes) -> bool:
    try:
        decode(line + b"\r\n")
    except BadRow:
        return False
    return True


def _save(path: str, tail: bytes) -> None:
    """Put it on disk, folder entry included. Appends: what an earlier repair saved is never overwritten."""
    with open(path, "ab", opener=lambda name, flags: os.open(name, flags | os.O_CLOEXEC, 0o640)) as file:
        with disk.about(path):
            file.write(tail)
            file.flush()
        disk.sync(file.fileno(), path)
    disk.sync_folder(os.path.dirname(path))
