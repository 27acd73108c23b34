"""What a verdict does to a package: the one place where COMPLETED and a late refusal are settled."""

from __future__ import annotations

from tfwatch.delivery.desk import Desk, Whereabouts
from tfwatch.model import Event, Package, Verdict, write_detail
from tfwatch.spool.names import printable


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
) -> Whereabouts:
    """Settle a package of submitted/ on a final verdict. `duration_ms`: since it was accepted."""
    detail = write_detail(message, by="service", word=word or None)
    if verdict is Verdict.COMPLETED:
        return desk.settle(
            package, Event.COMPLETED, where, order_id=order_id, code=code, duration_ms=duration_ms, detail=detail
        )
    reason = (
        f"{printable(package.name)} was accepted as order {order_id} and then refused by the transcription service.\n\n"
        f"Its own words: {message or word or 'none'}\n"
        "What to do: mend the package and drop it again, or move this one back to outbox/ for a new order.\n"
    )
    return desk.settle(
        package, Event.REFUSED, where, order_id=order_id, code=code, duration_ms=duration_ms, detail=detail,
        reason=reason,
    )  # fmt: skip
