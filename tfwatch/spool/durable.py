"""Small files and names, put on disk: whoever returns from here may rely on them after a power cut."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from typing import Final

from tfwatch import disk

HALF_WRITTEN: Final = re.compile(r"\.[0-9a-f]{12}\.tmp")
"""The names under which `write_file` writes: one that is still there after its writer has died is worth nothing."""


def write_file(path: str, text: str, *, mode: int, durable: bool = True, as_folder: bool = False) -> None:
    """Replace a small file at once: other readers see the old text or the new, never half.

    `as_folder`: it belongs to whom its folder belongs, where this process may say so (root may). Raises OSError; of
    these `NotSynced` when the folder could not be synced, which nobody may take for a file that wasn't written.
    """
    folder = os.path.dirname(path)
    temporary = os.path.join(folder, f".{secrets.token_hex(6)}.tmp")
    fd = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, mode)
    try:
        with disk.about(path), os.fdopen(fd, "w", encoding="utf-8", errors="backslashreplace") as file:
            if as_folder and os.geteuid() == 0:
                owner = os.stat(folder)
                os.fchown(fd, owner.st_uid, owner.st_gid)
            file.write(text)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.rename(temporary, path)
    except BaseException:
        # A second failure would only hide the first; a leftover of that name is never looked at.
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    if durable:
        sync_folder(folder)


def sync_folder(path: str) -> None:
    """fsync a directory. Raises `NotSynced`, or OSError when it can't be opened."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        disk.sync(fd, path)
    finally:
        os.close(fd)
