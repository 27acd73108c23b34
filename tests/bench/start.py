"""How long a daemon takes until it is ready, with the log of years: its index as it left it, and without one."""

from __future__ import annotations

import time

from tests.bench import proc
from tests.bench.figures import Figure, Peer, at_most
from tests.bench.past import ROWS_EACH, Past, forget_index, write_past
from tests.bench.rig import Portal, Rig
from tests.support.daemon import Spool

_ROWS, _ROWS_BEFORE = 1_000_000, 100_000
_ROWS_QUICK, _ROWS_BEFORE_QUICK = 40_000, 10_000
_PATIENCE_SECONDS = 1200.0
_MIB = 2**20

_Start = tuple[float, float, float]
"""Seconds until ready, seconds of CPU, and MiB of memory at most until then."""


def measure(rig: Rig) -> list[Figure]:
    """Each package of the log lies in delivered/. Ready: it says that it watches, as it tells systemd READY=1."""
    rows, before = (_ROWS_QUICK, _ROWS_BEFORE_QUICK) if rig.quick else (_ROWS, _ROWS_BEFORE)
    with rig.portal() as portal:
        long_with, long_without = _starts(rig, portal, rows)
        _, short_without = _starts(rig, portal, before)
    shorter = Peer(name=f"with {before:,} rows", runs=_column(short_without, 2))
    return [
        Figure(name=f"ready, {rows:,} rows", unit="s", runs=_column(long_with, 0), limit=at_most(1)),
        Figure(name="CPU until then", unit="s", runs=_column(long_with, 1)),
        Figure(name="ready, the index deleted", unit="s", runs=_column(long_without, 0), limit=at_most(20)),
        Figure(name="CPU until then", unit="s", runs=_column(long_without, 1)),
        Figure(
            name="memory at most until then", unit="MiB", runs=_column(long_without, 2), peer=shorter,
            ratio_limit=at_most(1.1),
        ),
    ]  # fmt: skip


def _starts(rig: Rig, portal: Portal, rows: int) -> tuple[list[_Start], list[_Start]]:
    """Some starts with the index, and as many without."""
    with_index, without = [], []
    with rig.spool(portal) as spool:
        write_past(spool.root, Past(delivered=rows // ROWS_EACH, base_url=portal.url))
        for _ in range(rig.repeats):
            forget_index(spool.root)
            without.append(_start(spool))
            with_index.append(_start(spool))
    return with_index, without


def _start(spool: Spool) -> _Start:
    began = time.monotonic()
    spool.start(seconds=_PATIENCE_SECONDS)
    seconds = time.monotonic() - began
    assert spool.process is not None
    used = proc.look(spool.process.pid)
    assert spool.stop() == 0, spool.picture()
    return seconds, used.cpu, used.peak_rss / _MIB


def _column(starts: list[_Start], number: int) -> tuple[float, ...]:
    return tuple(start[number] for start in starts)
