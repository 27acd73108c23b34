"""Requests that name several packages: each of them is done once, also when one must wait."""

from __future__ import annotations

import hashlib

from tests.support.daemon import Spool, wait_until, zip_bytes
from tests.support.portal import orders_of
from tfwatch.sandbox.faults import Fault, FaultKind
from tfwatch.sandbox.server import Sandbox


def test_what_was_done_is_not_done_again_while_another_is_waited_for(sandbox: Sandbox, spool: Spool) -> None:
    """`requeue --force a b` with `b` at work: `a` is ordered once more, not with every look at the request."""
    names = ("a_v1.zip", "b_v1.zip")
    digests = tuple(hashlib.sha256(zip_bytes(seed=seed)).hexdigest() for seed in (1, 2))
    spool.configure(integrations={"gotranscript": {"timeout_seconds": 8}})
    spool.start()
    for seed, name in enumerate(names, start=1):
        spool.drop(name, seed=seed)
    spool.wait_for("delivered", *names)
    sandbox.set_faults(Fault(kind=FaultKind.HANG, times=1))
    spool.ask("requeue", names=names[1:], sha256s=digests[1:], forced=True)
    wait_until(lambda: 2 == spool.events(names[1]).count("ATTEMPTED"), "b is being sent, and no answer comes")
    spool.ask("requeue", names=names, sha256s=digests, forced=True)
    wait_until(lambda: spool.events(names[0]).count("COMPLETED") >= 2, "a is delivered again")
    assert 1 == spool.events(names[0]).count("REQUEUED"), spool.picture()
    assert 2 == len(orders_of(sandbox, names[0]))
