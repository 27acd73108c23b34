"""Many ZIPs waiting in outbox/: what a look at them costs, and that the oldest goes first."""

from __future__ import annotations

import os
import time

from tests.bench import proc
from tests.bench.figures import Figure, at_most
from tests.bench.rig import Rig
from tests.support.daemon import Spool, zip_bytes

_WAITING, _WAITING_QUICK = 50_000, 5_000
_SENT = 500
_LATE = 50
_RESCAN_SECONDS = 2.0
_SECONDS = 20.0
_NEVER_SECONDS = 3600.0
_SETTLE_SECONDS = 3.0
_PATIENCE_SECONDS = 300.0
_MIB = 2**20


def measure(rig: Rig) -> list[Figure]:
    """First held, with gotranscript off, then let go: so many are sent, while newer ones are dropped."""
    count = _WAITING_QUICK if rig.quick else _WAITING
    with rig.portal(verdict="immediate") as portal, rig.spool(portal) as spool:
        spool.configure(integrations={"gotranscript": {"enabled": False, "poll_seconds": 3600}})
        empty = _rest(spool, _NEVER_SECONDS)
        old = _fill(spool, count)
        still, looking = _rest(spool, _NEVER_SECONDS), _rest(spool, _RESCAN_SECONDS)
        jumped, cpu = _let_go(spool, old)
    scan = (looking.cpu - still.cpu) / (_SECONDS / _RESCAN_SECONDS)
    return [
        Figure(name=f"CPU of one scan, {count:,} waiting", unit="s", runs=(scan,), limit=at_most(0.5)),
        Figure(name="CPU beside the scans, held", unit="% of a core", runs=(still.cpu / _SECONDS * 100,)),
        Figure(name="growth of memory", unit="MiB", runs=((looking.rss - empty.rss) / _MIB,), limit=at_most(40)),
        Figure(name="CPU of one package then sent", unit="ms", runs=(cpu / _SENT * 1000,)),
        Figure(name="newer ones sent before older ones", unit="packages", runs=(jumped,), limit=at_most(0)),
    ]


def _rest(spool: Spool, rescan_seconds: float) -> proc.Usage:
    """What a daemon on hold uses in some seconds, and its memory at their end."""
    spool.configure(spool={"rescan_seconds": rescan_seconds})
    spool.start(seconds=_PATIENCE_SECONDS)
    assert spool.process is not None
    time.sleep(_SETTLE_SECONDS)
    before = proc.look(spool.process.pid)
    time.sleep(_SECONDS)
    after = proc.look(spool.process.pid)
    assert spool.stop() == 0
    return proc.Usage(
        cpu=after.cpu - before.cpu, rss=after.rss, peak_rss=after.peak_rss, threads=after.threads,
        switches=after.switches - before.switches,
    )  # fmt: skip


def _fill(spool: Spool, count: int) -> list[str]:
    """Drop so many while nobody looks; their names, the oldest first, which no order of names tells."""
    names = [f"job{number * 7919 % count}_v1.zip" for number in range(count)]
    assert len(set(names)) == count
    for number, name in enumerate(names):
        ready = spool.home / name
        ready.write_bytes(zip_bytes(seed=number, size=200))
        os.rename(ready, spool.root / "outbox" / name)
    return names


def _let_go(spool: Spool, old: list[str]) -> tuple[int, float]:
    """How many newer ones were attempted among the first, and the CPU that these took."""
    spool.configure(integrations={"gotranscript": {"enabled": True}})
    spool.start(seconds=_PATIENCE_SECONDS)
    assert spool.process is not None
    before = proc.look(spool.process.pid)
    for number in range(_LATE):
        spool.drop(f"late{number}_v1.zip", seed=10**6 + number)
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while (spool.root / "log.csv").read_bytes().count(b",ATTEMPTED,") < _SENT:
        assert time.monotonic() < deadline, "they are not sent"
        time.sleep(0.25)
    after = proc.look(spool.process.pid)
    assert spool.stop() == 0
    attempted = [row["package"] for row in spool.rows() if row["event"] == "ATTEMPTED"][:_SENT]
    # Some are under way at once, and who of them is attempted first is chance.
    workers = 2 * 4
    first = set(old[: _SENT + workers])
    return sum(name not in first for name in attempted), after.cpu - before.cpu
