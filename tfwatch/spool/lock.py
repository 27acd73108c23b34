"""The spool's lock: one daemon works in it. It goes with the process that holds it, however that ends."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from tfwatch import disk

_PATIENCE_SECONDS: Final = 0.5
"""`is_held` takes the lock for an instant; a daemon that starts in that instant must not take it for another's."""


class Locked(Exception):
    """Another daemon holds this spool."""


@contextmanager
def hold(path: str) -> Iterator[None]:
    """Hold the lock while the block runs. Raises `Locked`, naming the process that has it."""
    fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
    try:
        with disk.about(path):
            _take(fd, path)
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(fd)


def is_held(path: str) -> bool:
    """Whether another process holds the lock of this file; False when there is none. Raises PermissionError."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _take(fd: int, path: str) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
                raise Locked(
                    f"{path}: another tfwatch (process {holder}) works in this spool; stop it first, or give this "
                    "one its own spool.root"
                ) from None
            time.sleep(_PATIENCE_SECONDS / 20)
        else:
            return
