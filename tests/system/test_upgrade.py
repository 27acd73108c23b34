"""The package upgraded, removed, put back and purged, with packages on their way: settings and spool stay."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.daemon import wait_until
from tests.support.installed import CONFIG, CREDENTIALS, SPOOL, UNIT, Installed, install
from tests.support.packages import version_of, with_version
from tests.support.portal import digest, ordered
from tfwatch.sandbox.server import Sandbox

# Installing and booting take part of it.
pytestmark = pytest.mark.timeout(600)

# Each test goes on where the one before left the machine.


@pytest.fixture(scope="module")
def newer(deb: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same package under a higher version. As there is no release yet, the one under test is the older one."""
    return with_version(deb, f"{version_of(deb)}+upgrade", tmp_path_factory.mktemp("newer"))


def test_upgraded_in_mid_delivery(station: Installed, sandbox: Sandbox, newer: Path) -> None:
    """Apt installs the next version while packages are sent: edited settings and the spool stay, each is one order."""
    station.add_dropper("ana")
    station.deliver_to(sandbox)
    edited = station.machine.path(CONFIG).read_bytes()
    sandbox.set_settings(portal={"work_seconds": 5.0})
    dropped = {name: station.drop(name, user="ana", seed=len(name)) for name in ("a_v1.zip", "bb_v1.zip", "ccc_v1.zip")}
    wait_until(lambda: "ATTEMPTED" in station.events(), "one is being sent")
    assert "ACCEPTED" not in station.events()
    pid = station.main_pid
    said = install(station.machine, newer)
    assert "1 upgraded" in said
    assert version_of(newer) == station.machine.tell("dpkg-query", "--show", "--showformat=${Version}", "tfwatch")
    assert station.main_pid not in (0, pid)
    assert edited == station.machine.path(CONFIG).read_bytes()
    station.wait_for("delivered", *dropped)
    assert {digest(content): 1 for content in dropped.values()} == ordered(sandbox)
    station.assert_healthy()


def test_removed_and_put_back(station: Installed, sandbox: Sandbox, newer: Path) -> None:
    """`apt remove` ends the daemon and keeps all data; what is dropped meanwhile is delivered after the reinstall."""
    before = (station.spool / "log.csv").read_bytes()
    station.machine.run("apt-get", "remove", "--yes", "tfwatch")
    assert station.main_pid == 0
    assert not station.machine.path("/usr/lib/tfwatch").exists()
    assert before == (station.spool / "log.csv").read_bytes()[: len(before)]
    content = station.drop("between_v1.zip", user="ana", seed=77)
    install(station.machine, newer)
    station.wait_for("delivered", "between_v1.zip")
    assert 1 == ordered(sandbox)[digest(content)]
    assert {"a_v1.zip", "bb_v1.zip", "ccc_v1.zip"} <= station.names("delivered")
    station.assert_healthy()


def test_purged_the_spool_stays_unless_it_is_said_otherwise(station: Installed, newer: Path) -> None:
    """`apt purge` takes settings and secrets; the spool goes only if debconf's question was answered with yes."""
    station.machine.run("apt-get", "purge", "--yes", "tfwatch")
    assert {"a_v1.zip", "between_v1.zip"} <= station.names("delivered")
    assert (station.spool / "log.csv").exists()
    assert not station.machine.path(CONFIG).exists()
    assert not station.machine.path(CREDENTIALS).exists()
    install(station.machine, newer)
    assert "active" == station.machine.tell("systemctl", "is-active", UNIT)
    answer = "tfwatch tfwatch/purge-spool boolean true\n"
    station.machine.run("debconf-set-selections", stdin=answer)
    station.machine.run("apt-get", "purge", "--yes", "tfwatch")
    assert not os.path.lexists(station.machine.path(SPOOL))
    assert "" == station.machine.tell("systemctl", "--failed", "--no-legend")
