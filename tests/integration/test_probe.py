"""`resume: probe`: a service that was given up is tried by one package, and its success brings everybody back."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from tests.support.daemon import Spool, wait_until
from tests.support.portal import ordered
from tests.support.s3_servers import ACCESS_KEY, SECRET_KEY, moto
from tfwatch.model import Integration
from tfwatch.sandbox.faults import Fault, FaultKind
from tfwatch.sandbox.server import Sandbox

DOWN = Fault(kind=FaultKind.STATUS, status=503, message="Down for maintenance.")
BAD_KEY = Fault(kind=FaultKind.STATUS, status=401)
SOON = """
from tfwatch.delivery import switch
from tfwatch.retry import Backoff
from tfwatch.cli import main
switch.PROBE_PAUSE = Backoff(initial=1.0, maximum=2.0)
main()
"""
"""The daemon, with seconds between probes where there are minutes."""

NAMES = ("a.zip", "b.zip", "c.zip")


def configure(spool: Spool, **gotranscript: Any) -> None:
    """One lane, a rollback at once, and no rescan in time to be of help."""
    settings = {"workers": 1, "rollback_after": 1, "resume": "probe"} | gotranscript
    spool.configure(spool={"rescan_seconds": 600}, integrations={"gotranscript": settings})


def s3(endpoint_url: str, bucket: str) -> dict[str, Any]:
    keys = {"access_key": ACCESS_KEY, "secret_key": SECRET_KEY}
    return {"enabled": True, "endpoint_url": endpoint_url, "bucket": bucket} | keys


def drop_all(spool: Spool) -> None:
    for seed, name in enumerate(NAMES, start=1):
        spool.drop(name, seed=seed)


@pytest.mark.parametrize("fault", [DOWN, BAD_KEY], ids=["rollback", "pause"])
def test_what_was_backed_up_meanwhile_is_delivered(sandbox: Sandbox, spool: Spool, fault: Fault) -> None:
    """With `when_disabled: backup` all packages wait with a copy; one of them tries, then all are delivered."""
    moto("http").client().create_bucket(Bucket=f"probe-{fault.status}")
    configure(spool, when_disabled="backup")
    spool.configure(integrations={"s3": s3(moto("http").url, f"probe-{fault.status}")})
    sandbox.set_faults(fault)
    spool.start(program=("-c", SOON))
    spool.drop("first.zip")
    spool.wait_for_event("ROLLBACK" if fault is DOWN else "DISABLED")
    drop_all(spool)
    spool.wait_for_event("BACKED_UP", count=3 if fault is DOWN else 4)
    sandbox.set_faults()
    spool.wait_for("delivered", "first.zip", *NAMES)
    assert {1} == set(ordered(sandbox).values())
    spool.assert_sound()


def test_the_package_that_tripped_it_is_delivered_at_once(sandbox: Sandbox, spool: Spool) -> None:
    """Another package's probe lifts the rollback: what it requeues is noticed without waiting for a rescan."""
    configure(spool)
    sandbox.set_faults(DOWN)
    spool.start(program=("-c", SOON))
    spool.drop("tripped.zip")
    spool.drop("waits.zip", seed=1)
    spool.wait_for_event("ROLLBACK")
    sandbox.set_faults()
    spool.wait_for("delivered", "tripped.zip", "waits.zip")
    assert {1} == set(ordered(sandbox).values())


def test_one_that_is_backed_up_when_it_is_enabled_is_delivered(sandbox: Sandbox, spool: Spool) -> None:
    """A copy was under way at `tfwatch enable`: once it is given up, the package goes at once like all others."""
    configure(spool, enabled=True, when_disabled="backup")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        spool.configure(integrations={"s3": s3(f"http://127.0.0.1:{silent.getsockname()[1]}", "copies")})
        spool.start()
        spool.ask("disable", integration=Integration.GOTRANSCRIPT)
        spool.wait_for_event("DISABLED")
        spool.drop("a.zip")
        wait_until(spool.claimed, "its copy is under way")
        connection, _ = silent.accept()
        spool.ask("enable", integration=Integration.GOTRANSCRIPT)
        spool.wait_for_event("ENABLED")
    connection.close()
    spool.wait_for("delivered", "a.zip", seconds=12)
    assert 1 == len(sandbox.orders())
