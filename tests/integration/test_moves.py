"""What an operator says with `mv`: each row of the table in the contract's §1, with the daemon running and stopped."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable

import pytest

from tests.support.daemon import Spool, wait_until, zip_bytes
from tests.support.host import without_power
from tests.support.portal import digest, keys, ordered
from tests.support.s3_servers import ACCESS_KEY, REGION, SECRET_KEY, moto
from tfwatch.model import Integration
from tfwatch.sandbox.faults import Fault, FaultKind, Target
from tfwatch.sandbox.server import Sandbox
from tfwatch.sandbox.settings import VerdictWhen

NAME = "job_v1.zip"
SHA256 = digest(zip_bytes(seed=1))

Move = Callable[[str, str], None]


@pytest.fixture(params=["running", "stopped"])
def move(request: pytest.FixtureRequest, spool: Spool) -> Move:
    """Moves the package from one stage's folder to another, while the daemon runs or between two runs of it."""

    def moving(source: str, target: str) -> None:
        if request.param == "stopped":
            assert 0 == spool.stop()
        os.rename(spool.root / source / NAME, spool.root / target / NAME)
        if request.param == "stopped":
            spool.start()

    return moving


def assert_logged_once(spool: Spool, event: str, source: str, target: str) -> None:
    """One row says that a person moved it so; neither a rescan nor a restart says it again."""
    spool.wait_for_event(event, NAME)
    spool.stop()
    spool.start()
    row = spool.row(event, NAME)
    assert ("operator", source, target) == (row["actor"], row["from_stage"], row["to_stage"]), spool.picture()
    spool.assert_sound()


def refused_by_the_service(sandbox: Sandbox, spool: Spool) -> None:
    sandbox.set_faults(Fault(kind=FaultKind.STATUS, status=422, times=1))
    spool.start()
    spool.drop(NAME, seed=1)
    spool.wait_for("rejected", NAME)


def submitted(sandbox: Sandbox, spool: Spool) -> str:
    """The order's id; its verdict comes only when it is told to."""
    sandbox.set_settings(portal={"verdict": VerdictWhen.NEVER})
    spool.start()
    spool.drop(NAME, seed=1)
    spool.wait_for("submitted", NAME)
    (order,) = sandbox.orders()
    return str(order["id"])


def switch(spool: Spool, *, enabled: bool) -> None:
    spool.configure(integrations={"gotranscript": {"enabled": enabled}})


# --- back into the outbox ---------------------------------------------------------------------------------------------


def test_after_a_refusal_it_goes_under_a_new_key(sandbox: Sandbox, spool: Spool, move: Move) -> None:
    """Rejected → outbox of what the service refused: tried again under `<sha256>-2`; its reason file goes."""
    refused_by_the_service(sandbox, spool)
    reason = spool.root / "rejected" / f"{NAME}.reason.txt"
    assert reason.exists()
    move("rejected", "outbox")
    spool.wait_for("delivered", NAME)
    assert [f"{SHA256}-2"] == keys(sandbox)
    wait_until(lambda: not reason.exists(), "the reason file goes with its ZIP")
    assert_logged_once(spool, "REQUEUED", "rejected", "outbox")
    assert {SHA256: 1} == ordered(sandbox)


def test_after_a_rollback_it_keeps_its_key(sandbox: Sandbox, spool: Spool, move: Move) -> None:
    """Rejected → outbox of what a rollback rejected: it waits while that lasts, then goes under the same key."""
    spool.configure(integrations={"gotranscript": {"rollback_after": 1}})
    sandbox.set_faults(Fault(kind=FaultKind.STATUS, status=503))
    spool.start()
    spool.drop(NAME, seed=1)
    spool.wait_for("rejected", NAME)
    sandbox.set_faults()
    move("rejected", "outbox")
    spool.wait_for_event("REQUEUED", NAME)
    assert [] == sandbox.orders()
    spool.ask("enable", integration=Integration.GOTRANSCRIPT)
    spool.wait_for("delivered", NAME)
    assert [SHA256] == keys(sandbox)
    assert_logged_once(spool, "REQUEUED", "rejected", "outbox")


