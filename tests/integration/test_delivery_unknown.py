"""When nobody knows whether the portal took a package: whatever happens then, there is never a second order."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.daemon import Spool, wait_until
from tests.support.daemon import spool as make_spool
from tests.support.host import mounted
from tfwatch.model import Integration
from tfwatch.sandbox.faults import Fault, FaultKind, Target
from tfwatch.sandbox.server import Sandbox
from tfwatch.sandbox.settings import PortalSettings, SandboxSettings

SILENCES = (
    Fault(kind=FaultKind.RESET, times=1),
    Fault(kind=FaultKind.GARBAGE, times=1),
    Fault(kind=FaultKind.NO_ID, times=1),
    Fault(kind=FaultKind.TRUNCATED, times=1),
    Fault(kind=FaultKind.HANG, accept=True, times=1),
    Fault(kind=FaultKind.STATUS, status=503, accept=True, times=1),
)
"""The portal takes the package, and its answer is lost in every way it can be. A 503 says so wrongly."""


SILENCE = 5
"""Seconds after which no answer is an unknown outcome: a loaded machine must have given every other one by then."""


def set_policy(spool: Spool, policy: str, **more: object) -> None:
    spool.configure(
        integrations={"gotranscript": {"on_unknown_outcome": policy, "timeout_seconds": SILENCE} | more},
    )


def lost(times: int | None = 1) -> Fault:
    """The portal opens the order, and its reply never arrives."""
    return Fault(kind=FaultKind.RESET, times=times)


def park(sandbox: Sandbox, spool: Spool, name: str = "p.zip") -> None:
    """Send a package into silence under `ask`, so that it lies in rejected/ with the order at the portal."""
    set_policy(spool, "ask")
    sandbox.set_faults(lost())
    spool.start()
    spool.drop(name)
    spool.wait_for("rejected", name)


def back_to_outbox(spool: Spool, name: str = "p.zip") -> None:
    (spool.root / "rejected" / name).rename(spool.root / "outbox" / name)


def test_retry_sends_again_under_the_same_key(sandbox: Sandbox, spool: Spool) -> None:
    """With `retry`, whatever became of the answer, the portal's idempotency makes both tries one order."""
    set_policy(spool, "retry")
    spool.start()
    for number, silence in enumerate(SILENCES, start=1):
        name = f"{silence.kind}.zip"
        sandbox.set_faults(silence)
        spool.drop(name, seed=number)
        spool.wait_for("delivered", name)
        assert ["ATTEMPTED", "ACCEPTED", "COMPLETED"] == spool.events(name)
    orders = sandbox.orders()
    assert [f"{silence.kind}.zip" for silence in SILENCES] == [order["filename"] for order in orders]
    assert {2} == {order["requests"] for order in orders}
    spool.assert_sound()


def test_lookup_finds_the_order_instead_of_sending_again(sandbox: Sandbox, spool: Spool) -> None:
    """With `lookup`, a portal that knows nothing of idempotency keys gets each package once and only once."""
    sandbox.set_settings(portal={"idempotency": False})
    set_policy(spool, "lookup")
    spool.start()
    silences = [silence for silence in SILENCES if silence.kind is not FaultKind.STATUS]
    for number, silence in enumerate(silences, start=1):
        name = f"{silence.kind}.zip"
        sandbox.set_faults(silence)
        spool.drop(name, seed=number)
        spool.wait_for("delivered", name)
    orders = sandbox.orders()
    assert [f"{silence.kind}.zip" for silence in silences] == [order["filename"] for order in orders]
    assert {1} == {order["requests"] for order in orders}
    assert [str(order["id"]) for order in orders] == [
        row["order_id"] for row in spool.rows() if row["event"] == "ACCEPTED"
    ]


def test_lookup_sends_when_there_is_no_order(sandbox: Sandbox, spool: Spool) -> None:
    """With `lookup`, a package that the portal never took is sent after all."""
    set_policy(spool, "lookup")
    sandbox.set_faults(Fault(kind=FaultKind.HANG, accept=False, times=1))
    spool.start()
    spool.drop("p.zip")
    spool.wait_for("delivered", "p.zip")
    assert 1 == len(sandbox.orders())
    assert {"POST": 2} == {method: n for method, n in by_method(sandbox).items() if method == "POST"}


