"""What people are alerted to, read off a daemon: what it says, what may leave the house, and when it ends."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.house import Clock, House, house, package
from tfwatch.delivery.progress import Board
from tfwatch.delivery.rollback import Rollback
from tfwatch.delivery.switch import Setting, Switch
from tfwatch.errors import ServiceError, TransientError
from tfwatch.model import Actor, Event, Integration, Stage
from tfwatch.observe.alerts import Condition
from tfwatch.observe.conditions import MINUTE_SECONDS, Conditions, no_room_to_start
from tfwatch.observe.conditions_beside import of_lanes, of_retention, of_webhooks
from tfwatch.observe.limits import Limits, past
from tfwatch.spool.listing import Entry, Listing


@dataclass
class Figures:
    """As many as are needed; nothing happened yet."""

    delivery_success_rate: float | None = None
    backup_success_rate: float | None = None
    avg_delivery_latency_ms: float | None = None
    oldest_seconds: dict[str, float] = field(default_factory=dict)


class Given:
    """A house as a running daemon shows it; what its threads would find is set by the test."""

    def __init__(self, home: House) -> None:
        self.home = home
        self.clock = Clock()
        self.figures = Figures()
        self.looked = 0
        self.limits = Limits()
        self.switches = {each: Switch(each, home.index) for each in Integration}
        for switch in self.switches.values():
            switch.configure(Setting(enabled=True, source="test"), home.desk, probing=False)
        self.gate = self.switches[Integration.GOTRANSCRIPT]
        self.rollback = Rollback(home.desk, self.gate, threshold=3)
        found: list[str] = []
        self.daemon: Any = SimpleNamespace(
            desk=home.desk,
            config_problems=(),
            switches=self.switches,
            outbox=SimpleNamespace(listing=Listing((), (), 0)),
            watch=SimpleNamespace(deaf=""),
            wiring=SimpleNamespace(policy=SimpleNamespace(min_free_bytes=0, watch="auto")),
            workshop=SimpleNamespace(
                admission=SimpleNamespace(problems=lambda: found),
                moves=SimpleNamespace(problems=list),
                store=SimpleNamespace(problems=lambda: self.unstorable, trouble=""),
                mirror=SimpleNamespace(trouble=""),
            ),
        )
        self.unreadable, self.unstorable = found, list[str]()
        self.look = Conditions(self.daemon, lambda: self.limits, self._figures, clock=self.clock)

    def _figures(self) -> Figures:
        self.looked += 1
        return self.figures

    def found(self, *going_on: str) -> dict[str, Condition]:
        return {condition.key: condition for condition in self.look(frozenset(going_on))}

    def only(self) -> Condition:
        (condition,) = self.found().values()
        return condition

    def past(self, *going_on: str) -> set[str]:
        return {each.key for each in past(self.daemon, self.figures, self.limits, frozenset(going_on))}


@pytest.fixture
def given(tmp_path: Path) -> Iterator[Given]:
    with house(tmp_path / "spool") as home:
        yield Given(home)


def test_all_is_well(given: Given) -> None:
    """Nothing is told while there is nothing to tell."""
    assert {} == given.found()


def test_a_rollback_says_what_why_and_how_to_lift_it(given: Given) -> None:
    """The integration, the moment, the service's words, the command and the document; lifted, it is over."""
    about = given.home.lay(package("call_v1.zip"), Stage.OUTBOX)
    where = given.home.attempt(about)
    given.rollback.trip(about, where, TransientError("call_v1.zip: down"), sent=False, attempt=1)
    told = given.only()
    assert "rollback:gotranscript" == told.key
    for words in (
        "rollback of gotranscript: ",
        "call_v1.zip: down",
        "tfwatch enable gotranscript",
        "rollbacks/",
    ):
        assert words in told.text
    assert "call_v1.zip" not in told.outside
    assert "tfwatch enable gotranscript" in told.outside
    given.rollback.lift(actor=Actor.OPERATOR, why="mended")
    assert {} == given.found()


