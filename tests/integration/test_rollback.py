"""A service that fails again and again is given up, visibly and reversibly; no package is lost or sent twice."""

from __future__ import annotations

from datetime import datetime

import pytest

from tests.support.daemon import Spool, wait_until
from tfwatch.model import Integration
from tfwatch.sandbox.faults import Fault, FaultKind
from tfwatch.sandbox.server import Sandbox

DOWN = Fault(kind=FaultKind.STATUS, status=503, message="Down for maintenance.")
NAMES = ("a.zip", "b.zip", "c.zip")


@pytest.fixture(autouse=True)
def one_lane(spool: Spool) -> None:
    """One package at a time, so that it is plain which one trips."""
    spool.configure(integrations={"gotranscript": {"workers": 1, "rollback_after": 3}})


def fail_three(sandbox: Sandbox, spool: Spool, *faults: Fault) -> str:
    """Let three deliveries fail in a row; gives the name of the package that tripped it."""
    sandbox.set_faults(*(faults or (DOWN,)))
    if spool.process is None:
        spool.start()
    before = spool.events().count("ROLLBACK")
    for seed, name in enumerate(NAMES):
        spool.drop(name, seed=seed)
    spool.wait_for_event("ROLLBACK", count=before + 1)
    tripped = [row["package"] for row in spool.rows() if row["event"] == "ROLLBACK"][-1]
    spool.wait_for("rejected", tripped)
    wait_until(lambda: spool.document().count("## Rollback") == before + 1, "the document is written")
    return tripped


def posts(sandbox: Sandbox) -> int:
    return sandbox.requests()["by_method"].get("POST", 0)  # type: ignore[attr-defined,no-any-return]


def gate(spool: Spool) -> str:
    return spool.state()["integrations"]["gotranscript"]["state"]  # type: ignore[no-any-return]


def test_three_failures_in_a_row_switch_it_off(sandbox: Sandbox, spool: Spool) -> None:
    """The third failed delivery lies in rejected/ with the justification; the others wait; nobody is asked any more."""
    tripped = fail_three(sandbox, spool)
    row = spool.row("ROLLBACK")
    assert ("rejected", "rejected", "503") == (row["to_stage"], row["status"], row["code"])
    assert set(NAMES) - {tripped} == spool.names("outbox")
    assert "Down for maintenance." in spool.reason(tripped)
    assert "tfwatch enable gotranscript" in spool.reason(tripped)
    wait_until(lambda: gate(spool) == "rolled back", "the state says so")
    asked = posts(sandbox)
    spool.drop("later.zip", seed=9)
    wait_until(lambda: spool.state()["stages"]["outbox"] == 3, "the later one waits, too")
    assert asked == posts(sandbox)
    assert [] == sandbox.orders()
    assert "EVENT" not in spool.document()
    spool.assert_sound()


def test_the_document_says_what_happened_and_how_to_lift_it(sandbox: Sandbox, spool: Spool) -> None:
    """rollback_integrations_<EXEC_ID>.md names the run, the integration, the cause, the package and the way back."""
    tripped = fail_three(sandbox, spool)
    exec_id = spool.row("ROLLBACK")["exec_id"]
    document = (spool.root / "rollbacks" / f"rollback_integrations_{exec_id}.md").read_text()
    for word in (exec_id, "gotranscript", "Down for maintenance.", *NAMES, "tfwatch enable gotranscript", "outbox/"):
        assert word in document
    assert f"{tripped} tripped it" in document


def test_it_is_documented_within_five_minutes(sandbox: Sandbox, spool: Spool) -> None:
    """By the wall clock, from the first request that failed: the fact, the package in rejected/ and the document."""
    tripped = fail_three(sandbox, spool)
    began = datetime.fromisoformat(spool.rows()[0]["at"]).timestamp()
    (path,) = (spool.root / "rollbacks").iterdir()
    for moment in (
        datetime.fromisoformat(spool.row("ROLLBACK")["at"]).timestamp(),
        path.stat().st_mtime,
        (spool.root / "rejected" / f"{tripped}.reason.txt").stat().st_mtime,
    ):
        assert 0 <= moment - began < 300


@pytest.mark.parametrize("way", ["command", "configuration"])
def test_lifting_it_requeues_what_it_rejected(sandbox: Sandbox, spool: Spool, way: str) -> None:
    """`tfwatch enable`, or off→on in config.yaml: everything goes, the tripping package under its old key."""
    tripped = fail_three(sandbox, spool)
    sandbox.set_faults()
    if way == "command":
        assert 0 == spool.cli("enable", "gotranscript").returncode
    else:
        spool.configure(integrations={"gotranscript": {"enabled": False}})
        spool.wait_for_event("DISABLED")
        spool.configure(integrations={"gotranscript": {"enabled": True}})
    spool.wait_for("delivered", *NAMES)
    assert sorted(NAMES) == sorted(str(order["filename"]) for order in sandbox.orders())
    assert {f'"{order["sha256"]}"' for order in sandbox.orders()} == {
        order["idempotency_key"] for order in sandbox.orders()
    }
    assert "ENABLED" in spool.events()
    assert ["ATTEMPTED", "ROLLBACK", "REQUEUED", "ATTEMPTED", "ACCEPTED", "COMPLETED"] == spool.events(tripped)
    assert [] == list((spool.root / "rejected").iterdir())
    spool.assert_sound()


def test_it_lasts_across_a_restart(sandbox: Sandbox, spool: Spool) -> None:
    """A rollback holds until a person lifts it; a request left while the daemon is stopped is taken at its start."""
    tripped = fail_three(sandbox, spool)
    asked = posts(sandbox)
    sandbox.set_faults()
    spool.stop()
    spool.start()
    wait_until(lambda: gate(spool) == "rolled back", "the state says so")
    assert asked == posts(sandbox)
    assert {tripped} == spool.names("rejected")
    spool.stop()
    assert 0 == spool.cli("enable", "gotranscript").returncode
    spool.start()
    spool.wait_for("delivered", *NAMES)
    assert 3 == len(sandbox.orders())


