"""Kernel settings that a test changes and puts back: for root only, and for as short a time as can be."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.host import unmet


def sysctl(name: str) -> int:
    """A setting's number: `fs.inotify.max_queued_events`."""
    return int(_path(name).read_text())


@contextmanager
def lowered(name: str, value: int) -> Iterator[None]:
    """Set it lower for the length of the block; the whole machine is meant, so make the block short."""
    before = sysctl(name)
    if os.geteuid() != 0:
        unmet(f"needs root to set {name}")
    try:
        _path(name).write_text(f"{min(before, value)}\n")
    except OSError as error:
        unmet(f"can't set {name} here: {error.strerror}")
    try:
        yield
    finally:
        _path(name).write_text(f"{before}\n")


def _path(name: str) -> Path:
    return Path("/proc/sys") / name.replace(".", "/")
