"""The hardened unit on a booted machine: all that the daemon does works in it, and what it must not do doesn't."""

from __future__ import annotations

import json

import pytest

from tests.support.daemon import wait_until
from tests.support.installed import CONFIG, CREDENTIALS, SPOOL, UNIT, Installed
from tfwatch.sandbox.server import Sandbox

EXPOSURE = 1.5
LONG = 3600
"""Nothing is claimed by being still for so long: what is claimed, is by a lease."""


@pytest.fixture
def running(station: Installed, sandbox: Sandbox) -> Installed:
    """The daemon with a portal, for which stillness counts for nothing."""
    station.machine.run("systemctl", "reset-failed", UNIT, check=False)
    station.deliver_to(sandbox, spool={"settle_seconds": LONG})
    return station


def test_the_exposure_is_small(running: Installed) -> None:
    """What systemd counts against the unit as it is loaded, in tenths."""
    told = running.machine.run("systemd-analyze", "security", f"--threshold={EXPOSURE * 10:.0f}", UNIT, check=False)
    assert 0 == told.returncode, told.stdout[-300:]


def test_a_file_of_another_user_is_claimed_by_a_lease(running: Installed) -> None:
    """CAP_LEASE reaches the daemon: a dropped ZIP of somebody else's is taken at once, not when it has been still."""
    running.machine.add_user("ana", "tfwatch-drop")
    running.drop("lease_v1.zip", user="ana")
    running.wait_for("delivered", "lease_v1.zip", seconds=30)

    assert ["ATTEMPTED", "ACCEPTED", "COMPLETED"] == running.events("lease_v1.zip")


def test_the_key_comes_from_the_credentials_folder(running: Installed, sandbox: Sandbox) -> None:
    """A file of root's in there is the daemon's API key, and `check-config` typed by root says so."""
    assert "0600 root root" == running.machine.tell("stat", "-c", "%04a %U %G", f"{CREDENTIALS}/gotranscript_api_key")
    assert "credential tfwatch_gotranscript_api_key" in running.tfwatch("check-config")
    assert "enabled" == running.state()["integrations"]["gotranscript"]["state"]


def test_it_may_write_into_its_spool_alone(running: Installed) -> None:
    """Folders that are open to all, people's homes and devices are out of its reach; it has one capability."""
    machine = running.machine
    machine.run("install", "-d", "-m", "0777", "/srv/open", "/home/open", "/var/lib/open")
    inside = ("nsenter", f"--target={running.main_pid}", "--mount", "setpriv", "--reuid=tfwatch", "--regid=tfwatch",
              "--clear-groups", "sh", "-c")  # fmt: skip
    for folder in ("/srv/open", "/home/open", "/var/lib/open", "/etc/tfwatch"):
        assert 0 != machine.run(*inside, f"touch {folder}/x", check=False).returncode, folder
    machine.run(*inside, f"touch {SPOOL}/.probe && rm {SPOOL}/.probe && touch /tmp/x && rm /tmp/x")
    assert "" == machine.run(*inside, "ls /home", check=False).stdout
    assert 0 != machine.run(*inside, "test -e /dev/sda -o -e /dev/vda -o -e /dev/mem", check=False).returncode

    status = machine.tell("cat", f"/proc/{running.main_pid}/status")
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    lease = f"{1 << 28:016x}"
    assert (lease, lease, lease) == (fields["CapEff"], fields["CapBnd"], fields["CapAmb"])
    assert ("1", "2") == (fields["NoNewPrivs"], fields["Seccomp"])


def test_a_reload_takes_new_settings_over_and_refuses_wrong_ones(running: Installed) -> None:
    """`systemctl reload` reaches the daemon; the status line shows file and line of what is wrong."""
    pid = running.main_pid
    running.configure(spool={"rescan_seconds": "often"})
    running.machine.run("systemctl", "reload", UNIT)
    running.wait_for_status(f"{CONFIG}:")
    running.configure(spool={"rescan_seconds": 5})
    running.machine.run("systemctl", "reload", UNIT)
    wait_until(lambda: f"{CONFIG}:" not in running.status, "the mended settings are taken over")
    assert pid == running.main_pid


def test_wrong_settings_end_it_and_are_shown(running: Installed) -> None:
    """Exit 78, not one start more, and `systemctl status` names file and line, for people without the journal, too."""
    before = running.machine.path(CONFIG).read_bytes()
    running.configure(integrations={"gotranscript": {"workers": "lots"}})
    started = running.machine.run("systemctl", "restart", UNIT, check=False)
    assert 0 != started.returncode
    running.machine.wait_for(UNIT, "ActiveState", "failed")

    # RestartSec= is 5 s: had systemd meant to start it again, it would be in auto-restart now.
    shown = {name: running.machine.show(UNIT, name) for name in ("SubState", "ExecMainStatus", "NRestarts")}
    assert {"SubState": "failed", "ExecMainStatus": "78", "NRestarts": "0"} == shown
    assert f"{CONFIG}:" in running.status
    assert "integrations.gotranscript.workers" in running.status
    told = running.machine.run("systemctl", "status", "--no-pager", UNIT, check=False).stdout
    assert "status=78" in told
    assert "tfwatch[" in told

    running.machine.write(CONFIG, before)
    running.machine.run("systemctl", "start", UNIT)


def test_no_secrets_are_no_hindrance(running: Installed) -> None:
    """With an empty credentials folder it starts, and says that the key is missing; without the folder it can't."""
    machine = running.machine
    machine.run("rm", "-f", f"{CREDENTIALS}/gotranscript_api_key")
    machine.run("systemctl", "restart", UNIT)
    running.wait_for_status("no API key")
    machine.run("rmdir", CREDENTIALS)
    assert 0 != machine.run("systemctl", "restart", UNIT, check=False).returncode
    assert "243" == machine.show(UNIT, "ExecMainStatus")
    doctor = running.tfwatch("doctor", "--json", check=False)
    assert any(CREDENTIALS in each["seen"] for each in json.loads(doctor)["checks"] if each["result"] == "failure")
    machine.run("install", "-d", "-m", "0700", CREDENTIALS)
