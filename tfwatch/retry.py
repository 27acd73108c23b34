"""The minutes between delivery attempts. Pure: clock readings and chance are arguments.

The seconds *within* an attempt belong to `backoff` in the adapters; nothing else retries.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """How long to wait before round n: doubling from `initial` to `maximum` seconds, half of it by chance.

    Half is kept so that a lone package is not tried at once again; the other half spreads a crowd.
    """

    initial: float
    maximum: float

    def delay(self, failures: int, rng: random.Random) -> float:
        """Seconds to wait after `failures` failed rounds (1 or more)."""
        ceiling = min(self.maximum, self.initial * 2.0 ** min(failures - 1, 60))
        return ceiling / 2 + rng.uniform(0, ceiling / 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    """Counts consecutive failed deliveries; says when the service must be given up.

    It trips after `threshold` failures in a row, or once failures have gone on unbroken for `window` seconds: a time
    without any attempt, longer than the window, begins it anew. All moments are seconds on one monotonic clock.
    """

    threshold: int
    window: float = 240.0
    failures: int = 0
    failing_since: float | None = None
    failed_at: float | None = None

    def failed(self, *, began: float, now: float) -> Breaker:
        """One more failed delivery, whose first request left at `began`, given up `now`."""
        idle = self.failed_at is not None and began - self.failed_at > self.window
        since = began if self.failing_since is None or idle else min(began, self.failing_since)
        return replace(self, failures=self.failures + 1, failing_since=since, failed_at=now)

    def succeeded(self) -> Breaker:
        """A delivery got through: the count starts anew."""
        return replace(self, failures=0, failing_since=None, failed_at=None)

    def tripped(self, now: float) -> bool:
        """Whether the service must be given up, judged right after a failure."""
        if self.failures == 0 or self.failing_since is None:
            return False
        return self.failures >= self.threshold or now - self.failing_since >= self.window

    def wait(self, delay: float, now: float) -> float:
        """Shorten a wait so that a round falls on the end of the window, where it decides."""
        if self.failing_since is None:
            return delay
        left = self.failing_since + self.window - now
        return min(delay, left) if left > 0 else delay
