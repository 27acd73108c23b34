"""Each row of the crash table: the daemon dies there, and the next start makes one order and one file of it.

Where a window is too narrow to be hit, its traces are laid by hand: the log as it is, the file where it was before.
"""

from __future__ import annotations

import hashlib
import shutil
import signal
from pathlib import Path

import pytest

from tests.support.daemon import PATIENCE, STAGES, Spool, wait_until, zip_bytes
from tfwatch.sandbox.faults import Fault, FaultKind, Target
from tfwatch.sandbox.server import Sandbox

MORTAL = """
import ctypes, itertools, os, signal, sys

from tfwatch import cli
from tfwatch.spool import folders

last, armed, count = int(sys.argv.pop(1)), False, itertools.count(1)

def deadly(call):
    def calling(*args, **kwargs):
        global armed
        armed = armed or call is rename and args[0].endswith(".zip")
        if armed and next(count) == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*args, **kwargs)
    return calling

rename = folders.rename_noreplace
folders.rename_noreplace = deadly(rename)
os.fsync, os.fdatasync = deadly(os.fsync), deadly(os.fdatasync)
cli.main()
"""
"""The daemon, killed right before the n-th time that it renames or syncs anything since its first claim."""


def refuse(code: int = 422) -> Fault:
    return Fault(kind=FaultKind.STATUS, status=code, message="No audio inside.")


def hang(*, accept: bool) -> Fault:
    return Fault(kind=FaultKind.HANG, accept=accept)


def settle(spool: Spool, stage: str, name: str = "p.zip") -> None:
    """Deliver a package up to a stage, and stop."""
    spool.start()
    spool.drop(name)
    spool.wait_for(stage, name)
    assert 0 == spool.stop(), spool.picture()


def lay_back(spool: Spool, source: str, target: str, name: str = "p.zip") -> None:
    """Undo the last move: the daemon died between the fact and the rename."""
    (spool.root / source / name).rename(spool.root / target / name)


def only_order(sandbox: Sandbox) -> dict[str, object]:
    (order,) = sandbox.orders()
    return order


# --- at any moment --------------------------------------------------------------------------------------------------


DELIVERED_IN = 13
REFUSED_IN = 11
"""So many renames and syncs from the claim to the last folder. The first six are the same."""


@pytest.mark.parametrize(
    ("end", "moments"), [("delivered", range(1, DELIVERED_IN + 1)), ("rejected", range(6, REFUSED_IN + 1))]
)
def test_killed_at_any_moment_it_delivers_once(tmp_path: Path, sandbox: Sandbox, end: str, moments: range) -> None:
    """Killed before any rename, fsync or fdatasync of a delivery: one order, one file, a log that holds."""
    spools = {moment: make_spool(tmp_path / str(moment), sandbox) for moment in moments}
    if end == "rejected":
        sandbox.set_faults(refuse())
    try:
        for moment, spool in spools.items():
            spool.drop("p.zip", seed=moment)
            spool.start(ready=False, program=("-c", MORTAL, str(moment)))
        for spool in spools.values():
            assert -signal.SIGKILL == ended(spool), spool.picture()
            spool.start(ready=False)
        for spool in spools.values():
            spool.wait_for(end, "p.zip")
            assert 0 == spool.stop()
            assert [{"p.zip"}] == [spool.names(stage) for stage in STAGES if spool.names(stage)], spool.picture()
            assert set() == spool.claimed()
            assert end != "rejected" or "No audio inside." in spool.reason("p.zip")
            spool.assert_sound()
    finally:
        for spool in spools.values():
            spool.kill()
    expected = [sha256_of(moment) for moment in moments] if end == "delivered" else []
    assert sorted(expected) == sorted(str(order["sha256"]) for order in sandbox.orders())


def make_spool(home: Path, sandbox: Sandbox) -> Spool:
    home.mkdir()
    return Spool(home, sandbox.url, sandbox.api_key)


def ended(spool: Spool) -> int:
    """The daemon's exit code, once it has one."""
    assert spool.process is not None
    return spool.process.wait(PATIENCE)


def sha256_of(seed: int) -> str:
    return hashlib.sha256(zip_bytes(seed=seed)).hexdigest()


# --- drop and claim -------------------------------------------------------------------------------------------------


