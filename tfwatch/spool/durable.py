"""Small files, replaced at once and whole."""

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

    `durable`: its text is on disk before its name leads to it. The name itself is not: its folder is the caller's to
    sync. `as_folder`: it belongs to whom its folder belongs, where this process may say so (root may). Raises OSError.
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
