"""The minutes between delivery attempts, and how work comes back. Pure: clock readings and chance are arguments.

The seconds *within* an attempt belong to `backoff` in the adapters; nothing else retries.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
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
        return _half_by_chance(min(self.maximum, self.initial * 2.0 ** min(failures - 1, 60)), rng)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Ramp:
    """How many deliveries may be under way after an outage: one at first, then twice as many with each step.

    A step is made by a success, at the earliest `step` seconds (half of them by chance) after the last one. While there
    is neither success nor failure, `patience` seconds make one, too: one large package must not hold up all others. A
    failure begins it anew. All moments are seconds on one monotonic clock.
    """

    began: float
    due: float
    step: float
    patience: float
    limit: int = 1

    @classmethod
    def begin(cls, now: float, rng: random.Random, *, step: float = 2.0, patience: float = 30.0) -> Ramp:
        """The service is taken into use again at `now`."""
        return cls(began=now, due=now + _half_by_chance(step, rng), step=step, patience=patience)

    def allows(self, now: float) -> int:
        """How many deliveries may be under way."""
        return self.limit << min(62, max(0, int((now - self.began) / self.patience)))

    def succeeded(self, now: float, rng: random.Random) -> Ramp:
        """One got through: a step, if it is time for one."""
        if now < self.due:
            return self
        return replace(self, limit=2 * self.allows(now), began=now, due=now + _half_by_chance(self.step, rng))

    def failed(self, now: float, rng: random.Random) -> Ramp:
        """One did not: from the beginning, which may be still to come."""
        return Ramp.begin(max(now, self.began), rng, step=self.step, patience=self.patience)


def moments(rng: random.Random, *, step: float = 1.0, most: int = 50) -> Iterator[float]:
    """When to do what has waited, in seconds from now: the first at once, then 1, 2, 4 … in each step, at most `most`.

    Rising; within a step by chance. For queues of small calls, of which thousands may have become due together.
    """
    yield 0.0
    begins, number = step / 2, 1
    while True:
        yield from sorted(begins + rng.uniform(0, step) for _ in range(number))
        begins, number = begins + step, min(2 * number, most)


def _half_by_chance(seconds: float, rng: random.Random) -> float:
    return seconds / 2 + rng.uniform(0, seconds / 2)
