"""`when_disabled: backup`: deliveries are off, so packages wait in the outbox, but a copy of each is kept."""

from __future__ import annotations

import uuid

import pytest

from tests.support.daemon import Spool, wait_until
from tests.support.s3_servers import ACCESS_KEY, SECRET_KEY, moto
from tfwatch.model import Integration, read_detail
from tfwatch.sandbox.faults import Fault, FaultKind
from tfwatch.sandbox.server import Sandbox

NAMES = ("a.zip", "b.zip", "c.zip")


@pytest.fixture
def bucket(spool: Spool) -> str:
    """A bucket of the test's own; deliveries are off."""
    name = f"b-{uuid.uuid4().hex[:12]}"
    moto("http").client().create_bucket(Bucket=name)
    s3 = {
        "enabled": True,
        "endpoint_url": moto("http").url,
        "bucket": name,
        "access_key": ACCESS_KEY,
        "secret_key": SECRET_KEY,
    }
    spool.configure(integrations={"s3": s3, "gotranscript": {"enabled": False, "when_disabled": "backup"}})
    return name


def keys(bucket: str) -> set[str]:
    return {item["Key"] for item in moto("http").client().list_objects_v2(Bucket=bucket).get("Contents", [])}


def drop_all(spool: Spool) -> None:
    for seed, name in enumerate(NAMES):
        spool.drop(name, seed=seed)


def test_they_wait_in_the_outbox_with_a_copy(sandbox: Sandbox, spool: Spool, bucket: str) -> None:
    """Backed up and logged, still in the outbox, waiting, not delivered; nobody is asked anything."""
    spool.start()
    drop_all(spool)
    spool.wait_for_event("BACKED_UP", count=3)
    spool.wait_for("outbox", *NAMES)
    assert 3 == len(keys(bucket))
    assert {"waiting"} == {row["status"] for row in spool.rows() if row["package"]}
    assert {"outbox"} == {row["to_stage"] for row in spool.rows() if row["package"]}
    assert set() == spool.names("delivered")
    wait_until(lambda: spool.state()["stages"]["outbox"] == 3, "the state counts them as waiting")
    assert 0 == spool.state()["delivered_today"]
    assert {} == sandbox.requests()["by_method"]


def test_enabled_again_each_is_delivered_once(sandbox: Sandbox, spool: Spool, bucket: str) -> None:
    """Switched on, every package is one order, and its copy stays the one it had: the same key, not made again."""
    spool.start()
    drop_all(spool)
    spool.wait_for_event("BACKED_UP", count=3)
    before = keys(bucket)
    spool.configure(integrations={"gotranscript": {"enabled": True}})
    spool.wait_for("delivered", *NAMES)
    assert sorted(NAMES) == sorted(str(order["filename"]) for order in sandbox.orders())
    assert before == keys(bucket)
    logged = [read_detail(row["detail"])[0]["key"] for row in spool.rows() if row["event"] == "BACKED_UP"]
    assert sorted(before) == sorted(logged)
    spool.assert_sound()


def test_a_restart_makes_no_second_copy(sandbox: Sandbox, spool: Spool, bucket: str) -> None:
    """Killed and started anew, it knows which copies there are."""
    spool.start()
    drop_all(spool)
    spool.wait_for_event("BACKED_UP", count=3)
    spool.wait_for("outbox", *NAMES)
    spool.kill()
    spool.start()
    spool.drop("d.zip", seed=9)
    spool.wait_for_event("BACKED_UP", count=4)
    spool.wait_for("outbox", *NAMES, "d.zip")
    assert 4 == spool.events().count("BACKED_UP")
    assert 4 == len(keys(bucket))
    assert [] == sandbox.orders()


def test_it_holds_for_a_rollback_too(sandbox: Sandbox, spool: Spool, bucket: str) -> None:
    """After a rollback what waits is backed up as well, and delivered once the rollback is lifted."""
    spool.configure(integrations={"gotranscript": {"enabled": True, "rollback_after": 1, "workers": 1}})
    sandbox.set_faults(Fault(kind=FaultKind.STATUS, status=503))
    spool.start()
    spool.drop("tripped.zip", seed=7)
    spool.wait_for("rejected", "tripped.zip")
    drop_all(spool)
    spool.wait_for_event("BACKED_UP", count=3)
    sandbox.set_faults()
    spool.ask("enable", integration=Integration.GOTRANSCRIPT)
    spool.wait_for("delivered", *NAMES, "tripped.zip")
    assert 4 == len(sandbox.orders())
    spool.wait_for_event("BACKED_UP", count=4)


def test_a_duplicate_is_still_refused(sandbox: Sandbox, spool: Spool, bucket: str) -> None:
    """What was accepted before is a duplicate also while deliveries are off; it gets no copy."""
    spool.configure(integrations={"gotranscript": {"enabled": True}})
    spool.start()
    spool.drop("first.zip")
    spool.wait_for_event("BACKED_UP")
    spool.configure(integrations={"gotranscript": {"enabled": False}})
    spool.wait_for_event("DISABLED")
    spool.drop("twin.zip")
    spool.wait_for("rejected", "twin.zip")
    assert 1 == len(keys(bucket))


def test_an_unsound_one_is_still_refused(sandbox: Sandbox, spool: Spool, bucket: str) -> None:
    """A ZIP that can't be read is refused while deliveries are off, too, and gets no copy."""
    spool.start()
    spool.drop("bad.zip", members={"../up.txt": b"x"})
    spool.wait_for("rejected", "bad.zip")
    assert set() == keys(bucket)


def test_a_parked_one_put_back_waits_and_is_sent_later(sandbox: Sandbox, spool: Spool, bucket: str) -> None:
    """A person's decision about an unknown outcome outlives the wait and the copy made meanwhile."""
    spool.configure(integrations={"gotranscript": {"enabled": True, "on_unknown_outcome": "ask"}})
    sandbox.set_faults(Fault(kind=FaultKind.RESET, times=1))
    spool.start()
    spool.drop("p.zip")
    spool.wait_for("rejected", "p.zip")
    spool.configure(integrations={"gotranscript": {"enabled": False}})
    spool.wait_for_event("DISABLED")
    (spool.root / "rejected" / "p.zip").rename(spool.root / "outbox" / "p.zip")
    spool.wait_for_event("BACKED_UP")
    spool.wait_for("outbox", "p.zip")
    spool.configure(integrations={"gotranscript": {"enabled": True}})
    spool.wait_for("delivered", "p.zip")
    assert 1 == len(sandbox.orders())
