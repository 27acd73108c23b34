"""The disk that a container boots from: Debian 12 as debootstrap makes it, on an ext4 of its own.

It is kept between runs in `$XDG_CACHE_HOME/tfwatch-tests`, as one file: that is copied and removed in a moment.

It is made anew when this file or this machine's apt changes, and when it is a week old; a half-made one is never used.
apt in it is set up as this machine's own is, and has in its cache what tests install: they do it without the network.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.support.host import mounted, unmet
from tests.support.require import need

RELEASE: Final = "bookworm"
INCLUDED: Final = ("systemd", "systemd-sysv", "dbus", "libpam-systemd", "openssh-server", "rsync")
"""There from the beginning. Nothing that tfwatch itself depends on: apt has to find that by itself."""
FETCHED: Final = ("python3", "python3-venv", "ca-certificates", "acl")
"""In apt's cache, not installed."""
DISK_GIB: Final = 4
"""Most of it is never written."""
MAX_AGE_DAYS: Final = 7
"""After a security update of Debian's an older list leads to files that are gone."""

_CERTIFICATES: Final = Path("/etc/ssl/certs/ca-certificates.crt")
_APT_KEPT: Final = r'Acquire::(?:Check-|https?::|Retries)\S* "[^"]*";'


def image() -> Path:
    """The image, made where it isn't there; only to be copied. Skips where it can't be had."""
    if os.geteuid() != 0:
        unmet("needs root: debootstrap and systemd-nspawn do")
    need("debootstrap", "mkfs.ext4", "systemd-nspawn", "nsenter", "setpriv")
    # The settings of this machine's apt are part of it, too.
    recipe = repr((RELEASE, INCLUDED, FETCHED, _apt_settings(), _apt_sources(), Path(__file__).read_text()))
    target = caches() / f"debian-{RELEASE}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}.ext4"
    with _locked(fcntl.LOCK_EX):
        # Another checkout's may be another one.
        for old in caches().glob("debian-*.ext4"):
            if _age_days(old) > MAX_AGE_DAYS:
                old.unlink()
        if not target.exists():
            _make(target)
    return target


def copy(disk: Path, target: Path) -> None:
    """Copy a disk; nobody may write to it meanwhile."""
    with _locked(fcntl.LOCK_SH):
        _run("cp", "--sparse=always", "--reflink=auto", str(disk), str(target))


def caches() -> Path:
    """The folder for what is kept between runs; images and the disks of machines lie there."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tfwatch-tests"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def _locked(how: int) -> Iterator[None]:
    """One run at a time makes or removes an image; the others wait, and use it."""
    with (caches() / "debian.lock").open("w") as file:
        fcntl.flock(file, how)
        yield


def _age_days(file: Path) -> float:
    return (time.time() - file.stat().st_mtime) / 86400


def _make(target: Path) -> None:
    """Made in memory and under another name: one that was interrupted does not count."""
    for left in target.parent.glob("making-*"):
        subprocess.run(["umount", "--quiet", "--lazy", str(left)])
        shutil.rmtree(left)
    folder = Path(tempfile.mkdtemp(prefix="making-", dir=target.parent))
    unfinished = target.with_suffix(".unfinished")
    with mounted(folder, "tmpfs", "mode=0755,size=3G"):
        _fill(folder)
        unfinished.unlink(missing_ok=True)
        _run(need("mkfs.ext4"), "-q", "-m", "0", "-d", str(folder), str(unfinished), f"{DISK_GIB}G")
    folder.rmdir()
    unfinished.rename(target)


def _fill(root: Path) -> None:
    mirror = _mirror()
    _run("debootstrap", "--variant=minbase", f"--include={','.join(INCLUDED)}", RELEASE, str(root), *mirror)
    _bring_apt(root)
    # A sync for each file takes apt twice as long, and these disks need not outlive a power cut.
    (root / "etc/dpkg/dpkg.cfg.d/for-tests").write_text("force-unsafe-io\n")
    _inside(root, "apt-get", "-q", "update")
    _inside(root, "apt-get", "-q", "-y", "upgrade")
    _inside(root, "apt-get", "clean")
    _inside(root, "apt-get", "-q", "-y", "--no-install-recommends", "--download-only", "install", *FETCHED)
    (root / "var/log/journal").mkdir(exist_ok=True)  # so that the journal outlives a reboot, and the machine
    (root / "etc/machine-id").write_text("")  # each copy gets its own
    # Port 22 may be this machine's: whoever needs a server starts one, on another port.
    _inside(root, "systemctl", "disable", "--quiet", "ssh.service", "ssh.socket")
    (root / "etc/hostname").write_text("drop\n")


# --- apt ------------------------------------------------------------------------------------------------------------


def _bring_apt(root: Path) -> None:
    """This machine's sources, keys, certificates and ways: whatever reaches a mirror here does it in there, too."""
    settings = _apt_settings()
    if _CERTIFICATES.exists():
        shutil.copy(_CERTIFICATES, root / "etc/apt/certificates.crt")
        settings += 'Acquire::https::CaInfo "/etc/apt/certificates.crt";\n'
    (root / "etc/apt/apt.conf.d/90this-machine").write_text(settings)
    shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")
    if not _is_same_release():
        return
    (root / "etc/apt/sources.list").unlink(missing_ok=True)
    for source in _apt_sources():
        shutil.copy(source, root / source.relative_to("/"))
    for folder in ("etc/apt/trusted.gpg.d", "etc/apt/keyrings", "etc/apt/auth.conf.d"):
        if Path("/", folder).is_dir():
            shutil.copytree(Path("/", folder), root / folder, dirs_exist_ok=True)


def _apt_settings() -> str:
    dumped = _run("apt-config", "dump")
    return "".join(f"{line}\n" for line in dumped.splitlines() if re.fullmatch(_APT_KEPT, line))


def _apt_sources() -> Sequence[Path]:
    folder = Path("/etc/apt")
    found = [folder / "sources.list", *folder.glob("sources.list.d/*.list"), *folder.glob("sources.list.d/*.sources")]
    return sorted(path for path in found if path.exists())


def _is_same_release() -> bool:
    return f"VERSION_CODENAME={RELEASE}\n" in Path("/etc/os-release").read_text()


def _mirror() -> list[str]:
    """Where this machine gets its own packages from; else debootstrap knows one."""
    if not _is_same_release():
        return []
    told = _run("apt-get", "indextargets", "--format", "$(RELEASE) $(COMPONENT) $(REPO_URI)", "Created-By: Packages")
    return [line.split()[2] for line in told.splitlines() if line.startswith(f"{RELEASE} main ")][:1]


# --- commands -------------------------------------------------------------------------------------------------------


def _inside(root: Path, *command: str) -> None:
    """A command in the image, which has not been booted."""
    _run("systemd-nspawn", "-q", "--pipe", "--register=no", "--keep-unit", "-D", str(root), "--as-pid2",
         "--setenv=DEBIAN_FRONTEND=noninteractive", *command)  # fmt: skip


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        pytest.fail(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout
