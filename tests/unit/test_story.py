"""The story of a package: told from rows alone, in order, and never ending in a shrug."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfwatch.ledger.index import Index, PackageState
from tfwatch.ledger.log import Position
from tfwatch.ledger.rows import GENESIS, encode
from tfwatch.model import Actor, DeliveryRecord, Event, Fact, Stage, Status, write_detail
from tfwatch.story import Scene, Story, next_step, requeue, rows_of, tell
from tfwatch.wording import seconds

SHA = "ab" * 32
BEGAN = datetime(2025, 11, 13, 10, 35, 33, tzinfo=UTC)
QUIET = Scene(places=(), running=True, held="", lift="", backups_on=False, worksheet=None)
SENT = write_detail(profile="deliveries", base_url="https://portal.example", generation=1, dropped="job_v1.zip")


def when(moment: datetime) -> str:
    return f"{moment:%H:%M:%S}"


def fact(event: Event, to: Stage | None, detail: str = "", *, name: str = "job_v1.zip", **more: object) -> Fact:
    base = Fact(event=event, package=name, sha256=SHA, trace_id="t1", bytes=5, to_stage=to, detail=detail)
    return replace(base, **more)  # type: ignore[arg-type]


def records(facts: Sequence[Fact]) -> list[DeliveryRecord]:
    """The facts as the log would hold them, a second apart."""
    chain, found = GENESIS, []
    for seq, each in enumerate(facts, 1):
        at = BEGAN + timedelta(seconds=seq - 1)
        record, _ = encode(each, seq=seq, at=at, exec_id="run", previous_chain=chain)
        chain = record.chain
        found.append(record)
    return found


def state_after(rows: Sequence[DeliveryRecord], name: str = "job_v1.zip") -> PackageState:
    """What the projection makes of the rows."""
    index = Index(":memory:")
    index.apply(rows, Position.start())
    state = index.package(SHA, name)
    assert state is not None
    return state


def story(facts: Sequence[Fact], scene: Scene = QUIET, name: str = "job_v1.zip") -> Story:
    rows = records(facts)
    return tell(state_after(rows, name), rows, scene, when)


def texts(told: Story) -> list[str]:
    return [line.text for line in told.lines]


DELIVERED = (
    fact(Event.ATTEMPTED, Stage.CLAIMED, SENT, attempt=1, from_stage=Stage.OUTBOX, status=Status.SENDING),
    fact(
        Event.DEFERRED, Stage.OUTBOX,
        write_detail("busy", sent="no", failed="yes", retry_at="2025-11-13T10:36:00.000Z"),
        attempt=4, code=503, duration_ms=12_000, from_stage=Stage.CLAIMED, status=Status.WAITING,
    ),
    fact(Event.ATTEMPTED, Stage.CLAIMED, SENT, attempt=2, from_stage=Stage.OUTBOX, status=Status.SENDING),
    fact(
        Event.ACCEPTED, Stage.SUBMITTED, write_detail("thank you"), attempt=1, code=201, order_id="o-1",
        duration_ms=800, status=Status.SUBMITTED,
    ),
    fact(Event.COMPLETED, Stage.DELIVERED, write_detail(word="done"), code=200, duration_ms=7_200_000),
    fact(Event.BACKED_UP, Stage.DELIVERED, write_detail(bucket="b", key="2025/11/13/abab-job_v1.zip")),
)  # fmt: skip


def test_delivered_package_tells_each_round_with_its_figures() -> None:
    """Every row becomes a sentence with status, tries, time, the service's words and the next try, in order."""
    told = story(DELIVERED, replace(QUIET, places=(Stage.DELIVERED,), worksheet="log"))

    assert [
        "was taken out of outbox/ and read to its end",
        "round 1: is being sent to https://portal.example (deliveries)",
        "was not delivered (HTTP 503, 4 tries, 12 s): busy; next try at 10:36:00",
        "round 2: is being sent to https://portal.example (deliveries)",
        "was accepted as order o-1 (HTTP 201, 1 try, 0.8 s); its words: thank you",
        "was completed (HTTP 200), 2 h after it was accepted; its words: done",
        "was backed up: bucket b, key 2025/11/13/abab-job_v1.zip",
    ] == texts(told)
    assert "in delivered/" == told.where
    assert "nothing: it is done" == told.what_to_do
    assert ["log!A2", "log!A2", "log!A3"] == [line.sheet_row for line in told.lines[:3]]


def test_sheet_rows_go_on_in_further_worksheets() -> None:
    """Row n of the log lies in row ((n-1) mod 500,000) + 2 of log, log-2, …"""
    rows = [replace(records(DELIVERED[:1])[0], seq=500_001)]
    told = tell(state_after(rows), rows, replace(QUIET, worksheet="log"), when)
    assert "log-2!A2" == told.lines[0].sheet_row


def test_a_name_given_at_the_claim_is_explained() -> None:
    """A package that got `~2` tells under which name it was dropped."""
    told = story([fact(Event.ATTEMPTED, Stage.CLAIMED, SENT, name="job_v1~2.zip")], name="job_v1~2.zip")
    assert "was dropped as job_v1.zip; that name was taken, so it is called job_v1~2.zip" == texts(told)[0]


def test_a_renamed_package_keeps_its_earlier_story() -> None:
    """Rows under an earlier name belong to it; those of a twin with the same content don't."""
    renamed = fact(Event.MOVED, Stage.OUTBOX, write_detail("renamed", was="job_v1.zip"), name="new.zip")
    twin = fact(Event.REFUSED, Stage.REJECTED, "twin", name="twin.zip")
    rows = records([DELIVERED[0], twin, replace(renamed, actor=Actor.OPERATOR)])
    own = rows_of(state_after(rows, "new.zip"), rows)
    assert [1, 3] == [row.seq for row in own]


