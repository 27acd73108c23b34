"""What only trying shows of a spool: whether leases and file events work there. Nothing stays of it.

The files are hidden ones in outbox/; one that its process could not remove goes when the next daemon starts.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from tfwatch.model import Stage
from tfwatch.spool.folders import Folders, probe_name
from tfwatch.spool.intake import Finish, Probe, probe
from tfwatch.spool.watcher import CANARY_PLACE, Bell, Watcher


def leases_work(folders: Folders) -> bool:
    """Whether a lease is refused while somebody has a file open for writing, and granted afterwards.

    Call `ignore_lease_signals` first. Raises OSError.
    """
    with _hidden_file(folders, probe_name()) as (writer, path):
        reader = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            meanwhile = _look(reader)
            writer.close()
            afterwards = _look(reader)
        finally:
            os.close(reader)
    is_refused = (meanwhile.state, meanwhile.proven_by) == (Finish.BEING_WRITTEN, "lease")
    return is_refused and (afterwards.state, afterwards.proven_by) == (Finish.UNFINISHED, "lease")


def event_seconds(folders: Folders, *, patience: float) -> float | None:
    """How long the event of a new file in outbox/ takes; None when it has not come after `patience` seconds.

    The watch is one of our own: a running daemon's is not touched. Raises OSError when inotify can't be used.
    """
    name = probe_name()
    watches = {CANARY_PLACE: folders.folder(Stage.OUTBOX)}
    watcher = Watcher(Bell(), watches, ours=lambda place, arrived: True, canary=name)
    try:
        watcher.start()
        watcher.canary_sent()
        begun = time.monotonic()
        with _hidden_file(folders, name):
            pass
        return time.monotonic() - begun if watcher.canary_heard(patience) else None
    finally:
        watcher.stop()


def _look(fd: int) -> Probe:
    """Where leases don't count, nothing is still for long enough."""
    return probe(fd, still_seconds=0.0, settle_seconds=math.inf)


@contextmanager
def _hidden_file(folders: Folders, name: str) -> Iterator[tuple[BinaryIO, str]]:
    """A new file of that name, open for writing, and its path."""
    path = folders.path(Stage.OUTBOX, name)
    fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as writer:
            yield writer, path
    finally:
        os.unlink(path)
