"""A large new file that appears under its name at once and whole, and never in the place of another."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, Final

from tfwatch import disk
from tfwatch.spool.renames import rename_noreplace

_UNDER_WAY: Final = re.compile(r"\.[0-9a-f]{12}\.restoring")


@contextmanager
def placing(folder: str, name: str, *, mode: int) -> Iterator[BinaryIO]:
    """A file to write into; when the block ends well it is on disk under its name.

    Until then it has a hidden name in the same folder, locked while its writer lives, and goes when the block fails.
    Root's belongs to whom the folder belongs. Raises FileExistsError when something of that name lies there, OSError.
    """
    path = os.path.join(folder, name)
    if os.path.lexists(path):
        raise FileExistsError(path)
    temporary = os.path.join(folder, f".{secrets.token_hex(6)}.restoring")
    fd = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, mode)
    try:
        with disk.about(path), os.fdopen(fd, "wb") as file:
            with contextlib.suppress(OSError):  # not every file system has locks; those that tfwatch works on do
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.geteuid() == 0:
                owner = os.stat(folder)
                os.fchown(fd, owner.st_uid, owner.st_gid)
            yield file
            file.flush()
            disk.sync(fd, path)
            rename_noreplace(temporary, path)
    except BaseException:
        # A second failure would only hide the first; what is left over is removed at the daemon's next start.
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    disk.sync_folder(folder)


def remove_abandoned(folder: str) -> None:
    """Remove what writers left behind that died; one that is still being written is locked, and stays."""
    for name in filter(_UNDER_WAY.fullmatch, os.listdir(folder)):
        with contextlib.suppress(OSError):  # it is in nobody's way
            fd = os.open(os.path.join(folder, name), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(os.path.join(folder, name))
            finally:
                os.close(fd)
