"""What a verdict does to a package: the one place where COMPLETED and a late refusal are settled."""

from __future__ import annotations

from tfwatch.delivery import reasons
from tfwatch.delivery.desk import Desk
from tfwatch.delivery.whereabouts import Whereabouts
from tfwatch.model import Event, Package, Verdict, write_detail


def settle_verdict(
    desk: Desk,
    package: Package,
    where: Whereabouts,
    verdict: Verdict,
    *,
    order_id: str,
    word: str,
    message: str,
    code: int | None,
    duration_ms: int | None,
    via: str | None = None,
) -> Whereabouts:
    """Settle a package of submitted/ on a final verdict. `duration_ms`: since it was accepted.

    `via`: how the verdict came, when nobody had asked for it.
    """
    detail = write_detail(message, by="service", word=word or None, via=via)
    if verdict is Verdict.COMPLETED:
        return desk.settle(
            package, Event.COMPLETED, where, order_id=order_id, code=code, duration_ms=duration_ms, detail=detail
        )
    reason = reasons.refused_later(package.name, order_id=order_id, message=message or word)
    return desk.settle(
        package, Event.REFUSED, where, order_id=order_id, code=code, duration_ms=duration_ms, detail=detail,
        reason=reason,
    )  # fmt: skip
