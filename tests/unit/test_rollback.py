"""Giving a service up and taking it back: who trips it, what is moved, what is written, who lifts it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.house import EXEC_ID, HERE, Clock, House, house, package
from tfwatch import requests
from tfwatch.delivery.operate import Operate
from tfwatch.delivery.rollback import Rollback
from tfwatch.delivery.switch import Setting, Switch
from tfwatch.delivery.whereabouts import Whereabouts
from tfwatch.errors import ServiceError, TransientError
from tfwatch.model import Actor, Event, Integration, Package, Stage, Status, read_detail, rfc3339, write_detail
from tfwatch.requests import Request
from tfwatch.spool.names import reason_name

O, C, S, D, R = Stage.OUTBOX, Stage.CLAIMED, Stage.SUBMITTED, Stage.DELIVERED, Stage.REJECTED  # noqa: E741
ON = Setting(enabled=True, source="config.yaml")
NO_ANSWER = TransientError("HTTP 503: sorry", code=503, tries=4)
BAD_KEY = ServiceError("HTTP 401: who are you?", code=401, hint="set a valid api_key")


class Given:
    """A house whose rollback trips at three."""

    def __init__(self, home: House, *, probing: bool = False) -> None:
        self.home = home
        self.clock = Clock()
        self.switch = Switch(Integration.GOTRANSCRIPT, home.index, clock=self.clock)
        self.switch.configure(ON, home.desk, probing=probing)
        self.rollback = Rollback(home.desk, self.switch, threshold=3, clock=self.clock)

    def fail(self) -> bool:
        """One delivery fails at once."""
        return self.rollback.failed(began=self.clock())

    def trip(self, name: str = "call_v1.zip", *, sent: bool = False) -> Package:
        """The rollback, tripped by a claimed package."""
        about = self.home.lay(package(name), O)
        where = self.home.attempt(about)
        self.rollback.trip(about, where, NO_ANSWER, sent=sent, attempt=4)
        return about

    def document(self) -> str:
        return self.home.folders.read_rollbacks(EXEC_ID)


@pytest.fixture
def given(tmp_path: Path) -> Iterator[Given]:
    with house(tmp_path / "spool") as home:
        yield Given(home)


# --- when -------------------------------------------------------------------------------------------------------------


def test_the_third_failure_trips_it(given: Given) -> None:
    """Consecutive failed deliveries, counted once each."""
    assert [False, False, True] == [given.fail() for _ in range(3)]


def test_a_success_in_between_starts_anew(given: Given) -> None:
    """An acceptance, or a refusal for the package's own sake, shows that the service works."""
    given.fail()
    given.fail()
    given.rollback.succeeded(probe=False)

    assert [False, False, True] == [given.fail() for _ in range(3)]


def test_four_unbroken_minutes_trip_it(given: Given) -> None:
    """A lone package's rounds don't reach the threshold in time, but the clock does; no wait steps over that moment."""
    given.rollback.configure(100)
    assert not given.fail()
    given.clock.go(200)
    assert 40 == given.rollback.shorten(60)
    assert 10 == given.rollback.shorten(10)
    given.clock.go(40)

    assert given.fail()


def test_a_changed_threshold_keeps_the_count(given: Given) -> None:
    """`rollback_after` lowered from three to two: the second failure trips it."""
    given.fail()
    given.rollback.configure(2)

    assert given.fail()


