"""What becomes of a package whose attempt failed, when somebody's file lies where it is going."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.house import Clock, House, house, package
from tfwatch.delivery.failure import Attempt, SettleFailure
from tfwatch.delivery.recognise import Claim
from tfwatch.delivery.rollback import Rollback
from tfwatch.delivery.switch import Setting, Switch
from tfwatch.delivery.waiting import WaitingRoom
from tfwatch.errors import OutcomeUnknown, TransientError
from tfwatch.model import Integration, Package, Stage, Status
from tfwatch.spool.names import reason_name

NAME, NEXT = "call_v1.zip", "call_v1~2.zip"


class Given:
    """A house with a claimed package under way, and what settles its failure. One failure trips the rollback."""

    def __init__(self, home: House, *, threshold: int) -> None:
        self.home, self.waiting, self.clock = home, WaitingRoom(), Clock()
        switch = Switch(Integration.GOTRANSCRIPT, home.index, clock=self.clock)
        switch.configure(Setting(enabled=True, source="config.yaml"), home.desk, probing=False)
        self.failure = SettleFailure(
            home.desk, waiting=self.waiting, switch=switch,
            rollback=Rollback(home.desk, switch, threshold=threshold, clock=self.clock),
            in_limbo=lambda name, seconds: None, clock=self.clock,
        )  # fmt: skip
        self.about: Package = home.lay(package(NAME), Stage.OUTBOX)
        self.where = home.attempt(self.about)
        assert home.desk.in_work.take(NAME)

    def attempt(self, *, ask: bool = False) -> Attempt:
        return Attempt(
            claim=Claim(name=NAME, dropped_as=NAME), package=self.about, where=self.where, maybe_sent=False, ask=ask,
            failures=0, began=self.clock(),
        )  # fmt: skip

    def put_in_the_way(self, stage: Stage) -> None:
        Path(self.home.folders.path(stage, NAME)).write_text("another package")


@pytest.fixture
def given(tmp_path: Path) -> Iterator[Given]:
    with house(tmp_path / "spool") as home:
        yield Given(home, threshold=100)


@pytest.fixture
def failing(tmp_path: Path) -> Iterator[Given]:
    with house(tmp_path / "spool") as home:
        yield Given(home, threshold=1)


def test_a_wait_is_for_the_package_that_was_deferred(given: Given) -> None:
    """Not for one dropped under its name meanwhile: that one goes at once, and the deferred one waits."""
    given.put_in_the_way(Stage.OUTBOX)
    given.failure.settle(given.attempt(), TransientError("HTTP 503: sorry", code=503))

    free = {e.name: given.waiting.lets_go(e) for e in given.home.folders.list(Stage.OUTBOX).entries}
    assert {NAME: True, NEXT: False} == free


def test_a_parked_one_that_trips_the_rollback_stays_one_package(failing: Given) -> None:
    """It was given another name as it was parked: the rollback's row is about that one, still told as unknown."""
    failing.put_in_the_way(Stage.REJECTED)
    failing.failure.settle(failing.attempt(ask=True), OutcomeUnknown("no answer"))

    home = failing.home
    assert ["ATTEMPTED", "UNKNOWN", "MOVED", "ROLLBACK"] == home.events(failing.about)
    assert [(NEXT, Stage.REJECTED, Status.UNKNOWN)] == [
        (state.name, state.stage, state.status) for state in home.index.packages_of(failing.about.sha256)
    ]
    assert f"{NEXT} tripped it" in home.folders.read_rollbacks(home.last().exec_id)


@pytest.mark.parametrize("taken_to", [None, Stage.SUBMITTED, Stage.DELIVERED])
def test_one_that_a_person_took_meanwhile_trips_the_rollback_where_it_is(
    failing: Given, taken_to: Stage | None
) -> None:
    """Its ZIP was taken out of claimed/ while it was sent: the rollback comes all the same and leaves the ZIP there."""
    home, claimed = failing.home, Path(failing.home.folders.path(Stage.CLAIMED, NAME))
    if taken_to is None:
        claimed.unlink()
    else:
        claimed.rename(home.folders.path(taken_to, NAME))
    failing.failure.settle(failing.attempt(ask=True), OutcomeUnknown("no answer"))

    assert ["ATTEMPTED", "UNKNOWN", "MOVED", "ROLLBACK"] == home.events(failing.about)
    (state,) = home.index.packages_of(failing.about.sha256)
    assert taken_to == state.stage
    assert [] == home.index.rolled_back()
    told = home.folders.read_rollbacks(home.last().exec_id)
    assert f"{NAME} tripped it; somebody has {f'moved it to {taken_to}/' if taken_to else 'taken it away'}" in told


def test_what_a_rollback_renames_is_told_by_its_new_name(failing: Given) -> None:
    """The document and the reason file name the ZIP that lies there, not the stranger's."""
    failing.put_in_the_way(Stage.REJECTED)
    failing.failure.settle(failing.attempt(), TransientError("HTTP 503: sorry", code=503))

    home = failing.home
    assert f"{NEXT} tripped it" in home.folders.read_rollbacks(home.last().exec_id)
    reason = Path(home.folders.path(Stage.REJECTED, reason_name(NEXT))).read_text()
    assert f"It is called {NEXT} now" in reason


def test_the_new_name_is_held_as_long_as_the_old_one(given: Given) -> None:
    """Nobody takes what is still being worked on for a file that a person put there."""
    given.put_in_the_way(Stage.OUTBOX)
    given.failure.settle(given.attempt(), TransientError("HTTP 503: sorry", code=503))

    in_work = given.home.desk.in_work
    assert NEXT in in_work
    in_work.release(NAME)
    assert NEXT not in in_work
