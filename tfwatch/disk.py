"""What can go wrong with the disk: each failure knows its path, and is told in one line that a person can act on."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

NO_ROOM: Final = frozenset((errno.ENOSPC, errno.EDQUOT))
"""These pass when somebody makes room: waiting is the way back to work."""

_OF_THE_PROCESS: Final = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOMEM))

_AGAIN: Final = "then start tfwatch again; what was under way is found out then"

_WHAT_TO_DO: Final = {
    errno.EACCES: f"let the user that tfwatch runs as use it (namei -l shows who may), {_AGAIN}",
    errno.EPERM: f"let the user that tfwatch runs as use it (namei -l shows who may, lsattr what else), {_AGAIN}",
    errno.EROFS: f"the file system is read-only, mostly after a disk error: see dmesg, mount it writable, {_AGAIN}",
    errno.ENOSPC: f"free some space (df -h, df -i), {_AGAIN}",
    errno.EDQUOT: f"raise the quota or free some space, {_AGAIN}",
    errno.EIO: f"the disk fails: see dmesg, mend or replace it, {_AGAIN}",
    errno.EMFILE: f"raise LimitNOFILE= of its service, {_AGAIN}",
    errno.ENFILE: f"raise fs.file-max, {_AGAIN}",
    errno.ENOMEM: f"free some memory, {_AGAIN}",
    errno.ENOLCK: f"locks are not to be had here: put the spool on a local file system, {_AGAIN}",
    errno.ESTALE: f"the network file system lost it: mount it again, {_AGAIN}",
    errno.ENODEV: f"the device is gone: see dmesg, attach it again, {_AGAIN}",
    errno.ENXIO: f"the device is gone: see dmesg, attach it again, {_AGAIN}",
    errno.EUCLEAN: f"the file system is damaged: see dmesg, unmount and check it (fsck), {_AGAIN}",
    errno.EBADMSG: f"the file system is damaged: see dmesg, unmount and check it (fsck), {_AGAIN}",
}


class NotSynced(OSError):
    """An fsync failed: it can't be known any more what is on disk.

    Never tried again: the kernel may call lost pages clean, and a second fsync would lie. The process must end.
    """


class Unworkable(Exception):
    """The disk doesn't let us work. The text says all: which file, what happened, what to do next."""


@contextmanager
def about(path: str) -> Iterator[None]:
    """Calls on a mere descriptor fail without saying on which file: they get this path."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = path
        raise


def sync(fd: int, path: str, call: Callable[[int], None] | None = None) -> None:
    """Put a file or folder on disk, with fsync unless another `call` is named. Raises `NotSynced`."""
    try:
        (call or os.fsync)(fd)
    except OSError as error:
        raise NotSynced(error.errno, error.strerror, path) from error


def sync_folder(path: str) -> None:
    """Put the names in a folder on disk. Raises `NotSynced`, or OSError when it can't be opened."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sync(fd, path)
    finally:
        os.close(fd)


def is_of_one_file(error: OSError) -> bool:
    """Whether another file may well be readable: not when this process or machine has run out of something."""
    return error.errno not in _OF_THE_PROCESS and not isinstance(error, NotSynced)


def told(error: BaseException) -> str | None:
    """What happened to which file, and what to do; None for a bug, which is told with its traceback."""
    if isinstance(error, Unworkable):
        return str(error)
    if not isinstance(error, OSError) or error.errno not in _WHAT_TO_DO or error.filename is None:
        return None
    paths = [os.fsdecode(path) for path in (error.filename, error.filename2) if isinstance(path, str | bytes)]
    what = f"{' -> '.join(paths)}: {error.strerror}"
    if isinstance(error, NotSynced):
        what += " on fsync, so it can't be known what of it is on disk"
    return f"{what}; {_WHAT_TO_DO[error.errno]}"