def test_of_many_lanes_one_trips_it(given: Given) -> None:
    """All lanes fail at the same moment: one package is rejected, and no other until the rollback is in force."""
    given.rollback.configure(1)
    barrier, told = threading.Barrier(16), []

    def lane() -> None:
        barrier.wait()
        told.append(given.fail())

    threads = [threading.Thread(target=lane) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 1 == sum(told)
    given.trip()

    assert not given.fail()


@pytest.mark.parametrize("word", ["disabled", "paused", "off"])
def test_nothing_trips_what_is_closed(given: Given, word: str) -> None:
    """Requests that were under way when it was switched off fail without further harm."""
    if word == "off":
        given.switch.configure(Setting(enabled=False, source="x"), given.home.desk, probing=False)
    else:
        by = "command" if word == "disabled" else "service"
        given.switch.drop(given.home.desk, actor=Actor.OPERATOR, by=by, why="x")
    assert word == given.switch.stand.word

    assert not any(given.fail() for _ in range(10))


def test_a_service_that_asks_us_to_wait_may_still_fall(given: Given) -> None:
    """Retry-After is no excuse: the failures go on counting."""
    given.switch.hold(30)

    assert [False, False, True] == [given.fail() for _ in range(3)]


def test_failures_before_a_pause_are_forgotten(given: Given) -> None:
    """After a person mended the cause one failure is one failure, however long the pause was."""
    given.fail()
    given.rollback.pause(package(), BAD_KEY, began=given.clock())
    given.clock.go(86_400)
    given.rollback.lift(actor=Actor.OPERATOR, why="new key")

    assert [False, False, True] == [given.fail() for _ in range(3)]


# --- what -------------------------------------------------------------------------------------------------------------


def test_the_package_that_tripped_it_is_rejected_with_the_justification(given: Given) -> None:
    """One fact about both; the switch is closed; the reason says what happened and how to lift it."""
    about = given.trip()

    row = given.home.last()
    assert (Event.ROLLBACK, C, R, Status.REJECTED, 503, 4) == (
        row.event, row.from_stage, row.to_stage, row.status, row.code, row.attempt,
    )  # fmt: skip
    facts, why = read_detail(row.detail)
    assert {"integration": "gotranscript", "sent": "no", "failed": "yes"} == facts
    assert "HTTP 503: sorry" in why
    assert [R] == given.home.stages(about)
    assert (False, "rolled back") == (given.switch.stand.open, given.switch.stand.word)
    reason = Path(given.home.folders.path(R, reason_name(about.name))).read_text()
    for expected in (
        about.name,
        "HTTP 503: sorry",
        "tfwatch enable gotranscript",
        "also requeues this package",
        "outbox/",
    ):
        assert expected in reason


def test_the_document_tells_it(given: Given) -> None:
    """Under the run's name: when, which integration, why, which package, how to lift it."""
    given.trip()

    assert [f"rollback_integrations_{EXEC_ID}.md"] == os.listdir(Path(given.home.folders.root, "rollbacks"))
    document = given.document()
    assert document.startswith(f"# Rollbacks and pauses of run {EXEC_ID}\n")
    for expected in (
        rfc3339(given.home.last().at), "## Rollback of gotranscript", "HTTP 503: sorry", "call_v1.zip",
        "tfwatch enable gotranscript",
    ):  # fmt: skip
        assert expected in document


def test_a_later_rollback_is_appended(given: Given) -> None:
    """Same run, same document: one head, a section for each moment, pauses too."""
    given.trip("a_v1.zip")
    given.rollback.lift(actor=Actor.OPERATOR, why="mended")
    given.rollback.pause(package("b_v1.zip"), BAD_KEY, began=given.clock())
    given.rollback.lift(actor=Actor.OPERATOR, why="mended")
    given.trip("c_v1.zip")

    document = given.document()
    assert 1 == document.count("# Rollbacks and pauses of run")
    titles = [line.split(" at ")[0] for line in document.splitlines() if line.startswith("## ")]
    assert ["## Rollback of gotranscript", "## Pause of gotranscript", "## Rollback of gotranscript"] == titles
    assert document.index("a_v1.zip") < document.index("b_v1.zip") < document.index("c_v1.zip")


def test_the_document_names_those_that_failed_before(given: Given) -> None:
    """A person sees which packages the outage met: each once, none from before the last success."""
    given.rollback.failed(began=given.clock(), package="long_ago.zip")
    given.rollback.succeeded(probe=False)
    for name in ("a_v1.zip", "a_v1.zip", "c_v1.zip"):
        tripped = given.rollback.failed(began=given.clock(), package=name)
    assert tripped
    given.trip("c_v1.zip")

    (packages,) = [line for line in given.document().splitlines() if line.startswith("- **Packages:**")]
    assert packages.endswith("Before it failed, and wait: a_v1.zip")
    assert "long_ago" not in given.document()
    given.rollback.lift(actor=Actor.OPERATOR, why="mended")
    given.trip("d_v1.zip")
    assert 1 == given.document().count("a_v1.zip"), "the next outage has packages of its own"


def test_what_could_not_be_written_is_written_once_it_can(given: Given) -> None:
    """No room for the document: it is tried again, told once it is there, and holds what came meanwhile, in order."""
    folder = Path(given.home.folders.root, "rollbacks")
    os.rmdir(folder)
    given.trip("a_v1.zip")
    given.rollback.lift(actor=Actor.OPERATOR, why="mended")
    given.rollback.pause(package("b_v1.zip"), BAD_KEY, began=given.clock())
    given.rollback.write_again()
    assert "" == given.document()
    folder.mkdir()
    for _ in range(2):
        given.rollback.write_again()

    titles = [line.split(" at ")[0] for line in given.document().splitlines() if line.startswith("## ")]
    assert ["## Rollback of gotranscript", "## Pause of gotranscript"] == titles


def test_a_missing_document_is_written_at_the_next_start(given: Given) -> None:
    """A crash between the fact and its document: the next run writes it, under the run it belongs to, once."""
    given.trip()
    os.unlink(given.home.folders.rollback_document(EXEC_ID))
    after = Given(given.home)
    after.rollback.write_missing_document()
    document = given.document()
    assert 1 == document.count("## Rollback of gotranscript")
    after.rollback.write_missing_document()

    assert document == given.document()


def test_no_document_is_made_up(given: Given) -> None:
    """Nothing happened, or a person disabled it: there is nothing to justify."""
    given.rollback.write_missing_document()
    given.switch.drop(given.home.desk, actor=Actor.OPERATOR, by="command", why="x")
    given.rollback.write_missing_document()

    assert "" == given.document()


def test_a_document_that_can_not_be_written_stops_nothing(given: Given) -> None:
    """The fact is in the log and the package in rejected/; the journal says that the document is missing."""
    os.rmdir(Path(given.home.folders.root, "rollbacks"))
    about = given.trip()

    assert [R] == given.home.stages(about)
    assert "rolled back" == given.switch.stand.word


def test_a_package_that_waits_for_a_decision_is_left_to_it(given: Given) -> None:
    """Its outcome is unknown, it was parked, and it trips the rollback: its tag and its reason stay as they were."""
    about = given.home.lay(package(), O)
    where = given.home.attempt(about)
    where = given.home.desk.settle(about, Event.UNKNOWN, where, to=R, reason="Nobody knows.\n")
    given.rollback.trip(about, where, NO_ANSWER, sent=True, attempt=1)

    assert "Nobody knows.\n" == Path(given.home.folders.path(R, reason_name(about.name))).read_text()
    assert [about.name] == [state.name for state in given.home.index.parked()]
    assert Status.UNKNOWN is given.home.last().status
    given.rollback.lift(actor=Actor.OPERATOR, why="mended")
    assert [R] == given.home.stages(about)


@pytest.mark.parametrize("sent", [False, True])
def test_whether_it_was_sent_is_remembered(given: Given, sent: bool) -> None:
    """The key stays the same; only if it may have arrived its outcome is unknown."""
    about = given.trip(sent=sent)
    content = given.home.index.content(about.sha256)

    assert (1, False, sent) == (content.generation, content.ended, content.unknown)


# --- the pause --------------------------------------------------------------------------------------------------------


def test_a_pause_rejects_nothing(given: Given) -> None:
    """401, 402, 403…: switched off with the service's words and the next step; documented; the package stays."""
    about = given.home.lay(package(), O)
    given.rollback.pause(about, BAD_KEY, began=given.clock())

    facts, why = read_detail(given.home.last().detail)
    assert (Event.DISABLED, Actor.TFWATCH) == (given.home.last().event, given.home.last().actor)
    assert {"integration": "gotranscript", "by": "service"}.items() <= facts.items()
    assert "HTTP 401: who are you?; set a valid api_key" == why
    assert "paused" == given.switch.stand.word
    assert [O] == given.home.stages(about)
    document = given.document()
    for expected in ("## Pause of gotranscript", "who are you?", about.name, "tfwatch enable gotranscript"):
        assert expected in document


def test_a_pause_without_a_hint_is_a_whole_sentence(given: Given) -> None:
    """No dangling semicolon."""
    given.rollback.pause(package(), ServiceError("HTTP 405"), began=given.clock())

    assert "HTTP 405" == read_detail(given.home.last().detail)[1]


def test_of_many_lanes_one_pauses(given: Given) -> None:
    """Eight lanes get a 401 at once: one fact, one section."""
    barrier = threading.Barrier(8)

    def lane() -> None:
        barrier.wait()
        given.rollback.pause(package(), BAD_KEY, began=given.clock())

    threads = [threading.Thread(target=lane) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert ["DISABLED"] == given.home.events()
    assert 1 == given.document().count("## Pause")


# --- back -------------------------------------------------------------------------------------------------------------


def test_lifting_requeues_what_it_rejected(given: Given) -> None:
    """All of its packages, and no others; the reason files go, the keys stay."""
    first = given.trip("a_v1.zip")
    refused = given.home.lay(package("no_v1.zip"), O)
    where = Whereabouts(file=O, log=O, status=Status.WAITING)
    given.home.desk.settle(refused, Event.REFUSED, where, detail=write_detail("no", by="intake"), reason="No.\n")
    given.rollback.lift(actor=Actor.OPERATOR, why="by ana")

    assert given.switch.stand.open
    assert {first.name} == given.home.lies_in(O)
    assert {refused.name} == given.home.lies_in(R)
    assert ["ENABLED", "REQUEUED"] == given.home.events()[-2:]
    assert Actor.TFWATCH is given.home.last().actor
    assert [reason_name(refused.name)] == [n for n in os.listdir(given.home.folders.folder(R)) if n.endswith(".txt")]
    assert not given.home.index.content(first.sha256).ended


def test_lifting_with_a_new_drop_of_that_name(given: Given) -> None:
    """Meanwhile somebody dropped another package under that name: both lie in the outbox, the old one renamed."""
    about = given.trip()
    Path(given.home.folders.path(O, about.name)).write_text("new")
    given.rollback.lift(actor=Actor.OPERATOR, why="by ana")

    assert {about.name, "call_v1~2.zip"} == given.home.lies_in(O)
    assert "new" == Path(given.home.folders.path(O, about.name)).read_text()


def test_what_somebody_works_on_or_took_away_is_left(given: Given) -> None:
    """Nothing is pulled from under anyone."""
    held, gone = given.trip("a_v1.zip"), given.trip("b_v1.zip")
    os.unlink(given.home.folders.path(R, gone.name))
    assert given.home.desk.in_work.take(held.name)

    assert not given.rollback.requeue_rejected()
    assert [] == list(given.home.lies_in(O))
    given.home.desk.in_work.release(held.name)
    assert given.rollback.requeue_rejected()
    assert {held.name} == given.home.lies_in(O)


def test_enabling_at_once_is_not_lost(given: Given) -> None:
    """The row is there to be read, and the lane that wrote it is at work: `enable` counts, and requeues later."""
    given.switch.lift(given.home.desk, actor=Actor.OPERATOR, why="before")
    home, about = given.home, given.home.lay(package(), O)
    where = home.attempt(about)
    assert home.desk.in_work.take(about.name)
    home.desk.settle(about, Event.ROLLBACK, where, to=R, detail=write_detail("down", integration="gotranscript"))
    operate = Operate(home.desk, {Integration.GOTRANSCRIPT: given.switch}, given.rollback)
    requests.leave(home.folders, Request(command="enable", user="ana", integration=Integration.GOTRANSCRIPT))
    assert operate.take_all()
    assert operate.is_waiting
    given.switch.fell()
    assert given.switch.stand.open
    home.desk.in_work.release(about.name)
    assert operate.take_all()
    assert not operate.is_waiting
    assert {about.name} == home.lies_in(O)
    assert ["ENABLED", "ROLLBACK", "ENABLED", "REQUEUED"] == [e for e in home.events() if e != "ATTEMPTED"]


def test_a_straggler_lifts_nothing(given: Given) -> None:
    """A request that was under way when it tripped is accepted: that proves nothing about later."""
    given.trip()
    given.rollback.succeeded(probe=False)

    assert "rolled back" == given.switch.stand.word


def test_a_probe_that_got_through_lifts_it(given: Given) -> None:
    """By the daemon itself, and the rejected packages come back."""
    about = given.trip()
    given.rollback.succeeded(probe=True)

    assert given.switch.stand.open
    assert [O] == given.home.stages(about)
    enabled = next(record for record in given.home.records() if record.event is Event.ENABLED)
    assert Actor.TFWATCH is enabled.actor


def test_a_probe_does_not_undo_a_person(given: Given) -> None:
    """Disabled while the probe was under way: it stays disabled."""
    given.trip()
    given.switch.drop(given.home.desk, actor=Actor.OPERATOR, by="command", why="by ana")
    given.rollback.succeeded(probe=True)

    assert "disabled" == given.switch.stand.word


def test_a_rejected_package_may_be_the_probe(given: Given) -> None:
    """The outbox is empty when a probe is due: one that the rollback rejected goes first, the longest waiting."""
    assert not given.rollback.offer_probe()
    first, second = given.trip("a_v1.zip"), given.trip("b_v1.zip")
    assert given.rollback.offer_probe()

    assert {first.name} == given.home.lies_in(O)
    assert {second.name} == given.home.lies_in(R)
    assert "rolled back" == given.switch.stand.word


def test_what_was_accepted_is_never_requeued_by_a_lift(given: Given) -> None:
    """Only what the rollback itself rejected comes back."""
    given.home.accept(given.home.lay(package("ok_v1.zip"), O))
    given.trip("a_v1.zip")
    given.rollback.lift(actor=Actor.OPERATOR, why="by ana")

    assert {"ok_v1.zip"} == given.home.lies_in(S)
    assert HERE["base_url"] == read_detail(given.home.records()[0].detail)[0]["base_url"]


def test_what_was_asked_before_it_was_lifted_is_old_news(given: Given) -> None:
    """Lanes that were under way when a person lifted it bring answers from before: these neither pause nor trip it."""
    given.rollback.pause(package(), BAD_KEY, began=given.clock())
    began = given.clock()
    given.clock.go(1)
    given.rollback.lift(actor=Actor.OPERATOR, why="the key is right now")
    given.rollback.pause(package("b_v1.zip"), BAD_KEY, began=began)
    assert [False] * 5 == [given.rollback.failed(began=began) for _ in range(5)]
    assert given.switch.stand.open
    assert ["DISABLED", "ENABLED"] == given.home.events()

    given.rollback.pause(package("b_v1.zip"), BAD_KEY, began=given.clock())
    assert "paused" == given.switch.stand.word
