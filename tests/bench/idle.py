"""What a daemon costs while nothing happens."""

from __future__ import annotations

import time

from tests.bench import proc
from tests.bench.figures import Figure, at_most
from tests.bench.rig import Rig
from tests.support.daemon import Spool, zip_bytes

_SECONDS = 60.0
_SECONDS_QUICK = 20.0
_SETTLE_SECONDS = 3.0
_RESCAN_SECONDS = 0.5
_RESCANS = 20
_MIB = 2**20


def measure(rig: Rig) -> list[Figure]:
    """An idle daemon with the default settings, after its first package; then what one rescan costs."""
    with rig.portal(verdict="immediate") as portal, rig.spool(portal) as spool:
        _start(spool)
        idle, seconds = _watch(spool, _SECONDS_QUICK if rig.quick else _SECONDS)
    with (
        rig.portal(verdict="immediate") as portal,
        rig.spool(portal, spool={"rescan_seconds": _RESCAN_SECONDS}) as spool,
    ):
        _start(spool)
        rescanning, rescanning_seconds = _watch(spool, _RESCANS * _RESCAN_SECONDS)
    share = idle.cpu / seconds
    per_rescan = max(0.0, rescanning.cpu / rescanning_seconds - share) * _RESCAN_SECONDS
    return [
        Figure(name=f"CPU over {seconds:.0f} s", unit="% of a core", runs=(share * 100,), limit=at_most(0.1)),
        Figure(name="CPU of one rescan", unit="ms", runs=(per_rescan * 1000,)),
        Figure(name="memory", unit="MiB", runs=(idle.rss / _MIB,)),
        Figure(name="threads", unit="", runs=(idle.threads,)),
        Figure(name="context switches", unit="/s", runs=(idle.switches / seconds,)),
    ]


def _start(spool: Spool) -> None:
    """Idle means after work: one package has gone through, and what it stirred up has settled."""
    spool.start()
    (spool.root / "outbox" / "first_v1.zip").write_bytes(zip_bytes())
    spool.wait_for("delivered", "first_v1.zip")
    time.sleep(_SETTLE_SECONDS)


def _watch(spool: Spool, seconds: float) -> tuple[proc.Usage, float]:
    """What was used in so many seconds (CPU and switches in them, the rest at their end), and how many they were."""
    assert spool.process is not None
    before, began = proc.look(spool.process.pid), time.monotonic()
    time.sleep(seconds)
    after, ended = proc.look(spool.process.pid), time.monotonic()
    used = proc.Usage(
        cpu=after.cpu - before.cpu,
        rss=after.rss,
        peak_rss=after.peak_rss,
        threads=after.threads,
        switches=after.switches - before.switches,
    )
    return used, ended - began