def test_after_an_unknown_outcome_it_keeps_its_key(sandbox: Sandbox, spool: Spool, move: Move) -> None:
    """Rejected → outbox of what may have been accepted: asked again under the same key, so it stays one order."""
    spool.configure(integrations={"gotranscript": {"on_unknown_outcome": "ask"}})
    sandbox.set_faults(Fault(kind=FaultKind.RESET), Fault(kind=FaultKind.STATUS, status=503, target=Target.LOOKUP))
    spool.start()
    spool.drop(NAME, seed=1)
    spool.wait_for("rejected", NAME)
    assert "Nobody knows whether" in spool.reason(NAME)
    sandbox.set_faults()
    move("rejected", "outbox")
    spool.wait_for("delivered", NAME)
    assert [SHA256] == keys(sandbox)
    assert_logged_once(spool, "REQUEUED", "rejected", "outbox")


def test_a_duplicate_stays_a_duplicate(sandbox: Sandbox, spool: Spool, move: Move) -> None:
    """Rejected → outbox of a duplicate: it is refused again, and there is still one order."""
    spool.start()
    spool.drop("first.zip", seed=1)
    spool.wait_for("delivered", "first.zip")
    spool.drop(NAME, seed=1)
    spool.wait_for("rejected", NAME)
    move("rejected", "outbox")
    spool.wait_for_event("REFUSED", NAME, count=2)
    spool.wait_for("rejected", NAME)
    assert "first.zip" in spool.reason(NAME)
    assert_logged_once(spool, "REQUEUED", "rejected", "outbox")
    assert {SHA256: 1} == ordered(sandbox)


@pytest.mark.parametrize("stage", ["submitted", "delivered"])
def test_what_was_accepted_would_be_a_second_order(sandbox: Sandbox, spool: Spool, move: Move, stage: str) -> None:
    """Submitted, delivered → outbox: rejected as a duplicate, and the reason names the command for a second order."""
    order_id = submitted(sandbox, spool)
    if stage == "delivered":
        sandbox.give_verdict(order_id, "completed")
        spool.wait_for("delivered", NAME)
    move(stage, "outbox")
    spool.wait_for("rejected", NAME)
    assert f"tfwatch requeue --force {NAME}" in spool.reason(NAME)
    assert order_id in spool.reason(NAME)
    assert_logged_once(spool, "REQUEUED", stage, "outbox")
    assert {SHA256: 1} == ordered(sandbox)


# --- cancelled, done by hand, taken away ------------------------------------------------------------------------------


def test_a_cancelled_package_is_not_sent(sandbox: Sandbox, spool: Spool, move: Move) -> None:
    """Outbox → rejected cancels what waits: it is not sent when deliveries go on; a note beside it says why."""
    switch(spool, enabled=False)
    spool.start()
    spool.drop(NAME, seed=1)
    spool.wait_for_state(lambda state: state["stages"]["outbox"] == 1, "it waits")
    move("outbox", "rejected")
    spool.wait_for_event("MOVED", NAME)
    switch(spool, enabled=True)
    spool.drop("next.zip", seed=2)
    spool.wait_for("delivered", "next.zip")
    assert {digest(zip_bytes(seed=2)): 1} == ordered(sandbox)
    assert {NAME} == spool.names("rejected")
    assert "put here by an operator" in spool.reason(NAME)
    assert_logged_once(spool, "MOVED", "outbox", "rejected")


