"""From a drop to the first byte at the portal: what an idle daemon needs to see, prove, claim, log and connect."""

from __future__ import annotations

import itertools
import os
import time
from pathlib import Path

from tests.bench.figures import Figure, at_most, percentile
from tests.bench.rig import Portal, Rig
from tests.support.daemon import Spool, zip_bytes

_DROPS = 600
_DROPS_QUICK = 80
_BYTES = 20_000
_BREATH_SECONDS = 0.05
_SILENCE_SECONDS = 6.0
"""Longer than any connection is kept open."""

_HOWS = ("closed", "renamed in")


def measure(rig: Rig) -> list[Figure]:
    """Half of the drops are written in place and closed, half are renamed in."""
    with rig.portal(verdict="never") as portal, rig.spool(portal) as spool:
        spool.start()
        drops = _Drops(spool, portal)
        drops.one("closed")  # the first one loads what is loaded late
        runs = [drops.many(_DROPS_QUICK if rig.quick else _DROPS) for _ in range(rig.repeats)]
        cold = [drops.after_silence(how) for how in _HOWS] if not rig.quick else []
    figures = []
    for how in _HOWS:
        by_run = [run[how] for run in runs]
        figures += [
            _figure(f"{how} → first byte, median", [percentile(run, 0.5) for run in by_run], limit=8),
            _figure(f"{how} → first byte, p90", [percentile(run, 0.9) for run in by_run]),
            _figure(f"{how} → first byte, p99", [percentile(run, 0.99) for run in by_run], limit=30),
        ]
    if cold:
        figures.append(_figure(f"after {_SILENCE_SECONDS:.0f} s of silence → first byte", cold))
    return figures


def _figure(name: str, milliseconds: list[float], *, limit: float | None = None) -> Figure:
    return Figure(name=name, unit="ms", runs=tuple(milliseconds), limit=at_most(limit) if limit else None)


class _Drops:
    """Drops ZIPs one at a time, each into a daemon that has nothing else to do."""

    def __init__(self, spool: Spool, portal: Portal) -> None:
        self._spool = spool
        self._portal = portal
        self._numbers = itertools.count()

    def many(self, count: int) -> dict[str, list[float]]:
        """So many drops, in turns; milliseconds to the first byte of each."""
        found: dict[str, list[float]] = {how: [] for how in _HOWS}
        for how in itertools.islice(itertools.cycle(_HOWS), count):
            found[how].append(self.one(how))
            time.sleep(_BREATH_SECONDS)
        return found

    def after_silence(self, how: str) -> float:
        """One drop when no connection is open any more; milliseconds."""
        time.sleep(_SILENCE_SECONDS)
        return self.one(how)

    def one(self, how: str) -> float:
        """One drop; milliseconds to its first byte at the portal. Returns once it lies in submitted/."""
        number = next(self._numbers)
        name, content = f"job{number}_v1.zip", zip_bytes(seed=number, size=_BYTES)
        target = self._spool.root / "outbox" / name
        dropped_at = _close(target, content) if how == "closed" else _rename(self._spool.home / name, target, content)
        self._spool.wait_for("submitted", name)
        (order,) = self._portal.orders(first=number)
        assert order["filename"] == name
        first_byte_at: float = order["first_byte_monotonic"]
        return (first_byte_at - dropped_at) * 1000


def _close(target: Path, content: bytes) -> float:
    """Write a file in place; gives the moment before it was closed, monotonic."""
    fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    os.write(fd, content)
    moment = time.monotonic()
    os.close(fd)
    return moment


def _rename(aside: Path, target: Path, content: bytes) -> float:
    """Write a file elsewhere and rename it in; gives the moment before the rename, monotonic."""
    aside.write_bytes(content)
    moment = time.monotonic()
    os.rename(aside, target)
    return moment
