"""`tfwatch cancel`: what waits is kept from being sent, by a command, with the daemon running or stopped."""

from __future__ import annotations

import json

import pytest

from tests.support.daemon import Spool, wait_until, zip_bytes
from tests.support.portal import digest, ordered
from tfwatch.sandbox.server import Sandbox
from tfwatch.sandbox.settings import VerdictWhen

NAME = "job_v1.zip"


def hold(spool: Spool, *, held: bool = True) -> None:
    """Deliveries off: what is dropped waits in outbox/."""
    spool.configure(integrations={"gotranscript": {"enabled": not held}})


def wait_in_outbox(spool: Spool, *names: str) -> None:
    hold(spool)
    spool.start()
    for seed, name in enumerate(names, start=1):
        spool.drop(name, seed=seed)
    spool.wait_for_state(lambda state: len(names) == state["stages"]["outbox"], "they wait")


def deliver_another(spool: Spool) -> None:
    """When it is delivered, the daemon has looked at all that came before it."""
    hold(spool, held=False)
    spool.drop("next.zip", seed=9)
    spool.wait_for("delivered", "next.zip")


@pytest.mark.parametrize("running", [True, False])
def test_what_waits_is_not_sent(sandbox: Sandbox, spool: Spool, running: bool) -> None:
    """Outbox → rejected: logged once as an operator's, with who asked; never sent, with a note beside it."""
    wait_in_outbox(spool, NAME)
    if not running:
        assert 0 == spool.stop()
    asked = spool.cli("cancel", NAME)
    assert 0 == asked.returncode, asked.stderr
    assert ("cancelled, now in rejected/" if running else "done at the next start") in asked.stdout
    if not running:
        hold(spool, held=False)  # taken before anything is sent
        spool.start()
    spool.wait_for_event("MOVED", NAME)
    deliver_another(spool)
    row = spool.row("MOVED", NAME)
    assert ("operator", "outbox", "rejected") == (row["actor"], row["from_stage"], row["to_stage"])
    assert "cancelled by " in row["detail"]
    assert {digest(zip_bytes(seed=9)): 1} == ordered(sandbox)
    assert {NAME} == spool.names("rejected")
    assert "put here by an operator" in spool.reason(NAME)
    spool.assert_sound()


def test_all_of_them_or_none(spool: Spool) -> None:
    """One that can't be cancelled: the others are left alone, and it is said what there is to do."""
    wait_in_outbox(spool, NAME, "other.zip")
    asked = spool.cli("cancel", NAME, "nothing.zip")
    assert 1 == asked.returncode
    assert "nothing.zip: no package of that name" in asked.stderr
    assert "nothing was cancelled" in asked.stderr
    assert {NAME, "other.zip"} == spool.names("outbox")
    both = spool.cli("cancel", NAME, "outbox/other.zip", "--json")
    assert 0 == both.returncode, both.stderr
    assert {
        "taken": True,
        "packages": [{"package": name, "now_in": ["rejected"]} for name in (NAME, "other.zip")],
    } == json.loads(both.stdout)
    spool.wait_for_event("MOVED", count=2)


def test_an_order_is_only_given_up_with_force(sandbox: Sandbox, spool: Spool) -> None:
    """Submitted → rejected leaves an order at the service, so it is asked for twice; then it is not followed."""
    sandbox.set_settings(portal={"verdict": VerdictWhen.NEVER})
    spool.start()
    spool.drop(NAME, seed=1)
    spool.wait_for("submitted", NAME)
    (order,) = sandbox.orders()
    asked = spool.cli("cancel", NAME)
    assert 1 == asked.returncode
    assert f"was accepted already as order {order['id']}" in asked.stderr
    assert f"tfwatch cancel --force {NAME}" in asked.stderr
    assert {NAME} == spool.names("submitted")
    assert 0 == spool.cli("cancel", "--force", NAME).returncode
    spool.wait_for_event("MOVED", NAME)
    sandbox.give_verdict(str(order["id"]), "completed")
    sandbox.set_settings(portal={"verdict": VerdictWhen.IMMEDIATE})
    deliver_another(spool)
    assert ["ATTEMPTED", "ACCEPTED", "MOVED"] == spool.events(NAME)
    spool.assert_sound()


def test_another_of_that_name_was_rejected_before(spool: Spool) -> None:
    """Its name is taken in rejected/: it gets the next one there, and its row has the dropped one."""
    wait_in_outbox(spool, NAME)
    assert 0 == spool.cli("cancel", NAME).returncode
    spool.wait_for_event("MOVED", NAME)
    spool.drop(NAME, seed=2)
    spool.wait_for_state(lambda state: 1 == state["stages"]["outbox"], "it waits")
    assert 0 == spool.cli("cancel", NAME).returncode
    spool.wait_for_event("MOVED", "job_v1~2.zip")
    assert {NAME, "job_v1~2.zip"} == spool.names("rejected")
    assert f"dropped={NAME}" in spool.row("MOVED", "job_v1~2.zip")["detail"]
    assert spool.reason("job_v1~2.zip")
    spool.assert_sound()


@pytest.mark.parametrize("word", ["rejected", "delivered"])
def test_what_is_settled_has_nothing_to_cancel(spool: Spool, word: str) -> None:
    """Cancelled twice, or too late: it is said how it stands, and nothing is moved."""
    if word == "delivered":
        spool.start()
        spool.drop(NAME, seed=1)
        spool.wait_for("delivered", NAME)
    else:
        wait_in_outbox(spool, NAME)
        assert 0 == spool.cli("cancel", NAME).returncode
        spool.wait_for_event("MOVED", NAME)
    asked = spool.cli("cancel", NAME)
    assert 1 == asked.returncode
    assert ("lies in rejected/ already" if word == "rejected" else "is delivered") in asked.stderr
    assert {NAME} == spool.names(word)


def test_cancelled_but_not_logged(sandbox: Sandbox, spool: Spool) -> None:
    """A cancel renames first, as a person's mv does: after a crash in between it is logged at the start, never sent."""
    wait_in_outbox(spool, NAME)
    spool.kill()
    (spool.root / "outbox" / NAME).rename(spool.root / "rejected" / NAME)
    assert "lies in rejected/ already" in spool.cli("cancel", NAME).stderr
    spool.ask("cancel", names=(NAME,))  # the request that was being carried out is still there, too
    hold(spool, held=False)
    spool.start()
    deliver_another(spool)
    row = spool.row("MOVED", NAME)
    assert ("operator", "outbox", "rejected") == (row["actor"], row["from_stage"], row["to_stage"])
    assert {digest(zip_bytes(seed=9)): 1} == ordered(sandbox)
    wait_until(lambda: not list((spool.root / ".tfwatch" / "requests").iterdir()), "the request is taken")
    assert " cancel job_v1.zip" not in spool.output.read_text()
    spool.assert_sound()
