"""What the index knows of packages in delivered/ and rejected/ that retention asks for: which are due, how large."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

from tfwatch.ledger.states import COLUMNS, PackageState, state_of
from tfwatch.model import Stage, rfc3339

_SETTLED: Final = "stage IN ('delivered', 'rejected')"
_REMOVABLE: Final = {
    Stage.DELIVERED: f"{_SETTLED} AND stage = 'delivered' AND status = 'delivered' AND backed_up = 1",
    Stage.REJECTED: f"{_SETTLED} AND stage = 'rejected' AND status = 'rejected' AND by_rollback = 0",
}
"""What retention may ever remove. The first term is that of the index `package_since`, word for word."""


class Settled:
    """Asks through the index, so that one thread does at a time."""

    def __init__(self, ask: Callable[..., list[Any]]) -> None:
        self._ask = ask

    def before(
        self, stage: Stage, moment: datetime, *, after: PackageState | None = None, limit: int
    ) -> list[PackageState]:
        """Packages that came to delivered/ with a verified backup, or to rejected/ for good, at a moment or before.

        The longest there first. Those whose outcome is unknown or that a rollback rejected are never among them.
        `after`: go on behind this one.
        """
        last = (rfc3339(after.stage_since), after.sha256, os.fsencode(after.name)) if after else ("", "", b"")
        sql = (
            f"SELECT {', '.join(COLUMNS)} FROM package WHERE {_REMOVABLE[stage]} AND stage_since <= ? "  # noqa: S608  our own words
            "AND (stage_since, sha256, name) > (?, ?, ?) ORDER BY stage_since, sha256, name LIMIT ?"
        )
        return list(map(state_of, self._ask(sql, rfc3339(moment), *last, limit)))

    def removable_bytes(self, stage: Stage, since: datetime | None, until: datetime) -> int:
        """Bytes of what retention may remove from a stage, of all that came there after `since`, until a moment."""
        which = f"{_REMOVABLE[stage]} AND stage_since > ? AND stage_since <= ?"
        return self._sum_of_bytes(which, rfc3339(since) if since else "", rfc3339(until))

    def bytes_come(self, since: datetime) -> int:
        """Bytes of what came to delivered/ or rejected/ since a moment and is there, or was removed by retention."""
        delivered = "settled_at > ? AND settled_at IS NOT NULL AND (stage = 'delivered' OR event = 'PRUNED')"
        rejected = f"{_SETTLED} AND stage = 'rejected' AND stage_since > ?"
        return self._sum_of_bytes(delivered, rfc3339(since)) + self._sum_of_bytes(rejected, rfc3339(since))

    def _sum_of_bytes(self, which: str, *values: object) -> int:
        sql = f"SELECT coalesce(sum(bytes), 0) FROM package WHERE {which}"  # noqa: S608  our own words
        return int(self._ask(sql, *values)[0][0])
