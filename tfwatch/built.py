"""Which build this is: the commit it was made from and, in a distribution's package, that package's version.

A wheel carries the answer as build.txt (`packaging/hatch_build.py` writes it); only a checkout has to ask git.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

_HERE = Path(__file__).parent


def build(package: Path = _HERE) -> str | None:
    """As in `98eec2a` or `98eec2a, deb 0.1.0-1`; None if nobody wrote it down and there is no git to ask."""
    try:
        return (package / "build.txt").read_text(encoding="utf-8").strip() or None
    except FileNotFoundError:
        return commit(package.parent)


def commit(checkout: Path) -> str | None:
    """The commit checked out in this folder, `-changed` behind it if files differ; None if it is no checkout."""
    if not (checkout / ".git").exists():
        return None
    describe = ["git", "-C", str(checkout), "describe", "--always", "--exclude=*", "--dirty=-changed"]
    try:
        return subprocess.run(describe, check=True, capture_output=True, text=True).stdout.strip() or None  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return None