def test_a_later_one_in_the_same_run_is_appended(sandbox: Sandbox, spool: Spool) -> None:
    """Two rollbacks of one run are two sections of one document; the count began anew in between."""
    fail_three(sandbox, spool)
    sandbox.set_faults()
    spool.ask("enable", integration=Integration.GOTRANSCRIPT)
    spool.wait_for("delivered", *NAMES)
    sandbox.set_faults(DOWN)
    for seed in range(10, 13):
        spool.drop(f"second{seed}.zip", seed=seed)
    spool.wait_for_event("ROLLBACK", count=2)
    wait_until(lambda: spool.document().count("## Rollback") == 2, "a second section")
    assert 1 == len(list((spool.root / "rollbacks").iterdir()))
    assert 1 == spool.document().count("# Rollbacks and pauses")


def test_a_lone_packages_rounds_count(sandbox: Sandbox, spool: Spool) -> None:
    """One package alone trips it with its own later rounds."""
    spool.configure(integrations={"gotranscript": {"rollback_after": 2, "retry": {"attempts": 1}}})
    sandbox.set_faults(Fault(kind=FaultKind.STATUS, status=503, retry_after=1))
    spool.start()
    spool.drop("lone.zip")
    spool.wait_for("rejected", "lone.zip")
    assert ["ATTEMPTED", "DEFERRED", "ATTEMPTED", "ROLLBACK"] == spool.events("lone.zip")
    sandbox.set_faults()
    spool.ask("enable", integration=Integration.GOTRANSCRIPT)
    spool.wait_for("delivered", "lone.zip")
    assert 1 == len(sandbox.orders())


def test_one_storm_is_one_failure(sandbox: Sandbox, spool: Spool) -> None:
    """Ten lanes told together to come back later are one failure, not ten: nothing is given up."""
    spool.configure(integrations={"gotranscript": {"workers": 10}})
    # Nobody is told before all ten are under way, however slowly they come.
    sandbox.set_faults(
        Fault(kind=FaultKind.LATENCY, seconds=4, times=10),
        Fault(kind=FaultKind.STATUS, status=429, retry_after=2, times=10),
    )
    names = [f"n{seed}.zip" for seed in range(20)]
    for seed, name in enumerate(names):
        spool.drop(name, seed=seed)
    spool.start()
    spool.wait_for("delivered", *names)
    assert "ROLLBACK" not in spool.events()
    assert 10 == spool.events().count("DEFERRED")
    assert 20 == len(sandbox.orders())


def test_refusals_do_not_count(sandbox: Sandbox, spool: Spool) -> None:
    """Packages refused for their own sake prove that the service works: they start the count anew."""
    spool.start()
    for number, code in enumerate((503, 503, 422, 503, 422, 422, 422, 503), start=1):
        name = f"n{number}.zip"
        sandbox.set_faults(Fault(kind=FaultKind.STATUS, status=code))
        spool.drop(name, seed=number)
        spool.wait_for_event("DEFERRED" if code == 503 else "REFUSED", name)
    assert "ROLLBACK" not in spool.events()
    assert "" == spool.document()


def test_a_success_starts_the_count_anew(sandbox: Sandbox, spool: Spool) -> None:
    """Failures that are not consecutive are no reason to give a service up."""
    spool.start()
    for number in range(6):
        name = f"n{number}.zip"
        sandbox.set_faults(*(() if number % 3 == 2 else (DOWN,)))
        spool.drop(name, seed=number)
        spool.wait_for_event("ACCEPTED" if number % 3 == 2 else "DEFERRED", name)
    assert "ROLLBACK" not in spool.events()


def test_unknown_outcomes_trip_it_and_stay_one_order_each(sandbox: Sandbox, spool: Spool) -> None:
    """Three silences roll back, too: none of the packages goes to the outbox, and lifting it makes no second order."""
    fail_three(sandbox, spool, Fault(kind=FaultKind.RESET))
    assert 3 == len(sandbox.orders())
    assert set() == spool.names("outbox")
    sandbox.set_faults()
    spool.ask("enable", integration=Integration.GOTRANSCRIPT)
    spool.wait_for("delivered", *NAMES)
    assert 3 == len(sandbox.orders())
    spool.assert_sound()


def test_an_unreachable_service_trips_it(sandbox: Sandbox, spool: Spool) -> None:
    """Nothing listens at the address: that is a failed delivery like any other, and the document says so."""
    spool.start()
    url = sandbox.url
    sandbox.stop()
    for seed, name in enumerate(NAMES):
        spool.drop(name, seed=seed)
    spool.wait_for_event("ROLLBACK")
    assert url in spool.rows()[0]["detail"]
    wait_until(lambda: "can't be reached" in spool.document(), "the document says why")


def test_disable_holds_until_enable(sandbox: Sandbox, spool: Spool) -> None:
    """`tfwatch disable` wins over the configuration, across restarts, until `tfwatch enable`."""
    spool.start()
    assert 0 == spool.cli("disable", "gotranscript").returncode
    spool.wait_for_event("DISABLED")
    spool.drop("p.zip")
    spool.stop()
    spool.start()
    wait_until(lambda: gate(spool) == "disabled", "the state says so")
    assert {"p.zip"} == spool.names("outbox")
    assert 0 == posts(sandbox)
    assert "operator" == spool.row("DISABLED")["actor"]
    assert 0 == spool.cli("enable", "gotranscript").returncode
    spool.wait_for("delivered", "p.zip")
