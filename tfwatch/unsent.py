"""What keeps a file of the outbox from being taken, seen from outside: it can't be read, or is not finished."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator

from tfwatch.language import tr
from tfwatch.look import is_anothers
from tfwatch.model import Stage
from tfwatch.spool.folders import Folders
from tfwatch.spool.listing import Listing


def unreadable(folders: Folders, listing: Listing) -> Iterator[tuple[str, str]]:
    """Packages in the outbox that may not be read, and what would let them be."""
    for entry in listing.entries:
        if _is_closed(folders, entry.name):
            yield entry.name, describe_unreadable(folders, entry.name)


def describe_unreadable(folders: Folders, name: str) -> str:
    """Why the daemon can't read a file of the outbox, and the command that mends it."""
    who, mend = folders.describe(Stage.OUTBOX, name), folders.how_to_let_read(Stage.OUTBOX, name)
    return tr("can't be read ({who}); let the daemon read it: {mend}", who=who, mend=mend)


def unfinished_why(folders: Folders, name: str, *, settle_seconds: float) -> str:
    """Why a file of the outbox does not count as finished; empty when it does. Raises OSError, `NotAPackage`."""
    # Reading ZIPs is not needed by any other command.
    from tfwatch.spool.intake import ignore_lease_signals, probe

    ignore_lease_signals()
    fd = folders.open(Stage.OUTBOX, name)
    try:
        info = os.fstat(fd)
        still = time.time() - max(info.st_mtime, info.st_ctime)
        return probe(fd, still_seconds=max(0.0, still), settle_seconds=settle_seconds).why
    finally:
        os.close(fd)


def _is_closed(folders: Folders, name: str) -> bool:
    """Whether the daemon may not read it. For another user only what is closed to everybody but its owner is known."""
    path = folders.path(Stage.OUTBOX, name)
    try:
        info = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    if is_anothers(folders.root):
        return not info.st_mode & (stat.S_IRGRP | stat.S_IROTH)
    return not os.access(path, os.R_OK, effective_ids=True)
