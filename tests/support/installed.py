"""tfwatch as a package on a machine: what an administrator, a person who drops ZIPs and systemd do with it."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from tests.support.daemon import STAGES, merge, wait_until, zip_bytes
from tests.support.machine import SECONDS, Machine
from tests.support.ports import reserve_port
from tfwatch.sandbox.server import Sandbox

UNIT: Final = "tfwatch.service"
CONFIG: Final = "/etc/tfwatch/config.yaml"
CREDENTIALS: Final = "/etc/tfwatch/credentials"
SPOOL: Final = "/var/lib/tfwatch"


def install(machine: Machine, deb: Path, *options: str) -> str:
    """`apt install ./tfwatch_….deb`, also over an older one; gives what apt said."""
    inside = f"/root/{deb.name}"
    machine.write(inside, deb.read_bytes())
    return machine.run("apt-get", "install", "--yes", *options, f".{inside}").stdout


class Installed:
    """tfwatch on one machine. The package's own config.yaml is changed as an editor does: by replacing the file."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.spool = machine.path(SPOOL)

    # --- what an administrator does ---------------------------------------------------------------------------------

    def deliver_to(self, sandbox: Sandbox, **sections: Any) -> None:
        """Point it to a portal, with the key in `credentials/`; restart it and wait until it is ready."""
        self.machine.write(f"{CREDENTIALS}/gotranscript_api_key", sandbox.api_key, mode=0o600)
        gotranscript = {"base_url": sandbox.url, "poll_seconds": 0.2, "timeout_seconds": 20}
        self.configure(
            spool={"rescan_seconds": 5},
            integrations={"gotranscript": gotranscript},
            # The package's port may be in use: it is the one of the machine that runs the tests.
            web={"port": reserve_port()},
        )
        self.configure(**sections)
        # Five starts in ten minutes are all that systemd allows, and tests make more.
        self.machine.run("systemctl", "reset-failed", UNIT)
        self.machine.run("systemctl", "restart", UNIT)

    def configure(self, **sections: Any) -> None:
        """Change config.yaml."""
        settings = yaml.safe_load(self.machine.path(CONFIG).read_bytes())
        merge(settings, sections)
        self.machine.write(CONFIG, yaml.safe_dump(settings))

    def drop_in(self, name: str, **sections: Mapping[str, str]) -> None:
        """Change the unit as `systemctl edit` does; counts from the next start."""
        lines = [
            f"[{section}]\n" + "".join(f"{k}={v}\n" for k, v in keys.items()) for section, keys in sections.items()
        ]
        self.machine.path(f"/etc/systemd/system/{UNIT}.d").mkdir(exist_ok=True)
        self.machine.write(f"/etc/systemd/system/{UNIT}.d/{name}.conf", "".join(lines))
        self.machine.run("systemctl", "daemon-reload")

    def remove_drop_in(self, name: str) -> None:
        """Take such a change back."""
        self.machine.path(f"/etc/systemd/system/{UNIT}.d/{name}.conf").unlink()
        self.machine.run("systemctl", "daemon-reload")

    def tfwatch(self, *words: str, check: bool = True) -> str:
        """Run a command of its as root; gives what it prints."""
        return self.machine.run("tfwatch", *words, check=check).stdout

    def add_dropper(self, name: str) -> None:
        """A person who may only drop packages."""
        self.machine.add_user(name, "tfwatch-drop")

    def drop(self, name: str, *, user: str, seed: int = 0, size: int = 2000) -> bytes:
        """Copy a package into the outbox as that user; gives its bytes."""
        content = zip_bytes(seed=seed, size=size)
        self.machine.run("sh", "-c", 'cat > "$0"', f"{SPOOL}/outbox/{name}", user=user, stdin=content)
        return content

    # --- what there is to see ---------------------------------------------------------------------------------------

    @property
    def main_pid(self) -> int:
        """The daemon's process id in the machine; 0 when there is none."""
        return int(self.machine.show(UNIT, "MainPID"))

    @property
    def status(self) -> str:
        """The line that the daemon shows in `systemctl status`."""
        return self.machine.show(UNIT, "StatusText")

    def state(self) -> dict[str, Any]:
        """`tfwatch status --json`."""
        return json.loads(self.tfwatch("status", "--json", check=False))

    def names(self, stage: str) -> set[str]:
        """The packages in a stage's folder."""
        return {name for name in os.listdir(self.spool / stage) if name.lower().endswith(".zip")}

    def wait_for(self, stage: str, *names: str, seconds: float = SECONDS) -> None:
        """Wait until packages lie in a stage's folder."""
        try:
            wait_until(lambda: set(names) <= self.names(stage), f"{names} in {stage}/", seconds)
        except AssertionError as error:
            folders = {stage: sorted(self.names(stage)) for stage in STAGES}
            raise AssertionError(f"{error}\n{folders}\n{self.machine.picture()}") from None

    def wait_for_status(self, words: str, seconds: float = SECONDS) -> None:
        """Wait until the status line holds these words."""
        try:
            wait_until(lambda: words in self.status, f"{words!r} in the status line", seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.machine.picture()}") from None

    def rows(self, package: str | None = None) -> list[dict[str, str]]:
        """The rows of log.csv, all or one package's."""
        with (self.spool / "log.csv").open(newline="") as file:
            return [row for row in csv.DictReader(file) if package in (None, row["package"])]

    def assert_healthy(self) -> None:
        """What the program says of itself after all: doctor finds nothing that fails, fsck no difference."""
        doctor = json.loads(self.tfwatch("doctor", "--json", check=False))
        assert [] == [check for check in doctor["checks"] if check["result"] in ("failure", "warning")]
        fsck = self.machine.run("tfwatch", "fsck", "--deep", check=False)
        assert 0 == fsck.returncode, f"{fsck.stdout}{fsck.stderr}"

    def events(self, package: str | None = None) -> list[str]:
        return [row["event"] for row in self.rows(package)]
