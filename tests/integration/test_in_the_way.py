"""Somebody puts a file of that name where a package is going: it takes the next name, and is followed under it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.daemon import Spool
from tests.support.forwarder import Forwarder
from tfwatch.sandbox.server import Sandbox


@contextmanager
def amid_its_attempt(spool: Spool, way: Forwarder) -> Iterator[None]:
    """`p.zip` is dropped, and on its way to the portal for as long as the block lasts."""
    way.hold()
    spool.start()
    spool.drop("p.zip")
    spool.wait_for_event("ATTEMPTED")
    yield
    way.let_go()


@pytest.mark.parametrize("verdict", ["delayed", "immediate"])
@pytest.mark.parametrize("stage", ["submitted", "delivered"])
def test_an_order_is_followed_under_its_new_name(
    sandbox: Sandbox, spool: Spool, way: Forwarder, verdict: str, stage: str
) -> None:
    """Whether its verdict comes later or at once: one order, one ZIP, in delivered/; the stranger's file stays."""
    sandbox.set_settings(portal={"verdict": verdict})
    stranger = spool.root / stage / "p.zip"
    with amid_its_attempt(spool, way):
        stranger.write_text("stranger")
    spool.wait_for("delivered", "p~2.zip")
    assert "stranger" == stranger.read_text()
    digest = spool.row("ATTEMPTED")["sha256"]
    rows = [row for row in spool.rows() if row["sha256"] == digest]
    (renamed,) = [row for row in rows if row["event"] == "MOVED"]
    assert ("p~2.zip", "tfwatch") == (renamed["package"], renamed["actor"])
    assert {"p~2.zip"} == {row["package"] for row in rows if int(row["seq"]) >= int(renamed["seq"])}
    assert ["ACCEPTED", "COMPLETED"] == [row["event"] for row in rows if row["event"] in ("ACCEPTED", "COMPLETED")]
    assert 1 == len(sandbox.orders())
    spool.assert_sound()


def test_a_verdict_at_once_on_what_a_person_took_away(sandbox: Sandbox, spool: Spool, way: Forwarder) -> None:
    """Where the person put it is the last word: the daemon logs both and goes on with the next package."""
    sandbox.set_settings(portal={"verdict": "immediate"})
    with amid_its_attempt(spool, way):
        (spool.root / ".tfwatch" / "claimed" / "p.zip").unlink()
    spool.wait_for_event("MOVED", "p.zip")
    spool.drop("q.zip", seed=1)
    spool.wait_for("delivered", "q.zip")
    assert ["ATTEMPTED", "ACCEPTED", "MOVED"] == spool.events("p.zip")
    assert spool.process is not None
    assert spool.process.poll() is None
