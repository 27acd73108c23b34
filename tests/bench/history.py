"""Whether the past costs anything: one more package after 1,000,000 rows of log, against one after 1,000."""

from __future__ import annotations

import statistics
import time

from tests.bench import proc
from tests.bench.figures import Figure, Peer, at_most
from tests.bench.past import ROWS_EACH, Past, write_past
from tests.bench.rig import Rig
from tests.support.daemon import Spool, zip_bytes

_SHORT, _LONG, _LONG_QUICK = 1_000, 1_000_000, 40_000
_PACKAGES = 200
_PACKAGES_QUICK = 50
_BYTES = 20_000
_PATIENCE_SECONDS = 1200.0
_SETTLE_SECONDS = 5.0


def measure(rig: Rig) -> list[Figure]:
    """Packages one after the other, each when the one before lies in delivered/; both spools in turns."""
    count, long = (_PACKAGES_QUICK, _LONG_QUICK) if rig.quick else (_PACKAGES, _LONG)
    short_runs, long_runs = [], []
    with rig.portal(verdict="immediate") as portal, rig.spool(portal) as young, rig.spool(portal) as old:
        write_past(young.root, Past(delivered=_SHORT // ROWS_EACH, base_url=portal.url))
        write_past(old.root, Past(delivered=long // ROWS_EACH, base_url=portal.url))
        for run in range(rig.repeats):
            for spool, runs in ((young, short_runs), (old, long_runs)):
                portal.reset()
                runs.append(_deliver(spool, count, first=run * count))
    limits = (at_most(1.1), None)
    return [
        Figure(
            name=f"{what} of one package after {long:,} rows",
            unit="ms",
            runs=tuple(run[number] for run in long_runs),
            peer=Peer(name=f"after {_SHORT:,} rows", runs=tuple(run[number] for run in short_runs)),
            ratio_limit=limits[number],
        )
        for number, what in enumerate(("CPU", "time"))
    ]


def _deliver(spool: Spool, count: int, *, first: int) -> tuple[float, float]:
    """Milliseconds of CPU and of time that one package took."""
    spool.start(seconds=_PATIENCE_SECONDS)
    assert spool.process is not None
    _one(spool, 10**6 + first)  # the first one loads what is loaded late
    _wait_until_compared(spool)
    before = proc.look(spool.process.pid)
    times = [_one(spool, number) for number in range(first, first + count)]
    after = proc.look(spool.process.pid)
    assert spool.stop() == 0, spool.picture()
    return (after.cpu - before.cpu) / count * 1000, statistics.median(times) * 1000


def _wait_until_compared(spool: Spool) -> None:
    """After a start delivered/ is compared with the log beside the work; that is the start's cost, not a package's."""
    assert spool.process is not None
    used = -1.0
    while (now := proc.look(spool.process.pid).cpu) - used > _SETTLE_SECONDS / 50:
        used = now
        time.sleep(_SETTLE_SECONDS)


def _one(spool: Spool, number: int) -> float:
    name = f"job{number}_v1.zip"
    spool_file, ready = spool.root / "outbox" / name, spool.home / name
    ready.write_bytes(zip_bytes(seed=number, size=_BYTES))
    began = time.monotonic()
    ready.rename(spool_file)
    delivered = spool.root / "delivered" / name
    while not delivered.exists():
        assert time.monotonic() < began + 30, spool.picture()
        time.sleep(0.001)
    return time.monotonic() - began
