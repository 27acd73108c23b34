"""Services that misbehave at random: a mix of every fault the sandbox knows, and a tally of those that hit."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from tfwatch.sandbox.faults import Fault, FaultKind, Target
from tfwatch.sandbox.server import Sandbox

SUBMIT = (
    Fault(kind=FaultKind.STATUS, status=503, message="Down for a moment."),
    Fault(kind=FaultKind.STATUS, status=500, accept=True, message="Broke after the order was made."),
    Fault(kind=FaultKind.STATUS, status=429, message="Too many requests."),
    Fault(kind=FaultKind.STATUS, status=429, retry_after=1, message="Too many requests, wait a second."),
    Fault(kind=FaultKind.HANG),
    Fault(kind=FaultKind.HANG, accept=True),
    Fault(kind=FaultKind.RESET),
    Fault(kind=FaultKind.RESET_EARLY),
    Fault(kind=FaultKind.GARBAGE),
    Fault(kind=FaultKind.NO_ID),
    Fault(kind=FaultKind.DRIP, seconds=0.1),
    Fault(kind=FaultKind.TRUNCATED),
)
"""Everything that can befall a submission, as often without its taking effect as with it."""

ASKING = (
    Fault(kind=FaultKind.STATUS, status=503),
    Fault(kind=FaultKind.STATUS, status=404, message="Not found for a moment."),
    Fault(kind=FaultKind.STATUS, status=429, retry_after=1),
    Fault(kind=FaultKind.HANG),
    Fault(kind=FaultKind.RESET),
    Fault(kind=FaultKind.GARBAGE),
    Fault(kind=FaultKind.NO_ID),
    Fault(kind=FaultKind.TRUNCATED),
)
"""Everything that can befall a question: about an order, or for one."""

GOOGLE = (
    Fault(kind=FaultKind.STATUS, status=503),
    Fault(kind=FaultKind.STATUS, status=429),
    Fault(kind=FaultKind.HANG),
    Fault(kind=FaultKind.RESET),
    Fault(kind=FaultKind.GARBAGE),
    Fault(kind=FaultKind.TRUNCATED),
)
"""What can befall the sheet and its login."""

SLOW = Fault(kind=FaultKind.LATENCY, seconds=0.3, probability=0.01)


def mix(share: float, *, each_once: bool) -> tuple[Fault, ...]:
    """So great a share of all requests fails, each target's faults alike; a few more are only slow.

    `each_once`: besides, each of a submission's faults is to be met soon, so that no kind is left to luck.
    """
    once = tuple(replace(fault, probability=0.02, times=1) for fault in SUBMIT) if each_once else ()
    spread = [
        replace(fault, target=target, probability=share / len(faults))
        for faults, targets in (
            (SUBMIT, (Target.SUBMIT,)),
            (ASKING, (Target.STATUS, Target.LOOKUP)),
            (GOOGLE, (Target.SHEETS, Target.TOKEN)),
        )
        for target in targets
        for fault in faults
    ]
    return (SLOW, *once, *spread)


class Tally:
    """Puts faults in force, and keeps count of those that hit under all that were in force before."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._before: Counter[str] = Counter()

    def set(self, *faults: Fault) -> None:
        """These instead of the ones before; none heals everything."""
        self._before = self.hits()
        self._sandbox.set_faults(*faults)

    def hits(self) -> Counter[str]:
        """How often each fault has hit: `submit reset`, `status status 503`, …"""
        now = Counter({name(fault): 0 for fault, _ in self._sandbox.faults()})
        for fault, hits in self._sandbox.faults():
            now[name(fault)] += hits
        return self._before + now


def name(fault: Fault) -> str:
    """A fault in a few words."""
    parts = [fault.target.value, fault.kind.value]
    parts += [str(fault.status)] if fault.kind is FaultKind.STATUS else []
    parts += ["asking for a pause"] if fault.retry_after is not None else []
    parts += ["after taking effect"] if fault.accept else []
    return " ".join(parts)
