"""What each row of the log adds to the figures. Pure: everything is read from the row itself, so anyone can recount.

A *counter* is `(figure, integration, word)` with a whole number; times are counted in milliseconds.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping
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
    DELIVERY_LATENCY: (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0),
    TURNAROUND: (1.0, 10.0, 60.0, 300.0, 900.0, 1800.0, 3600.0, 7200.0, 14400.0, 28800.0, 86400.0, 172800.0, 604800.0),
}
"""A histogram's upper bounds, seconds; what is larger still counts as `+Inf`."""

BEYOND: Final = "+Inf"
MILLISECONDS: Final = "ms"
COUNT: Final = "count"

_NOT_YET_DELIVERED: Final = (Stage.OUTBOX, Stage.CLAIMED, Stage.REJECTED)

Changes = list[tuple[Counter, int]]
"""Counters, and how much is added to each."""

_NONE: Final[Changes] = []


def counted(record: DeliveryRecord, facts: Mapping[str, str]) -> Changes:
    """What a row adds to the counters. `facts`: those of its `detail` cell."""
    rule = _RULES.get(record.event)
    return _NONE if rule is None else rule(record, facts)


# --- one rule an event ----------------------------------------------------------------------------------------------


def _accepted(record: DeliveryRecord, facts: Mapping[str, str]) -> Changes:
    changes: Changes = [((DELIVERIES, "", "accepted"), 1), *_observed(DELIVERY_LATENCY, _whole(facts))]
    if record.duration_ms is not None:
        changes += [((SENDING, "", MILLISECONDS), record.duration_ms), ((SENDING, "", COUNT), 1)]
    return changes


def _completed(record: DeliveryRecord, facts: Mapping[str, str]) -> Changes:
    return [((DELIVERIES, "", "completed"), 1), *_observed(TURNAROUND, record.duration_ms)]


def _refused(record: DeliveryRecord, facts: Mapping[str, str]) -> Changes:
    if facts.get("by") != "service":
        return [((DELIVERIES, "", "refused_here"), 1)]
    word = "refused_later" if record.from_stage is Stage.SUBMITTED else "refused"
    return [((DELIVERIES, "", word), 1), *_failed_if(record.attempt is not None)]


def _deferred(record: DeliveryRecord, facts: Mapping[str, str]) -> Changes:
    return [((DELIVERIES, "", "deferred"), 1), *_failed_if(record.attempt is not None)]


def _unknown(record: DeliveryRecord, facts: Mapping[str, str]) -> Changes:
    parked = [_BY_ANOTHER_WAY] if record.to_stage is Stage.REJECTED else []
    return [((DELIVERIES, "", "unknown"), 1), *parked, *_failed_if(record.attempt is not None)]


def _rolled_back(record: DeliveryRecord, facts: Mapping[str, str]) -> Changes:
    # If something was sent, an UNKNOWN before this row has said that the attempt failed.
    is_the_end = record.attempt is not None and facts.get("sent") == "no"
    return [((DELIVERIES, "", "rolled_back"), 1), _BY_ANOTHER_WAY, *_failed_if(is_the_end)]


def _moved(record: DeliveryRecord, facts: Mapping[str, str]) -> Changes:
    """A person put it into delivered/ that no service had taken."""
    by_a_person = record.actor is Actor.OPERATOR and record.to_stage is Stage.DELIVERED
    if by_a_person and record.from_stage in _NOT_YET_DELIVERED:
        return [((DELIVERIES, "", "by_hand"), 1), _BY_ANOTHER_WAY]
    return _NONE


def _backed_up(record: DeliveryRecord, facts: Mapping[str, str]) -> Changes:
    return [((BACKUPS, "", "backed_up"), 1)]


def _backup_failed(record: DeliveryRecord, facts: Mapping[str, str]) -> Changes:
    return [((BACKUPS, "", "asked_again" if record.actor is Actor.OPERATOR else FAILED), 1)]


def _called(record: DeliveryRecord, facts: Mapping[str, str]) -> Changes:
    if "integration" not in facts or "outcome" not in facts:
        return _NONE
    return [((WEBHOOKS, facts["integration"], facts["outcome"]), 1)]


_RULES: Final[Mapping[Event, Callable[[DeliveryRecord, Mapping[str, str]], Changes]]] = {
    Event.ACCEPTED: _accepted,
    Event.COMPLETED: _completed,
    Event.REFUSED: _refused,
    Event.DEFERRED: _deferred,
    Event.UNKNOWN: _unknown,
    Event.ROLLBACK: _rolled_back,
    Event.MOVED: _moved,
    Event.BACKED_UP: _backed_up,
    Event.BACKUP_FAILED: _backup_failed,
    Event.WEBHOOK: _called,
}

_BY_ANOTHER_WAY: Final = ((FALLBACK, "", ""), 1)
_FAILED: Final[Changes] = [((DELIVERIES, "", FAILED), 1)]


def _failed_if(attempt_ended: bool) -> Changes:  # noqa: FBT001  the one thing it is asked
    """An attempt that the service did not take: the row that ends it tells of the HTTP tries, in `attempt`."""
    return _FAILED if attempt_ended else _NONE


def _observed(histogram: str, milliseconds: int | None) -> Changes:
    if milliseconds is None:
        return _NONE
    bounds = BOUNDS[histogram]
    at = bisect_left(bounds, milliseconds / 1000)
    bound = str(bounds[at]) if at < len(bounds) else BEYOND
    return [((histogram, "", bound), 1), ((histogram, "", MILLISECONDS), milliseconds)]


def _whole(facts: Mapping[str, str]) -> int | None:
    """How long ago it was claimed; None when the row doesn't say so in a whole number."""
    text = facts.get("since_claim_ms", "")
    return int(text) if text.isdecimal() and text.isascii() and len(text) < 16 else None
