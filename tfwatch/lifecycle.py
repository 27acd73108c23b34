"""The state machine, whole: everything that decides where a package goes lives here. Pure.

The table speaks of the stage the *log* knows. A claim is not a fact (nothing left the house yet), so a package is
in the outbox until ATTEMPTED, and a file in claimed/ that was never attempted is simply put to work again.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from tfwatch.model import Event, Stage, Status

_O, _C, _S, _D, _R = Stage.OUTBOX, Stage.CLAIMED, Stage.SUBMITTED, Stage.DELIVERED, Stage.REJECTED

AWAY: Final = None
"""Not in any folder: a person took the file away, or retention removed it."""

_ANYWHERE: Final = (_C, _S, _D, _R, AWAY)

TRANSITIONS: Final[Mapping[tuple[Stage | None, Event], tuple[Stage | None, ...]]] = MappingProxyType(
    {
        # work: the first place is where the event leads by itself; further ones must be asked for
        (_O, Event.ATTEMPTED): (_C,),
        (_C, Event.ATTEMPTED): (_C,),
        (_C, Event.ACCEPTED): (_S,),
        # a webhook told the order of one whose outcome was unknown: parked, or put into the outbox by a person
        (_R, Event.ACCEPTED): (_S,),
        (_O, Event.ACCEPTED): (_S,),
        (_S, Event.COMPLETED): (_D,),
        (_O, Event.REFUSED): (_R,),
        (_C, Event.REFUSED): (_R,),
        (_S, Event.REFUSED): (_R,),
        (_O, Event.DEFERRED): (_O,),
        (_C, Event.DEFERRED): (_O,),
        # an unknown outcome waits in claimed/, or in rejected/ where a person decides; never in the outbox
        (_O, Event.UNKNOWN): (_R,),
        (_C, Event.UNKNOWN): (_C, _R),
        (_O, Event.ROLLBACK): (_R,),
        (_C, Event.ROLLBACK): (_R,),
        (_R, Event.ROLLBACK): (_R,),
        # a person took it while it was being sent: it stays there
        (_S, Event.ROLLBACK): (_S,),
        (_D, Event.ROLLBACK): (_D,),
        (AWAY, Event.ROLLBACK): (AWAY,),
        # a crash repaired: the file goes where its last fact sent it
        (_O, Event.RECOVERED): (_O,),
        (_C, Event.RECOVERED): (_C, _O),
        (_S, Event.RECOVERED): (_S,),
        (_D, Event.RECOVERED): (_D,),
        (_R, Event.RECOVERED): (_R,),
        # outward copies: no place changes
        (_O, Event.BACKED_UP): (_O,),
        (_C, Event.BACKED_UP): (_C, _O),
        (_S, Event.BACKED_UP): (_S,),
        (_D, Event.BACKED_UP): (_D,),
        (_R, Event.BACKED_UP): (_R,),
        (AWAY, Event.BACKED_UP): (AWAY,),
        (_O, Event.BACKUP_FAILED): (_O,),
        (_C, Event.BACKUP_FAILED): (_C, _O),
        (_S, Event.BACKUP_FAILED): (_S,),
        (_D, Event.BACKUP_FAILED): (_D,),
        (_R, Event.BACKUP_FAILED): (_R,),
        (AWAY, Event.BACKUP_FAILED): (AWAY,),
        (_D, Event.PRUNED): (AWAY,),
        (_R, Event.PRUNED): (AWAY,),
        # people: wherever they put it, into the outbox it is REQUEUED, anywhere else MOVED
        (_S, Event.REQUEUED): (_O,),
        (_D, Event.REQUEUED): (_O,),
        (_R, Event.REQUEUED): (_O,),
        (AWAY, Event.REQUEUED): (_O,),
        (_O, Event.REQUEUED): (_O,),
        (_O, Event.MOVED): (_O, *_ANYWHERE),
        (_C, Event.MOVED): (_O, *_ANYWHERE),
        (_S, Event.MOVED): _ANYWHERE,
        (_D, Event.MOVED): _ANYWHERE,
        (_R, Event.MOVED): _ANYWHERE,
        (AWAY, Event.MOVED): _ANYWHERE,
    }
)
"""`(stage, event)` → the places it may lead to, the usual one first. A pair that isn't here can't happen."""

_STATUS: Final[Mapping[Event, Status]] = MappingProxyType(
    {
        Event.ATTEMPTED: Status.SENDING,
        Event.ACCEPTED: Status.SUBMITTED,
        Event.COMPLETED: Status.DELIVERED,
        Event.REFUSED: Status.REJECTED,
        Event.DEFERRED: Status.WAITING,
        Event.UNKNOWN: Status.UNKNOWN,
        Event.REQUEUED: Status.WAITING,
        Event.ROLLBACK: Status.REJECTED,
    }
)

_PLACE: Final[Mapping[Stage | None, Status]] = MappingProxyType(
    {
        Stage.OUTBOX: Status.WAITING,
        Stage.SUBMITTED: Status.SUBMITTED,
        Stage.DELIVERED: Status.DELIVERED,
        Stage.REJECTED: Status.REJECTED,
    }
)


class IllegalTransition(Exception):
    """An event that can't happen at this stage. Always a bug of ours, never of an operator."""


def advance(stage: Stage | None, event: Event) -> Stage | None:
    """Where a package at `stage` goes on `event`. Raises `IllegalTransition` when the table has no such move."""
    return _allowed(stage, event)[0]


def advance_to(stage: Stage | None, event: Event, to: Stage | None) -> Stage | None:
    """The same, asking for one of the places the table allows; raises `IllegalTransition` for any other."""
    if to not in _allowed(stage, event):
        raise IllegalTransition(f"{event} can't take a package from {stage or 'no folder'} to {to or 'no folder'}")
    return to


def _allowed(stage: Stage | None, event: Event) -> tuple[Stage | None, ...]:
    allowed = TRANSITIONS.get((stage, event))
    if allowed is None:
        raise IllegalTransition(f"{event} can't happen to a package in {stage or 'no folder'}")
    return allowed


def status_after(event: Event, to_stage: Stage | None, before: Status | None, *, stays: bool = False) -> Status | None:
    """The tag a row carries: by its event, else by where a person put the file, else what it was before.

    `stays`: it was at that stage already. Then neither another name nor a rollback says anything new of it: one
    whose outcome is unknown stays tagged so.
    """
    if stays and event in (Event.MOVED, Event.ROLLBACK):
        return before
    if event is Event.MOVED:
        return _PLACE.get(to_stage, before)
    if event is Event.RECOVERED and to_stage is Stage.CLAIMED:
        return Status.UNKNOWN
    return _STATUS.get(event, before)