def test_a_rollback_leads_to_the_command_that_lifts_it() -> None:
    """The package a rollback rejected says so, and that `enable` requeues it."""
    detail = write_detail("five failures", integration="gotranscript", sent="no", failed="yes")
    tripped = fact(Event.ROLLBACK, Stage.REJECTED, detail, attempt=4, code=500, from_stage=Stage.CLAIMED)
    told = story([DELIVERED[0], tripped], replace(QUIET, places=(Stage.REJECTED,)))
    assert (
        "tripped the rollback of gotranscript (HTTP 500, 4 tries), so it went to rejected/ "
        "(it was not delivered): five failures"
    ) == texts(told)[-1]
    assert "tfwatch enable gotranscript" in told.what_to_do


def test_a_duplicate_is_told_apart_from_other_refusals() -> None:
    """For a duplicate the next step is --force; for a refused package it is the reason file."""
    scene = replace(QUIET, places=(Stage.REJECTED,))
    duplicate = fact(Event.REFUSED, Stage.REJECTED, write_detail("twice", by="intake", flaw="duplicate"))
    refused = fact(Event.REFUSED, Stage.REJECTED, write_detail("bad audio", by="service"), code=422, attempt=1)
    assert "tfwatch requeue --force job_v1.zip" in story([duplicate], scene).what_to_do
    told = story([DELIVERED[0], refused], scene)
    assert "was refused by the service (HTTP 422, 1 try); its words: bad audio" == texts(told)[-1]
    assert ".reason.txt" in told.what_to_do


@pytest.mark.parametrize(
    ("places", "running", "words"),
    [
        ((Stage.SUBMITTED,), True, "in submitted/"),
        ((Stage.REJECTED,), True, "in rejected/, though the log has it in submitted/"),
        ((Stage.REJECTED,), False, "next start"),
        ((), True, "in no folder, though the log has it in submitted/"),
    ],
)
def test_a_file_that_is_elsewhere_is_named(places: tuple[Stage, ...], running: bool, words: str) -> None:
    """Where the file lies and where the log has it are both told when they differ."""
    accepted = fact(Event.ACCEPTED, Stage.SUBMITTED, order_id="o", status=Status.SUBMITTED)
    assert words in story([accepted], replace(QUIET, places=places, running=running)).where


def test_what_holds_a_waiting_package_is_named_with_its_remedy() -> None:
    """A package that waits because the integration is off says so, and what to do."""
    scene = replace(QUIET, places=(Stage.OUTBOX,), held="gotranscript is disabled: move", lift="tfwatch enable x")
    told = story(DELIVERED[:2], scene)
    assert "it waits: gotranscript is disabled: move. To go on: tfwatch enable x" == told.what_to_do


_DETAILS = st.one_of(
    st.text(max_size=30),
    st.dictionaries(
        st.sampled_from(["sent", "failed", "retry_at", "by", "flaw", "dropped", "was", "key", "word", "generation"]),
        st.text(min_size=1, max_size=12),
        max_size=4,
    ).map(lambda facts: write_detail("words", **facts)),
)
_FACTS = st.builds(
    lambda event, to, detail, code, duration: fact(event, to, detail, code=code, duration_ms=duration),
    st.sampled_from([event for event in Event if event is not Event.ATTEMPTED]),
    st.sampled_from([None, *Stage]),
    _DETAILS,
    st.none() | st.integers(100, 599),
    st.none() | st.integers(0, 10**9),
)


@given(st.lists(_FACTS, min_size=1, max_size=6), st.booleans(), st.sampled_from(["", "off"]))
def test_any_rows_make_a_story(facts: list[Fact], running: bool, held: str) -> None:
    """Whatever rows there are, each becomes words, and there is always a place and a next step."""
    rows = records(facts)
    state = replace(
        state_after(records([fact(Event.MOVED, Stage.OUTBOX)])), stage=rows[-1].to_stage, event=rows[-1].event
    )
    scene = replace(QUIET, running=running, held=held, places=(Stage.OUTBOX,))
    told = tell(state, rows, scene, when)
    assert len(told.lines) >= 1
    assert all(line.text for line in told.lines)
    assert told.where
    assert told.what_to_do


@pytest.mark.parametrize("stage", [None, *Stage])
@pytest.mark.parametrize("status", [None, *Status])
@pytest.mark.parametrize("present", [True, False])
def test_every_state_has_a_next_step(stage: Stage | None, status: Status | None, present: bool) -> None:
    """No combination of stage, status and place leaves a person without an answer."""
    state = replace(state_after(records(DELIVERED[:1])), stage=stage, status=status)
    scene = replace(QUIET, places=(stage,) if present and stage else ())
    assert next_step(state, scene, when)


def test_commands_can_be_pasted_into_a_shell() -> None:
    """Names with blanks are quoted, names that look like options are kept from being options."""
    assert "tfwatch requeue 'a b.zip'" == requeue("a b.zip")
    assert "tfwatch requeue --force -- -x.zip" == requeue("-x.zip", force=True)


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0.04, "40 ms"),
        (0.8, "0.8 s"),
        (9.9, "9.9 s"),
        (90, "90 s"),
        (300, "5 min"),
        (7500, "2 h 5 min"),
        (356_400, "4 d 3 h"),
    ],
)
def test_lengths_of_time_are_short(count: float, shown: str) -> None:
    """Two units at most."""
    assert shown == seconds(count)