def test_a_lookup_that_fails_sends_nothing(sandbox: Sandbox, spool: Spool) -> None:
    """While the order can't be looked up, the package waits in claimed/ as unknown; it is not sent again."""
    sandbox.set_settings(portal={"idempotency": False})
    set_policy(spool, "lookup")
    sandbox.set_faults(lost(), Fault(kind=FaultKind.STATUS, target=Target.LOOKUP))
    spool.start()
    spool.drop("p.zip")
    spool.wait_for_event("UNKNOWN")
    assert {"p.zip"} == spool.claimed()
    assert 1 == by_method(sandbox)["POST"]
    assert ("claimed", "unknown") == (spool.row("UNKNOWN")["to_stage"], spool.row("UNKNOWN")["status"])
    sandbox.set_faults()
    restart(spool)
    spool.wait_for("delivered", "p.zip")
    assert 1 == len(sandbox.orders())
    assert 1 == by_method(sandbox)["POST"]
    spool.assert_sound()


def test_an_unknown_outcome_is_settled_after_a_restart(sandbox: Sandbox, spool: Spool) -> None:
    """A package whose every try fell silent stays in claimed/, and after a restart becomes the order it already is."""
    set_policy(spool, "retry")
    sandbox.set_faults(lost(times=None))
    spool.start()
    spool.drop("p.zip")
    spool.wait_for_event("UNKNOWN")
    assert {"p.zip"} == spool.claimed()
    assert set() == spool.names("outbox")
    sandbox.set_faults()
    restart(spool)
    spool.wait_for("delivered", "p.zip")
    assert ["ATTEMPTED", "UNKNOWN", "ATTEMPTED", "ACCEPTED", "COMPLETED"] == spool.events("p.zip")
    (order,) = sandbox.orders()
    assert f'"{order["sha256"]}"' == order["idempotency_key"]


def test_ask_leaves_it_to_a_person(sandbox: Sandbox, spool: Spool) -> None:
    """With `ask`, one silence parks the package in rejected/ as unknown, with a reason; nothing is sent again."""
    park(sandbox, spool)
    row = spool.row("UNKNOWN")
    assert ("rejected", "unknown") == (row["to_stage"], row["status"])
    assert "Nobody knows whether p.zip was delivered" in spool.reason("p.zip")
    assert row["sha256"] in spool.reason("p.zip")
    assert 1 == by_method(sandbox)["POST"]
    spool.drop("next.zip", seed=9)
    spool.wait_for("delivered", "next.zip")
    assert 2 == len(sandbox.orders())


def test_a_person_may_send_it_again_under_the_same_key(sandbox: Sandbox, spool: Spool) -> None:
    """`mv rejected outbox` of a parked package sends it under the same key: still one order."""
    park(sandbox, spool)
    back_to_outbox(spool)
    spool.wait_for("delivered", "p.zip")
    (order,) = sandbox.orders()
    assert 2 == order["requests"]
    assert ["ATTEMPTED", "UNKNOWN", "REQUEUED", "ATTEMPTED", "ACCEPTED", "COMPLETED"] == spool.events("p.zip")
    spool.assert_sound()


def test_a_person_may_say_it_was_delivered(sandbox: Sandbox, spool: Spool) -> None:
    """`mv rejected delivered` of a parked package settles it: nothing is sent, and its twin is a duplicate."""
    park(sandbox, spool)
    (spool.root / "rejected" / "p.zip").rename(spool.root / "delivered" / "p.zip")
    spool.wait_for_event("MOVED")
    spool.drop("twin.zip")
    spool.wait_for("rejected", "twin.zip")
    assert "already accepted" in spool.reason("twin.zip")
    assert 1 == len(sandbox.orders())
    assert 1 == by_method(sandbox)["POST"]


def test_a_twin_of_an_unknown_package_is_not_sent(sandbox: Sandbox, spool: Spool) -> None:
    """The same content under another name could be the second order: it is refused while the first is unknown."""
    park(sandbox, spool)
    spool.drop("twin.zip")
    spool.wait_for("rejected", "twin.zip")
    assert "not known yet" in spool.reason("twin.zip")
    assert 1 == by_method(sandbox)["POST"]


