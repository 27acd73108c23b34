"""Whether a daemon holds a spool, asked from outside."""

from __future__ import annotations

import fcntl
import os


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