def test_a_second_pause_is_another(given: Given) -> None:
    """Lifted and refused again within a second: the same key, another mark, so that it is told."""
    about = given.home.lay(package(), Stage.OUTBOX)
    marks = set()
    for n in range(2):
        given.rollback.pause(about, ServiceError("no", code=401, hint="check the key"), began=float("inf"))
        told = given.only()
        assert "pause:gotranscript" == told.key, n
        marks |= told.marks
        given.rollback.lift(actor=Actor.OPERATOR, why="mended")
    assert 2 == len(marks)


def test_a_person_who_disables_it_is_not_alerted(given: Given) -> None:
    """They know."""
    given.gate.drop(given.home.desk, actor=Actor.OPERATOR, by="command", why="maintenance")
    assert {} == given.found()


def test_a_disk_that_fills_is_told_until_there_is_a_little_more(given: Given) -> None:
    """Free space goes up and down by the megabyte; that is no end and no beginning."""
    free = given.home.folders.free_bytes()
    given.daemon.wiring.policy.min_free_bytes = free + 2**30
    assert {"disk-low"} == set(given.found())
    given.daemon.wiring.policy.min_free_bytes = int(free * 0.97)
    assert set() == set(given.found())
    assert {"disk-low"} == set(given.found("disk-low"))
    given.daemon.wiring.policy.min_free_bytes = int(free * 0.9)
    assert set() == set(given.found("disk-low"))


def test_a_full_disk_is_told_without_a_name_outside(given: Given) -> None:
    """The system names the file it had no room for; that stays in the house."""
    given.home.desk.disk_full_since = "[Errno 28] No space left on device: '/spool/outbox/secret.zip'"
    given.home.index.no_room = "/spool/.tfwatch/index.sqlite: database or disk is full"
    found = given.found()
    assert {"disk-full", "index-full"} == set(found)
    assert "secret.zip" in found["disk-full"].text
    assert "secret.zip" not in found["disk-full"].outside


def test_there_is_room_to_start(given: Given) -> None:
    """Only a disk that is full is told before the daemon begins."""
    assert [] == list(no_room_to_start(given.home.folders))


def test_deafness_is_not_told_where_polling_was_asked_for(given: Given) -> None:
    """`spool.watch: polling` is how an operator says that they know."""
    given.daemon.watch.deaf = "no file events arrive in /spool/outbox"
    assert "no file events arrive in /spool/outbox; the folders are polled instead" == given.only().text
    given.daemon.wiring.policy.watch = "polling"
    assert {} == given.found()


def test_what_was_not_taken_over_is_told_with_its_first_problems(given: Given) -> None:
    """All of them are in status; three are enough for a pager."""
    given.daemon.config_problems = tuple(f"config.yaml:{n}: wrong" for n in range(1, 6))
    told = given.only()
    assert "configuration" == told.key
    assert "config.yaml:3: wrong" in told.text
    assert "and 2 more" in told.text


def test_files_that_can_not_be_read_are_one_alert(given: Given) -> None:
    """The newest first, each a mark of its own; outside they are only counted."""
    given.unreadable += ["outbox/a.zip: broken", "outbox/b.zip: broken"]
    told = given.only()
    assert "outbox/b.zip: broken | outbox/a.zip: broken" == told.text
    assert frozenset(given.unreadable) == told.marks
    assert told.outside.startswith("2 packages can't be read")
    assert ".zip" not in told.outside


def test_files_that_can_not_be_backed_up_are_one_alert(given: Given) -> None:
    """The same for the copies."""
    given.unstorable.append("delivered/a.zip: can't be backed up: changed")
    told = given.only()
    assert ("not-backed-up", "delivered/a.zip: can't be backed up: changed") == (told.key, told.text)
    assert told.outside.startswith("1 package can't be backed up")


@pytest.mark.parametrize(("name", "lane"), [(Integration.S3, "store"), (Integration.SHEETS, "mirror")])
def test_trouble_is_told_once_it_has_lasted_and_only_while_it_is_on(given: Given, name: Integration, lane: str) -> None:
    """A minute: what fails once is tried again by then."""
    getattr(given.daemon.workshop, lane).trouble = "call.zip: 403 forbidden"
    told = given.only()
    assert (f"trouble:{name.value}", 60.0) == (told.key, told.after)
    assert "403 forbidden" in told.text
    assert "call.zip" not in told.outside
    given.switches[name].configure(Setting(enabled=False, source="test"), given.home.desk, probing=False)
    assert {} == given.found()


