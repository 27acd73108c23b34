"""What a daemon costs while nothing happens, with the packages of months in its folders; and what it never lists."""

from __future__ import annotations

import re
import time

import httpx

from tests.bench import proc
from tests.bench.figures import Figure, at_most
from tests.bench.past import Past, write_past
from tests.bench.rig import Portal, Rig
from tests.support.daemon import Spool, wait_until
from tests.support.strace import recorded, recording
from tests.support.web import serve, wait_until_served

_DELIVERED, _SUBMITTED = 200_000, 5_000
_DELIVERED_QUICK, _SUBMITTED_QUICK = 10_000, 500
_SECONDS = 60.0
_SECONDS_QUICK = 20.0
_QUIET_CPU = 0.05
_QUIET_SECONDS = 5.0
_PATIENCE_SECONDS = 600.0
_RESCAN_SECONDS = 5.0
_RESCANS = 4
_DELIVERIES = 20
_PAGES = ("/", "/metrics", "/metrics/webhooks", "/healthz")
_MIB = 2**20


def measure(rig: Rig) -> list[Figure]:
    """Idle: started, each order asked about once, one package delivered, and then nothing due for an hour."""
    past = (_DELIVERED_QUICK, _SUBMITTED_QUICK) if rig.quick else (_DELIVERED, _SUBMITTED)
    with rig.portal(verdict="immediate") as portal, rig.spool(portal) as spool:
        spool.configure(integrations={"gotranscript": {"poll_seconds": 3600}})
        write_past(spool.root, Past(delivered=past[0], submitted=past[1], base_url=portal.url))
        spool.start(seconds=_PATIENCE_SECONDS)
        _wait_until_quiet(spool)
        _deliver(spool, portal, 0, 1)
        _wait_until_quiet(spool)
        idle, seconds = _watch(spool, _SECONDS_QUICK if rig.quick else _SECONDS)
        assert spool.stop() == 0, spool.picture()
        at_start, later = _count_listings(spool, portal)
    about = f"{past[0]:,} in delivered/, {past[1]:,} in submitted/"
    return [
        Figure(
            name=f"CPU over {seconds:.0f} s, {about}", unit="% of a core", runs=(idle.cpu / seconds * 100,),
            limit=at_most(0.1),
        ),
        Figure(name="memory", unit="MiB", runs=(idle.rss / _MIB,), limit=at_most(90)),
        Figure(name="threads", unit="", runs=(idle.threads,)),
        Figure(name="context switches", unit="/s", runs=(idle.switches / seconds,)),
        Figure(name="full listings of delivered/ around the start", unit="", runs=(at_start,)),
        Figure(
            name=f"the same in {_DELIVERIES} deliveries, {_RESCANS} rescans, figures and pages", unit="", runs=(later,),
            limit=at_most(0),
        ),
    ]  # fmt: skip


def _deliver(spool: Spool, portal: Portal, first: int, count: int) -> None:
    """Packages to delivered/, by their orders' verdicts as soon as they are accepted."""
    names = [f"job{number}_v1.zip" for number in range(first, first + count)]
    for number, name in enumerate(names, start=first):
        spool.drop(name, seed=number)
    for name in names:
        wait_until((spool.root / "delivered" / name).exists, f"{name} in delivered/", 120)
    assert portal.orders()


def _wait_until_quiet(spool: Spool) -> None:
    """What the start stirred up has settled: seconds in which it used next to no CPU."""
    assert spool.process is not None
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while _watch(spool, _QUIET_SECONDS)[0].cpu > _QUIET_CPU:
        assert time.monotonic() < deadline, "it does not come to rest"


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


def _count_listings(spool: Spool, portal: Portal) -> tuple[int, int]:
    """How often the daemon read delivered/ to its end: around its start, and from then on while things happen."""
    record = spool.home / "listings"
    url = serve(spool)
    spool.configure(spool={"rescan_seconds": _RESCAN_SECONDS})
    spool.start(wrap=recording(record, "getdents64"), seconds=_PATIENCE_SECONDS)
    ends = re.compile(rf"<{re.escape(str(spool.root))}/delivered>.*= 0$")

    def listings() -> int:
        return sum(call.name == "getdents64" and bool(ends.search(call.rest)) for call in recorded(record))

    wait_until_served(url)
    time.sleep(_RESCAN_SECONDS)
    at_start = wait_until(listings, "delivered/ is compared with the log", _PATIENCE_SECONDS)
    _wait_until_quiet(spool)
    at_start = listings()
    for rescan in range(_RESCANS):
        _deliver(spool, portal, 1 + rescan * _DELIVERIES, _DELIVERIES // _RESCANS)
        for page in _PAGES:
            httpx.get(f"{url}{page}")
        time.sleep(_RESCAN_SECONDS + 1)
    assert spool.stop() == 0, spool.picture()
    return at_start, listings() - at_start