def test_a_cancelled_order_is_no_longer_followed(sandbox: Sandbox, spool: Spool, move: Move) -> None:
    """Submitted → rejected: whatever the service says of the order later, the package stays where it was put."""
    order_id = submitted(sandbox, spool)
    move("submitted", "rejected")
    spool.wait_for_event("MOVED", NAME)
    sandbox.give_verdict(order_id, "completed")
    sandbox.set_settings(portal={"verdict": VerdictWhen.IMMEDIATE})
    spool.drop("next.zip", seed=2)
    spool.wait_for("delivered", "next.zip")
    assert_logged_once(spool, "MOVED", "submitted", "rejected")
    assert ["ATTEMPTED", "ACCEPTED", "MOVED"] == spool.events(NAME)
    assert {NAME} == spool.names("rejected")


@pytest.mark.parametrize("source", ["outbox", "submitted", "rejected"])
def test_what_a_person_saw_done_is_settled(sandbox: Sandbox, spool: Spool, move: Move, source: str) -> None:
    """Outbox, submitted, rejected → delivered: settled as it stands, backed up, and never sent (again)."""
    server = moto("http")
    bucket = f"bucket-{os.urandom(6).hex()}"
    client = server.client()
    client.create_bucket(Bucket=bucket)
    s3 = {"endpoint_url": server.url, "bucket": bucket, "access_key": ACCESS_KEY, "secret_key": SECRET_KEY}
    spool.configure(integrations={"s3": {"enabled": True, "region": REGION, **s3}})
    if source == "outbox":
        switch(spool, enabled=False)
        spool.start()
        spool.drop(NAME, seed=1)
    elif source == "submitted":
        submitted(sandbox, spool)
    else:
        refused_by_the_service(sandbox, spool)
    before = ordered(sandbox)
    move(source, "delivered")
    spool.wait_for_event("BACKED_UP", NAME)
    (stored,) = client.list_objects_v2(Bucket=bucket)["Contents"]
    assert zip_bytes(seed=1) == client.get_object(Bucket=bucket, Key=stored["Key"])["Body"].read()
    assert_logged_once(spool, "MOVED", source, "delivered")
    assert {NAME} == spool.names("delivered")
    assert not (spool.root / "rejected" / f"{NAME}.reason.txt").exists()
    assert before == ordered(sandbox)


@pytest.mark.parametrize("source", ["submitted", "delivered", "rejected"])
def test_what_was_taken_away_is_noticed(sandbox: Sandbox, spool: Spool, move: Move, source: str) -> None:
    """Any → away: noticed at the next look, and logged with an empty `to_stage`."""
    if source == "rejected":
        refused_by_the_service(sandbox, spool)
    else:
        order_id = submitted(sandbox, spool)
        if source == "delivered":
            sandbox.give_verdict(order_id, "completed")
            spool.wait_for("delivered", NAME)
    before = ordered(sandbox)
    move(source, "..")
    assert_logged_once(spool, "MOVED", source, "")
    assert [] == os.listdir(spool.root / "rejected"), "the reason file goes with its ZIP"
    assert before == ordered(sandbox)