def test_packages_that_wait_for_a_decision_are_named(given: Given) -> None:
    """The latest first; each has its own mark, and the journal files it under the latest."""
    for name in ("one.zip", "two.zip"):
        about = given.home.lay(package(name), Stage.OUTBOX)
        where = given.home.attempt(about)
        given.home.desk.settle(about, Event.UNKNOWN, where, to=Stage.REJECTED, reason="?\n", detail=f"{name} vanished")
        if name == "one.zip":
            assert "one.zip: nobody knows whether it was delivered: one.zip vanished; it waits" in given.only().text
    told = given.only()
    assert "undecided" == told.key
    assert "nobody knows whether two.zip | one.zip were delivered" in told.text
    assert 2 == len(told.marks)
    assert "two.zip" == told.fields["PACKAGE"]
    assert told.outside.startswith("nobody knows whether 2 packages were delivered")
    assert ".zip" not in told.outside


def test_what_others_find_is_told_with_the_rest(given: Given) -> None:
    """Who keeps the webhooks' secrets knows best when one is too old."""
    old = Condition(key="secret-age", text="old", over="new")
    look = Conditions(given.daemon, lambda: given.limits, given._figures, (lambda: [old],), clock=given.clock)
    assert [old] == list(look(frozenset()))


def test_figures_are_looked_at_when_the_log_grows_and_each_minute(given: Given) -> None:
    """Not with each look: they cost more than the rest."""
    for _ in range(10):
        given.found()
    assert 1 == given.looked
    given.home.lay(package(), Stage.OUTBOX)
    given.home.attempt(package())
    given.found()
    assert 2 == given.looked
    given.clock.go(MINUTE_SECONDS)
    given.found()
    assert 3 == given.looked
    given.limits = Limits(oldest_package_minutes=1)
    given.found()
    assert 4 == given.looked


# --- figures past their limits ----------------------------------------------------------------------------------------


def test_nothing_happened_is_no_failure(given: Given) -> None:
    """No rate, no latency: a quiet day is fine, and ends what went on."""
    assert set() == given.past("delivery-rate", "backup-rate", "latency")


@pytest.mark.parametrize(
    ("rate", "was_on", "expected"),
    [
        (0.99, False, False),
        (0.9899, False, True),
        (0.5, False, True),
        (0.9924, True, True),
        (0.9925, True, False),
        (1.0, True, False),
    ],
)
def test_a_delivery_rate_below_its_limit(given: Given, rate: float, was_on: bool, expected: bool) -> None:
    """From the first failure on; over a quarter of the way back to 100 %."""
    given.figures.delivery_success_rate = rate
    assert expected is ("delivery-rate" in given.past(*(["delivery-rate"] if was_on else [])))


def test_a_backup_rate_below_its_limit(given: Given) -> None:
    """95 % by default; the words show figure and limit, never rounded to the same."""
    given.figures.backup_success_rate = 0.94996
    (told,) = past(given.daemon, given.figures, given.limits, frozenset())
    assert "backup-rate" == told.key
    assert "only 94.99 % of the backups" in told.text
    assert "(95 %)" in told.text


def test_a_latency_above_its_limit(given: Given) -> None:
    """More than 2 s on average; over at three quarters of that."""
    given.figures.avg_delivery_latency_ms = 2000.0
    assert set() == given.past()
    given.figures.avg_delivery_latency_ms = 2000.1
    assert {"latency"} == given.past()
    given.figures.avg_delivery_latency_ms = 1501.0
    assert {"latency"} == given.past("latency")
    given.figures.avg_delivery_latency_ms = 1500.0
    assert set() == given.past("latency")


def entry(name: str, ctime_ns: int) -> Entry:
    return Entry(name, 1, 1, 1, 0, ctime_ns)


