"""docs/INSTALL.md, typed as it stands: with pip, for one person, several daemons. Each delivers at the end."""

from __future__ import annotations

import json
import re
import subprocess
import tarfile
from io import BytesIO
from pathlib import Path

from tests.support.daemon import wait_until, zip_bytes
from tests.support.host import unmet
from tests.support.installed import CONFIG, SPOOL, UNIT, Installed
from tests.support.machine import Machine, machine
from tests.support.ports import reserve_port
from tfwatch.sandbox.server import Sandbox

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "INSTALL.md").read_text(encoding="utf-8")
WHEELS = ROOT / "build" / "wheels" / "files"
"""What `make deb` has fetched: the very files that the lock names, so pip needs no network."""
OFFLINE = ("env", "PIP_NO_INDEX=1", "PIP_FIND_LINKS=/root/wheels", "PIP_ROOT_USER_ACTION=ignore")
SCRIPT = ("sh", "-eu", "-c")


def commands(marker: str) -> str:
    """The block of the guide that follows a marker; whoever types it here is root already."""
    found = re.search(rf"<!-- {marker} -->\n```sh\n(.*?)^```", GUIDE, re.DOTALL | re.MULTILINE)
    assert found, f"the guide has no block after <!-- {marker} -->"
    return found[1].replace("sudo ", "")


def bring_checkout(made: Machine) -> None:
    """The files that git knows, and what pip would fetch, in the machine's /root."""
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    packed = BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name in filter(None, files.decode().split("\0")):
            if (ROOT / name).exists():
                tar.add(ROOT / name, f"tfwatch/{name}")
        tar.add(WHEELS, "wheels")
    made.run("tar", "-x", "-C", "/root", "--no-same-owner", stdin=packed.getvalue())


def test_with_pip(debian: Path, sandbox: Sandbox) -> None:
    """The commands make a running daemon out of a bare Debian; it waits for its key, and delivers with one."""
    if not WHEELS.is_dir():
        unmet("pip's files are not there: make deb")
    with machine(debian) as made:
        bring_checkout(made)
        made.run(*OFFLINE, *SCRIPT, f"cd /root/tfwatch; {commands('pip')}", seconds=600)
        station = Installed(made)
        assert ("active", "enabled") == (made.show(UNIT, "ActiveState"), made.show(UNIT, "UnitFileState"))
        station.wait_for_status("no API key")

        station.deliver_to(sandbox, spool={"settle_seconds": 3600})
        station.add_dropper("ana")
        station.drop("pip_v1.zip", user="ana")
        station.wait_for("delivered", "pip_v1.zip")
        found = json.loads(station.tfwatch("doctor", "--json", check=False))["checks"]
        assert ["ok"] == [each["result"] for each in found if each["check"] == "systemd"], found


def test_for_one_person(station: Installed, sandbox: Sandbox) -> None:
    """Without root, in a home, with `systemctl --user`: the key in their own folder, their own file claimed at once."""
    made = station.machine
    station.deliver_to(sandbox, spool={"settle_seconds": 3600})
    made.add_user("rui", "tfwatch-ops")
    made.run("loginctl", "enable-linger", "rui")
    uid = made.tell("id", "-u", "rui")
    mine = ("env", "HOME=/home/rui", f"XDG_RUNTIME_DIR=/run/user/{uid}", *SCRIPT)
    asked = (*mine, "systemctl --user is-system-running")
    wait_until(lambda: made.run(*asked, user="rui", check=False).stdout == "running\n", "rui's systemd runs", 30)
    made.run(*mine, commands("person").replace("8788", str(reserve_port())), user="rui")
    key = "umask 077; cat > ~/.config/tfwatch/credentials/gotranscript_api_key"
    made.run(*mine, key, user="rui", stdin=sandbox.api_key)
    made.run(*mine, "systemctl --user restart tfwatch", user="rui")
    made.run(*mine, "cat > ~/.local/state/tfwatch/outbox/mine_v1.zip", user="rui", stdin=zip_bytes(seed=31))
    delivered = made.path("/home/rui/.local/state/tfwatch/delivered/mine_v1.zip")
    wait_until(delivered.exists, "rui's daemon delivers", 30)

    assert (
        "credential tfwatch_gotranscript_api_key"
        in made.run(*mine, "tfwatch check-config -c ~/.config/tfwatch/config.yaml", user="rui").stdout
    )
    assert "rui" == made.tell("stat", "-c", "%U", "/home/rui/.local/state/tfwatch/log.csv")


def test_several_daemons_share_nothing(station: Installed, sandbox: Sandbox) -> None:
    """tfwatch@lisbon has its own settings, secret, spool and port; doctor and the commands know it."""
    made = station.machine
    station.deliver_to(sandbox)
    made.run(*SCRIPT, commands("several").replace("8788", str(reserve_port())))
    secret = "/etc/tfwatch/lisbon/credentials/gotranscript_api_key"
    made.run("install", "-m", "0600", "/dev/stdin", secret, stdin=sandbox.api_key)
    made.run("systemctl", "restart", "tfwatch@lisbon")
    before = made.path(f"{SPOOL}/log.csv").read_bytes()
    made.run(*SCRIPT, f"cat > {SPOOL}-lisbon/outbox/other_v1.zip", stdin=zip_bytes(seed=77))
    wait_until(made.path(f"{SPOOL}-lisbon/delivered/other_v1.zip").exists, "the other daemon delivers", 30)

    assert before == made.path(f"{SPOOL}/log.csv").read_bytes()
    config = CONFIG.replace("config.yaml", "lisbon/config.yaml")
    found = json.loads(station.tfwatch("doctor", "--json", "-c", config, check=False))["checks"]
    assert ["ok"] == [each["result"] for each in found if each["check"] == "systemd"], found
    assert "credential tfwatch_gotranscript_api_key" in station.tfwatch("check-config", "-c", config)
    assert "750 tfwatch tfwatch" == made.tell("stat", "-c", "%a %U %G", f"{SPOOL}-lisbon")


def test_a_spool_elsewhere(station: Installed, sandbox: Sandbox) -> None:
    """Without the guide's drop-in doctor names it, with it the daemon delivers from there."""
    line = "ReadWritePaths=/srv/tfwatch"
    assert line in GUIDE
    made = station.machine
    made.run("install", "-d", "-o", "tfwatch", "-g", "tfwatch", "-m", "0750", "/srv/tfwatch")
    station.deliver_to(sandbox)
    station.configure(spool={"root": "/srv/tfwatch"})
    assert line in station.tfwatch("doctor", check=False)

    made.run("install", "-d", f"/etc/systemd/system/{UNIT}.d")
    made.write(f"/etc/systemd/system/{UNIT}.d/spool.conf", f"[Service]\n{line}\n")
    made.run("systemctl", "daemon-reload")
    made.run("systemctl", "restart", UNIT)
    made.run(*SCRIPT, "cat > /srv/tfwatch/outbox/there_v1.zip", stdin=zip_bytes(seed=41))
    wait_until(made.path("/srv/tfwatch/delivered/there_v1.zip").exists, "it delivers from there", 30)
