"""Whether the past costs anything: one more package after 10,000 rows of log, against the first on an empty log."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from tests.bench import proc
from tests.bench.figures import Figure, Peer
from tests.bench.rig import Portal, Rig
from tests.support.daemon import Spool, zip_bytes
from tfwatch.ledger.log import Log
from tfwatch.model import Event, Fact, Stage, Status, write_detail
from tfwatch.spool.folders import Folders

_OLD_PACKAGES = 2500
_PACKAGES = 200
_PACKAGES_QUICK = 50
_BYTES = 20_000
_PATH = (
    (Event.ATTEMPTED, Stage.OUTBOX, Stage.CLAIMED, Status.SENDING),
    (Event.ACCEPTED, Stage.CLAIMED, Stage.SUBMITTED, Status.SUBMITTED),
    (Event.COMPLETED, Stage.SUBMITTED, Stage.DELIVERED, Status.DELIVERED),
    (Event.BACKED_UP, Stage.DELIVERED, Stage.DELIVERED, Status.DELIVERED),
)


def measure(rig: Rig) -> list[Figure]:
    """Packages one after the other, each when the one before lies in delivered/."""
    count = _PACKAGES_QUICK if rig.quick else _PACKAGES
    fresh, aged = [], []
    with rig.portal(verdict="immediate") as portal:
        for _ in range(rig.repeats):
            fresh.append(_deliver(rig, portal, count, old_packages=0))
            aged.append(_deliver(rig, portal, count, old_packages=_OLD_PACKAGES))
    empty = "with an empty log"
    return [
        Figure(
            name=f"{what} of one package after {_OLD_PACKAGES * len(_PATH):,} rows",
            unit="ms",
            runs=tuple(run[number] for run in aged),
            peer=Peer(name=empty, runs=tuple(run[number] for run in fresh)),
        )
        for number, what in enumerate(("CPU", "time"))
    ]


def _deliver(rig: Rig, portal: Portal, count: int, *, old_packages: int) -> tuple[float, float]:
    """Milliseconds of CPU and of time that one package took."""
    portal.reset()
    with rig.spool(portal) as spool:
        if old_packages:
            write_history(spool.root, old_packages)
        spool.start()
        assert spool.process is not None
        _one(spool, count)  # the first one loads what is loaded late
        before = proc.look(spool.process.pid)
        times = [_one(spool, number) for number in range(count)]
        after = proc.look(spool.process.pid)
        return (after.cpu - before.cpu) / count * 1000, statistics.median(times) * 1000


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


# --- the past ---------------------------------------------------------------------------------------------------------


def write_history(root: Path, packages: int) -> None:
    """What a daemon leaves behind that has delivered so many packages: rows in the log, files in delivered/."""
    folders = Folders(str(root))
    folders.prepare()
    log = Log.open(
        folders.log,
        torn_path=folders.torn("bench"),
        exec_id="20250101T000000Z_BENCH0",
        clock=lambda: datetime.now(UTC),
        on_commit=lambda records, position: None,
    )
    try:
        for first in range(0, packages, 100):
            log.append([fact for number in range(first, first + 100) for fact in _facts(number)])
    finally:
        log.close()
    for number in range(packages):
        (root / "delivered" / f"old{number}_v1.zip").write_bytes(b"kept")


def _facts(number: int) -> Iterator[Fact]:
    for event, source, target, status in _PATH:
        yield Fact(
            event=event,
            package=f"old{number}_v1.zip",
            sha256=f"{number:064x}",
            trace_id=f"{number:032x}",
            bytes=4,
            from_stage=source,
            to_stage=target,
            attempt=1 if event is Event.ATTEMPTED else None,
            order_id="" if event is Event.ATTEMPTED else f"dlv_{number:016x}",
            status=status,
            detail=write_detail(profile="deliveries", base_url="http://127.0.0.1:1", generation=1, key=f"k{number}"),
        )