@pytest.mark.parametrize("policy", ["retry", "lookup"])
def test_another_base_url_is_never_asked_by_itself(sandbox: Sandbox, spool: Spool, policy: str) -> None:
    """An unknown outcome is followed up where it arose: at another address the package is parked and a person asked."""
    set_policy(spool, policy)
    sandbox.set_faults(lost(times=None), Fault(kind=FaultKind.STATUS, target=Target.LOOKUP))
    spool.start()
    spool.drop("p.zip")
    spool.wait_for_event("UNKNOWN")
    spool.stop()
    with Sandbox(SandboxSettings(portal=PortalSettings(verdict_delay=0.1))) as other:
        spool.configure(integrations={"gotranscript": {"base_url": other.url}})
        spool.start()
        spool.wait_for("rejected", "p.zip")
        assert sandbox.url in spool.reason("p.zip")
        assert [] == other.requests()["requests"]
        assert 1 == len(sandbox.orders())
        assert "unknown" == spool.rows("p.zip")[-1]["status"]
        # a person who knows that the old service hasn't got it sends it to the new one
        back_to_outbox(spool)
        spool.wait_for("delivered", "p.zip")
        assert 1 == len(other.orders())
    spool.assert_sound()


def test_an_order_is_asked_about_where_it_was_accepted(sandbox: Sandbox, spool: Spool) -> None:
    """An order of the old address gets its verdict from there, whatever base_url says later."""
    sandbox.set_settings(portal={"verdict": "never"})
    spool.start()
    spool.drop("old.zip", seed=1)
    spool.wait_for("submitted", "old.zip")
    with Sandbox(SandboxSettings(portal=PortalSettings(verdict_delay=0.1))) as other:
        spool.configure(integrations={"gotranscript": {"base_url": other.url}})
        wait_until(lambda: "configuration taken over" in spool.output.read_text(), "the new address is in force")
        spool.drop("new.zip", seed=2)
        spool.wait_for("delivered", "new.zip")
        sandbox.give_verdict(str(sandbox.orders()[0]["id"]), "completed")
        spool.wait_for("delivered", "old.zip")
        assert ["new.zip"] == [order["filename"] for order in other.orders()]
    assert ["old.zip"] == [order["filename"] for order in sandbox.orders()]


def test_a_4xx_after_a_silence_is_not_believed_without_a_lookup(sandbox: Sandbox, spool: Spool) -> None:
    """After an unknown outcome a refusal may be the answer to a package the portal has: the lookup finds the order."""
    set_policy(spool, "retry")
    sandbox.set_faults(lost(), Fault(kind=FaultKind.STATUS, status=422, times=1))
    spool.start()
    spool.drop("p.zip")
    spool.wait_for("delivered", "p.zip")
    assert 1 == len(sandbox.orders())
    assert "REFUSED" not in spool.events()


def test_a_4xx_after_a_silence_is_believed_when_there_is_no_order(sandbox: Sandbox, spool: Spool) -> None:
    """The same refusal counts once the lookup shows that the portal has no order."""
    set_policy(spool, "retry")
    silent = Fault(kind=FaultKind.HANG, accept=False, times=1)
    sandbox.set_faults(silent, Fault(kind=FaultKind.STATUS, status=422, times=1, message="No audio inside."))
    spool.start()
    spool.drop("p.zip")
    spool.wait_for("rejected", "p.zip")
    assert "No audio inside." in spool.reason("p.zip")
    assert "REFUSED" == spool.events("p.zip")[-1]
    assert [] == sandbox.orders()


def test_lookup_ignores_orders_of_earlier_deliveries(sandbox: Sandbox, spool: Spool) -> None:
    """A refused order of the same content is not taken for the one whose reply was lost."""
    sandbox.set_settings(portal={"verdict": "never"})
    set_policy(spool, "lookup")
    spool.start()
    spool.drop("p.zip")
    spool.wait_for("submitted", "p.zip")
    sandbox.give_verdict(str(sandbox.orders()[0]["id"]), "rejected")
    spool.wait_for("rejected", "p.zip")
    sandbox.set_faults(Fault(kind=FaultKind.HANG, accept=False, times=1))
    back_to_outbox(spool)
    spool.wait_for("submitted", "p.zip")
    first, second = sandbox.orders()
    assert first["id"] != second["id"]
    assert second["id"] == spool.rows("p.zip")[-1]["order_id"]


