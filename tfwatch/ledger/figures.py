"""The durable figures: counters since the log's first row, and how they stood at each moment of the last 24 hours.

Two tables of the projection hold them. `total` has every counter as it is now. `running` has, for each second in which
one of `_ROLLING` changed, how they all stood at its end; so what happened within any span is one row less another, and
neither writing nor reading takes longer the longer the log is. Seconds are the rows' own `at`, never this machine's
clock: however and whenever the log is read again, the same comes out.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from tfwatch.ledger.counting import (
    BACKUP_OUTCOMES,
    BACKUPS,
    BEYOND,
    BOUNDS,
    COUNT,
    DELIVERIES,
    DELIVERY_LATENCY,
    FAILED,
    FALLBACK,
    MILLISECONDS,
    OUTCOMES,
    SENDING,
    TURNAROUND,
    WEBHOOKS,
    Counter,
    counted,
)
from tfwatch.ledger.database import ROLLING, spelled_out
from tfwatch.model import DeliveryRecord, Stage

DAY_SECONDS: Final = 24 * 3600
_HOUR_SECONDS: Final = 3600
HOURS: Final = 24
_FOR_EVER: Final = 1 << 62

STAGE: Final = "stage"
"""The counter of how many packages are at a stage now: it goes down, too."""

_ROLLING: Final[Mapping[Counter, str]] = {
    (DELIVERIES, "", "accepted"): "accepted",
    (DELIVERIES, "", "completed"): "completed",
    (DELIVERIES, "", FAILED): "failed",
    (SENDING, "", MILLISECONDS): "sending_ms",
    (SENDING, "", COUNT): "sendings",
    (BACKUPS, "", "backed_up"): "backed_up",
    (BACKUPS, "", FAILED): "backup_failed",
    (FALLBACK, "", ""): "fallback",
}
"""The counters that are kept for each second, and the columns they stand in."""

_COLUMNS: Final = ", ".join(ROLLING)
_INSERT: Final = f"INSERT OR REPLACE INTO running VALUES ({', '.join('?' * (len(ROLLING) + 1))})"  # noqa: S608  our own
_BEFORE: Final = f"SELECT second, {_COLUMNS} FROM running WHERE second < ? ORDER BY second DESC LIMIT 1"  # noqa: S608  our own
_FORGET: Final = "DELETE FROM running WHERE second < (SELECT max(second) FROM running WHERE second < ?)"
_ADD: Final = (
    "INSERT INTO total VALUES (?, ?, ?, ?) ON CONFLICT (figure, integration, word) "
    "DO UPDATE SET value = value + excluded.value"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """How often something took how long: `(upper bound in seconds, how many took at most that)`, the last unbounded."""

    buckets: tuple[tuple[float, int], ...]
    sum_seconds: float
    count: int

    def labelled(self) -> Iterator[tuple[str, int]]:
        """The same with each bound as it is written: `0.5`, `+Inf`."""
        return ((BEYOND if bound == float("inf") else str(bound), count) for bound, count in self.buckets)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hour:
    """One full hour of UTC, or the part of it that is over. `avg_latency_ms` None: nothing was accepted in it."""

    begin: datetime
    accepted: int
    completed: int
    failed: int
    avg_latency_ms: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What the log's rows up to `log_seq` add up to. A rate or average is None when nothing happened to make one of.

    Totals count from the log's first row: `deliveries` and `backups` by outcome, `webhooks` by integration and outcome.
    Rates, averages, `fallback_count` are of the rows whose `at` is `window_begins_at` or later: the last 24 h, from a
    full second on. `hourly`: 24 entries, the last one under way.
    """

    log_seq: int
    window_begins_at: datetime
    deliveries: Mapping[str, int]
    delivery_latency: Histogram
    turnaround: Histogram
    backups: Mapping[str, int]
    webhooks: Mapping[str, Mapping[str, int]]
    fallback_total: int
    delivery_success_rate: float | None
    avg_delivery_latency_ms: float | None
    backup_success_rate: float | None
    fallback_count: int
    hourly: tuple[Hour, ...]


