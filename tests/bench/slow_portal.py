"""Whether all workers are kept busy while a portal takes its time: a slow service is the usual one."""

from __future__ import annotations

from tests.bench.figures import Figure, at_least
from tests.bench.rig import Rig
from tests.bench.throughput import deliver, make_contents
from tfwatch.model import Event

_PACKAGES = 5000
_PACKAGES_QUICK = 1000
_WORKERS = 32
_ANSWERS_AFTER_SECONDS = 0.2
_SHARE = 0.9


def measure(rig: Rig) -> list[Figure]:
    """Up to ACCEPTED, without S3; nothing is asked about meanwhile. The limit is a share of what the portal allows."""
    count = _PACKAGES_QUICK if rig.quick else _PACKAGES
    rates, cpu = [], []
    with rig.portal(verdict="never", work_seconds=_ANSWERS_AFTER_SECONDS) as portal:
        for run in range(rig.repeats):
            portal.reset()
            settings = {"workers": _WORKERS, "poll_seconds": 3600}
            done = deliver(rig, portal, make_contents(count, run=run), Event.ACCEPTED, gotranscript=settings)
            rates.append(count / done.seconds[Event.ACCEPTED])
            cpu.append(done.cpu / count * 1000)
    most = _WORKERS / _ANSWERS_AFTER_SECONDS
    name = f"{count:,} ZIPs up to ACCEPTED, {_WORKERS} workers, answers after {_ANSWERS_AFTER_SECONDS * 1000:.0f} ms"
    return [
        Figure(name=name, unit="packages/s", runs=tuple(rates), limit=at_least(_SHARE * most)),
        Figure(name="CPU of one package", unit="ms", runs=tuple(cpu)),
    ]
