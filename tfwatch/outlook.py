"""Whether the disk fills before retention can help: what is free, what comes in, what goes. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tfwatch.language import ntr, number, tr

HORIZON_DAYS: Final = 14
"""So far is looked ahead. What fills later can wait."""

GROWTH_DAYS: Final = 7
"""Growth is taken from so many days back: a week has its quiet days too."""

_UNITS: Final = (("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10))


def disk_fills(
    *, free_bytes: int, least_bytes: int, bytes_a_day: float, frees: Sequence[int], keeps: bool = False
) -> str | None:
    """A sentence when less than `least_bytes` will be free within the days that are looked at; None when all is well.

    `bytes_a_day`: what stays of what comes in (`ledger.room.came_to_stay`). `frees`: the bytes retention removes
    within the first day from now, the second, and so on (`ledger.room.will_be_removed`). `keeps`: nothing is set to be
    removed at all.
    None, too, when there is less than that already: that has a sentence of its own (`Folders.shortage`).
    """
    free = float(free_bytes)
    if free < least_bytes or bytes_a_day <= 0:
        return None
    for day, freed in enumerate(frees, start=1):
        # What comes in on a day comes before what is removed on it: nothing is said to be in time that may be late.
        free -= bytes_a_day
        if free < least_bytes:
            return _sentence(day, free_bytes, bytes_a_day, sum(frees[:day]), keeps=keeps)
        free += freed
    return None


def _sentence(day: int, free: int, grows: float, frees: int, *, keeps: bool) -> str:
    left = tr("{size} are free and about {growth} a day stay", size=size_of(free), growth=size_of(round(grows)))
    if keeps:
        rest = tr("nothing is set to be removed: free some space, or set retention.delivered_days")
    else:
        rest = tr(
            "retention frees only {size} until then: free some space, or lower retention.delivered_days",
            size=size_of(frees),
        )
    when = ntr("the disk is full within {count} day", "the disk is full in about {count} days", day)
    return f"{when}: {left}; {rest}"


def size_of(count: int) -> str:
    """Bytes for people: `1.5 GiB`, `300 MiB`, `0 B`."""
    for unit, size in _UNITS:
        if count >= size:
            amount = count / size
            return f"{number(amount, 1 if amount < 10 else 0)} {unit}"
    return f"{number(count)} B"
