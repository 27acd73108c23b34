"""Work that is due at a moment: a queue whose items come out when their time has come."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable, Hashable, Iterable
from typing import Generic, TypeVar

Item = TypeVar("Item", bound=Hashable)


class DueQueue(Generic[Item]):
    """Items and when they are due; each is in it at most once. Thread-safe; moments are monotonic seconds."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._condition = threading.Condition()
        self._heap: list[tuple[float, int, Item]] = []
        self._due: dict[Item, float] = {}
        self._order = itertools.count()
        self._endings = 0

    def put(self, item: Item, seconds: float) -> None:
        """Make an item due in so many seconds; one that is in already comes at the earlier of both."""
        due = self._clock() + seconds
        with self._condition:
            if self._due.get(item, float("inf")) <= due:
                return
            self._due[item] = due
            heapq.heappush(self._heap, (due, next(self._order), item))
            self._condition.notify()

    def take(self) -> Item | None:
        """Wait for the next due item and take it out; None when this taker is to end."""
        with self._condition:
            while not self._endings:
                wait = self._wait()
                if wait == 0.0:
                    _, _, item = heapq.heappop(self._heap)
                    del self._due[item]
                    # The one `put` woke may have been the one whose own wait just ended: pass it on.
                    self._condition.notify()
                    return item
                self._condition.wait(wait)
            self._endings -= 1
            # Whoever was woken for an item may have taken the ending instead.
            self._condition.notify()
            return None

    def hurry(self, moments: Iterable[float]) -> None:
        """What was waited for has come back: everything is due at these moments, in its order, or as it was if sooner.

        `moments`: seconds from now, rising, as many as there are items or more.
        """
        with self._condition:
            now = self._clock()
            laid = zip(sorted(self._due.items(), key=_moment), moments, strict=False)
            self._lay((item, min(due, now + moment)) for (item, due), moment in laid)

    def spread(self, moments: Iterable[float]) -> None:
        """What is overdue was held up together: it is due at these moments instead, in its order."""
        with self._condition:
            now = self._clock()
            overdue = [entry for entry in sorted(self._due.items(), key=_moment) if entry[1] < now]
            self._lay((item, now + moment) for (item, _), moment in zip(overdue, moments, strict=False))

    def next_due(self) -> float | None:
        """Seconds until the first item is due; None when there is none."""
        with self._condition:
            return self._wait()

    def end_one(self) -> None:
        """Let one `take` return None, before anything that is due."""
        with self._condition:
            self._endings += 1
            self._condition.notify()

    def __len__(self) -> int:
        with self._condition:
            return len(self._due)

    def _lay(self, entries: Iterable[tuple[Item, float]]) -> None:
        for item, due in entries:
            if due != self._due[item]:
                self._due[item] = due
                heapq.heappush(self._heap, (due, next(self._order), item))
        self._condition.notify_all()

    def _wait(self) -> float | None:
        """Seconds until the first item is due; None when there is none. Skips entries that were moved."""
        while self._heap:
            due, _, item = self._heap[0]
            if self._due.get(item) == due:
                return max(0.0, due - self._clock())
            heapq.heappop(self._heap)
        return None


def _moment(entry: tuple[object, float]) -> float:
    return entry[1]
