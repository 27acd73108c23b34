"""After an outage nobody is stormed: work comes back as a ramp, by the portal's own journal of requests."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any

import pytest

from tests.support.daemon import Spool, wait_until
from tests.support.extent import Extent
from tests.support.portal import ordered
from tfwatch.model import Integration
from tfwatch.sandbox.faults import Fault, FaultKind, Target
from tfwatch.sandbox.server import Sandbox
from tfwatch.sandbox.settings import VerdictWhen

WORKERS = 16
WORK_SECONDS = 0.2
STEP_SECONDS = 1.0
"""The shortest a step of the ramp takes: half of its 2 s, the other half is chance."""
DOWN = Fault(kind=FaultKind.STATUS, status=503, message="Down for maintenance.")


def arrivals(sandbox: Sandbox, method: str) -> list[float]:
    """When requests of that kind reached the portal, by the wall clock; the journal keeps the last thousand."""
    entries: Any = sandbox.requests()["requests"]
    return [entry["at"] for entry in entries if entry["method"] == method]


def given_up(spool: Spool, sandbox: Sandbox, packages: int) -> None:
    """So many packages wait in the outbox (one in rejected/), and nobody asks the portal any more."""
    sandbox.set_settings(portal={"work_seconds": WORK_SECONDS})
    sandbox.set_faults(DOWN)
    spool.start()
    for number in range(packages):
        spool.drop(f"p{number:04}.zip", seed=number, size=200)
    spool.wait_for_event("ROLLBACK")
    wait_until(lambda: not spool.claimed(), "all lanes have put down what they had")
    sandbox.set_faults()


def moment_of(spool: Spool, event: str) -> float:
    return datetime.fromisoformat([row for row in spool.rows() if row["event"] == event][-1]["at"]).timestamp()


def end_of_the_pause(spool: Spool, seconds: float) -> float:
    """The earliest that a pause can be over which the service asked for: so long after the last such attempt."""
    rows = spool.rows()
    told = {row["package"] for row in rows if row["event"] == "DEFERRED" and row["code"] == "429"}
    first = {row["package"]: row["at"] for row in reversed(rows) if row["event"] == "ATTEMPTED"}
    return max(datetime.fromisoformat(first[package]).timestamp() for package in told) + seconds


def assert_climbs(moments: list[float], began: float) -> None:
    """From `began` on: one under way in the first step, at most 2, 4, 8 … in the next ones, and at last many.

    Each request takes the portal so long that those within that time of each other were under way together.
    """
    together = []
    for moment in moments:
        under_way = sum(moment - WORK_SECONDS + 0.02 < other <= moment for other in moments)
        together.append(under_way)
        assert under_way <= 2 ** int((moment - began) / STEP_SECONDS), (moment - began, together)
    assert max(together) >= WORKERS // 4, together
    by_second = [sum(began + n <= moment < began + n + 1 for moment in moments) for n in range(12)]
    print(f"\n  requests in each second: {by_second}; under way at once at most {max(together)}")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("way", ["lifted", "Retry-After"])
def test_work_comes_back_as_a_ramp(sandbox: Sandbox, spool: Spool, extent: Extent, way: str) -> None:
    """Hundreds wait for sixteen lanes: one goes first, then twice as many at once with each step; each is one order."""
    packages = min(500, extent.packages // 5)
    if way == "lifted":
        # A probe comes after up to a minute: in CI every other commit pays for it.
        way = "probe" if extent.packages > 1000 or extent.rng("probe").random() < 0.5 else "enable"
    spool.configure(
        integrations={
            "gotranscript": {
                "workers": WORKERS, "poll_seconds": 3600, "resume": "probe" if way == "probe" else "manual",
                "retry": {"attempts": 1},
            }
        }
    )  # fmt: skip
    if way == "Retry-After":
        sandbox.set_settings(portal={"work_seconds": WORK_SECONDS})
        spool.start()
        for number in range(packages):
            spool.drop(f"p{number:04}.zip", seed=number, size=200)
        spool.wait_for("submitted", "p0000.zip")
        sandbox.set_faults(Fault(kind=FaultKind.STATUS, status=429, retry_after=3))
        spool.wait_for_event("DEFERRED")
        sandbox.set_faults()
        asked = 0
    else:
        given_up(spool, sandbox, packages)
        asked = len(arrivals(sandbox, "POST"))
        if way == "enable":
            spool.ask("enable", integration=Integration.GOTRANSCRIPT)
        spool.wait_for_event("ENABLED", seconds=90)
        began = moment_of(spool, "ENABLED")
    everything = sorted(f"p{number:04}.zip" for number in range(packages))
    spool.wait_for("submitted", *everything, seconds=120)
    moments = arrivals(sandbox, "POST")[asked:]
    if way == "Retry-After":
        assert "ROLLBACK" not in spool.events()
        began = end_of_the_pause(spool, 3)
        # Who was under way already when the first lane was asked to wait comes soon after; nobody else does.
        moments = [moment for moment in moments if moment > began - 1.5]
    before = [moment for moment in moments if moment < began]
    assert (1 if way == "probe" else 0) == len(before), "nobody but the probe goes before that"
    assert_climbs([moment for moment in moments if moment >= began], began)
    assert [1] * packages == list(ordered(sandbox).values())
    spool.assert_sound()


@pytest.mark.timeout(300)
def test_open_orders_are_asked_about_little_by_little_after_a_start(
    sandbox: Sandbox, spool: Spool, extent: Extent
) -> None:
    """Hundreds of orders are open when the daemon starts: their questions come as a ramp."""
    packages = min(500, extent.packages // 5)
    sandbox.set_settings(portal={"verdict": VerdictWhen.NEVER})
    spool.configure(integrations={"gotranscript": {"workers": WORKERS, "poll_seconds": 3600}})
    spool.start()
    for number in range(packages):
        spool.drop(f"p{number:04}.zip", seed=number, size=200)
    spool.wait_for_event("ACCEPTED", count=packages, seconds=120)
    spool.stop()
    asked = len(arrivals(sandbox, "GET"))
    spool.start()
    wait_until(lambda: len(arrivals(sandbox, "GET")) >= asked + packages, "each order is asked about", 120)
    moments = arrivals(sandbox, "GET")[asked:]
    for moment in moments:
        sooner = sum(other <= moment for other in moments)
        assert sooner <= 2 ** (int(moment - moments[0] + 0.5) + 3), (moment - moments[0], sooner)
    assert packages == len(moments)


@pytest.mark.timeout(300)
def test_overdue_questions_come_back_little_by_little(sandbox: Sandbox, spool: Spool, extent: Extent) -> None:
    """The portal hangs while hundreds of questions fall due; once it answers, they don't all come at once."""
    packages = min(500, extent.packages // 5)
    sandbox.set_settings(portal={"verdict": VerdictWhen.NEVER})
    spool.configure(integrations={"gotranscript": {"workers": WORKERS, "poll_seconds": 8, "timeout_seconds": 3}})
    spool.start()
    for number in range(packages):
        spool.drop(f"p{number:04}.zip", seed=number, size=200)
    sandbox.set_faults(Fault(kind=FaultKind.HANG, target=Target.STATUS))
    spool.wait_for_event("ACCEPTED", count=packages, seconds=120)
    began = time.time()
    wait_until(lambda: time.time() > began + 14 and len(arrivals(sandbox, "GET")) > 4, "it hangs for a while", 60)
    asked = len(arrivals(sandbox, "GET"))
    sandbox.set_faults()
    wait_until(lambda: len(arrivals(sandbox, "GET")) >= asked + packages // 2, "it is asked again", 60)
    moments = arrivals(sandbox, "GET")[asked:]
    # The first few may come before the first answer is back.
    for moment in moments[4:]:
        sooner = sum(other <= moment for other in moments)
        assert sooner <= 4 + 2 ** (int(moment - moments[0] + 0.5) + 3), (moment - moments[0], sooner)
