"""What each row of the log adds to the figures. Pure: everything is read from the row itself, so anyone can recount.

A *counter* is `(figure, integration, word)` with a whole number; times are counted in milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from tfwatch.model import Actor, DeliveryRecord, Event, Stage

Counter = tuple[str, str, str]
"""Which figure, of which integration (only webhooks tell them apart), and which word or bound of it."""

DELIVERIES: Final = "deliveries"
BACKUPS: Final = "backups"
WEBHOOKS: Final = "webhooks"
FALLBACK: Final = "fallback"
SENDING: Final = "sending"
"""First byte → accepted: `ms` and `count`, for the average."""
DELIVERY_LATENCY: Final = "delivery_latency"
"""Claim → accepted, as a histogram."""
TURNAROUND: Final = "turnaround"
"""Accepted → completed, as a histogram."""

FAILED: Final = "failed"
OUTCOMES: Final = (
    *("accepted", "completed", "refused", "refused_later", "refused_here", "deferred", "unknown", "rolled_back"),
    *("by_hand", FAILED),
)
"""What a row says of a delivery. `failed` is counted beside the others: an attempt that the service did not take."""

BACKUP_OUTCOMES: Final = ("backed_up", FAILED, "asked_again")
"""`asked_again`: a person asked for a new copy of a package; that is no failure of the storage's."""

BOUNDS: Final[Mapping[str, tuple[float, ...]]] = {
    DELIVERY_LATENCY: (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 300, 900, 3600),
    TURNAROUND: (1, 10, 60, 300, 900, 1800, 3600, 7200, 14400, 28800, 86400, 172800, 604800),
}
"""A histogram's upper bounds, seconds; what is larger still counts as `+Inf`."""

BEYOND: Final = "+Inf"
MILLISECONDS: Final = "ms"
COUNT: Final = "count"

_OUTCOME: Final = {
    Event.ACCEPTED: "accepted",
    Event.COMPLETED: "completed",
    Event.DEFERRED: "deferred",
    Event.UNKNOWN: "unknown",
    Event.ROLLBACK: "rolled_back",
}
_NOT_YET_DELIVERED: Final = (Stage.OUTBOX, Stage.CLAIMED, Stage.REJECTED)


def counted(record: DeliveryRecord, facts: Mapping[str, str]) -> Iterator[tuple[Counter, int]]:
    """The counters a row adds to, and how much. `facts`: those of its `detail` cell."""
    if outcome := _outcome(record, facts):
        yield (DELIVERIES, "", outcome), 1
    if _is_failed(record, facts):
        yield (DELIVERIES, "", FAILED), 1
    if _is_fallback(record):
        yield (FALLBACK, "", ""), 1
    match record.event:
        case Event.ACCEPTED:
            if record.duration_ms is not None:
                yield (SENDING, "", MILLISECONDS), record.duration_ms
                yield (SENDING, "", COUNT), 1
            yield from _observed(DELIVERY_LATENCY, _whole(facts.get("since_claim_ms")))
        case Event.COMPLETED:
            yield from _observed(TURNAROUND, record.duration_ms)
        case Event.BACKED_UP:
            yield (BACKUPS, "", "backed_up"), 1
        case Event.BACKUP_FAILED:
            yield (BACKUPS, "", "asked_again" if record.actor is Actor.OPERATOR else FAILED), 1
        case Event.WEBHOOK if "integration" in facts and "outcome" in facts:
            yield (WEBHOOKS, facts["integration"], facts["outcome"]), 1
        case _:
            pass


def _outcome(record: DeliveryRecord, facts: Mapping[str, str]) -> str | None:
    if record.event is Event.REFUSED:
        if facts.get("by") != "service":
            return "refused_here"
        return "refused_later" if record.from_stage is Stage.SUBMITTED else "refused"
    return "by_hand" if _is_by_hand(record) else _OUTCOME.get(record.event)


def _is_failed(record: DeliveryRecord, facts: Mapping[str, str]) -> bool:
    """Whether this row ends a delivery attempt that the service did not take: such a row counts the HTTP tries made.

    A rollback's own row ends one only if nothing was sent; else a row before it has said so.
    """
    if record.attempt is None:
        return False
    match record.event:
        case Event.DEFERRED | Event.UNKNOWN:
            return True
        case Event.REFUSED:
            return facts.get("by") == "service"
        case Event.ROLLBACK:
            return facts.get("sent") == "no"
        case _:
            return False


def _is_fallback(record: DeliveryRecord) -> bool:
    """Whether a package went another way than through the service: by hand, or to where a person decides."""
    parked = record.event is Event.UNKNOWN and record.to_stage is Stage.REJECTED
    return record.event is Event.ROLLBACK or parked or _is_by_hand(record)


def _is_by_hand(record: DeliveryRecord) -> bool:
    """Whether a person put it into delivered/ that no service had taken."""
    return (
        record.event is Event.MOVED
        and record.actor is Actor.OPERATOR
        and record.to_stage is Stage.DELIVERED
        and record.from_stage in _NOT_YET_DELIVERED
    )


def _observed(histogram: str, milliseconds: int | None) -> Iterator[tuple[Counter, int]]:
    if milliseconds is None:
        return
    bound = next((str(bound) for bound in BOUNDS[histogram] if milliseconds <= bound * 1000), BEYOND)
    yield (histogram, "", bound), 1
    yield (histogram, "", MILLISECONDS), milliseconds


def _whole(text: str | None) -> int | None:
    """A whole number as a row holds it; None for anything else."""
    return int(text) if text is not None and text.isdecimal() and text.isascii() and len(text) < 16 else None
