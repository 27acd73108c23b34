"""An SSH server of the tests' own: loopback, a free port, one generated key, no PAM."""

from __future__ import annotations

import getpass
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.support.daemon import wait_until
from tests.support.host import unmet
from tests.support.ports import reserve_port
from tests.support.require import need

_PRIVILEGE_SEPARATION = Path("/run/sshd")

_CONFIG = """\
ListenAddress 127.0.0.1
Port {port}
HostKey {home}/host
AuthorizedKeysFile {home}/user.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
Subsystem sftp internal-sftp
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sshd:
    """A running server. `options`: what scp, sftp and ssh need to reach it; `host`: whom to address."""

    options: tuple[str, ...]
    host: str


@contextmanager
def sshd(home: Path) -> Iterator[Sshd]:
    """Run a server that lets the user of the tests in. Skips when it isn't installed or lets nobody in."""
    server, _ = need("sshd"), need("sftp")
    for key in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(home / key)], check=True)
    port = reserve_port()
    (home / "config").write_text(_CONFIG.format(port=port, home=home))
    if os.geteuid() == 0:
        _PRIVILEGE_SEPARATION.mkdir(mode=0o755, exist_ok=True)
    with (home / "sshd.log").open("wb") as log:
        command = [server, "-D", "-e", "-f", str(home / "config")]
        process = subprocess.Popen(command, stdout=log, stderr=log)
    made = Sshd(options=_options(home, port), host=f"{getpass.getuser()}@127.0.0.1")
    try:
        wait_until(lambda: _listens(port) or process.poll() is not None, "sshd listens")
        words = ["ssh", "-p", str(port), *made.options, made.host, "true"]
        if subprocess.run(words, capture_output=True).returncode != 0:
            unmet(f"this sshd lets nobody in: {(home / 'sshd.log').read_text()[-500:]}")
        yield made
    finally:
        process.terminate()
        process.wait()


def _options(home: Path, port: int) -> tuple[str, ...]:
    settings = (
        f"IdentityFile={home / 'user'}",
        f"Port={port}",
        "IdentitiesOnly=yes",
        "StrictHostKeyChecking=no",
        "UserKnownHostsFile=/dev/null",
        "LogLevel=ERROR",
        "BatchMode=yes",
    )
    return ("-F", "none", *(word for setting in settings for word in ("-o", setting)))


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
