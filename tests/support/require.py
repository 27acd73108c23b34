"""Programs that tests run and Debian has. `python -m tests.support.require` lists them for the Makefile."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Mapping
from typing import Final, NoReturn

import pytest

PROGRAMS: Final[Mapping[str, str]] = {
    "/usr/include/stdlib.h": "libc6-dev",
    "/lib/systemd/systemd-journald": "systemd",
    "7z": "p7zip-full",
    "busybox": "busybox-static",
    "chattr": "e2fsprogs",
    "chromedriver": "chromium-driver",
    "chromium": "chromium",
    "curl": "curl",
    "debootstrap": "debootstrap",
    "dpkg-deb": "dpkg",
    "fish": "fish",
    "fusermount3": "fuse3",
    "gcc": "gcc",
    "inotifywait": "inotify-tools",
    "journalctl": "systemd",
    "man": "man-db",
    "mandoc": "mandoc",
    "mkfs.btrfs": "btrfs-progs",
    "mkfs.ext4": "e2fsprogs",
    "mkfs.xfs": "xfsprogs",
    "nsenter": "util-linux",
    "openssl": "openssl",
    "qemu-system-x86_64": "qemu-system-x86",
    "rsync": "rsync",
    "script": "bsdutils",
    "setpriv": "util-linux",
    "sftp": "openssh-client",
    "sshd": "openssh-server",
    "strace": "strace",
    "systemd-analyze": "systemd",
    "systemd-nspawn": "systemd-container",
    "unshare": "util-linux",
    "unzip": "unzip",
    "zip": "zip",
    "zsh": "zsh",
}
"""Program → the Debian package that brings it."""

MODULES: Final[Mapping[str, str]] = {"systemd.daemon": "gcc libsystemd-dev pkg-config python3-dev"}
"""Module → what must be there before `make test` can compile it."""

missing: Final[set[str]] = set()
"""Debian packages that some test has asked for in vain; tests/conftest.py lists them at the end."""


def need(first: str, *others: str) -> str:
    """The first program's path; if one isn't there the test is skipped, with TFWATCH_REQUIRE=all (in CI) it fails."""
    found = {program: _path_of(program) for program in (first, *others)}
    if absent := [program for program, path in found.items() if path is None]:
        _without(" and ".join(absent), " ".join(PROGRAMS[program] for program in absent))
    return found[first] or ""


def _path_of(program: str) -> str | None:
    """Servers lie in folders that a plain user's PATH lacks."""
    return shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")


def need_module(module: str) -> None:
    """The same for a module that is compiled here.

    Its full name: beside systemd/ with its unit files, `systemd` alone is found whether it is installed or not.
    """
    try:
        found = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        found = None
    if found is None:
        _without(f"Python's {module}", MODULES[module])


def _without(what: str, packages: str) -> NoReturn:
    missing.update(packages.split())
    reason = f"needs {what}"
    if os.environ.get("TFWATCH_REQUIRE") == "all":
        pytest.fail(f"{reason}: apt install {packages}", pytrace=False)
    pytest.skip(reason)


if __name__ == "__main__":
    print(*(f"{program}:{package}" for program, package in PROGRAMS.items()))