def test_dropped_but_not_claimed(sandbox: Sandbox, spool: Spool) -> None:
    """What lies in the outbox at the start is found by the scan; 0 bytes after a power cut are refused as truncated."""
    spool.configure(spool={"incomplete_timeout_seconds": 1})
    spool.drop("whole.zip")
    (spool.root / "outbox" / "cut.zip").touch()
    spool.start()
    spool.wait_for("delivered", "whole.zip")
    spool.wait_for("rejected", "cut.zip")
    assert ["REFUSED"] == spool.events("cut.zip")
    assert "unfinished" in spool.reason("cut.zip")
    assert "whole.zip" == only_order(sandbox)["filename"]


# --- claim and ATTEMPTED --------------------------------------------------------------------------------------------


def test_claimed_but_not_attempted(sandbox: Sandbox, spool: Spool) -> None:
    """A ZIP in claimed/ that the log doesn't know goes back to work, under whatever name it has there."""
    spool.start()
    spool.stop()
    spool.drop("p.zip")
    lay_back(spool, "outbox", ".tfwatch/claimed")
    spool.drop("p.zip", seed=2)
    spool.start()
    spool.wait_for("delivered", "p.zip", "p~2.zip")
    assert {sha256_of(0), sha256_of(2)} == {order["sha256"] for order in sandbox.orders()}
    assert 2 == len(sandbox.orders())
    spool.assert_sound()


# --- ATTEMPTED and reply --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["retry", "lookup"])
@pytest.mark.parametrize("accepted", [True, False])
def test_killed_while_the_portal_thinks(sandbox: Sandbox, spool: Spool, policy: str, accepted: bool) -> None:
    """ATTEMPTED last, whether the portal has it or not: the same key again, or a lookup, and one order."""
    sandbox.set_settings(portal={"idempotency": policy == "retry"})
    spool.configure(integrations={"gotranscript": {"on_unknown_outcome": policy}})
    kill_while_sending(sandbox, spool, accepted=accepted)
    assert ["ATTEMPTED"] == spool.events("p.zip")
    assert {"p.zip"} == spool.claimed()
    sandbox.set_faults()
    spool.start()
    spool.wait_for("delivered", "p.zip")
    order = only_order(sandbox)
    if policy == "retry":
        assert f'"{order["sha256"]}"' == order["idempotency_key"]
    assert order["id"] == spool.row("ACCEPTED")["order_id"]
    spool.assert_sound()


def test_killed_while_the_portal_thinks_and_asked_to_ask(sandbox: Sandbox, spool: Spool) -> None:
    """ATTEMPTED last with `ask`: said so, parked in rejected/ as unknown; nothing is sent until a person decides."""
    spool.configure(integrations={"gotranscript": {"on_unknown_outcome": "ask"}})
    kill_while_sending(sandbox, spool, accepted=True)
    sandbox.set_faults()
    spool.start()
    spool.wait_for("rejected", "p.zip")
    assert ["ATTEMPTED", "RECOVERED", "UNKNOWN"] == spool.events("p.zip")
    assert 1 == only_order(sandbox)["requests"]
    lay_back(spool, "rejected", "outbox")
    spool.wait_for("delivered", "p.zip")
    assert 2 == only_order(sandbox)["requests"]


@pytest.mark.parametrize("policy", ["retry", "lookup"])
def test_an_unknown_one_found_in_the_outbox_goes_on(sandbox: Sandbox, spool: Spool, policy: str) -> None:
    """ATTEMPTED last, and somebody put it back into the outbox: the daemon starts, and there is one order."""
    sandbox.set_settings(portal={"idempotency": policy == "retry"})
    spool.configure(integrations={"gotranscript": {"on_unknown_outcome": policy}})
    kill_while_sending(sandbox, spool, accepted=True)
    lay_back(spool, ".tfwatch/claimed", "outbox")
    sandbox.set_faults()
    spool.start()
    spool.wait_for("delivered", "p.zip")
    assert only_order(sandbox)["id"] == spool.row("ACCEPTED")["order_id"]
    assert 0 == spool.stop()
    spool.assert_sound()


def kill_while_sending(sandbox: Sandbox, spool: Spool, *, accepted: bool) -> None:
    sandbox.set_faults(hang(accept=accepted))
    spool.start()
    spool.drop("p.zip")
    wait_until(lambda: sandbox.requests()["requests"], "the portal got the request")
    if accepted:
        wait_until(sandbox.orders, "the portal opened the order")
    spool.kill()


