"""A real Debian 12 with a real systemd: a container that boots in a second, on its own copy of the image.

It has the network of the machine that runs the tests: servers on the loopback there are on the loopback in it.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from tests.support.daemon import wait_until
from tests.support.host import unmet
from tests.support.machine_image import caches, copy

SECONDS: Final = 120.0
"""For a command, and for a boot."""
_ENVIRONMENT: Final = (
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME=/root",
    "LANG=C.UTF-8",
    "DEBIAN_FRONTEND=noninteractive",
    "SYSTEMD_PAGER=cat",
    "SYSTEMD_COLORS=0",
)
# Two containers must not share control groups: each systemd would end the other's services.
_START: Final = """
while [ "$1" != setpriv ]; do echo $$ > "$1/cgroup.procs"; shift; done
exec "$@"
"""


class Machine:
    """One container: booted, shut down and booted again any number of times. `root`: its `/`, as seen from here."""

    def __init__(self, disk: Path, name: str) -> None:
        self.disk = disk
        self.name = name
        self.root = disk.with_name("root")
        self.root.mkdir()
        _mount("-o", "loop", str(disk), str(self.root))
        self._process: subprocess.Popen[bytes] | None = None
        self._leader = 0
        self._console = disk.with_name("console")
        self._cgroups = [folder / name for folder in _cgroup_roots()]

    # --- power ------------------------------------------------------------------------------------------------------

    def boot(self) -> None:
        """Start it; returns once systemd has started all there is to start."""
        for cgroup in self._cgroups:
            cgroup.mkdir(exist_ok=True)
        with self._console.open("ab") as console:
            self._process = subprocess.Popen(
                ["sh", "-c", _START, self.name, *map(str, self._cgroups), "setpriv", "--pdeathsig=KILL",
                 "systemd-nspawn", "--quiet", "--boot", "--register=no", "--keep-unit", "--console=pipe",
                 "--resolv-conf=off", f"--machine={self.name}", f"--directory={self.root}"],
                stdin=subprocess.DEVNULL, stdout=console, stderr=console,
            )  # fmt: skip
        self._leader = wait_until(self._find_leader, f"{self.name} boots", SECONDS)
        wait_until(self._is_up, f"{self.name} is up", SECONDS)

    def poweroff(self) -> None:
        """Shut it down in good order, as `systemctl reboot` does, too; `boot` starts it again."""
        assert self._process is not None
        self.run("systemctl", "poweroff", check=False)  # answers, or is ended itself
        self._process.wait(SECONDS)
        self._process = None
        self._leader = 0

    def cut(self) -> None:
        """End all that runs in it at once."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.kill(self._leader or self._process.pid, signal.SIGKILL)
            self._process.wait(SECONDS)  # it waits for its systemd, and the kernel lets that go last
            self._process = None
            self._leader = 0

    def _find_leader(self) -> int:
        """The process id, here, of its systemd; 0 while it is only about to become one."""
        assert self._process is not None
        assert self._process.poll() is None, f"{self.name} does not boot\n{self._console.read_text(errors='replace')}"
        pid = self._process.pid
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            with suppress(OSError):
                if Path(f"/proc/{child}/comm").read_text() == "systemd\n" and _is_elsewhere(child):
                    return int(child)
        return 0

    def _is_up(self) -> bool:
        state = self.run("systemctl", "is-system-running", check=False).stdout.strip()
        return state in {"running", "degraded"}

    # --- commands and files -----------------------------------------------------------------------------------------

    def run(
        self, *command: str, user: str = "root", stdin: str | bytes = b"", check: bool = True, seconds: float = SECONDS
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in it as one of its users, in a fresh login's groups; with `check`, it must exit 0."""
        assert self._process is not None, f"{self.name} is off"
        assert _is_elsewhere(self._leader), f"{self.name} is gone"
        become = () if user == "root" else ("runuser", "-u", user, "--")
        done = subprocess.run(
            ["nsenter", f"--target={self._leader}", "--all", "env", "-i", *_ENVIRONMENT, *become, *command],
            input=stdin.encode() if isinstance(stdin, str) else stdin, capture_output=True, timeout=seconds,
        )  # fmt: skip
        told = subprocess.CompletedProcess(
            command, done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        )
        if check:
            assert 0 == told.returncode, f"{shlex.join(command)}: exit {told.returncode}\n{told.stdout}{told.stderr}"
        return told

    def tell(self, *command: str, user: str = "root") -> str:
        """What a command prints, without white space around it."""
        return self.run(*command, user=user).stdout.strip()

    def path(self, inside: str) -> Path:
        """A file of its, as seen from here; for a symbolic link of its use `tell`."""
        return self.root / inside.lstrip("/")

    def write(self, inside: str, content: str | bytes, *, mode: int = 0o644) -> None:
        """Put a file there, of root, in place of what was there; its owner and mode stay where it existed."""
        path = self.path(inside)
        existed = path.stat() if path.exists() else None
        fresh = path.with_name(f".{path.name}.new")
        fresh.write_bytes(content.encode() if isinstance(content, str) else content)
        fresh.chmod(existed.st_mode & 0o7777 if existed else mode)
        if existed:
            os.chown(fresh, existed.st_uid, existed.st_gid)
        fresh.rename(path)

    def add_user(self, name: str, *groups: str) -> None:
        """A person with a home, in these groups besides their own."""
        self.run("useradd", "--create-home", *(["--groups", ",".join(groups)] if groups else []), name)

    # --- systemd ----------------------------------------------------------------------------------------------------

    def show(self, unit: str, name: str) -> str:
        """A property of a unit, as `systemctl show` has it."""
        return self.tell("systemctl", "show", "--value", f"--property={name}", unit)

    def wait_for(self, unit: str, name: str, value: str, seconds: float = SECONDS) -> None:
        """Wait until a property of a unit has that value."""
        wait_until(lambda: self.show(unit, name) == value, f"{unit}: {name}={value}", seconds)

    def journal(self, *matches: str) -> list[dict[str, Any]]:
        """What `journalctl MATCH…` finds since it was made, the oldest first; also while it is off."""
        options = ("--output=json", "--quiet", "--all", "--no-pager", *matches)
        if self._process is None:
            found = subprocess.run(
                ["journalctl", f"--directory={self.path('/var/log/journal')}", *options],
                capture_output=True, text=True, check=True,
            ).stdout  # fmt: skip
        else:
            found = self.run("journalctl", *options).stdout
        return [json.loads(line) for line in found.splitlines()]

    def picture(self, unit: str = "tfwatch") -> str:
        """Everything that may explain a failure: how that unit is, and the journal's end."""
        if self._process is None:
            return f"{self.name} is off"
        with suppress(AssertionError, subprocess.TimeoutExpired):
            status = self.run("systemctl", "status", "--no-pager", "--full", "--lines=0", unit, check=False).stdout
            lines = self.run("journalctl", "--no-pager", "--lines=80", "--output=short-precise", check=False).stdout
            return f"{status}\n{lines}"
        return self._console.read_text(errors="replace")[-4000:]

    @contextmanager
    def still(self) -> Iterator[None]:
        """For the length of the block its disk is whole, and nobody writes to it."""
        assert self._process is None, f"{self.name} is on"
        subprocess.run(["fsfreeze", "--freeze", str(self.root)], check=True)
        try:
            yield
        finally:
            subprocess.run(["fsfreeze", "--unfreeze", str(self.root)], check=True)

    def close(self) -> None:
        """End it, and remove its control groups and its disk."""
        self.cut()
        for cgroup in self._cgroups:
            for below in sorted(cgroup.rglob("*"), reverse=True):
                if below.is_dir():
                    with suppress(OSError):
                        below.rmdir()
            with suppress(OSError):
                cgroup.rmdir()
        subprocess.run(["umount", "--lazy", str(self.root)], check=True)
        self.disk.unlink()


@contextmanager
def machine(image: Path | Machine, *, booted: bool = True) -> Iterator[Machine]:
    """A container on a copy of that image, or of a machine that is off; gone at the end, whatever happens."""
    with ExitStack() as stack:
        home = stack.enter_context(_own_folder())
        if isinstance(image, Machine):
            with image.still():
                copy(image.disk, home / "disk")
        else:
            copy(image, home / "disk")
        made = Machine(home / "disk", f"tfwatch-{secrets.token_hex(4)}")
        stack.callback(made.close)
        if booted:
            made.boot()
        yield made


@contextmanager
def _own_folder() -> Iterator[Path]:
    """A folder that goes with this process; what processes left that were killed goes first."""
    for left in caches().glob("machine-*"):
        with suppress(OSError), (left / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            subprocess.run(["umount", "--quiet", "--lazy", str(left / "root")])
            shutil.rmtree(left)
    with (
        tempfile.TemporaryDirectory(prefix="machine-", dir=caches()) as folder,
        (Path(folder) / "lock").open("w") as lock,
    ):
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield Path(folder)


def _is_elsewhere(pid: int | str) -> bool:
    """Whether a process lives in other namespaces: nothing that is meant for a container may ever run here."""
    try:
        return all(
            os.readlink(f"/proc/{pid}/ns/{kind}") != os.readlink(f"/proc/self/ns/{kind}") for kind in ("pid", "mnt")
        )
    except OSError:
        return False


def _cgroup_roots() -> list[Path]:
    """The one hierarchy, or the two that systemd uses beside the old ones."""
    base = Path("/sys/fs/cgroup")
    roots = [base] if (base / "cgroup.controllers").exists() else [base / "systemd", base / "unified"]
    return [root for root in roots if (root / "cgroup.procs").exists()]


def _mount(*words: str) -> None:
    done = subprocess.run(["mount", *words], capture_output=True, text=True)
    if done.returncode != 0:
        unmet(f"can't mount a machine's disk here: {done.stderr.strip()}")
