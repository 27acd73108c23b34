"""log.csv against its own chain: the first bad row, and every further one after it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from tfwatch.fsck.difference import Difference
from tfwatch.ledger.log import LogDamaged, Position, read_log
from tfwatch.ledger.rows import MAX_ROW_BYTES, BadRow, chained, chained_part, decode
from tfwatch.ledger.tail import MAX_TORN_BYTES, MAX_TORN_ROWS
from tfwatch.model import DeliveryRecord

_EDITED: Final = "its chain does not follow: this row, or the one before it, was edited"


@dataclass(frozen=True, slots=True, kw_only=True)
class Break:
    """A place where a log doesn't hold. `seq`: the number the row there should have. `offset`: its first byte."""

    seq: int
    offset: int
    problem: str


class Chain:
    """One reading of a log. After `rows` ended: `end` is right after the last good row, `breaks` what comes then.

    `torn`: bytes at the end that no good row follows, as a crash leaves them; the next start cuts and keeps them.
    """

    def __init__(self, path: str, *, live: bool) -> None:
        self.path = path
        self.end = Position.start()
        self.breaks: list[Break] = []
        self.torn = 0
        self._live = live

    def rows(self) -> Iterator[DeliveryRecord]:
        """The rows up to the first bad one, going on where the last call ended. Raises OSError."""
        try:
            for record, end in read_log(self.path, self.end, live=self._live):
                self.end = end
                yield record
        except LogDamaged as damage:
            if damage.seq == 0:
                self.breaks = [Break(seq=0, offset=0, problem=damage.problem)]
            else:
                self._scan()

    def _scan(self) -> None:
        """Find every further break: what was changed in two places is mended in both."""
        good_after, lines = False, 0
        seq: int | None = self.end.seq
        offset, chains = self.end.offset, {self.end.chain}
        with open(self.path, "rb") as file:
            file.seek(offset)
            while line := file.readline(MAX_ROW_BYTES):
                lines += 1
                problem, record, known = _judge(line, seq, chains)
                if problem:
                    self.breaks.append(Break(seq=(seq or 0) + 1, offset=offset, problem=problem))
                else:
                    good_after = True
                offset += len(line)
                # After a line that is no row, the next one is believed: it is that line which was damaged.
                seq, chains = (record.seq, known) if record else (None if seq is None else seq + 1, set())
        length = offset - self.end.offset
        if not good_after and length <= MAX_TORN_BYTES and lines <= MAX_TORN_ROWS:
            self.torn = length


def _judge(line: bytes, seq: int | None, chains: set[str]) -> tuple[str, DeliveryRecord | None, set[str]]:
    """What is wrong with a line, the row it holds, and the chains that the next one may follow."""
    try:
        record = decode(line)
    except BadRow as error:
        return str(error), None, set()
    computed = {chained(chain, chained_part(line)) for chain in chains}
    known = {record.chain} | computed
    if not chains:
        return "", record, {record.chain}
    if seq is not None and record.seq != seq + 1:
        wrong = f"seq {record.seq} stands where {seq + 1} belongs: rows were removed, added or reordered"
        return wrong, record, {record.chain}
    if record.chain not in computed:
        return _EDITED, record, known
    return "", record, {record.chain}


def differences(chain: Chain, *, running: bool, sheet_row: str) -> Iterator[Difference]:
    """What is wrong with a log that was read. `sheet_row`: where the sheet shows the first bad row, if it does."""
    if chain.torn:
        first = chain.breaks[0]
        yield Difference(
            kind="log",
            what=f"its last {chain.torn} bytes are no good row ({first.problem}); a crash leaves such an end",
            where=_place(chain.path, first),
            mend="if somebody edited it, undo that now; else nothing: the next start cuts it off, keeps it in "
            ".tfwatch/torn-… and goes on",
        )
        return
    shown = f" The sheet shows the row as it was written: {sheet_row}." if sheet_row else ""
    stop = "stop the daemon (systemctl stop tfwatch); " if running else ""
    for broken in chain.breaks:
        yield Difference(
            kind="log",
            what=broken.problem,
            where=_place(chain.path, broken),
            mend=f"{stop}keep a copy of log.csv, then undo the change byte for byte, or put back the newest whole copy "
            f"(docs/OPERATIONS.md, Log damaged). Until then nothing is sent.{shown}",
        )
        shown = ""


def against_index(chain: Chain, seen: Position, *, matches: bool | None) -> Iterator[Difference]:
    """A log whose rows hold, but are not those that the index was made of. `matches`: the row both have is the same."""
    mend = (
        "keep a copy of log.csv, then put back the newest whole copy (docs/OPERATIONS.md, Log damaged). If this log is "
        "meant to be here, as after restoring a backup: delete .tfwatch/index.sqlite*, then start"
    )
    where = f"{os.path.basename(chain.path)} row {seen.seq}"
    if seen.seq > chain.end.seq:
        gone = f"row {seen.seq} is" if seen.seq == chain.end.seq + 1 else f"rows {chain.end.seq + 1} to {seen.seq} are"
        yield Difference(kind="log", what=f"{gone} gone from its end: the index has seen them", where=where, mend=mend)
    elif matches is False:
        what = "it is not the row that the index was made of: the file was replaced or written anew"
        yield Difference(kind="log", what=what, where=where, mend=mend)


def _place(path: str, broken: Break) -> str:
    name = os.path.basename(path)
    return f"{name} row {broken.seq} (line {broken.seq + 1}, byte {broken.offset})" if broken.seq else f"{name} header"
