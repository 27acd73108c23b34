"""The state machine: every pair of stage and event."""

from itertools import product

import pytest

from tfwatch.lifecycle import AWAY, TRANSITIONS, IllegalTransition, advance, advance_to, status_after
from tfwatch.model import Event, Stage, Status

STAGES = (*Stage, AWAY)
PLACES = (*Stage, AWAY)

WORK = {
    (Stage.OUTBOX, Event.ATTEMPTED): Stage.CLAIMED,
    (Stage.CLAIMED, Event.ATTEMPTED): Stage.CLAIMED,
    (Stage.CLAIMED, Event.ACCEPTED): Stage.SUBMITTED,
    (Stage.SUBMITTED, Event.COMPLETED): Stage.DELIVERED,
    (Stage.OUTBOX, Event.REFUSED): Stage.REJECTED,
    (Stage.CLAIMED, Event.REFUSED): Stage.REJECTED,
    (Stage.SUBMITTED, Event.REFUSED): Stage.REJECTED,
    (Stage.OUTBOX, Event.DEFERRED): Stage.OUTBOX,
    (Stage.CLAIMED, Event.DEFERRED): Stage.OUTBOX,
    (Stage.CLAIMED, Event.UNKNOWN): Stage.CLAIMED,
    (Stage.OUTBOX, Event.ROLLBACK): Stage.REJECTED,
    (Stage.CLAIMED, Event.ROLLBACK): Stage.REJECTED,
}


@pytest.mark.parametrize(("stage", "event"), list(product(STAGES, Event)))
def test_every_pair_moves_or_raises(stage: Stage | None, event: Event) -> None:
    """A pair of stage and event leads to a place the table names, or raises: nothing happens by accident."""
    if (stage, event) in TRANSITIONS:
        assert TRANSITIONS[stage, event][0] == advance(stage, event)
    else:
        with pytest.raises(IllegalTransition):
            advance(stage, event)


@pytest.mark.parametrize(("stage", "event", "to"), list(product(STAGES, Event, PLACES)))
def test_asking_for_a_place_gives_it_or_raises(stage: Stage | None, event: Event, to: Stage | None) -> None:
    """A place that the table does not allow for an event can't be asked for."""
    if to in TRANSITIONS.get((stage, event), ()):
        assert to == advance_to(stage, event, to)
    else:
        with pytest.raises(IllegalTransition):
            advance_to(stage, event, to)


@pytest.mark.parametrize(("pair", "expected"), WORK.items())
def test_the_straight_path(pair: tuple[Stage, Event], expected: Stage) -> None:
    """The work of a package goes outbox → claimed → submitted → delivered, or to rejected."""
    assert expected == advance(*pair)


@pytest.mark.parametrize("stage", STAGES)
def test_an_unknown_outcome_never_goes_back_to_the_outbox(stage: Stage | None) -> None:
    """What may have been accepted is never put where it would be sent as if it had not been."""
    assert Stage.OUTBOX not in TRANSITIONS.get((stage, Event.UNKNOWN), ())


@pytest.mark.parametrize("stage", [Stage.SUBMITTED, Stage.DELIVERED, Stage.REJECTED, AWAY])
def test_only_a_requeue_leads_back_into_the_outbox(stage: Stage | None) -> None:
    """Nothing settled gets back into the outbox except by REQUEUED."""
    events = {event for (at, event), places in TRANSITIONS.items() if at is stage and Stage.OUTBOX in places}
    assert {Event.REQUEUED} == events


def test_only_acceptance_submits() -> None:
    """A package is shown as submitted because it was accepted, or because a person put it there."""
    events = {event for (at, event), places in TRANSITIONS.items() if Stage.SUBMITTED in places and at != "submitted"}
    assert {Event.ACCEPTED, Event.MOVED} == events


def test_only_completion_delivers() -> None:
    """A package is shown as delivered because it was completed, or because a person put it there."""
    events = {event for (at, event), places in TRANSITIONS.items() if Stage.DELIVERED in places and at != "delivered"}
    assert {Event.COMPLETED, Event.MOVED} == events


@pytest.mark.parametrize("event", [Event.MOVED, Event.ROLLBACK])
def test_what_stays_where_it_was_keeps_its_tag(event: Event) -> None:
    """Another name or a rollback says nothing new of a package that waits in rejected/ for a person to decide."""
    assert Status.UNKNOWN is status_after(event, Stage.REJECTED, Status.UNKNOWN, stays=True)
    assert Status.REJECTED is status_after(event, Stage.REJECTED, Status.UNKNOWN)


@pytest.mark.parametrize(("event", "places"), [(e, p) for (_, e), p in TRANSITIONS.items()])
def test_a_status_never_claims_more_than_the_place(event: Event, places: tuple[Stage | None, ...]) -> None:
    """The tag `delivered` stands only on rows that lead to delivered/, or that leave the tag as it was."""
    for place in places:
        if status_after(event, place, Status.WAITING) is Status.DELIVERED:
            assert Stage.DELIVERED is place
