"""What becomes of a call: one row, taken once ever, and its package settled whatever comes in whichever order."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.unit.house import HERE, House, fact, house, package
from tfwatch.delivery.moves import Moves
from tfwatch.delivery.progress import Board
from tfwatch.delivery.told import ApplyTold
from tfwatch.delivery.traces import AwaitedTraces
from tfwatch.delivery.webhooks import Answer, Call, TakeWebhook
from tfwatch.delivery.whereabouts import Whereabouts
from tfwatch.ledger.calls import Subject
from tfwatch.ledger.index import Index
from tfwatch.ledger.log import read_log
from tfwatch.model import Event, Package, Stage, Status, read_detail, write_detail

C, S, D, R = Stage.CLAIMED, Stage.SUBMITTED, Stage.DELIVERED, Stage.REJECTED


@dataclass
class Desk:
    """A house that takes calls. `later`: what is to be applied, while `at_once` is off."""

    home: House
    delivered: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    later: list[Subject] = field(default_factory=list)
    at_once: bool = True

    def __post_init__(self) -> None:
        self.told = ApplyTold(
            self.home.desk, delivered=lambda package: self.delivered.append(package.name),
            left_claimed=self.left.append, release=self.home.desk.in_work.release,
        )  # fmt: skip
        self.take = TakeWebhook(self.home.desk, self.home.log, self.told, apply=self._apply, failed=pytest.fail)

    def _apply(self, subject: Subject) -> None:
        if self.at_once:
            assert None is self.told.apply(subject)
        else:
            self.later.append(subject)

    def call(
        self, *, message_id: str = "", via: str = "legacy", reference: str = "", integration: str = "gotranscript",
        **fields: Any,
    ) -> Answer:  # fmt: skip
        body = json.dumps(fields).encode()
        return self.take.take(
            Call(integration=integration, via=via, message_id=message_id, body=body, client_reference=reference)
        )

    def calls(self) -> list[dict[str, str]]:
        """The facts of all WEBHOOK rows."""
        rows = [record for record in self.home.records() if record.event is Event.WEBHOOK]
        return [dict(read_detail(row.detail)[0]) | {"trace": row.trace_id, "order": row.order_id} for row in rows]

    def restart(self) -> None:
        """What a start does: the sweep, then all that was told and not applied."""
        board = Board()
        Moves(
            self.home.desk, board, stopping=lambda: False, submitted=lambda package: None,
            delivered=lambda package: self.delivered.append(package.name),
        ).sweep(recovering=True)  # fmt: skip
        for subject in self.home.index.calls.all_told():
            assert None is self.told.apply(subject)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with house(tmp_path / "spool") as home:
        yield Desk(home)


def submitted(desk: Desk, name: str = "call_v1.zip", order_id: str = "4711") -> Package:
    about = desk.home.lay(package(name), Stage.OUTBOX)
    desk.home.accept(about, order_id)
    return about


def unknown(desk: Desk, stage: Stage) -> Package:
    """One that was sent, and nobody knows what became of it: it waits in claimed/, or is parked."""
    about = desk.home.lay(package(), Stage.OUTBOX)
    where = desk.home.attempt(about)
    desk.home.desk.settle(about, Event.UNKNOWN, where, to=stage, detail="silence", reason="Nobody knows.")
    return about


# --- one row, once ----------------------------------------------------------------------------------------------------


def test_a_verdict_settles_its_package(desk: Desk) -> None:
    """The row first, then COMPLETED and the move; the answer bears the package's own trace."""
    about = submitted(desk)
    answer = desk.call(id="4711", status="completed", message="Done.", message_id="msg_1", via="standard")
    assert ("settled", about.trace_id) == (answer.outcome, answer.trace_id)
    assert ["ATTEMPTED", "ACCEPTED", "WEBHOOK", "COMPLETED"] == desk.home.events(about)
    assert [D] == desk.home.stages(about)
    assert [about.name] == desk.delivered
    (row,) = desk.calls()
    said = {"integration": "gotranscript", "id": "msg_1", "outcome": "settled", "via": "standard", "word": "completed"}
    assert said.items() <= row.items()
    assert "webhook" == read_detail(desk.home.last().detail)[0]["via"]


def test_a_refusal_goes_to_rejected_with_its_reason(desk: Desk) -> None:
    """The service's words stand in the reason file."""
    about = submitted(desk)
    assert "settled" == desk.call(order_id=4711, status="FAILED", message="No audio inside.").outcome
    assert [R] == desk.home.stages(about)
    reason = Path(desk.home.folders.path(R, f"{about.name}.reason.txt"))
    assert "No audio inside." in reason.read_text()


