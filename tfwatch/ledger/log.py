"""log.csv as the daemon writes it: append-only, chained, on disk before anybody is told.

Group commit: one thread takes every fact that waits, writes them with one call and syncs once, then wakes the
callers. While it syncs, the next group gathers; nothing is ever delayed to make a group larger.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from queue import Empty, SimpleQueue
from typing import Final

from tfwatch import disk
from tfwatch.ledger.opening import PIECE_BYTES, Found, open_verified, write_all
from tfwatch.ledger.reading import LogDamaged, Position, PositionMismatch, read_log
from tfwatch.ledger.rows import body, escape, seal
from tfwatch.model import DeliveryRecord, Fact

__all__ = ["Log", "LogDamaged", "LogPoisoned", "LogUnwritable", "Position", "PositionMismatch", "read_log"]

OnCommit = Callable[[Sequence[DeliveryRecord], Position], None]

_WAIT_SECONDS: Final = 1.0
"""An `append` that waits for longer says so, each time anew."""


class LogUnwritable(OSError):
    """The facts were not written, and no part of them is in the log: the disk is full, try again later."""


class LogPoisoned(Exception):
    """It can't be known any more what of the log is on disk: the daemon must stop. A restart verifies and repairs."""

    def __init__(self, path: str, cause: BaseException) -> None:
        why = disk.told(cause) or f"{cause}; mend that, then start tfwatch again"
        super().__init__(f"{escape(path)} takes no more rows: {why}")


@dataclass(slots=True, kw_only=True)
class _Call:
    """One `append` that waits: its facts with their bodies, and what came of them once `done` is set."""

    facts: list[tuple[Fact, bytes]]
    done: threading.Event = field(default_factory=threading.Event)
    records: tuple[DeliveryRecord, ...] = ()
    error: BaseException | None = None


