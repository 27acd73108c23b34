"""The small files of the spool, beside its packages: reasons, rollback documents, requests, the canary."""

from __future__ import annotations

import os
from collections.abc import Iterable

from tfwatch.model import Stage
from tfwatch.spool.durable import write_file
from tfwatch.spool.names import REASON_SUFFIX, reason_name
from tfwatch.spool.places import CANARY, REQUESTS, ROLLBACKS, Places


class Papers(Places):
    """They are written, read and removed here. None holds a package up."""

    def write_reason(self, name: str, text: str) -> None:
        """Say beside a rejected package why it lies there."""
        self._write(self._at(Stage.REJECTED, reason_name(name)), text)

    def remove_reason(self, name: str) -> None:
        """Take the note beside a rejected package away. One that can't be removed never holds a package up."""
        try:
            os.unlink(self._at(Stage.REJECTED, reason_name(name)))
        except OSError:
            pass

    def reasons(self) -> set[str]:
        """Names of the reason files in rejected/, whether their packages are there or not."""
        return {name for name in os.listdir(self._at(Stage.REJECTED)) if name.endswith(REASON_SUFFIX)}

    def remove_reason_file(self, file: str) -> None:
        """Remove one of `reasons()` by its own name. Raises OSError."""
        os.unlink(self._at(Stage.REJECTED, file))

    def read_rollbacks(self, exec_id: str) -> str:
        """A run's rollback document; empty when there is none."""
        try:
            path = self._in(ROLLBACKS, os.path.basename(self.rollback_document(exec_id)))
            with open(path, encoding="utf-8", errors="backslashreplace") as file:
                return file.read()
        except FileNotFoundError:
            return ""

    def append_rollback(self, exec_id: str, head: str, section: str) -> str:
        """Add a section to this run's rollback document, made with `head` first; returns its path."""
        path = self.rollback_document(exec_id)
        text = (self.read_rollbacks(exec_id) or head) + section
        self._write(self._in(ROLLBACKS, os.path.basename(path)), text)
        return path

    def waiting_requests(self) -> Iterable[str]:
        """Names of the request files that commands left, oldest first; what is no regular file is none."""
        with os.scandir(self._in(REQUESTS)) as found:
            return sorted(
                item.name for item in found if item.name.endswith(".json") and item.is_file(follow_symlinks=False)
            )

    def keep_requests(self) -> None:
        """Put the requests' names on disk; their commands may not have come to that yet.

        Without it a power cut could take back what has been carried out in part.
        """
        self._sync(self._in(REQUESTS))

    def read_request(self, name: str) -> tuple[bytes, int]:
        """What a request file holds, at most 1 MiB of it, and whose it is (a user's number)."""
        fd = os.open(self._in(REQUESTS, name), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as file:
            return file.read(1 << 20), os.fstat(fd).st_uid

    def drop_request(self, name: str) -> None:
        """Remove a request that was carried out, for good: one that a power cut brought back would be done twice."""
        try:
            os.unlink(self._in(REQUESTS, name))
        except FileNotFoundError:
            return
        self._sync(self._in(REQUESTS))

    def leave_request(self, name: str, text: str) -> None:
        """Leave a request for the daemon, on disk before this returns; its own even when root leaves it."""
        self._write(self._in(REQUESTS, name), text, as_folder=True)

    def touch_canary(self) -> None:
        """Write and close a hidden file in the outbox: if events arrive here, this one does.

        It is always a new file: somebody may have put a FIFO or a link of that name there. Raises OSError.
        """
        path = self._at(Stage.OUTBOX, CANARY)
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        os.unlink(path)

    def _write(self, path: str, text: str, *, as_folder: bool = False) -> None:
        """On disk with its name. `NotSynced` is never to be taken for a file that wasn't written."""
        write_file(path, text, mode=0o660, as_folder=as_folder)
        self._sync(os.path.dirname(path))