def test_by_client_reference_alone(desk: Desk) -> None:
    """A body without an id is about the content it names."""
    about = submitted(desk)
    assert "settled" == desk.call(client_reference=about.sha256, status="done").outcome
    assert [D] == desk.home.stages(about)


def test_of_several_ids_the_known_one_counts(desk: Desk) -> None:
    """An `id` may be the message's own: the order stands under another key."""
    about = submitted(desk)
    assert "settled" == desk.call(id="evt_1", order_id="4711", status="completed").outcome
    assert [D] == desk.home.stages(about)


@pytest.mark.parametrize("message_id", ["", "msg_1"])
def test_a_replay_changes_nothing(desk: Desk, message_id: str) -> None:
    """The same id, or the same body of one that has no ids: answered with the first trace, no row, no move."""
    submitted(desk)
    first = desk.call(id="4711", status="completed", message_id=message_id)
    before = desk.home.records()
    again = desk.call(id="4711", status="completed", message_id=message_id)
    assert ("replayed", first.trace_id) == (again.outcome, again.trace_id)
    assert before == desk.home.records()


def test_an_id_is_taken_once_whatever_its_body_says(desk: Desk) -> None:
    """The id is signed with the body: the same id is the same message. Another integration's ids are its own."""
    submitted(desk)
    assert "pending" == desk.call(id="4711", status="processing", message_id="m").outcome
    assert "replayed" == desk.call(id="4711", status="completed", message_id="m").outcome
    assert "noted" == desk.call(id="4711", status="completed", message_id="m", integration="other").outcome