def test_a_package_that_waits_too_long_is_named_with_its_command(given: Given) -> None:
    """The oldest one; a name with a blank or a quote is one word of the command."""
    given.daemon.outbox.listing = Listing((entry("new.zip", 9), entry("it's old.zip", 1)), (), 0)
    given.figures.oldest_seconds = {"outbox": 3601.0}
    (told,) = past(given.daemon, given.figures, given.limits, frozenset())
    assert "oldest:outbox" == told.key
    assert "outbox/it's old.zip is there for 60 min" in told.text
    assert """tfwatch why 'it'"'"'s old.zip'""" in told.text
    assert "old.zip" not in told.outside


def test_what_waits_because_it_is_switched_off_says_so(given: Given) -> None:
    """Also a `disable` that somebody forgot: once per episode, with the way back."""
    given.gate.drop(given.home.desk, actor=Actor.OPERATOR, by="command", why="maintenance")
    given.figures.oldest_seconds = {"outbox": 7200.0}
    (told,) = past(given.daemon, given.figures, given.limits, frozenset())
    assert "gotranscript is disabled: maintenance; mend the cause, then: tfwatch enable gotranscript" in told.text
    assert "maintenance" not in told.outside


def test_an_order_without_a_verdict_is_named(given: Given) -> None:
    """The service is to be asked about it."""
    about = given.home.lay(package("late.zip"), Stage.OUTBOX)
    given.home.accept(about, order_id="4711")
    given.figures.oldest_seconds = {"submitted": 3700.0}
    (told,) = past(given.daemon, given.figures, given.limits, frozenset())
    assert "submitted/late.zip is there for 61 min" in told.text
    assert "ask the service about order 4711" in told.text
    assert "4711" not in told.outside


def test_delivered_and_rejected_packages_may_be_old(given: Given) -> None:
    """They wait for nobody."""
    given.figures.oldest_seconds = {"delivered": 1e9, "rejected": 1e9, "outbox": 3599.0}
    assert set() == given.past()


# --- what runs beside the loop ----------------------------------------------------------------------------------------


def test_a_lane_that_stands_still_is_named_only_inside(given: Given) -> None:
    """With what to do; each piece of work is a mark of its own."""
    board = Board(clock=given.clock)
    with board.working("a.zip", "sending", 1, timeout=1):
        given.clock.go(3)
        (told,) = of_lanes(board, given.home.index, is_watched=False)
    assert ("standstill", frozenset({"a.zip sending"})) == (told.key, told.marks)
    assert "a.zip: not a byte has moved" in told.text
    assert "a.zip" not in told.outside
    assert [] == list(of_lanes(board, given.home.index, is_watched=False))


def test_webhooks_that_are_off_secrets_that_are_old_and_verdicts_that_contradict(given: Given) -> None:
    """Three alerts; an integration whose secret gets too old later is told, a secret that gets older is not."""
    assert [] == list(of_webhooks("", {}, {}))
    off, old, contradicted = of_webhooks("FILE: so all webhooks are off", {"up": "91 days old"}, {"4711": "order 4711"})
    assert ("webhooks-off", "secret-age", "contradicted") == (off.key, old.key, contradicted.key)
    (older,) = of_webhooks("", {"up": "92 days old"}, {})
    assert old.marks == older.marks
    assert "4711" not in contradicted.outside


def test_what_keeps_retention_from_its_work(given: Given) -> None:
    """A disk that fills meanwhile is an alert of its own."""
    assert [] == list(of_retention("", "", ()))
    fills, kept = of_retention("full in 5 days", "s3 is off", ("delivered/a.zip: retention leaves it",))
    assert ("disk-fills", "retention") == (fills.key, kept.key)
    assert "s3 is off | delivered/a.zip" in kept.text
    assert "a.zip" not in kept.outside


def test_what_was_left_aside_is_told_until_the_next_start(given: Given) -> None:
    """A removal that was cut short, and can't go on by itself."""
    given.home.desk.left_aside["/spool/.tfwatch/x.zip"] = "x.zip: can't be put back"
    told = given.only()
    assert ("left-aside", "x.zip: can't be put back") == (told.key, told.text)
    assert "x.zip" not in told.outside