class Counting:
    """Adds rows to the figures, in the log's order, inside the caller's transaction; made for each transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._added: dict[Counter, int] = {}
        self._seconds: dict[int, tuple[int, ...]] = {}
        self._now: dict[str, int] = {}
        self._before = 0

    def add(self, record: DeliveryRecord, facts: Mapping[str, str]) -> None:
        """Take the next row; `facts`: those of its `detail` cell."""
        rolls = False
        for counter, amount in counted(record, facts):
            self._added[counter] = self._added.get(counter, 0) + amount
            if name := _ROLLING.get(counter):
                if not self._now:
                    self._before, self._now = _standing(self._connection, _FOR_EVER)
                self._now[name] += amount
                rolls = True
        if rolls:
            self._seconds[int(record.at.timestamp())] = tuple(self._now.values())

    def moved(self, source: str | None, target: str | None) -> None:
        """A package left one stage for another; None: no folder."""
        for stage, amount in ((source, -1), (target, 1)) if source != target else ():
            if stage is not None:
                counter = (STAGE, "", stage)
                self._added[counter] = self._added.get(counter, 0) + amount

    def finish(self) -> None:
        """Write what was added, and forget what no span of 24 hours needs any more."""
        spelled = [(*map(spelled_out, counter), amount) for counter, amount in self._added.items()]
        self._connection.executemany(_ADD, spelled)
        if self._seconds:
            self._connection.executemany(_INSERT, [(second, *values) for second, values in self._seconds.items()])
            hour = max(self._seconds) // _HOUR_SECONDS
            if hour != self._before // _HOUR_SECONDS:
                # The one before those 24 hours stays: it says how all stood when they began.
                self._connection.execute(_FORGET, (hour * _HOUR_SECONDS - DAY_SECONDS,))
        self._added, self._seconds, self._now = {}, {}, {}


def stage_counts(connection: sqlite3.Connection) -> dict[Stage, int]:
    """How many packages are at each stage."""
    found = dict(connection.execute("SELECT word, value FROM total WHERE figure = ?", (STAGE,)).fetchall())
    return {stage: found.get(stage.value, 0) for stage in Stage}


def read(connection: sqlite3.Connection, *, log_seq: int, now: datetime) -> Figures:
    """All figures, from one state of the projection. A clock behind the log's last row is taken to be at it."""
    totals = {tuple(row[:3]): row[3] for row in connection.execute("SELECT * FROM total")}
    last, _ = _standing(connection, _FOR_EVER)
    second = max(int(now.timestamp()), last)
    begins = second - DAY_SECONDS
    day = _within(connection, begins, _FOR_EVER)
    webhooks: dict[str, dict[str, int]] = {}
    for (figure, integration, word), value in sorted(totals.items()):
        if figure == WEBHOOKS:
            webhooks.setdefault(integration, {})[word] = value
    return Figures(
        log_seq=log_seq,
        window_begins_at=datetime.fromtimestamp(begins, UTC),
        deliveries={word: totals.get((DELIVERIES, "", word), 0) for word in OUTCOMES},
        delivery_latency=_histogram(DELIVERY_LATENCY, totals),
        turnaround=_histogram(TURNAROUND, totals),
        backups={word: totals.get((BACKUPS, "", word), 0) for word in BACKUP_OUTCOMES},
        webhooks=webhooks,
        fallback_total=totals.get((FALLBACK, "", ""), 0),
        delivery_success_rate=_share(day["accepted"], day["failed"]),
        avg_delivery_latency_ms=_mean(day["sending_ms"], day["sendings"]),
        backup_success_rate=_share(day["backed_up"], day["backup_failed"]),
        fallback_count=day["fallback"],
        hourly=tuple(_hours(connection, second)),
    )


def _standing(connection: sqlite3.Connection, second: int) -> tuple[int, dict[str, int]]:
    """When the rolling counters last changed before a second, and how they stood since."""
    last, *values = connection.execute(_BEFORE, (second,)).fetchone() or (0,) * (len(ROLLING) + 1)
    return last, dict(zip(ROLLING, values, strict=True))


def _within(connection: sqlite3.Connection, begin: int, end: int) -> dict[str, int]:
    """What was added to them in the seconds from `begin` up to, and without, `end`."""
    before, after = _standing(connection, begin)[1], _standing(connection, end)[1]
    return {name: after[name] - before[name] for name in ROLLING}


def _hours(connection: sqlite3.Connection, second: int) -> Iterator[Hour]:
    this = second - second % _HOUR_SECONDS
    for begin in range(this - (HOURS - 1) * _HOUR_SECONDS, this + 1, _HOUR_SECONDS):
        span = _within(connection, begin, begin + _HOUR_SECONDS)
        yield Hour(
            begin=datetime.fromtimestamp(begin, UTC),
            accepted=span["accepted"],
            completed=span["completed"],
            failed=span["failed"],
            avg_latency_ms=_mean(span["sending_ms"], span["sendings"]),
        )


def _histogram(name: str, totals: Mapping[tuple[str, ...], int]) -> Histogram:
    count, buckets = 0, []
    for bound, word in [*((bound, str(bound)) for bound in BOUNDS[name]), (float("inf"), BEYOND)]:
        count += totals.get((name, "", word), 0)
        buckets.append((bound, count))
    return Histogram(buckets=tuple(buckets), sum_seconds=totals.get((name, "", MILLISECONDS), 0) / 1000, count=count)


def _share(good: int, bad: int) -> float | None:
    return good / (good + bad) if good + bad else None


def _mean(total: int, count: int) -> float | None:
    return total / count if count else None