def test_of_many_at_once_one_is_taken(desk: Desk) -> None:
    """The same message on twenty threads: one row."""
    submitted(desk)
    barrier, outcomes = threading.Barrier(20), []

    def send() -> None:
        barrier.wait()
        outcomes.append(desk.call(id="4711", status="completed", message_id="m").outcome)

    threads = [threading.Thread(target=send) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ["replayed"] * 19 + ["settled"] == sorted(outcomes)
    assert 1 == len(desk.calls())


def test_a_body_that_cant_be_read_is_one_row_and_stays_so(desk: Desk) -> None:
    """Authenticated, so it is a fact; its replay is answered alike."""
    call = Call(integration="gotranscript", via="legacy", message_id="", body=b"\xff\x00")
    assert ["unreadable", "unreadable"] == [desk.take.take(call).outcome for _ in range(2)]
    assert ["unreadable"] == [row["outcome"] for row in desk.calls()]


def test_made_anew_from_the_log_it_knows_the_same(desk: Desk, tmp_path: Path) -> None:
    """Messages taken, verdicts kept and traces awaited are only a projection."""
    submitted(desk)
    desk.call(id="4711", status="completed", message_id="m 1")
    desk.call(id="nobody", status="failed", message='Too "loud".', client_reference="cd" * 32)
    desk.call(job_id="next job", trace_id="t-9", integration="upstream")
    desk.take.take(Call(integration="x", via="token", message_id="", body=b"{}", client_reference="ab" * 32))
    anew = Index(str(tmp_path / "anew.sqlite"))
    rows = list(read_log(desk.home.folders.log))
    anew.apply([record for record, _ in rows], rows[-1][1])
    try:
        for table in ("call", "told", "awaited"):
            assert desk.home.index.table(table)
            assert desk.home.index.table(table) == anew.table(table)
    finally:
        anew.close()


# --- in whichever order -----------------------------------------------------------------------------------------------


def test_a_verdict_before_its_order_is_kept_and_applied(desk: Desk) -> None:
    """Nobody knows the order yet: kept on disk; once it is ACCEPTED, the verdict is there to be applied."""
    assert "kept" == desk.call(id="4711", status="completed", message="Early.").outcome
    about = submitted(desk)
    assert [S] == desk.home.stages(about)
    desk.restart()
    assert [D] == desk.home.stages(about)
    assert [] == desk.home.index.calls.all_told()


def test_only_its_own_order_takes_a_kept_verdict(desk: Desk) -> None:
    """Another order, of the same content even, is not settled by it."""
    desk.call(id="4710", status="failed", client_reference=package().sha256)
    about = submitted(desk)
    desk.restart()
    assert [S] == desk.home.stages(about)


@pytest.mark.parametrize(
    ("first", "second", "stage", "outcome"),
    [
        ("completed", "failed", D, "contradicted"),
        ("failed", "completed", R, "contradicted"),
        ("completed", "done", D, "late"),
        ("completed", "processing", D, "pending"),
    ],
)
@pytest.mark.parametrize("at_once", [True, False])
def test_what_comes_after_a_verdict_changes_nothing(
    desk: Desk, first: str, second: str, stage: Stage, outcome: str, at_once: bool
) -> None:
    """The first verdict counts, also while its package is still to be moved; the row says what came of the second."""
    about = submitted(desk)
    desk.at_once = at_once
    assert "settled" == desk.call(id="4711", status=first).outcome
    assert outcome == desk.call(id="4711", status=second).outcome
    desk.restart()
    assert [stage] == desk.home.stages(about)
    assert 1 == sum(event in ("COMPLETED", "REFUSED") for event in desk.home.events(about))


def test_a_verdict_on_what_a_person_settled_changes_nothing(desk: Desk) -> None:
    """Cancelled by hand: it stays in rejected/."""
    about = submitted(desk)
    desk.home.folders.move(S, about.name, R)
    desk.restart()
    assert "late" == desk.call(id="4711", status="completed").outcome
    assert [R] == desk.home.stages(about)


def test_the_verdict_of_an_order_that_was_superseded_is_late(desk: Desk) -> None:
    """A second order of the same content was asked for: the first one's verdict is not the second's."""
    about = submitted(desk)
    desk.home.record(fact(about, Event.REQUEUED, S, Stage.OUTBOX))
    desk.home.folders.move(S, about.name, Stage.OUTBOX)
    desk.home.accept(about, "4712")
    assert "late" == desk.call(id="4711", status="failed", client_reference=about.sha256).outcome
    assert [S] == desk.home.stages(about)


def test_another_integration_settles_nothing(desk: Desk) -> None:
    """Only gotranscript speaks of orders: who may call about jobs must not be able to settle them."""
    about = submitted(desk)
    assert "noted" == desk.call(id="4711", status="completed", integration="upstream").outcome
    assert [S] == desk.home.stages(about)


def test_while_somebody_works_on_it_it_waits(desk: Desk) -> None:
    """The name is held (a poll, a move): nothing is moved, and it is tried again."""
    about = submitted(desk)
    desk.at_once = False
    desk.call(id="4711", status="completed")
    with desk.home.desk.in_work.holding(about.name):
        again = desk.told.apply(desk.later[0])
        assert again is not None
        assert 0 < again <= 1
    assert [S] == desk.home.stages(about)
    assert None is desk.told.apply(desk.later[0])
    assert [D] == desk.home.stages(about)


# --- unknown outcomes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", [C, R])
@pytest.mark.parametrize(("word", "end"), [("completed", D), ("rejected", R)])
def test_an_unknown_outcome_is_settled(desk: Desk, stage: Stage, word: str, end: Stage) -> None:
    """The callback names content and order: accepted after all, then settled; no stale reason is left."""
    about = unknown(desk, stage)
    answer = desk.call(order_id="77", status=word, client_reference=about.sha256, message="So it is.")
    assert "settled" == answer.outcome
    assert ["ATTEMPTED", "UNKNOWN", "WEBHOOK", "ACCEPTED", word.upper().replace("REJECTED", "REFUSED")] == (
        desk.home.events(about)
    )
    assert [end] == desk.home.stages(about)
    assert (end is R) == bool(desk.home.folders.names(R))
    reason = Path(desk.home.folders.path(R, f"{about.name}.reason.txt"))
    assert ("So it is." in reason.read_text()) if end is R else not reason.exists()
    accepted = next(record for record in desk.home.records() if record.event is Event.ACCEPTED)
    assert HERE.items() <= read_detail(accepted.detail)[0].items()
    assert "77" == accepted.order_id
    assert [about.name] == desk.left


def test_the_public_apis_callback_settles_it_by_its_address(desk: Desk) -> None:
    """Its body names the order alone; the SHA-256 stands in the address that we gave, and `ok` is the answer."""
    about = unknown(desk, R)
    fields = {"mode": "live", "order_id": 77, "transcription_url": "https://x/y", "language": "pt"}
    first = desk.call(via="token", reference=about.sha256, **fields)
    again = desk.call(via="token", reference=about.sha256, **fields)
    assert [("settled", True), ("replayed", True)] == [(a.outcome, a.plain_ok) for a in (first, again)]
    assert [D] == desk.home.stages(about)


def test_while_it_is_sent_a_callback_waits_for_the_receipt(desk: Desk) -> None:
    """The lane holds content and name: nothing is accepted twice; once the lane is done, it is settled."""
    about = desk.home.lay(package(), Stage.OUTBOX)
    where = desk.home.attempt(about)
    desk.at_once = False
    work = desk.home.desk.in_work
    assert work.take(about.name)
    assert work.take(about.sha256)
    desk.call(id="77", status="completed", client_reference=about.sha256)
    assert None is not desk.told.apply(desk.later[0])
    desk.home.desk.settle(about, Event.ACCEPTED, where, order_id="77", detail=write_detail(**HERE))
    work.release(about.sha256)
    work.release(about.name)
    assert None is desk.told.apply(desk.later[0])
    assert ["ATTEMPTED", "WEBHOOK", "ACCEPTED", "COMPLETED"] == desk.home.events(about)


# --- crashes ----------------------------------------------------------------------------------------------------------


def test_called_but_not_applied(desk: Desk) -> None:
    """The row is on disk and the daemon dies: the next start settles it."""
    about = submitted(desk)
    desk.at_once = False
    desk.call(id="4711", status="completed")
    desk.restart()
    assert ["ATTEMPTED", "ACCEPTED", "WEBHOOK", "COMPLETED"] == desk.home.events(about)
    assert [D] == desk.home.stages(about)


def test_told_of_a_parked_one_but_not_moved(desk: Desk) -> None:
    """ACCEPTED is on disk, its ZIP still in rejected/: ours, not a person's; it goes on to where the verdict says."""
    about = unknown(desk, R)
    desk.at_once = False
    desk.call(order_id="77", status="completed", client_reference=about.sha256)
    desk.home.record(fact(about, Event.ACCEPTED, R, S, order_id="77", status=Status.SUBMITTED, detail=write_detail()))
    desk.restart()
    assert ["ACCEPTED", "RECOVERED", "COMPLETED"] == desk.home.events(about)[-3:]
    assert [D] == desk.home.stages(about)
    assert not Path(desk.home.folders.path(R, f"{about.name}.reason.txt")).exists()


def test_cancelled_while_the_daemon_was_down_it_stays_so(desk: Desk) -> None:
    """The same place without a verdict: a person moved it there."""
    about = submitted(desk)
    desk.home.folders.move(S, about.name, R)
    desk.restart()
    assert "MOVED" == desk.home.events(about)[-1]
    assert [R] == desk.home.stages(about)


# --- traces -----------------------------------------------------------------------------------------------------------


def test_a_trace_is_carried_along_or_made(desk: Desk) -> None:
    """The caller's own, else a new one."""
    assert "t-1" == desk.call(trace_id="t-1", integration="upstream").trace_id
    made = desk.call(n=2, integration="upstream").trace_id
    assert (32, True) == (len(made), set(made) <= set("0123456789abcdef"))
    assert ["t-1", made] == [row["trace"] for row in desk.calls()]


def test_a_jobs_trace_goes_to_its_next_package_alone(desk: Desk) -> None:
    """The first of `{job_id}_v*.zip` that the log hears of has it; the next one, and other jobs, have not."""
    desk.call(job_id="call", trace_id="t-1", integration="upstream")
    traces = AwaitedTraces(desk.home.index)
    assert [None, None] == [traces.trace(name, "00") for name in ("other_v1.zip", "call.zip")]
    assert ["t-1", "t-1"] == [traces.trace("call_v1.zip", "aa"), traces.trace("call_v1~2.zip", "aa")]
    assert None is traces.trace("call_v2.zip", "bb")  # both are admitted before either has a row
    desk.home.accept(desk.home.lay(package("call_v1.zip"), Stage.OUTBOX))
    assert None is AwaitedTraces(desk.home.index).trace("call_v2.zip", "bb")
    desk.call(job_id="call", trace_id="t-2", integration="upstream")
    assert "t-2" == traces.trace("call_v2.zip", "bb")


def test_a_verdict_that_names_its_job_is_no_word_about_the_next(desk: Desk) -> None:
    """The service repeats what it was sent: that trace belongs to the package that was sent."""
    submitted(desk)
    desk.call(id="4711", status="completed", job_id="call", trace_id="old")
    assert None is AwaitedTraces(desk.home.index).trace("call_v2.zip", "bb")


def test_what_a_person_put_into_the_outbox_is_settled_when_claimed(desk: Desk) -> None:
    """A person has it sent again: its file stays theirs until it is claimed; then it is settled instead of sent."""
    about = unknown(desk, R)
    desk.home.folders.move(R, about.name, Stage.OUTBOX)
    desk.home.record(fact(about, Event.REQUEUED, R, Stage.OUTBOX, status=Status.WAITING))
    assert "kept" == desk.call(order_id="77", status="completed", client_reference=about.sha256).outcome
    assert [Stage.OUTBOX] == desk.home.stages(about)
    told = desk.told.of_unknown(about.sha256)
    assert told is not None
    desk.home.folders.move(Stage.OUTBOX, about.name, C)
    desk.told.accept(about, Whereabouts(file=C, log=Stage.OUTBOX, status=Status.WAITING), told)
    assert [D] == desk.home.stages(about)
