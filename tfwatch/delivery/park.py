"""Put a package where a person decides about it: it may have been accepted, and the daemon can't find that out."""

from __future__ import annotations

from tfwatch.delivery import reasons
from tfwatch.delivery.desk import Desk
from tfwatch.delivery.whereabouts import Whereabouts
from tfwatch.model import Event, Package, Stage, write_detail


def park(
    desk: Desk,
    package: Package,
    where: Whereabouts,
    why: str,
    *,
    dropped_as: str,
    attempt: int | None = None,
    code: int | None = None,
) -> Whereabouts:
    """Into rejected/, as unknown; alerted while it waits there. `attempt`: tries of a delivery that just failed."""
    reason = reasons.unknown(package.name, sha256=package.sha256, why=why)
    failed = "yes" if attempt is not None else None
    return desk.settle(
        package, Event.UNKNOWN, where, to=Stage.REJECTED, attempt=attempt, code=code,
        detail=write_detail(why, failed=failed, dropped=dropped_as), reason=reason,
    )  # fmt: skip