def test_a_reply_that_was_logged_counts(sandbox: Sandbox, spool: Spool) -> None:
    """Killed while the order is polled: it stays submitted, and is asked about again after the start."""
    sandbox.set_settings(portal={"verdict": "never"})
    spool.start()
    spool.drop("p.zip")
    spool.wait_for("submitted", "p.zip")
    spool.kill()
    sandbox.give_verdict(str(only_order(sandbox)["id"]), "completed")
    spool.start()
    spool.wait_for("delivered", "p.zip")
    assert ["ATTEMPTED", "ACCEPTED", "COMPLETED"] == spool.events("p.zip")
    assert 1 == only_order(sandbox)["requests"]


# --- fact and rename ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("times", [1, 2])
def test_accepted_but_not_moved(sandbox: Sandbox, spool: Spool, times: int) -> None:
    """ACCEPTED last, ZIP in claimed/: the move is finished, also when the daemon dies once more while repairing."""
    sandbox.set_settings(portal={"verdict": "never"})
    settle(spool, "submitted")
    for time in range(1, times + 1):
        lay_back(spool, "submitted", ".tfwatch/claimed")
        spool.start()
        spool.wait_for("submitted", "p.zip")
        assert ["ATTEMPTED", "ACCEPTED", *["RECOVERED"] * time] == spool.events("p.zip")
        spool.kill()
    sandbox.give_verdict(str(only_order(sandbox)["id"]), "completed")
    spool.start()
    spool.wait_for("delivered", "p.zip")
    assert 1 == only_order(sandbox)["requests"]
    spool.assert_sound()


@pytest.mark.parametrize("lain", ["submitted", ".tfwatch/claimed"])
@pytest.mark.parametrize("times", [1, 2])
def test_completed_but_not_moved(sandbox: Sandbox, spool: Spool, lain: str, times: int) -> None:
    """COMPLETED last, ZIP one or more moves behind: it is brought to delivered/, and nobody is said to have done it."""
    settle(spool, "delivered")
    for time in range(1, times + 1):
        lay_back(spool, "delivered", lain)
        spool.start()
        spool.wait_for("delivered", "p.zip")
        assert ["ATTEMPTED", "ACCEPTED", "COMPLETED", *["RECOVERED"] * time] == spool.events("p.zip"), spool.picture()
        assert {"tfwatch"} == {row["actor"] for row in spool.rows()}
        spool.kill()
    assert 1 == only_order(sandbox)["requests"]


@pytest.mark.parametrize("twin", ["a.zip", "z.zip"])
@pytest.mark.parametrize(
    ("stage", "lain", "twin_in"),
    [
        ("submitted", ".tfwatch/claimed", ".tfwatch/claimed"),
        ("delivered", "submitted", ".tfwatch/claimed"),
        ("delivered", "submitted", "submitted"),
    ],
)
def test_a_twin_beside_an_interrupted_move(
    sandbox: Sandbox, spool: Spool, stage: str, lain: str, twin_in: str, twin: str
) -> None:
    """A twin is not taken for a package whose move was cut short, whichever of them is looked at first."""
    settle(spool, stage)
    lay_back(spool, stage, lain)
    shutil.copyfile(spool.root / lain / "p.zip", spool.root / twin_in / twin)
    spool.start()
    spool.wait_for("delivered", "p.zip")
    spool.wait_for("submitted" if twin_in == "submitted" else "rejected", twin)
    assert 0 == spool.stop(), spool.picture()
    assert 1 == only_order(sandbox)["requests"]
    assert [1, 1] == [sum(n in spool.names(folder) for folder in STAGES) for n in ("p.zip", twin)], spool.picture()
    assert {"REFUSED", "MOVED"} >= set(spool.events(twin)), spool.picture()
    spool.assert_sound()


def test_refused_but_not_moved(sandbox: Sandbox, spool: Spool) -> None:
    """REFUSED last, ZIP in claimed/: it is brought to rejected/ with its reason, and not sent again."""
    sandbox.set_faults(refuse())
    settle(spool, "rejected")
    reason = spool.reason("p.zip")
    lay_back(spool, "rejected", ".tfwatch/claimed")
    (spool.root / "rejected" / "p.zip.reason.txt").unlink()
    sandbox.set_faults()
    spool.start()
    spool.wait_for("rejected", "p.zip")
    assert ["ATTEMPTED", "REFUSED", "RECOVERED"] == spool.events("p.zip")
    assert "No audio inside." in reason
    assert reason == spool.reason("p.zip")
    assert [] == sandbox.orders()


