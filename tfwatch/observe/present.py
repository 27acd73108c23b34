"""The running daemon as a source of figures: what is so now, seen from inside."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime, timedelta

from tfwatch.ledger.index import Index
from tfwatch.model import Stage
from tfwatch.observe.metrics import Present
from tfwatch.observe.state import Running, claimed
from tfwatch.spool.listing import Entry


class Inside:
    """What `snapshot_metrics` asks in the daemon. Any thread may ask."""

    def __init__(self, daemon: Running) -> None:
        self._daemon = daemon

    @property
    def index(self) -> Index:
        """What the log adds up to."""
        return self._daemon.desk.index

    def present(self, now: datetime) -> Present:
        """What is so now. What was dropped is no fact yet: the outbox is as the last scan saw it."""
        daemon, index = self._daemon, self.index
        packages = {stage.value: count for stage, count in index.stage_counts().items()}
        oldest = {}
        found: dict[Stage, Sequence[Entry]] = {Stage.OUTBOX: daemon.outbox.unclaimed, Stage.CLAIMED: claimed(daemon)}
        for stage, entries in found.items():
            packages[stage.value] = len(entries)
            if entries:
                oldest[stage.value] = _age(entries)
        for stage in Stage:
            since = None if stage in found else index.oldest_at(stage)
            if since is not None:
                oldest[stage.value] = max(0.0, (now - since) / timedelta(seconds=1))
        wiring, mirror, position = daemon.wiring, daemon.workshop.mirror, index.position
        return Present(
            packages=packages,
            oldest_seconds=oldest,
            in_flight=len(daemon.workshop.board.snapshot()),
            backup_pending=index.unbacked_count() if wiring.storage else 0,
            sheet_sync_latency_seconds=mirror.latency_seconds,
            sheet_pending_rows=mirror.pending(wiring, position.seq) if wiring.sheet and position else 0,
            integration_enabled={name.value: switch.stand.open for name, switch in daemon.switches.items()},
            watch_latency_seconds=daemon.watch.latency_seconds,
        )


def _age(entries: Sequence[Entry]) -> float:
    """Seconds since the oldest of these files came where it lies: a rename changes its ctime."""
    return max(0.0, time.time() - min(entry.ctime_ns for entry in entries) / 1e9)
