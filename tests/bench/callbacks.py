"""From a callback's first byte to its package in delivered/: one at a time, and eight callers at once."""

from __future__ import annotations

import json
import os
import queue
import threading
import time
from collections.abc import Sequence

import httpx

from tests.bench.figures import Figure, at_most, percentile
from tests.bench.rig import Rig
from tests.support.callers import SECRET, body_of, standard
from tests.support.daemon import Spool
from tests.support.web import serve, wait_until_served

_CALLBACKS = 300
_CALLBACKS_QUICK = 60
_CALLERS = 8
_LOOK_SECONDS = 0.0005
_LONGEST_SECONDS = 30.0


def measure(rig: Rig) -> list[Figure]:
    """A real daemon with packages in submitted/ that it would poll in an hour; each callback is signed and its own."""
    one_by_one, at_once = [], []
    for _ in range(rig.repeats):
        with rig.portal(verdict="never") as portal, rig.spool(portal) as spool:
            url = serve(spool, requests_per_second=10_000)
            secrets = spool.home / "webhook_integrations.json"
            secrets.write_text(json.dumps({"gotranscript": SECRET}))
            secrets.chmod(0o600)
            spool.configure(integrations={"gotranscript": {"poll_seconds": 3600}})
            spool.start()
            wait_until_served(url)
            orders = _submit(spool, _CALLBACKS_QUICK if rig.quick else _CALLBACKS)
            _call(spool, url, orders[:1])  # the first one loads what is loaded late
            half = len(orders) // 2
            one_by_one.append(_call(spool, url, orders[1:half]))
            at_once.append(_call(spool, url, orders[half:], callers=_CALLERS))
    return [
        _figure("callback → delivered/, median", one_by_one, 0.5),
        _figure("callback → delivered/, p95", one_by_one, 0.95, limit=100),
        _figure(f"the same, {_CALLERS} callers at once, median", at_once, 0.5),
        _figure(f"the same, {_CALLERS} callers at once, p95", at_once, 0.95, limit=100),
    ]


def _figure(name: str, runs: Sequence[Sequence[float]], share: float, *, limit: float | None = None) -> Figure:
    milliseconds = tuple(percentile(run, share) * 1000 for run in runs)
    return Figure(name=name, unit="ms", runs=milliseconds, limit=at_most(limit) if limit else None)


def _submit(spool: Spool, count: int) -> list[tuple[str, str]]:
    """So many packages in submitted/: their names and order ids."""
    names = [f"job{number}_v1.zip" for number in range(count)]
    for number, name in enumerate(names):
        spool.drop(name, seed=number, size=20_000)
    spool.wait_for("submitted", *names, seconds=120)
    return [(row["package"], row["order_id"]) for row in spool.rows() if row["event"] == "ACCEPTED"]


def _call(spool: Spool, url: str, orders: Sequence[tuple[str, str]], *, callers: int = 1) -> list[float]:
    """Tell of each order; seconds from each call until its file lies in delivered/."""
    waiting: queue.SimpleQueue[tuple[str, str] | None] = queue.SimpleQueue()
    for order in (*orders, *[None] * callers):
        waiting.put(order)
    found: list[float] = []

    def tell() -> None:
        with httpx.Client() as client:
            while (order := waiting.get()) is not None:
                found.append(_tell(client, spool, url, *order))

    threads = [threading.Thread(target=tell) for _ in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == len(orders), "a callback was not taken"
    return found


def _tell(client: httpx.Client, spool: Spool, url: str, name: str, order_id: str) -> float:
    body = body_of({"id": order_id, "status": "completed"})
    target, headers = spool.root / "delivered" / name, standard(body)
    began = time.monotonic()
    client.post(f"{url}/webhooks/gotranscript", content=body, headers=headers).raise_for_status()
    while not os.path.exists(target):
        assert time.monotonic() < began + _LONGEST_SECONDS, f"{name} was not delivered"
        time.sleep(_LOOK_SECONDS)
    return time.monotonic() - began