@pytest.mark.parametrize("times", [1, 2])
def test_refused_later_but_not_moved(sandbox: Sandbox, spool: Spool, times: int) -> None:
    """REFUSED last, ZIP in submitted/: it is brought to rejected/ with the service's words."""
    sandbox.set_settings(portal={"reject_pattern": "p"})
    settle(spool, "rejected")
    reason = spool.reason("p.zip")
    for time in range(1, times + 1):
        lay_back(spool, "rejected", "submitted")
        (spool.root / "rejected" / "p.zip.reason.txt").unlink()
        spool.start()
        spool.wait_for("rejected", "p.zip")
        assert ["ATTEMPTED", "ACCEPTED", "REFUSED", *["RECOVERED"] * time] == spool.events("p.zip")
        assert "The audio could not be used." in reason
        assert reason == spool.reason("p.zip")
        spool.kill()


@pytest.mark.parametrize("earlier", ["nothing", "refused by the service", "delivered"])
def test_refused_here_but_not_moved(sandbox: Sandbox, spool: Spool, earlier: str) -> None:
    """REFUSED by the intake last: the reason says so and what to do, whatever the service had said of it before."""
    if earlier == "refused by the service":
        sandbox.set_faults(refuse())
        settle(spool, "rejected")
        lay_back(spool, "rejected", "outbox")
    elif earlier == "delivered":
        settle(spool, "delivered")
        lay_back(spool, "delivered", "outbox")
    else:
        spool.drop("p.zip")
    if earlier != "delivered":
        spool.configure(intake={"max_bytes": 100})
    before = len(spool.events()) if earlier != "nothing" else 0
    spool.start()
    wait_until(lambda: "REFUSED" in spool.events()[before:], "it is refused here")
    spool.wait_for("rejected", "p.zip")
    reason = spool.reason("p.zip")
    spool.kill()
    lay_back(spool, "rejected", ".tfwatch/claimed")
    (spool.root / "rejected" / "p.zip.reason.txt").unlink()
    spool.start()
    spool.wait_for("rejected", "p.zip")
    assert "was refused and not sent" in reason
    assert reason == spool.reason("p.zip")


def test_deferred_but_not_moved(sandbox: Sandbox, spool: Spool) -> None:
    """DEFERRED last, ZIP in claimed/: it goes back to the outbox, and is delivered once."""
    sandbox.set_faults(Fault(kind=FaultKind.STATUS, status=401))
    spool.start()
    spool.drop("p.zip")
    spool.wait_for_event("DISABLED")
    spool.kill()
    lay_back(spool, "outbox", ".tfwatch/claimed")
    spool.start()
    spool.wait_for("outbox", "p.zip")
    assert [] == sandbox.orders()
    sandbox.set_faults()
    spool.ask("enable", integration="gotranscript")
    spool.wait_for("delivered", "p.zip")
    assert 1 == only_order(sandbox)["requests"]
    spool.assert_sound()


def test_parked_but_not_moved(sandbox: Sandbox, spool: Spool) -> None:
    """UNKNOWN last with `ask`, ZIP in claimed/: it is brought to rejected/ with its reason, and not sent."""
    spool.configure(integrations={"gotranscript": {"on_unknown_outcome": "ask"}})
    sandbox.set_faults(Fault(kind=FaultKind.RESET))
    settle(spool, "rejected")
    reason = spool.reason("p.zip")
    lay_back(spool, "rejected", ".tfwatch/claimed")
    (spool.root / "rejected" / "p.zip.reason.txt").unlink()
    sandbox.set_faults()
    spool.start()
    spool.wait_for("rejected", "p.zip")
    assert reason == spool.reason("p.zip")
    assert ["ATTEMPTED", "UNKNOWN", "RECOVERED"] == spool.events("p.zip")
    assert "unknown" == spool.rows("p.zip")[-1]["status"]
    assert 1 == only_order(sandbox)["requests"]


def test_rolled_back_but_not_moved(sandbox: Sandbox, spool: Spool) -> None:
    """ROLLBACK last, ZIP in claimed/: it is brought to rejected/, and lifting the rollback still requeues it."""
    spool.configure(integrations={"gotranscript": {"rollback_after": 1}})
    sandbox.set_faults(Fault(kind=FaultKind.STATUS, status=503))
    settle(spool, "rejected")
    reason = spool.reason("p.zip")
    lay_back(spool, "rejected", ".tfwatch/claimed")
    (spool.root / "rejected" / "p.zip.reason.txt").unlink()
    spool.start()
    spool.wait_for("rejected", "p.zip")
    assert "RECOVERED" == spool.events("p.zip")[-1]
    assert reason == spool.reason("p.zip")
    sandbox.set_faults()
    spool.ask("enable", integration="gotranscript")
    spool.wait_for("delivered", "p.zip")
    assert 1 == only_order(sandbox)["requests"]


