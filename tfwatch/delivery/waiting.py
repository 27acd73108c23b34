"""Packages that lie in the outbox but shall not be claimed yet."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tfwatch.spool.listing import Entry

_File = tuple[int, int, int, int]


def _file_of(entry: Entry) -> _File:
    """What stays the same when a file is renamed; an inode alone is soon given to the next file."""
    return entry.device, entry.inode, entry.size, entry.mtime_ns


def _file(entry: Entry | None) -> _File | None:
    return None if entry is None else _file_of(entry)


@dataclass(frozen=True, slots=True)
class _Wait:
    file: _File | None
    until: float
    behind: str = ""
    while_off: bool = False


class WaitingRoom:
    """Who waits in the outbox, until when or behind whom. Thread-safe; moments are monotonic seconds.

    A wait belongs to one file, not to its name: another file dropped under that name is a new package.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._waits: dict[str, _Wait] = {}

    def put(self, name: str, entry: Entry | None, seconds: float) -> None:
        """Let a package wait for a time."""
        self._put(name, _Wait(_file(entry), self._clock() + seconds))

    def put_behind(self, name: str, entry: Entry | None, sha256: str) -> None:
        """Let a twin wait for the outcome of the package with the same content."""
        self._put(name, _Wait(_file(entry), float("inf"), behind=sha256))

    def put_while_off(self, name: str, entry: Entry | None, seconds: float | None) -> None:
        """Let a package wait until deliveries are on again, or for a time; None: nothing else is to do for it."""
        until = float("inf") if seconds is None else self._clock() + seconds
        self._put(name, _Wait(_file(entry), until, while_off=True))

    def free_behind(self, sha256: str) -> bool:
        """The outcome of that content is known; true when somebody waited for it."""
        with self._lock:
            behind = [name for name, wait in self._waits.items() if wait.behind == sha256]
            for name in behind:
                del self._waits[name]
            return bool(behind)

    def free_while_off(self, most: int | None = None) -> bool:
        """Deliveries are on again, or one package may try: those who wait for that may go; true when there was one."""
        with self._lock:
            freed = [name for name, wait in self._waits.items() if wait.while_off][:most]
            for name in freed:
                del self._waits[name]
            return bool(freed)

    def free_all(self) -> None:
        """The integration works again: nobody waits any longer."""
        with self._lock:
            self._waits.clear()

    def keep_only(self, names: Iterable[str]) -> None:
        """Forget those whose file is gone from the outbox."""
        present = set(names)
        with self._lock:
            for name in [name for name in self._waits if name not in present]:
                del self._waits[name]

    def lets_go(self, entry: Entry) -> bool:
        """Whether this file may be claimed now."""
        with self._lock:
            wait = self._waits.get(entry.name)
            if wait is None:
                return True
            if wait.until > self._clock() and wait.file in (None, _file_of(entry)):
                return False
            del self._waits[entry.name]
            return True

    def next_due(self) -> float | None:
        """Seconds until the next wait ends; None when none ends by itself."""
        with self._lock:
            until = min((wait.until for wait in self._waits.values()), default=float("inf"))
        return None if until == float("inf") else max(0.0, until - self._clock())

    def __len__(self) -> int:
        with self._lock:
            return len(self._waits)

    def _put(self, name: str, wait: _Wait) -> None:
        with self._lock:
            self._waits[name] = wait
