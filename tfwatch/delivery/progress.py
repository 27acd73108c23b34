"""What is under way right now, with its progress: shown by `status`, watched by the watchdog."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One piece of work under way: which package, what is done to it, bytes done of all. Monotonic seconds."""

    name: str
    doing: str
    done: int
    total: int
    began: float
    moved: float


class Board:
    """All work under way. Thread-safe; `Work` is exchanged whole."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._works: dict[int, Work] = {}

    @contextmanager
    def working(self, name: str, doing: str, total: int) -> Iterator[Callable[[int], None]]:
        """Show this thread's work while the block runs; gives the function to be told the bytes done so far."""
        key, now = threading.get_ident(), self._clock()
        before = self._works.get(key)
        work = Work(name=name, doing=doing, done=0, total=total, began=now, moved=now)
        with self._lock:
            self._works[key] = work

        def progress(done: int) -> None:
            with self._lock:
                self._works[key] = replace(work, done=done, moved=self._clock())

        try:
            yield progress
        finally:
            with self._lock:
                if before is None:
                    del self._works[key]
                else:
                    self._works[key] = before

    def snapshot(self) -> list[Work]:
        """Everything under way, the longest first."""
        with self._lock:
            return sorted(self._works.values(), key=lambda work: work.began)
