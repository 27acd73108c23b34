"""Alerts end to end: the real daemon, a real mail server, a real HTTP receiver, and receivers that misbehave."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import Spool, wait_until
from tests.support.http import ScriptedServer, Step, refusing_address, reply
from tests.support.receivers import FINE, json_url, mail_server, mail_url, told, words
from tfwatch.model import Integration
from tfwatch.sandbox.faults import Fault, FaultKind
from tfwatch.sandbox.server import Sandbox

SECRET = "c4n4ry"
PAUSE = "pause:gotranscript"
REFUSES_US = Fault(kind=FaultKind.STATUS, status=402, message="The balance is used up.")


@pytest.fixture(autouse=True)
def in_json(spool: Spool) -> None:
    """So that a record's fields can be read, as the journal has them. Figures are told where a test asks for that."""
    limits = {"delivery_success_rate_min": 0, "avg_delivery_latency_ms_max": 86_400_000}
    spool.configure(logging={"format": "json"}, alerts=limits)


def journal(spool: Spool, event: str, alert: str = "") -> list[dict[str, Any]]:
    """The records of one event, in order; of one alert, where it is named."""
    lines = (line for line in spool.output.read_text().splitlines() if line.startswith("{"))
    records = [record for record in map(json.loads, lines) if record.get("EVENT") == event]
    return [record for record in records if alert in ("", record["ALERT"])]


def titles(server: ScriptedServer) -> list[str]:
    return [each["title"] for each in told(server)]


def going_on(spool: Spool) -> set[str]:
    return {alert["key"] for alert in spool.state()["alerts"]}


def pause(sandbox: Sandbox, spool: Spool, name: str = "a.zip") -> None:
    """Let the service refuse everybody."""
    sandbox.set_faults(REFUSES_US)
    spool.drop(name, seed=99)
    spool.wait_for_event("DISABLED")


def test_told_once_by_mail_and_http_and_over_once_across_a_restart(sandbox: Sandbox, spool: Spool) -> None:
    """The journal first, then every address; a restart repeats nothing; the all-clear comes when it is lifted."""
    with mail_server() as (mailbox, port), ScriptedServer(FINE) as server:
        spool.configure(alerts={"urls": [mail_url(port), json_url(server)]})
        spool.start()
        pause(sandbox, spool)
        wait_until(lambda: mailbox.texts() and told(server), "both are told")
        (record,) = journal(spool, "ALERT", PAUSE)
        assert ("WARNING", "gotranscript") == (record["level"], record["INTEGRATION"])
        for text in (mailbox.texts()[0], words(server)):
            for word in (
                "pause of gotranscript",
                "The balance is used up.",
                "tfwatch enable gotranscript",
                str(spool.root),
            ):
                assert word in " ".join(text.split())
        assert 0 == spool.stop()
        spool.start()
        spool.wait_for_state(lambda state: PAUSE in going_on(spool), "it goes on")
        sandbox.set_faults()
        assert 0 == spool.cli("enable", "gotranscript").returncode
        spool.wait_for("delivered", "a.zip")
        wait_until(lambda: len(told(server)) > 1 and len(mailbox.texts()) > 1, "both are told that it is over")
        assert 0 == spool.stop()
        assert ["warning", "success"] == [each["type"] for each in told(server)]
        assert "the pause of gotranscript is lifted" in told(server)[1]["message"]
        assert 2 == len(mailbox.mails)
        assert 1 == len(journal(spool, "ALERT", PAUSE))
        assert 1 == len(journal(spool, "ALL_CLEAR", PAUSE))


def test_receivers_that_misbehave_hold_up_nobody(sandbox: Sandbox, spool: Spool, tmp_path: Path) -> None:
    """One is silent, one refuses, one fails at first: the fourth is told, deliveries go on, a stop is a stop."""
    silent, failing = Step(then="hang"), Step(send=reply(500, {"token": SECRET}))
    with ScriptedServer(silent) as hangs, ScriptedServer(failing, FINE) as fails, ScriptedServer(FINE) as works:
        gone = refusing_address().removeprefix("http://")
        urls = [
            json_url(hangs, SECRET),
            f"json://{SECRET}@{gone}/{SECRET}",
            json_url(fails, SECRET),
            json_url(works, SECRET),
        ]
        spool.configure(alerts={"urls": urls}, spool={"min_free_bytes": "900TiB"})
        spool.start()
        for seed in range(5):
            spool.drop(f"p{seed}.zip", seed=seed)
        spool.wait_for("delivered", *(f"p{seed}.zip" for seed in range(5)))
        wait_until(lambda: "less than spool.min_free_bytes" in words(works), "the one that works is told")
        for place, why in (("[0]", "no answer"), ("[1]", "can't be reached")):
            spool.wait_for_state(
                lambda state, place=place, why=why: [
                    each for each in state["problems"] if f"alerts.urls{place} (json)" in each and why in each
                ],
                f"status tells of {place}",
            )
        wait_until(lambda: len(fails.seen) > 1, "the one that failed is tried again")
        assert titles(works) == titles(fails)[1:]
        spool.wait_for_state(lambda state: "urls[2]" not in "".join(state["problems"]), "that one is in order")
        assert ["disk-low"] == [record["ALERT"] for record in journal(spool, "ALERT")], "never about alerts themselves"
        assert 0 == spool.stop()
        assert SECRET not in spool.output.read_text()
        for path in spool.root.rglob("*"):
            assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path
    spool.assert_sound()


