"""Packages a second when many come at once, each delivered durably, asked about, and backed up."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from tests.bench import bare_loop
from tests.bench.figures import Figure, Peer, at_least
from tests.bench.rig import Portal, Rig
from tests.support.daemon import Spool, zip_bytes
from tfwatch.model import Event, parse_rfc3339

_PACKAGES = 500
_PACKAGES_QUICK = 200
_BYTES = 20_000
_PATIENCE_SECONDS = 120.0


def measure(rig: Rig) -> list[Figure]:
    """Every ZIP is renamed in at once; the clock stops with the last row of a kind in log.csv."""
    count = _PACKAGES_QUICK if rig.quick else _PACKAGES
    accepted, backed_up, bare = [], [], []
    with rig.bucket("bench-many") as s3, rig.portal(verdict="delayed", verdict_delay=0) as portal:
        for run in range(rig.repeats):
            contents = [zip_bytes(seed=run * count + number, size=_BYTES) for number in range(count)]
            ends = _deliver(rig, portal, s3, contents)
            accepted.append(count / ends[Event.ACCEPTED])
            backed_up.append(count / ends[Event.BACKED_UP])
            bare.append(count / bare_loop.deliver(portal.url, s3, contents))
    peer = Peer(name="bare httpx + boto3 loop, nothing durable", runs=tuple(bare))
    return [
        Figure(name="up to BACKED_UP", unit="packages/s", runs=tuple(backed_up), limit=at_least(40), peer=peer),
        Figure(name="up to ACCEPTED", unit="packages/s", runs=tuple(accepted)),
    ]


def _deliver(rig: Rig, portal: Portal, s3: Mapping[str, Any], contents: list[bytes]) -> dict[Event, float]:
    """Seconds from the first drop to the last row of each event."""
    portal.reset()
    with rig.spool(portal, integrations={"s3": s3, "gotranscript": {"poll_seconds": 0.1}}) as spool:
        spool.start()
        for number, content in enumerate(contents):
            (spool.home / f"job{number}_v1.zip").write_bytes(content)
        began = time.time()
        for number in range(len(contents)):
            name = f"job{number}_v1.zip"
            os.rename(spool.home / name, spool.root / "outbox" / name)
        _wait_for_backups(spool, len(contents))
        assert spool.stop() == 0
        rows = spool.rows()
    ends = {}
    for event in (Event.ACCEPTED, Event.BACKED_UP):
        moments = [parse_rfc3339(row["at"]) for row in rows if row["event"] == event]
        assert len(moments) == len(contents)
        ends[event] = _seconds(moments[-1]) - began
    return ends


def _wait_for_backups(spool: Spool, count: int) -> None:
    """Look seldom: reading the log takes CPU from what is measured."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while (spool.root / "log.csv").read_bytes().count(b",BACKED_UP,") < count:
        assert time.monotonic() < deadline, spool.picture()
        time.sleep(0.25)


def _seconds(moment: datetime) -> float:
    return moment.timestamp()
