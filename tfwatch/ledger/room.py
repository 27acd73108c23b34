"""What the log says about room on the disk: how much comes to stay, and how much retention removes, and when."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from tfwatch.ledger.index import Index
from tfwatch.model import Stage
from tfwatch.outlook import GROWTH_DAYS, HORIZON_DAYS, disk_fills


def came_to_stay(index: Index, now: datetime) -> float:
    """Bytes a day that came to lie in delivered/ and rejected/ lately, as `outlook.disk_fills` asks for them.

    What retention has removed since is among them, what people took away is not.
    """
    return index.settled.bytes_come(now - timedelta(days=GROWTH_DAYS)) / GROWTH_DAYS


def will_be_removed(index: Index, now: datetime, days: Mapping[Stage, int | None]) -> list[int]:
    """Bytes that retention removes within the first, second, … day from now; all that is due already on the first.

    `days`: after how many a stage's packages go; None: never.
    """
    removed = [0] * HORIZON_DAYS
    for stage, after in days.items():
        if after is None:
            continue
        since = None
        for day in range(HORIZON_DAYS):
            until = now - timedelta(days=after) + timedelta(days=day + 1)
            removed[day] += index.settled.removable_bytes(stage, since, min(until, now))
            since = min(until, now)
    return removed


def outlook(
    index: Index, now: datetime, days: Mapping[Stage, int | None], *, free_bytes: int, least_bytes: int
) -> str | None:
    """A sentence when the disk fills before retention can help (`outlook.disk_fills`); `days` as above."""
    return disk_fills(
        free_bytes=free_bytes,
        least_bytes=least_bytes,
        bytes_a_day=came_to_stay(index, now),
        frees=will_be_removed(index, now, days),
        keeps=not any(days.values()),
    )
