"""`apt install`, an API key, a ZIP: what the first day brings, told by Debian's own tools."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.installed import CONFIG, UNIT, Installed
from tests.support.machine import Machine
from tests.support.portal import digest, ordered, orders_of
from tfwatch.sandbox.server import Sandbox

EXAMPLE = Path(__file__).parents[2] / "config.yaml.example"

# Installing and booting take part of it.
pytestmark = pytest.mark.timeout(600)


def test_apt_brings_all_it_needs_and_starts_it(installation: tuple[Machine, str], station: Installed) -> None:
    """One `apt install ./tfwatch….deb` on a bare Debian: dependencies are found, it runs, now and from each boot on."""
    assert " python3 " in installation[1].partition("NEW packages will be installed")[2]
    assert "active" == station.machine.tell("systemctl", "is-active", UNIT)
    assert "enabled" == station.machine.tell("systemctl", "is-enabled", UNIT)
    assert "" == station.machine.tell("systemctl", "--failed", "--no-legend")
    assert "" == station.machine.tell("dpkg", "--audit")


def test_until_there_is_a_key_all_is_checked_and_held(station: Installed) -> None:
    """Freshly installed it lacks but the API key: a ZIP waits untouched, and `systemctl status` says just that."""
    station.machine.run("tfwatch", "check-config")
    station.add_dropper("ana")
    content = station.drop("early_v1.zip", user="ana", seed=1)
    station.wait_for_status("1 waiting")
    shown = station.machine.tell("systemctl", "status", "--no-pager", "--full", UNIT)
    assert "Active: active (running)" in shown
    assert "GoTranscript held: no API key: " in shown
    assert "held" == station.state()["integrations"]["gotranscript"]["state"]
    assert content == (station.spool / "outbox" / "early_v1.zip").read_bytes()
    assert [] == [event for event in station.events("early_v1.zip") if event == "ATTEMPTED"]


def test_with_a_key_what_waits_is_delivered_once(station: Installed, sandbox: Sandbox) -> None:
    """Key into credentials/, address into config.yaml, restart: what waited and what a plain member of tfwatch-drop
    drops goes out, one order each."""
    station.deliver_to(sandbox)
    content = station.drop("first_v1.zip", user="ana", seed=2)
    station.wait_for("delivered", "early_v1.zip", "first_v1.zip")
    assert 1 == len(orders_of(sandbox, "early_v1.zip"))
    assert 1 == ordered(sandbox)[digest(content)] == len(orders_of(sandbox, "first_v1.zip"))
    station.wait_for_status("2 delivered today")
    assert "GoTranscript" not in station.status


def test_the_journal_tells_one_packages_story(station: Installed) -> None:
    """`journalctl -u tfwatch TRACE_ID=…` is that package's whole way, in its order, and no other's."""
    (trace,) = {row["trace_id"] for row in station.rows("first_v1.zip")}
    records = station.machine.journal("--unit", UNIT, f"TRACE_ID={trace}")
    assert ["CLAIMED", "ATTEMPTED", "ACCEPTED", "COMPLETED"] == [record["EVENT"] for record in records]
    assert {"first_v1.zip"} == {record["PACKAGE"] for record in records}
    assert {"tfwatch.service"} == {record["_SYSTEMD_UNIT"] for record in records}


def test_doctor_and_fsck_find_nothing(station: Installed) -> None:
    """After the first day both are green."""
    station.assert_healthy()


def test_the_packages_settings_are_the_documented_ones(installation: tuple[Machine, str]) -> None:
    """/etc/tfwatch/config.yaml is config.yaml.example; people in tfwatch-ops may read it, others not."""
    shipped = installation[0].path(CONFIG)
    assert EXAMPLE.read_bytes() == shipped.read_bytes()
    assert 0o640 == shipped.stat().st_mode & 0o777
