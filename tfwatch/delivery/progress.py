"""What is under way right now, with its progress: shown by `status`, watched by the watchdog."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final

DISK_SECONDS: Final = 60.0
"""A healthy disk gives the next bytes long before that."""

SLOW_CALL_SECONDS: Final = 150.0
"""For a service that delays no delivery: S3 takes minutes to put a large upload together, and says nothing meanwhile;
Google's library waits two minutes for a login."""

_LEAST_CALL_SECONDS: Final = 30.0
_CONNECT_SECONDS: Final = 5.0


def call_timeout(seconds: float) -> float:
    """How long a call may be silent whose every phase is bounded by so many seconds: a slow name server included."""
    return max(seconds, _LEAST_CALL_SECONDS) + _CONNECT_SECONDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One piece of work under way: which package, what is done to it, bytes done of all. Monotonic seconds.

    `timeout`: seconds in which something must move; `moved`: when it last did.
    """

    name: str
    doing: str
    done: int
    total: int
    began: float
    moved: float
    timeout: float = DISK_SECONDS


class Board:
    """All work under way. Thread-safe; `Work` is exchanged whole.

    `listener` is told of each step, in the thread that makes it.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._works: dict[int, Work] = {}
        self.listener: Callable[[Work], None] = lambda work: None

    @contextmanager
    def working(
        self, name: str, doing: str, total: int, *, timeout: float = DISK_SECONDS
    ) -> Iterator[Callable[[int], None]]:
        """Show this thread's work while the block runs; gives the function to be told the bytes done so far.

        Whoever waits on purpose (a pause between two tries) tells it so, too: that is no standstill.
        """
        key, now = threading.get_ident(), self._clock()
        before = self._works.get(key)
        work = Work(name=name, doing=doing, done=0, total=total, began=now, moved=now, timeout=timeout)
        with self._lock:
            self._works[key] = work

        def progress(done: int) -> None:
            now = replace(work, done=done, moved=self._clock())
            with self._lock:
                self._works[key] = now
            self.listener(now)

        try:
            yield progress
        finally:
            with self._lock:
                if before is None:
                    del self._works[key]
                else:
                    self._works[key] = replace(before, moved=self._clock())

    def snapshot(self) -> list[Work]:
        """Everything under way, the longest first."""
        with self._lock:
            return sorted(self._works.values(), key=lambda work: work.began)

    def standing_still(self) -> list[tuple[Work, float]]:
        """Work in which nothing has moved for twice its timeout, and for how many seconds; the longest first."""
        now = self._clock()
        still = [(work, now - work.moved) for work in self.snapshot() if now - work.moved > 2 * work.timeout]
        return sorted(still, key=lambda each: -each[1])
