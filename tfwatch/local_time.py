"""Moments as people read them: in their time zone and their language's notation. Files and logs are in UTC.

The zone is one fact of the whole process, as the language is (`language`): set at the start and with each reload.
"""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo

from tfwatch import language

_zone: tzinfo | None = None


def use(zone: str) -> None:
    """Show moments in this zone from now on: `local` (the machine's own) or a name such as `America/Sao_Paulo`.

    Raises KeyError, ValueError or OSError for a name this machine doesn't know.
    """
    global _zone
    _zone = None if zone == "local" else ZoneInfo(zone)


def local(moment: datetime) -> datetime:
    """The same moment in the zone in use."""
    return moment.astimezone(_zone)


def midnight(now: datetime) -> datetime:
    """When the day began, there."""
    wall = local(now).replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=_zone)
    return wall.astimezone(UTC)  # a day in which clocks change begins under another offset than it ends


def date_and_time(moment: datetime) -> str:
    """`2026-11-25 10:42`, in Portuguese `25/11/2026 10:42`."""
    return f"{local(moment):{_date()} %H:%M}"


def to_the_second(moment: datetime) -> str:
    """`2026-11-25 10:42:07`, in Portuguese `25/11/2026 10:42:07`."""
    return f"{local(moment):{_date()} %H:%M:%S}"


def time_of_day(moment: datetime, now: datetime) -> str:
    """`10:42`, with its date unless that is today's."""
    is_today = local(moment).date() == local(now).date()
    return f"{local(moment):%H:%M}" if is_today else date_and_time(moment)


def _date() -> str:
    return "%d/%m/%Y" if language.spoken() == "pt-BR" else "%Y-%m-%d"
