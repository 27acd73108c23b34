"""The rows of a log as recorded operations wrote them: when each was written, and since when it is on disk."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass

from tests.support.recording import Operation


@dataclass(frozen=True, slots=True)
class Fact:
    """One row. `written`, `on_disk`: the beginning of its write, the end of the first sync after it."""

    cells: list[str]
    written: float
    on_disk: float

    @property
    def event(self) -> str:
        return self.cells[4]

    @property
    def package(self) -> str:
        return self.cells[5]

    @property
    def sha256(self) -> str:
        return self.cells[6]

    @property
    def to_stage(self) -> str:
        return self.cells[9]

    @property
    def chain(self) -> str:
        return self.cells[-1]


def facts(operations: Sequence[Operation]) -> list[Fact]:
    """All rows that were written to log.csv, in order; those that a start writes again were there before."""
    log = next(o.file for o in operations if o.kind == "rename" and o.target == "log.csv")
    found, end = [], 0
    for write in operations:
        if write.kind == "write" and write.file == log and write.offset >= end:
            end = write.offset + len(write.data)
            syncs = [o.end for o in operations if o.kind == "sync" and o.file == log and o.begin > write.end]
            for cells in csv.reader(write.data.decode().split("\r\n")[:-1]):
                if cells[0] != "seq":
                    found.append(Fact(cells, write.begin, min(syncs, default=float("inf"))))
    return found


def rows_in(log: bytes | None) -> list[list[str]]:
    """The whole rows at the head of a log; what a crash tore off is left out."""
    lines = (log or b"").split(b"\r\n")[1:-1]
    whole = []
    for line in lines:
        cells = next(csv.reader([line.decode(errors="replace")]), [])
        if len(cells) != 18 or cells[0] != str(len(whole) + 1):
            break
        whole.append(cells)
    return whole