class Log:
    """The one writer of log.csv. Use `Log.open`. Safe to use from several threads.

    `cut`: bytes of a torn tail that were cut and saved when it was opened, 0 when it was whole. `while_waiting` is
    called each second by every thread whose `append` waits.
    """

    def __init__(
        self,
        *,
        path: str,
        fd: int,
        position: Position,
        last_at: datetime,
        cut: int,
        exec_id: str,
        clock: Callable[[], datetime],
        on_commit: OnCommit,
        sync: Callable[[int], None],
    ) -> None:
        self.path = path
        self.cut = cut
        self.while_waiting: Callable[[], None] = lambda: None
        self._fd = fd
        self._position = position
        self._last_at = last_at
        self._exec_id = exec_id
        self._clock = clock
        self._on_commit = on_commit
        self._sync = sync
        self._poison: BaseException | None = None
        self._closed = False
        self._queue: SimpleQueue[_Call | None] = SimpleQueue()
        self._queue_lock = threading.Lock()
        self._file_lock = threading.Lock()
        self._folder = _identity(os.path.dirname(path))
        self._committer = threading.Thread(target=self._run, name="log", daemon=True)
        self._committer.start()

    @classmethod
    def open(
        cls,
        path: str,
        *,
        torn_path: str,
        exec_id: str,
        clock: Callable[[], datetime],
        on_commit: OnCommit,
        start: Position | None = None,
        sync: Callable[[int], None] = os.fdatasync,
        found: Found = lambda records, position: None,
    ) -> Log:
        """Open the log, made anew if there is none, verified from `start` (from its first row when None).

        A torn tail is saved in `torn_path`, then cut. `clock` gives aware datetimes. `on_commit` is called from one
        thread with each group's records, in order, once they are on disk and before their callers return; it must not
        append, and whatever it raises poisons the log. `found` is given the rows after `start`, some thousands at once,
        while the log is opened: each is verified and on disk. `sync` puts a file's data on disk.
        Raises `PositionMismatch` when `start` isn't in this log, `LogDamaged` when rows don't belong: nothing is
        changed then. OSError when the file can't be read, written or synced.
        """
        opened = open_verified(path, start or Position.start(), torn_path=torn_path, sync=sync, found=found)
        return cls(
            path=path,
            fd=opened.fd,
            position=opened.position,
            last_at=opened.last_at,
            cut=opened.cut,
            exec_id=exec_id,
            clock=clock,
            on_commit=on_commit,
            sync=sync,
        )

    @property
    def position(self) -> Position:
        """Right after the last row on disk."""
        return self._position

    def append(self, facts: Sequence[Fact]) -> tuple[DeliveryRecord, ...]:
        """Block until these facts are on disk, together and in order; returns them as records.

        Raises `LogUnwritable` (none of them is in the log; try again later), `LogPoisoned` (the daemon must stop),
        ValueError for a fact that fits in no row, RuntimeError after `close`.
        """
        if not facts:
            return ()
        call = _Call(facts=[(fact, body(fact)) for fact in facts])
        with self._queue_lock:
            if self._closed:
                raise RuntimeError(f"{escape(self.path)} is closed")
            self._queue.put(call)
        while not call.done.wait(_WAIT_SECONDS):
            self.while_waiting()
        if isinstance(call.error, LogUnwritable):
            raise LogUnwritable(call.error.errno, call.error.strerror, self.path) from call.error
        if call.error is not None:
            raise LogPoisoned(self.path, call.error) from call.error
        return call.records

    def check_inode(self) -> None:
        """Raise `LogDamaged` when the path names another file now, or somebody else wrote to ours."""
        if not self._file_lock.acquire(blocking=False):
            return  # rows are being written, which has just looked
        try:
            self._check_file()
        finally:
            self._file_lock.release()

    def close(self) -> None:
        """Commit what waits, stop the thread, close the file. Calling twice is once."""
        with self._queue_lock:
            if self._closed:
                return
            self._closed = True
            self._queue.put(None)
        self._committer.join()
        os.close(self._fd)

    # --- the committer's thread ------------------------------------------------------------------------------------

    def _run(self) -> None:
        closing = False
        while not closing:
            waiting = [self._queue.get()]
            try:
                while True:
                    waiting.append(self._queue.get_nowait())
            except Empty:
                pass
            calls = [call for call in waiting if call is not None]
            closing = len(calls) < len(waiting)
            if calls:
                self._commit(calls)

    def _commit(self, calls: Sequence[_Call]) -> None:
        try:
            if self._poison is not None:
                raise self._poison
            with disk.about(self.path):
                records = self._store(calls)
            self._on_commit(records, self._position)
        except BaseException as error:  # noqa: BLE001  every waiting caller raises it, whatever it was
            if not isinstance(error, LogUnwritable):
                self._poison = error
            for call in calls:
                call.error = error
        else:
            rest = iter(records)
            for call in calls:
                call.records = tuple(islice(rest, len(call.facts)))
        for call in calls:
            call.done.set()

    def _store(self, calls: Sequence[_Call]) -> list[DeliveryRecord]:
        at = max(self._clock(), self._last_at)
        records, lines = [], []
        seq, chain = self._position.seq, self._position.chain
        for call in calls:
            for fact, written in call.facts:
                seq += 1
                record, line = seal(fact, written, seq=seq, at=at, exec_id=self._exec_id, previous_chain=chain)
                chain = record.chain
                records.append(record)
                lines.append(line)
        with self._file_lock:
            self._check_file()
            self._write(lines)
            offset = self._position.offset + sum(map(len, lines))
            self._position = Position(offset=offset, seq=seq, chain=chain)
        self._last_at = records[-1].at
        return records

    def _check_file(self) -> None:
        ours = os.fstat(self._fd)
        try:
            named = os.stat(self.path)
        except OSError as error:
            if _identity(os.path.dirname(self.path)) != self._folder:
                return  # not the file but its whole folder is elsewhere, an unmounted disk perhaps; ours is open
            if not isinstance(error, FileNotFoundError):
                raise  # it can't be looked at, and may well be there
            raise self._damaged("the file was removed while tfwatch was writing it") from error
        if (named.st_dev, named.st_ino) != (ours.st_dev, ours.st_ino):
            raise self._damaged("the file was replaced while tfwatch was writing it")
        if ours.st_size != self._position.offset:
            raise self._damaged(f"somebody else wrote to it: {ours.st_size} bytes, not {self._position.offset}")

    def _damaged(self, problem: str) -> LogDamaged:
        return LogDamaged(self.path, problem, seq=self._position.seq + 1, offset=self._position.offset)

    def _write(self, lines: Sequence[bytes]) -> None:
        for piece in _pieces(lines):
            try:
                write_all(self._fd, piece)
            except OSError as error:
                if error.errno not in disk.NO_ROOM:
                    # The disk fails. Nobody has relied on any row of this group; what of it can't be taken back now
                    # is verified at the next start, like all that a crash leaves.
                    with contextlib.suppress(OSError):
                        os.ftruncate(self._fd, self._position.offset)
                    raise
                # No half row may stay, nor a row whose caller is told that it wasn't written.
                os.ftruncate(self._fd, self._position.offset)
                disk.sync(self._fd, self.path, self._sync)
                raise LogUnwritable(error.errno, error.strerror, self.path) from error
            disk.sync(self._fd, self.path, self._sync)


def _pieces(lines: Sequence[bytes]) -> list[bytes]:
    pieces, gathered, size = [], [], 0
    for line in lines:
        gathered.append(line)
        size += len(line)
        if size >= PIECE_BYTES:
            pieces.append(b"".join(gathered))
            gathered, size = [], 0
    return [*pieces, b"".join(gathered)] if gathered else pieces


def _identity(folder: str) -> tuple[int, int] | None:
    try:
        info = os.stat(folder or ".")
    except OSError:
        return None
    return info.st_dev, info.st_ino
