"""Packages a second when many come at once, each delivered durably, asked about, and backed up."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.bench import bare_loop, proc
from tests.bench.figures import Figure, Peer, at_least
from tests.bench.peers import run as peers
from tests.bench.proc import Spent
from tests.bench.rig import Portal, Rig
from tests.support.daemon import Spool, zip_bytes
from tfwatch.model import Event, parse_rfc3339

_PACKAGES = 5000
_PACKAGES_QUICK = 500
_PACKAGES_ONE_BY_ONE = 200
_PACKAGES_ONE_BY_ONE_QUICK = 40
"""For the peers that take one ZIP after the other: each takes as long as the one before, so few tell as much."""

_BYTES = 20_000
_PATIENCE_SECONDS = 600.0


def measure(rig: Rig) -> list[Figure]:
    """Every ZIP is renamed in at once; the clock stops with the last row of a kind in log.csv."""
    peers.need("curl", "inotifywait", "rclone")
    count = _PACKAGES_QUICK if rig.quick else _PACKAGES
    few = _PACKAGES_ONE_BY_ONE_QUICK if rig.quick else _PACKAGES_ONE_BY_ONE
    ours: list[Delivered] = []
    bare: list[Spent] = []
    shell: list[float] = []
    script: list[float] = []
    with rig.portal(verdict="delayed", verdict_delay=0) as portal:
        for run in range(rig.repeats):
            with rig.bucket(f"bench-many-{run}") as s3:
                contents = make_contents(count, run=run)
                # The peers go first: a fresh bucket makes its volumes on first use, and that is nobody's figure.
                shell.append(few / peers.deliver(rig, peers.SHELL_LOOP, portal.url, s3, contents[:few]))
                script.append(few / peers.deliver(rig, peers.WATCHFILES_SCRIPT, portal.url, s3, contents[-few:]))
                bare.append(bare_loop.deliver(portal.url, s3, contents))
                portal.reset()
                ours.append(deliver(rig, portal, contents, Event.BACKED_UP, s3=s3, gotranscript={"poll_seconds": 0.1}))
    rates = tuple(count / run.seconds[Event.BACKED_UP] for run in ours)
    loop = "a bare httpx + boto3 loop, nothing durable"
    bare_rates = tuple(count / run.seconds for run in bare)
    return [
        Figure(
            name=f"{count:,} ZIPs up to BACKED_UP",
            unit="packages/s",
            runs=rates,
            peer=Peer(name=loop, runs=bare_rates),
            ratio_limit=at_least(0.8),
        ),
        Figure(
            name="the same",
            unit="packages/s",
            runs=rates,
            peer=Peer(name="inotifywait + curl + mv + rclone", runs=tuple(shell)),
            ratio_limit=at_least(12),
        ),
        Figure(
            name="the same",
            unit="packages/s",
            runs=rates,
            peer=Peer(name="a watchfiles + httpx + boto3 script", runs=tuple(script)),
        ),
        Figure(
            name="up to ACCEPTED",
            unit="packages/s",
            runs=tuple(count / run.seconds[Event.ACCEPTED] for run in ours),
        ),
        Figure(
            name="CPU of one package",
            unit="ms",
            runs=tuple(run.cpu / count * 1000 for run in ours),
            peer=Peer(name=loop, runs=tuple(run.cpu / count * 1000 for run in bare)),
        ),
    ]


def make_contents(count: int, *, run: int = 0) -> list[bytes]:
    """So many different ZIPs; each run has its own."""
    return [zip_bytes(seed=run * count + number, size=_BYTES) for number in range(count)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """Seconds from the first drop to the last row of each kind, and the daemon's seconds of CPU."""

    seconds: Mapping[Event, float]
    cpu: float


def deliver(
    rig: Rig, portal: Portal, contents: Sequence[bytes], last: Event, **integrations: Mapping[str, Any]
) -> Delivered:
    """Give all of them to a daemon at once, and wait until each has a row of the kind `last`."""
    with rig.spool(portal, integrations=integrations) as spool:
        spool.start()
        for number, content in enumerate(contents):
            (spool.home / f"job{number}_v1.zip").write_bytes(content)
        assert spool.process is not None
        before, began = proc.look(spool.process.pid), time.time()
        for number in range(len(contents)):
            name = f"job{number}_v1.zip"
            os.rename(spool.home / name, spool.root / "outbox" / name)
        _wait_for_rows(spool, last, len(contents))
        after = proc.look(spool.process.pid)
        assert spool.stop() == 0, spool.picture()
        rows = spool.rows()
    seconds = {event: _last(rows, event, len(contents)) - began for event in {last, Event.ACCEPTED}}
    return Delivered(seconds=seconds, cpu=after.cpu - before.cpu)


def _wait_for_rows(spool: Spool, event: Event, count: int) -> None:
    """Look seldom, and only at what is new: reading the log takes CPU from what is measured."""
    deadline, found = time.monotonic() + _PATIENCE_SECONDS, 0
    with (spool.root / "log.csv").open("rb") as log:
        rest = b""
        while found < count:
            assert time.monotonic() < deadline, spool.picture()
            lines, _, rest = (rest + log.read()).rpartition(b"\n")
            found += lines.count(b",%b," % event.value.encode())
            time.sleep(0.1)


def _last(rows: list[dict[str, str]], event: Event, count: int) -> float:
    """When the last of exactly so many rows was written, seconds since the epoch."""
    moments = [row["at"] for row in rows if row["event"] == event]
    assert count == len(moments)
    return parse_rfc3339(moments[-1]).timestamp()
