"""A spool that has been at work for longer than a test may take: its log, as it would be had it begun days earlier."""

from __future__ import annotations

from datetime import timedelta

from tests.support.daemon import Spool
from tfwatch.ledger.log import read_log
from tfwatch.ledger.rows import GENESIS, HEADER, encode
from tfwatch.model import FACT_FIELDS, Fact


def age(spool: Spool, days: float) -> None:
    """Set all rows of a stopped daemon's log back by so many days, chained anew; the index is made anew from it."""
    assert spool.process is None
    path, lines, chain = spool.root / "log.csv", [HEADER], GENESIS
    for record, _ in read_log(str(path)):
        fact = Fact(**{name: getattr(record, name) for name in FACT_FIELDS})
        at = record.at - timedelta(days=days)
        again, line = encode(fact, seq=record.seq, at=at, exec_id=record.exec_id, previous_chain=chain)
        lines.append(line)
        chain = again.chain
    path.write_bytes(b"".join(lines))
    for suffix in ("", "-wal", "-shm"):
        (spool.root / ".tfwatch" / f"index.sqlite{suffix}").unlink(missing_ok=True)