@pytest.mark.root
def test_what_was_moved_and_may_not_be_read_waits_for_its_chmod(sandbox: Sandbox, spool: Spool) -> None:
    """Rejected → delivered of a file closed to the daemon: told, said to be nowhere by nobody; then it is settled."""
    spool.configure(spool={"rescan_seconds": 1})
    sandbox.set_faults(Fault(kind=FaultKind.STATUS, status=422, times=1))
    spool.start(wrap=without_power("lease"))
    spool.drop(NAME, seed=1)
    spool.wait_for("rejected", NAME)
    there = spool.root / "delivered" / NAME
    (spool.root / "rejected" / NAME).chmod(0)
    os.rename(spool.root / "rejected" / NAME, there)
    wait_until(lambda: f"chmod a+r '{there}'" in spool.output.read_text(), "it is told", 60)
    there.chmod(0o644)
    spool.wait_for_event("MOVED", NAME)
    assert ["ATTEMPTED", "REFUSED", "MOVED"] == spool.events(NAME)
    assert_logged_once(spool, "MOVED", "rejected", "delivered")
    assert 1 == spool.output.read_text().count("it is not known what was moved there")


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["submitted", "rejected"])
def test_a_copy_under_the_same_name_is_no_move(sandbox: Sandbox, spool: Spool, target: str) -> None:
    """Nothing was moved, so nothing is logged, however often the folders are looked at; it is told once and left."""
    spool.configure(spool={"rescan_seconds": 0.2})
    spool.start()
    spool.drop("p.zip")
    spool.wait_for("delivered", "p.zip")
    shutil.copyfile(spool.root / "delivered" / "p.zip", spool.home / "p.zip")
    (spool.home / "p.zip").rename(spool.root / target / "p.zip")
    wait_until(lambda: f"{target}/p.zip: is a copy of delivered/p.zip" in spool.output.read_text(), "it is told")
    spool.drop("q.zip", seed=1)  # enough goes on for many more looks
    spool.wait_for("delivered", "q.zip")
    assert 0 == spool.stop()
    spool.start()
    spool.drop("r.zip", seed=2)
    spool.wait_for("delivered", "r.zip")
    assert 0 == spool.stop()
    assert ["ATTEMPTED", "ACCEPTED", "COMPLETED"] == spool.events("p.zip"), spool.picture()
    assert 2 == spool.output.read_text().count("is a copy of delivered/p.zip"), "once in each run"
    assert "p.zip" in spool.names(target) & spool.names("delivered")
    assert 1 == ordered(sandbox)[digest(zip_bytes())]


def test_a_waiting_package_may_be_renamed(sandbox: Sandbox, spool: Spool) -> None:
    """Renamed in the outbox between two attempts: the log follows, and it goes under its new name and the same key."""
    sandbox.set_faults(Fault(kind=FaultKind.STATUS, status=503, times=2))
    spool.start()
    spool.drop(NAME, seed=1)
    spool.wait_for_event("DEFERRED", NAME)
    spool.wait_for("outbox", NAME)
    os.rename(spool.root / "outbox" / NAME, spool.root / "outbox" / "renamed.zip")
    spool.wait_for("delivered", "renamed.zip")
    assert [SHA256] == keys(sandbox)
    (moved,) = (row for row in spool.rows() if row["event"] == "MOVED")
    assert ("renamed.zip", "operator") == (moved["package"], moved["actor"])
    assert NAME in moved["detail"]


@pytest.mark.parametrize("kind", ["zip", "directory"])
def test_a_file_in_the_way_is_not_overwritten(sandbox: Sandbox, spool: Spool, kind: str) -> None:
    """Something of that name lies where the daemon wants to move: MOVED to the next free name, then the move."""
    order_id = submitted(sandbox, spool)
    in_the_way = spool.root / "delivered" / NAME
    if kind == "zip":
        in_the_way.write_bytes(zip_bytes(seed=2))
    else:
        in_the_way.mkdir()
    sandbox.give_verdict(order_id, "completed")
    spool.wait_for("delivered", "job_v1~2.zip")
    assert zip_bytes(seed=1) == (spool.root / "delivered" / "job_v1~2.zip").read_bytes()
    assert in_the_way.is_dir() or zip_bytes(seed=2) == in_the_way.read_bytes()
    ours = [row for row in spool.rows() if row["sha256"] == SHA256]
    assert ["ATTEMPTED", "ACCEPTED", "COMPLETED", "MOVED"] == [row["event"] for row in ours]
    assert ("job_v1~2.zip", "delivered") == (ours[-1]["package"], ours[-1]["to_stage"])
    assert {SHA256: 1} == ordered(sandbox)
    spool.stop()
    spool.start()
    assert [SHA256] * 4 == [row["sha256"] for row in spool.rows() if row["sha256"] == SHA256], "a restart adds nothing"
    spool.assert_sound()
