"""The list of packages in claimed/ whose outcome is unknown, until they are asked about again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Limbo:
    """Names, and when each is due. Thread-safe; moments are monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._moments: dict[str, float] = {}

    def put(self, name: str, seconds: float) -> None:
        """Let a package wait for so long."""
        with self._lock:
            self._moments[name] = self._clock() + seconds

    def put_off(self, name: str, seconds: float) -> None:
        """The same, unless somebody has taken it out meanwhile."""
        with self._lock:
            if name in self._moments:
                self._moments[name] = self._clock() + seconds

    def take_out(self, name: str) -> None:
        """It waits no more."""
        with self._lock:
            self._moments.pop(name, None)

    def free_all(self) -> None:
        """Everything is due now."""
        with self._lock:
            self._moments = dict.fromkeys(self._moments, 0.0)

    def next_due(self) -> float | None:
        """Seconds until the first is due; None when there is none."""
        with self._lock:
            moment = min(self._moments.values(), default=None)
        return None if moment is None else max(0.0, moment - self._clock())

    def due(self) -> list[str]:
        """Those whose time has come."""
        now = self._clock()
        with self._lock:
            return [name for name, moment in self._moments.items() if moment <= now]
