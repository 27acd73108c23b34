"""The past of a spool that has been at work for long: a chained log, and the files that lie where it says."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tfwatch.ledger.rows import GENESIS, HEADER, encode
from tfwatch.model import Event, Fact, Stage, Status, write_detail
from tfwatch.spool.folders import Folders

ROWS_EACH = 4
"""Of a delivered package: ATTEMPTED, ACCEPTED, COMPLETED, BACKED_UP."""

_EXEC_ID = "20250101T000000Z_BENCH0"
_CONTENT = b"kept"
_WRITTEN_AT_ONCE = 4000
_TO_CLAIMED = (Event.ATTEMPTED, Stage.OUTBOX, Stage.CLAIMED, Status.SENDING)
_TO_SUBMITTED = (Event.ACCEPTED, Stage.CLAIMED, Stage.SUBMITTED, Status.SUBMITTED)
_PATHS = {
    Stage.SUBMITTED: (_TO_CLAIMED, _TO_SUBMITTED),
    Stage.DELIVERED: (
        _TO_CLAIMED,
        _TO_SUBMITTED,
        (Event.COMPLETED, Stage.SUBMITTED, Stage.DELIVERED, Status.DELIVERED),
        (Event.BACKED_UP, Stage.DELIVERED, Stage.DELIVERED, Status.DELIVERED),
    ),
    Stage.REJECTED: ((Event.REFUSED, Stage.OUTBOX, Stage.REJECTED, Status.REJECTED),),
}
"""How a package comes to a stage: event, from, to, status of each of its rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """How many packages lie at each stage, one begun each `seconds_apart`, the last of them `ended` before now.

    `base_url`: the service that accepted them, where those in submitted/ are asked about.
    """

    delivered: int
    submitted: int = 0
    rejected: int = 0
    seconds_apart: float = 1.0
    ended: timedelta = timedelta(hours=2)
    base_url: str = "http://127.0.0.1:1"

    @property
    def packages(self) -> int:
        """All of them."""
        return self.delivered + self.submitted + self.rejected


def write_past(root: Path, past: Past) -> None:
    """Make the folders of a new spool, the log as a daemon would have written it, and the files; no index."""
    folders = Folders(str(root))
    folders.prepare()
    seq, chain, lines = 0, GENESIS, [HEADER]
    with open(folders.log, "wb") as log:
        for number, stage, at in _packages(past):
            for fact in _facts(number, stage, past.base_url):
                seq += 1
                record, line = encode(fact, seq=seq, at=at, exec_id=_EXEC_ID, previous_chain=chain)
                chain = record.chain
                lines.append(line)
            if len(lines) >= _WRITTEN_AT_ONCE:
                log.write(b"".join(lines))
                lines.clear()
        log.write(b"".join(lines))
        log.flush()
        os.fdatasync(log.fileno())
    os.chmod(folders.log, 0o640)
    for number, stage, _ in _packages(past):
        (root / stage / name_of(number)).write_bytes(_CONTENT)
        if stage is Stage.REJECTED:
            (root / stage / f"{name_of(number)}.reason.txt").write_text("It is a duplicate.\n")


def forget_index(root: Path) -> None:
    """Delete the projection of a stopped daemon."""
    for suffix in ("", "-wal", "-shm"):
        with suppress(FileNotFoundError):
            os.unlink(root / ".tfwatch" / f"index.sqlite{suffix}")


def name_of(number: int) -> str:
    """What an old package is called."""
    return f"old{number}_v1.zip"


def _packages(past: Past) -> Iterator[tuple[int, Stage, datetime]]:
    began = datetime.now(UTC) - past.ended - timedelta(seconds=past.packages * past.seconds_apart)
    stages = [Stage.DELIVERED] * past.delivered + [Stage.REJECTED] * past.rejected + [Stage.SUBMITTED] * past.submitted
    for number, stage in enumerate(stages):
        yield number, stage, began + timedelta(seconds=number * past.seconds_apart)


def _facts(number: int, at: Stage, base_url: str) -> Iterator[Fact]:
    # As scattered as real ones: rows that come sorted cost an index much less.
    sha256 = hashlib.sha256(name_of(number).encode()).hexdigest()
    for event, source, target, status in _PATHS[at]:
        begins = event in (Event.ATTEMPTED, Event.REFUSED)
        yield Fact(
            event=event,
            package=name_of(number),
            sha256=sha256,
            trace_id=sha256[:32],
            bytes=len(_CONTENT),
            from_stage=source,
            to_stage=target,
            attempt=1 if event is Event.ATTEMPTED else None,
            order_id="" if begins else f"dlv_{sha256[:16]}",
            status=status,
            duration_ms=40 if event is Event.ACCEPTED else None,
            detail=write_detail(profile="deliveries", base_url=base_url, generation=1, key=sha256),
        )
