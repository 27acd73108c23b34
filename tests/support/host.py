"""What the machine under the tests must offer besides programs: mounts, and a root without power over files."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest


def unmet(reason: str) -> NoReturn:
    """Skip this test; where `TFWATCH_REQUIRE=all` says that nothing may be left out, fail it."""
    if os.environ.get("TFWATCH_REQUIRE") == "all":
        pytest.fail(reason)
    pytest.skip(reason)


@contextmanager
def mounted(where: Path, kind: str, options: str = "") -> Iterator[Path]:
    """A fresh file system of that kind, there for the length of the block. Skips unless root may mount here."""
    if os.geteuid() != 0:
        unmet(f"needs root to mount a {kind}")
    command = ["mount", "-t", kind, *(["-o", options] if options else []), kind, str(where)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        unmet(f"can't mount a {kind} here: {done.stderr.strip()}")
    try:
        yield where
    finally:
        subprocess.run(["umount", "--lazy", str(where)], check=True)


def without_power(*kept: str) -> tuple[str, ...]:
    """What to start a daemon with so that file modes bind it, even when root runs the tests. `kept`: capabilities."""
    if os.geteuid() != 0:
        return ()
    return ("setpriv", "--bounding-set=" + ",".join(("-all", *(f"+{one}" for one in kept))), "--inh-caps=-all", "--")


def fill(folder: Path) -> Path:
    """Take the last byte of room there is."""
    ballast = folder / "ballast"
    fd = os.open(ballast, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    try:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while True:
                    os.write(fd, bytes(size))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
    finally:
        os.close(fd)
    return ballast


def take_all_inodes(folder: Path) -> Path:
    """Make files until no more can be made."""
    ballast = folder / "ballast"
    try:
        ballast.mkdir()
        for number in range(1_000_000):
            os.close(os.open(ballast / str(number), os.O_CREAT | os.O_WRONLY))
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
    return ballast