def test_requeued_but_not_logged(sandbox: Sandbox, spool: Spool) -> None:
    """A requeue renames first: a ZIP found in the outbox that the log has in rejected/ is REQUEUED and sent."""
    sandbox.set_faults(refuse())
    settle(spool, "rejected")
    lay_back(spool, "rejected", "outbox")
    sandbox.set_faults()
    spool.start()
    spool.wait_for("delivered", "p.zip")
    assert ["ATTEMPTED", "REFUSED", "REQUEUED", "ATTEMPTED", "ACCEPTED", "COMPLETED"] == spool.events("p.zip")
    order = only_order(sandbox)
    assert f'"{order["sha256"]}-2"' == order["idempotency_key"]


# --- inside an append, inside an index write ------------------------------------------------------------------------


def test_torn_inside_an_append(sandbox: Sandbox, spool: Spool) -> None:
    """A torn last row is cut, kept beside, and said so; the order whose ACCEPTED was torn off is not made twice."""
    sandbox.set_settings(portal={"verdict": "never"})
    settle(spool, "submitted")
    log = spool.root / "log.csv"
    content = log.read_bytes()
    log.write_bytes(content[:-40])
    lay_back(spool, "submitted", ".tfwatch/claimed")
    (spool.root / ".tfwatch" / "index.sqlite").unlink()
    spool.start()
    spool.wait_for("submitted", "p.zip")
    # one for the torn tail, one for the interrupted attempt
    assert ["ATTEMPTED", "RECOVERED", "RECOVERED", "ATTEMPTED", "ACCEPTED"] == spool.events()
    (torn,) = (spool.root / ".tfwatch").glob("torn-*")
    assert content[:-40].rpartition(b"\r\n")[2] == torn.read_bytes()
    assert 2 == only_order(sandbox)["requests"]
    spool.assert_sound()


@pytest.mark.parametrize("harm", ["gone", "garbage", "behind"])
def test_the_projection_is_made_anew(sandbox: Sandbox, spool: Spool, harm: str) -> None:
    """The index lost, unreadable or behind the log: replayed, and nothing is sent twice or forgotten."""
    sandbox.set_settings(portal={"verdict": "never"})
    index = spool.root / ".tfwatch" / "index.sqlite"
    settle(spool, "submitted", "early.zip")
    before = index.read_bytes()
    spool.start()
    spool.drop("p.zip", seed=5)
    spool.wait_for("submitted", "p.zip")
    spool.stop()
    if harm == "gone":
        index.unlink()
    else:
        index.write_bytes(before if harm == "behind" else b"no database at all" * 1000)
    spool.start()
    spool.drop("twin.zip", seed=5)
    spool.wait_for("rejected", "twin.zip")
    for order in sandbox.orders():
        sandbox.give_verdict(str(order["id"]), "completed")
    spool.wait_for("delivered", "early.zip", "p.zip")
    assert ["early.zip", "p.zip"] == [order["filename"] for order in sandbox.orders()]
    spool.assert_sound()


def test_killed_again_and_again(sandbox: Sandbox, spool: Spool) -> None:
    """Killed six times amid twenty packages and a moody portal: twenty orders, twenty files, a log that holds."""
    sandbox.set_faults(
        Fault(kind=FaultKind.LATENCY, seconds=0.05),
        Fault(kind=FaultKind.RESET, probability=0.2),
        Fault(kind=FaultKind.STATUS, status=500, probability=0.2, target=Target.STATUS),
    )
    names = [f"n{number}.zip" for number in range(20)]
    for number, name in enumerate(names):
        spool.drop(name, seed=number)
    for round_ in range(6):
        spool.start()
        done = min(len(names), 3 * round_ + 1)
        wait_until(lambda done=done: len(sandbox.orders()) >= done, "some more orders")
        spool.kill()
    sandbox.set_faults()
    spool.start()
    spool.wait_for("delivered", *names)
    assert sorted(names) == sorted(str(order["filename"]) for order in sandbox.orders())
    spool.assert_sound()