def test_what_was_not_told_is_told_by_the_next_run(sandbox: Sandbox, spool: Spool) -> None:
    """The address was away until the daemon stopped: it hears of it all the same, as one thing that is over."""
    with ScriptedServer(Step(send=reply(503)), FINE) as server:
        spool.configure(alerts={"urls": [json_url(server)]})
        spool.start()
        pause(sandbox, spool)
        wait_until(lambda: server.seen, "it is tried")
        spool.wait_for_state(lambda state: "HTTP 503" in "".join(state["problems"]), "status tells")
        assert 0 == spool.stop()
        sandbox.set_faults()
        spool.start()
        wait_until(lambda: len(server.seen) > 1, "the next run tells it")
        assert "pause of gotranscript" in told(server)[1]["message"]
        assert 0 == spool.stop()
        assert 1 == len(journal(spool, "ALERT", PAUSE))


def test_names_stay_in_the_house(sandbox: Sandbox, spool: Spool) -> None:
    """`include_names: false`: the journal names the package and the service's words, what leaves does neither."""
    with ScriptedServer(FINE) as server:
        spool.configure(
            alerts={"urls": [json_url(server)], "include_names": False},
            integrations={"gotranscript": {"on_unknown_outcome": "ask"}},
        )
        sandbox.set_faults(Fault(kind=FaultKind.RESET, times=1))
        spool.start()
        spool.drop("interview-with-a-witness_v1.zip")
        spool.wait_for("rejected", "interview-with-a-witness_v1.zip")
        wait_until(lambda: told(server), "it is told")
        pause(sandbox, spool, "another-witness.zip")
        wait_until(lambda: "pause of gotranscript" in words(server), "it is told")
    assert "for you to decide" in words(server)
    assert "witness" not in words(server)
    assert "balance" not in words(server)
    said = "\n".join(record["message"] for record in journal(spool, "ALERT"))
    assert "interview-with-a-witness_v1.zip" in said
    assert "The balance is used up." in said


def test_an_address_that_is_added_hears_what_goes_on(sandbox: Sandbox, spool: Spool) -> None:
    """`alerts.urls` is taken over while running; one nobody understands is named by its place, the others work."""
    spool.start()
    pause(sandbox, spool)
    spool.wait_for_state(lambda state: PAUSE in going_on(spool), "it goes on")
    with ScriptedServer(FINE) as server:
        spool.configure(alerts={"urls": [f"nosuch://{SECRET}", json_url(server)]})
        wait_until(lambda: "pause of gotranscript" in words(server), "the new address is told")
        spool.wait_for_state(
            lambda state: [each for each in state["problems"] if each.startswith("alerts.urls[0] (nosuch): ")],
            "status tells of the other",
        )
        spool.config.write_text("spool: [")
        wait_until(lambda: "not taken over" in words(server), "a configuration with problems is told")
        spool.configure(alerts={"urls": [json_url(server)]})
        wait_until(lambda: "config.yaml: taken over" in words(server), "that is over")
    assert SECRET not in spool.output.read_text()


def test_without_apprise_the_journal_has_them(sandbox: Sandbox, spool: Spool, tmp_path: Path) -> None:
    """Addresses are set and it is not installed: status and journal name the command that mends it; all else works."""
    (tmp_path / "without" / "apprise").mkdir(parents=True)
    (tmp_path / "without" / "apprise" / "__init__.py").write_text("raise ImportError('not installed')")
    spool.configure(alerts={"urls": [f"json://{SECRET}@127.0.0.1"]})
    spool.start(env={"PYTHONPATH": str(tmp_path / "without")})
    mend = "pip install 'tfwatch[alerts]'"
    spool.wait_for_state(lambda state: mend in "".join(state["problems"]), "status tells")
    assert mend in spool.output.read_text()
    pause(sandbox, spool)
    wait_until(lambda: journal(spool, "ALERT"), "the journal has the alert")
    assert SECRET not in spool.output.read_text()


def test_figures_past_their_limits(sandbox: Sandbox, spool: Spool) -> None:
    """A failed attempt, slow answers, a package that waits: each is told, with the figure and its limit."""
    slow = Fault(kind=FaultKind.LATENCY, seconds=0.3)
    with ScriptedServer(FINE) as server:
        sandbox.set_faults(Fault(kind=FaultKind.STATUS, status=503, times=2), slow)
        limits = {"delivery_success_rate_min": 0.99, "avg_delivery_latency_ms_max": 100}
        spool.configure(alerts={"urls": [json_url(server)], **limits})
        spool.start()
        spool.drop("a.zip")
        spool.wait_for("delivered", "a.zip", seconds=60)
        wait_until(lambda: "of the delivery attempts of the last 24 h got through" in words(server), "the rate", 60)
        wait_until(lambda: "alerts.avg_delivery_latency_ms_max (100 ms)" in words(server), "the latency", 60)
        assert "only 50 % of" in words(server) or "only 0 % of" in words(server)
        spool.ask("disable", integration=Integration.GOTRANSCRIPT)
        spool.drop("b.zip", seed=1)
        spool.wait_for_state(lambda state: state["stages"]["outbox"] == 1, "it waits")
        # A changed limit is looked at at once.
        spool.configure(alerts={"oldest_package_minutes": 0.001})
        wait_until(lambda: "outbox/b.zip is there for" in words(server), "the package that waits", 60)
        assert "gotranscript is disabled" in words(server)
    assert {"delivery-rate", "latency"} <= going_on(spool), "they are of 24 hours"
