"""Packages a second when many come at once, each delivered durably, asked about, and backed up."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.bench import bare_loop, proc
from tests.bench.figures import Figure, Peer, at_least
from tests.bench.proc import Spent
from tests.bench.rig import Portal, Rig
from tests.support.daemon import Spool, zip_bytes
from tfwatch.model import Event, parse_rfc3339

_PACKAGES = 500
_BYTES = 20_000
_PATIENCE_SECONDS = 120.0


def measure(rig: Rig) -> list[Figure]:
    """Every ZIP is renamed in at once; the clock stops with the last row of a kind in log.csv."""
    ours: list[_Delivered] = []
    bare: list[Spent] = []
    with rig.bucket("bench-many") as s3, rig.portal(verdict="delayed", verdict_delay=0) as portal:
        for run in range(rig.repeats):
            contents = [zip_bytes(seed=run * _PACKAGES + number, size=_BYTES) for number in range(_PACKAGES)]
            # The peer goes first: a fresh bucket makes its volumes on first use, and that is nobody's figure.
            bare.append(bare_loop.deliver(portal.url, s3, contents))
            ours.append(_deliver(rig, portal, s3, contents))
    peer = "bare httpx + boto3 loop, nothing durable"
    return [
        Figure(
            name="up to BACKED_UP",
            unit="packages/s",
            runs=tuple(_PACKAGES / run.backed_up for run in ours),
            limit=at_least(40),
            peer=Peer(name=peer, runs=tuple(_PACKAGES / run.seconds for run in bare)),
        ),
        Figure(name="up to ACCEPTED", unit="packages/s", runs=tuple(_PACKAGES / run.accepted for run in ours)),
        Figure(
            name="CPU of one package",
            unit="ms",
            runs=tuple(run.cpu / _PACKAGES * 1000 for run in ours),
            peer=Peer(name=peer, runs=tuple(run.cpu / _PACKAGES * 1000 for run in bare)),
        ),
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Delivered:
    """Seconds from the first drop to the last row of each kind, and the daemon's seconds of CPU."""

    accepted: float
    backed_up: float
    cpu: float


def _deliver(rig: Rig, portal: Portal, s3: Mapping[str, Any], contents: list[bytes]) -> _Delivered:
    portal.reset()
    with rig.spool(portal, integrations={"s3": s3, "gotranscript": {"poll_seconds": 0.1}}) as spool:
        spool.start()
        for number, content in enumerate(contents):
            (spool.home / f"job{number}_v1.zip").write_bytes(content)
        assert spool.process is not None
        before, began = proc.look(spool.process.pid), time.time()
        for number in range(len(contents)):
            name = f"job{number}_v1.zip"
            os.rename(spool.home / name, spool.root / "outbox" / name)
        _wait_for_backups(spool, len(contents))
        after = proc.look(spool.process.pid)
        assert spool.stop() == 0, spool.picture()
        rows = spool.rows()
    accepted, backed_up = (_last(rows, event, len(contents)) for event in (Event.ACCEPTED, Event.BACKED_UP))
    return _Delivered(accepted=accepted - began, backed_up=backed_up - began, cpu=after.cpu - before.cpu)


def _wait_for_backups(spool: Spool, count: int) -> None:
    """Look seldom: reading the log takes CPU from what is measured."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while (spool.root / "log.csv").read_bytes().count(b",BACKED_UP,") < count:
        assert time.monotonic() < deadline, spool.picture()
        time.sleep(0.25)


def _last(rows: list[dict[str, str]], event: Event, count: int) -> float:
    """When the last of exactly so many rows was written, seconds since the epoch."""
    moments = [row["at"] for row in rows if row["event"] == event]
    assert count == len(moments)
    return parse_rfc3339(moments[-1]).timestamp()
