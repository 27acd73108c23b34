"""The daemon under systemd: switched, reloaded, killed, hung, its machine shut down. Nothing lost, nothing twice."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import pytest

from tests.support.daemon import wait_until
from tests.support.installed import UNIT, Installed
from tests.support.portal import digest, ordered
from tfwatch.sandbox.server import Sandbox

# Installing and booting take part of it.
pytestmark = pytest.mark.timeout(600)

PACKAGES = 8


@pytest.fixture(scope="module", autouse=True)
def _delivering(station: Installed, sandbox: Sandbox) -> None:
    station.add_dropper("ana")
    station.deliver_to(sandbox)


@pytest.fixture(autouse=True)
def _healthy(station: Installed, sandbox: Sandbox) -> Iterator[None]:
    """Each test has a portal without orders and all the starts systemd allows; at its end doctor and fsck are green."""
    sandbox.reset()
    station.machine.run("systemctl", "reset-failed", UNIT)
    yield
    station.assert_healthy()


def drop_while_slow(station: Installed, sandbox: Sandbox, job: str) -> dict[str, bytes]:
    """Packages, some of which are being sent when this returns: the portal takes seconds over each."""
    sandbox.set_settings(portal={"work_seconds": 2.0})
    dropped = {f"{job}-{number}_v1.zip": b"" for number in range(PACKAGES)}
    for name in dropped:
        dropped[name] = station.drop(name, user="ana", seed=zlib.crc32(name.encode()), size=200_000)

    def under_way() -> bool:
        events = [station.events(name) for name in dropped]
        return any("ATTEMPTED" in one and "ACCEPTED" not in one for one in events)

    wait_until(under_way, "one is being sent")
    return dropped


def assert_each_once(station: Installed, sandbox: Sandbox, dropped: dict[str, bytes]) -> None:
    """All are delivered, byte for byte, by one order each."""
    station.wait_for("delivered", *dropped)
    assert {digest(content): 1 for content in dropped.values()} == ordered(sandbox)
    for name, content in dropped.items():
        assert content == (station.spool / "delivered" / name).read_bytes()


def test_saving_config_yaml_switches_an_integration(station: Installed, sandbox: Sandbox) -> None:
    """Off and on by saving the file: held and sent by the same process."""
    pid = station.main_pid
    station.configure(integrations={"gotranscript": {"enabled": False}})
    wait_until(lambda: station.state()["integrations"]["gotranscript"]["state"] == "off", "it is off")
    station.drop("switched_v1.zip", user="ana", seed=10)
    station.wait_for_status("1 waiting")
    assert [] == sandbox.orders()
    station.configure(integrations={"gotranscript": {"enabled": True}})
    station.wait_for("delivered", "switched_v1.zip")
    assert pid == station.main_pid


def test_killed_it_is_started_again(station: Installed, sandbox: Sandbox) -> None:
    """`kill -9` in the middle of sending: systemd starts it again, and each package is one order."""
    dropped = drop_while_slow(station, sandbox, "killed")
    pid = station.main_pid
    station.machine.run("systemctl", "kill", "--signal=KILL", UNIT)
    wait_until(lambda: station.main_pid not in (0, pid), "it is started again")
    assert_each_once(station, sandbox, dropped)


def test_hung_it_is_ended_by_the_watchdog(station: Installed, sandbox: Sandbox) -> None:
    """A process that stands still is ended by systemd's watchdog and started again; each package is one order."""
    station.drop_in("watchdog", Service={"WatchdogSec": "5", "RestartSec": "1"})
    station.machine.run("systemctl", "restart", UNIT)
    dropped = drop_while_slow(station, sandbox, "hung")
    pid = station.main_pid
    station.machine.run("systemctl", "kill", "--signal=STOP", UNIT)
    wait_until(lambda: station.main_pid not in (0, pid), "it is started again", 60)
    assert any("Watchdog timeout" in record["MESSAGE"] for record in station.machine.journal("UNIT=" + UNIT, "-b"))
    assert_each_once(station, sandbox, dropped)
    station.remove_drop_in("watchdog")


def test_a_restart_in_mid_delivery(station: Installed, sandbox: Sandbox) -> None:
    """A stop while packages are sent is clean, within the time the unit gives it; the start after it repeats none."""
    dropped = drop_while_slow(station, sandbox, "restarted")
    station.machine.run("systemctl", "stop", UNIT)
    assert "success" == station.machine.show(UNIT, "Result")
    station.machine.run("systemctl", "start", UNIT)
    assert_each_once(station, sandbox, dropped)


@pytest.mark.parametrize("orderly", [True, False], ids=["shut down", "cut off"])
def test_the_machine_goes_in_mid_delivery(station: Installed, sandbox: Sandbox, orderly: bool) -> None:
    """A shutdown, or all processes gone at once: after the next boot it goes on by itself, each package one order."""
    dropped = drop_while_slow(station, sandbox, "shut" if orderly else "cut")
    if orderly:
        station.machine.poweroff()
    else:
        station.machine.cut()
    station.machine.boot()
    assert_each_once(station, sandbox, dropped)
