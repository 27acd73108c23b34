"""Debian packages as tests need them: the one under test under another version, so that apt upgrades to it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from tests.support.require import need


def version_of(deb: Path) -> str:
    """A package's version, as dpkg compares them."""
    return _run(need("dpkg-deb"), "--field", str(deb), "Version").strip()


def with_version(deb: Path, version: str, folder: Path) -> Path:
    """The same package under another version; `folder` takes it."""
    unpacked = folder / "unpacked"
    _run(need("dpkg-deb"), "--raw-extract", str(deb), str(unpacked))
    control = unpacked / "DEBIAN" / "control"
    control.write_text(re.sub(r"^Version: .*$", f"Version: {version}", control.read_text(), flags=re.MULTILINE))
    made = folder / deb.name.replace(version_of(deb), version)
    # How well it is packed is not under test, and takes minutes.
    _run(need("dpkg-deb"), "-Zgzip", "-z1", "--root-owner-group", "--build", str(unpacked), str(made))
    return made


def _run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
