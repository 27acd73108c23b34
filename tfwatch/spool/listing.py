"""What lies in a folder, as plain values: packages, and the oddities that only look like them."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import Final

_KINDS: Final = (
    (stat.S_ISLNK, "symbolic link"),
    (stat.S_ISDIR, "directory"),
    (stat.S_ISFIFO, "FIFO"),
    (stat.S_ISSOCK, "socket"),
    (stat.S_ISBLK, "block device"),
    (stat.S_ISCHR, "character device"),
)


class NotAPackage(Exception):
    """Something named `*.zip` that is not a regular file: it is never opened and never followed."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One regular file that counts as a package, as the folder showed it. Times in ns, size in bytes."""

    name: str
    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int


@dataclass(frozen=True, slots=True)
class Listing:
    """A folder as it is now: its packages, the oddities named `*.zip` (name, kind), how many others lie there."""

    entries: tuple[Entry, ...]
    oddities: tuple[tuple[str, str], ...]
    ignored: int


def kind_of(mode: int) -> str:
    """What a file of this `st_mode` is, in a word or two."""
    return next((kind for is_kind, kind in _KINDS if is_kind(mode)), "regular file")


def entry_of(name: str, info: os.stat_result) -> Entry:
    """One regular file, from what `lstat` says of it."""
    return Entry(name, info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)
