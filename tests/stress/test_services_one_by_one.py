"""Each way in which a service can fail, alone and often: what it does to a package, and that it is delivered once."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from tests.support.daemon import Spool, wait_until
from tests.support.extent import Extent
from tests.support.misbehaving import ASKING, SUBMIT, Tally, name
from tests.support.portal import keys, ordered
from tfwatch.model import Integration
from tfwatch.sandbox.faults import Fault, FaultKind, Target
from tfwatch.sandbox.server import Sandbox

OFTEN = 0.3
LOST = Fault(kind=FaultKind.RESET)


def deliver(spool: Spool, wave: int, packages: int) -> None:
    """A wave of packages, each delivered in the end; a person enables the service now and then, needed or not."""
    names = [f"w{wave:02}p{number:03}.zip" for number in range(packages)]
    for number, dropped in enumerate(names):
        spool.drop(dropped, seed=1000 * wave + number, size=200)

    def done() -> bool:
        if set(names) <= spool.names("delivered"):
            return True
        spool.ask("enable", integration=Integration.GOTRANSCRIPT)
        return False

    deadline = 60.0 + packages
    while not done():
        try:
            wait_until(lambda: set(names) <= spool.names("delivered"), f"wave {wave}", 3.0)
        except AssertionError:
            deadline -= 3.0
            assert deadline > 0, spool.picture()


def assert_each_once(sandbox: Sandbox, spool: Spool, packages: int) -> None:
    """One order each under one key each, one acceptance each, and every package in delivered/."""
    assert [1] * packages == list(ordered(sandbox).values())
    assert packages == len(set(keys(sandbox)))
    accepted = Counter(row["sha256"] for row in spool.rows() if row["event"] == "ACCEPTED")
    assert ordered(sandbox) == accepted
    assert packages == len(spool.names("delivered"))
    spool.assert_sound()


@pytest.mark.timeout(900)
@pytest.mark.parametrize("policy", ["retry", "lookup"])
def test_each_fault_alone(sandbox: Sandbox, spool: Spool, extent: Extent, policy: str) -> None:
    """Wave after wave, each with one fault that hits three requests in ten: one order a package, whatever it is."""
    packages = max(10, extent.packages // 100)
    spool.configure(
        integrations={
            "gotranscript": {
                "workers": 8, "poll_seconds": 0.3, "timeout_seconds": 1, "on_unknown_outcome": policy,
                "retry": {"attempts": 3, "initial_seconds": 0.05, "max_seconds": 1.5},
            }
        }
    )  # fmt: skip
    tally = Tally(sandbox)
    spool.start()
    kinds = [
        *SUBMIT,
        *(replace(fault, target=Target.STATUS) for fault in ASKING),
        *((replace(fault, target=Target.LOOKUP) for fault in ASKING) if policy == "lookup" else ()),
    ]
    faults = extent.sample(kinds, f"faults {policy}")
    for wave, fault in enumerate(faults):
        # To be looked up, an outcome has to be unknown first.
        doubt = (replace(LOST, times=4), replace(LOST, probability=OFTEN)) if fault.target is Target.LOOKUP else ()
        tally.set(replace(fault, times=2), replace(fault, probability=OFTEN), *doubt)
        deliver(spool, wave, packages)
    tally.set()
    hits = tally.hits()
    spool.stop()
    print(f"\n{policy}: {len(faults)} of {len(kinds)} faults, {packages} packages each; landed:")
    for fault in faults:
        print(f"  {hits[name(fault)]:6}  {name(fault)}")
        assert hits[name(fault)] > 0, name(fault)
    assert_each_once(sandbox, spool, packages * len(faults))