def test_a_connection_cut_before_everything_was_sent_is_not_unknown(sandbox: Sandbox, spool: Spool) -> None:
    """Cut in the middle of the body, nothing can have been accepted: tried again even with `ask`."""
    set_policy(spool, "ask")
    sandbox.set_faults(Fault(kind=FaultKind.RESET_EARLY, times=1))
    spool.start()
    spool.drop("big.zip", size=30_000_000)
    spool.wait_for("delivered", "big.zip")
    assert "UNKNOWN" not in spool.events()
    assert 1 == len(sandbox.orders())


def test_a_pause_keeps_an_unknown_package_in_claimed(sandbox: Sandbox, spool: Spool) -> None:
    """A 401 for a package whose outcome is unknown pauses the integration; the package never goes to the outbox."""
    set_policy(spool, "retry")
    sandbox.set_faults(lost(times=None))
    spool.start()
    spool.drop("p.zip")
    spool.wait_for_event("UNKNOWN")
    unauthorised = Fault(kind=FaultKind.STATUS, status=401)
    sandbox.set_faults(unauthorised, Fault(kind=FaultKind.STATUS, status=401, target=Target.LOOKUP))
    restart(spool)
    spool.wait_for_event("DISABLED")
    assert {"p.zip"} == spool.claimed()
    sandbox.set_faults()
    spool.ask("enable", integration=Integration.GOTRANSCRIPT)
    spool.wait_for("delivered", "p.zip")
    assert 1 == len(sandbox.orders())


def test_no_silence_makes_a_second_order_of_many(tmp_path: Path) -> None:
    """Twenty packages, half of all answers lost, a portal without idempotency, `lookup`: twenty orders."""
    portal = PortalSettings(verdict_delay=0.1, idempotency=False)
    faults = (Fault(kind=FaultKind.RESET, probability=0.3), Fault(kind=FaultKind.NO_ID, probability=0.3))
    with (
        Sandbox(SandboxSettings(portal=portal, faults=faults)) as sandbox,
        make_spool(tmp_path, sandbox.url, sandbox.api_key) as spool,
    ):
        set_policy(spool, "lookup")
        spool.start()
        names = {f"n{number}.zip" for number in range(20)}
        for number, name in enumerate(names):
            spool.drop(name, seed=number)
        spool.wait_for("delivered", *names)
        wait_until(lambda: len(sandbox.orders()) == 20, "twenty orders")
        assert sorted(names) == sorted(str(order["filename"]) for order in sandbox.orders())


def restart(spool: Spool) -> None:
    assert 0 == spool.stop()
    spool.start()


def by_method(sandbox: Sandbox) -> dict[str, int]:
    return sandbox.requests()["by_method"]  # type: ignore[return-value]


@pytest.mark.root
@pytest.mark.parametrize("where", [".tfwatch/claimed", ".tfwatch"])
def test_an_unknown_one_under_a_mount_is_not_gone(sandbox: Sandbox, spool: Spool, where: str) -> None:
    """A mount covers what waits there: nobody is said to have taken it, and its next round finds the one order."""
    set_policy(spool, "lookup", retry={"attempts": 1})
    spool.configure(spool={"rescan_seconds": 1})
    sandbox.set_faults(lost(), Fault(kind=FaultKind.STATUS, status=503, target=Target.LOOKUP))
    spool.start()
    spool.drop("p.zip")
    spool.wait_for_event("UNKNOWN", "p.zip")
    rounds = len(spool.events("p.zip"))
    with mounted(spool.root / where, "tmpfs"):
        spool.wait_for_state(
            lambda state: [text for text in state["problems"] if f"umount {spool.root / where}" in text],
            "status names the mount",
        )
        sandbox.set_faults()
        seen = spool.state()["at"]
        wait_until(lambda: spool.state()["at"] != seen, "it goes on beating", 60)
        assert "MOVED" not in spool.events("p.zip")
    spool.wait_for("delivered", "p.zip", seconds=90)
    assert {"ATTEMPTED", "UNKNOWN", "ACCEPTED", "COMPLETED"} >= set(spool.events("p.zip"))
    assert rounds < len(spool.events("p.zip"))
    assert 1 == len(sandbox.orders())
