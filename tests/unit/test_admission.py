"""A claimed file that may have been sent stays in claimed/, whatever keeps it from going on now."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.daemon import zip_bytes
from tests.unit.house import House
from tests.unit.house import house as open_house
from tests.unit.house import package as make_package
from tfwatch.delivery.admit import Admission
from tfwatch.delivery.progress import Board
from tfwatch.delivery.recognise import Claim
from tfwatch.delivery.waiting import WaitingRoom
from tfwatch.delivery.wiring import Policy
from tfwatch.model import Actor, Event, Package, Stage, Status
from tfwatch.spool.intake import Limits

LIMITS = Limits(max_bytes=10**9, max_entries=1000, max_uncompressed_bytes=10**9)
POLICY: Policy = SimpleNamespace(limits=LIMITS, verify="full")  # type: ignore[assignment]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with open_house(tmp_path / "spool") as opened:
        yield opened


@pytest.fixture
def limbo() -> list[str]:
    """The names that were told to wait in claimed/."""
    return []


@pytest.fixture
def admission(house: House, limbo: list[str]) -> Admission:
    return Admission(
        house.desk, WaitingRoom(), Board(), stopping=lambda: False, freed=lambda: None,
        in_limbo=lambda name, seconds: limbo.append(name),
    )  # fmt: skip


def lay(house: House, data: bytes) -> Package:
    """A file in claimed/."""
    about = make_package("p.zip", data)
    Path(house.folders.path(Stage.CLAIMED, "p.zip")).write_bytes(data)
    return about


def admit(house: House, admission: Admission, policy: Policy = POLICY, *, name: str = "p.zip", **words: Any) -> object:
    with house.folders.reader(Stage.CLAIMED, name) as file:
        return admission.admit(Claim(name=name, dropped_as=name, **words), file.fileno(), policy)


def test_an_attempted_one_waits_behind_its_twin_in_claimed(
    house: House, admission: Admission, limbo: list[str]
) -> None:
    """Its outcome is unknown, so it must not lie in outbox/, not even while a twin of it is looked at."""
    about = lay(house, zip_bytes())
    house.attempt(about)
    assert house.desk.in_work.take(about.sha256)
    assert admit(house, admission, recovered=True) is None
    assert [Stage.CLAIMED] == house.stages(about)
    assert ["p.zip"] == limbo


def test_only_the_outbox_is_a_decision(house: House, admission: Admission) -> None:
    """One whose outcome is unknown was taken away and is found in claimed/: nobody has said that it be sent again."""
    about = lay(house, zip_bytes())
    where = house.desk.settle(about, Event.UNKNOWN, house.attempt(about), to=Stage.CLAIMED)
    house.desk.settle(about, Event.MOVED, where, to=None, actor=Actor.OPERATOR)
    assert admission.recover(Claim(name="p.zip", dropped_as="p.zip", recovered=True))
    assert [Stage.CLAIMED] == house.stages(about)
    state = house.index.package(about.sha256, about.name)
    assert state is not None
    assert (Stage.CLAIMED, Status.UNKNOWN, None) == (state.stage, state.status, state.requeued_by)
    assert admission.recover(Claim(name="p.zip", dropped_as="p.zip", recovered=True))
    assert ["ATTEMPTED", "UNKNOWN", "MOVED", "MOVED"] == house.events(about)


def test_a_new_one_waits_behind_its_twin_in_the_outbox(house: House, admission: Admission, limbo: list[str]) -> None:
    """Nothing of it was sent: it waits where people see it."""
    about = lay(house, zip_bytes())
    assert house.desk.in_work.take(about.sha256)
    assert admit(house, admission) is None
    assert [Stage.OUTBOX] == house.stages(about)
    assert [] == limbo


@pytest.mark.parametrize("recovered", [True, False])
def test_an_attempted_one_that_shrank_stays_in_claimed(
    house: House, admission: Admission, limbo: list[str], recovered: bool
) -> None:
    """Whoever cut it: what was sent may have been accepted."""
    about = lay(house, zip_bytes())
    house.attempt(about)
    Path(house.folders.path(Stage.CLAIMED, "p.zip")).write_bytes(zip_bytes()[:-30])
    assert admit(house, admission, recovered=recovered) is None
    assert [Stage.CLAIMED] == house.stages(about)
    assert ["p.zip"] == limbo


# --- refused now, and perhaps accepted already ----------------------------------------------------------------------

TIGHT: Policy = SimpleNamespace(limits=replace(LIMITS, max_bytes=10), verify="full")  # type: ignore[assignment]


def to_outbox(house: House, source: Stage, about: Package, name: str = "p.zip") -> None:
    """As a person does, and then claimed from there."""
    os.rename(house.folders.path(source, about.name), house.folders.path(Stage.CLAIMED, name))


def assert_parked(house: House, about: Package, name: str = "p.zip") -> None:
    assert [(name, Stage.REJECTED, Status.UNKNOWN)] == [
        (state.name, state.stage, state.status) for state in house.index.packages_of(about.sha256)
    ]
    assert [name] == [state.name for state in house.index.parked()]
    assert {name} == house.lies_in(Stage.REJECTED)
    reason = Path(house.folders.path(Stage.REJECTED, f"{name}.reason.txt")).read_text()
    assert f"Nobody knows whether {name} was delivered" in reason
    assert "intake.max_bytes allows 10" in reason
    assert "comes back from outbox/ unsent" in reason
    assert "was refused" not in reason


def test_one_that_may_have_been_sent_is_parked_when_a_limit_was_lowered(house: House, admission: Admission) -> None:
    """It was sent while it passed, so a refusal now says nothing about its order: a person decides."""
    about = lay(house, zip_bytes())
    where = house.attempt(about)
    house.desk.settle(about, Event.UNKNOWN, where, to=Stage.CLAIMED, detail="silence")
    assert admit(house, admission, TIGHT, recovered=True) is None
    assert_parked(house, about)
    assert house.index.content(about.sha256).unknown


@pytest.mark.parametrize("name", ["p.zip", "q.zip"])
def test_a_parked_one_put_back_is_parked_again(house: House, admission: Admission, name: str) -> None:
    """Under its own name or another: putting it back doesn't settle whether it was accepted."""
    about = lay(house, zip_bytes())
    where = house.attempt(about)
    house.desk.settle(about, Event.UNKNOWN, where, to=Stage.REJECTED, detail="silence", reason="Nobody knows.\n")
    to_outbox(house, Stage.REJECTED, about, name)
    assert admit(house, admission, TIGHT, name=name) is None
    assert_parked(house, about, name)


def test_a_twin_of_one_that_may_have_been_sent_is_refused(house: House, admission: Admission) -> None:
    """This copy was never sent, and the other one still waits for its outcome."""
    about = lay(house, zip_bytes())
    where = house.attempt(about)
    house.desk.settle(about, Event.UNKNOWN, where, to=Stage.CLAIMED, detail="silence")
    Path(house.folders.path(Stage.CLAIMED, "q.zip")).write_bytes(zip_bytes())
    assert admit(house, admission, TIGHT, name="q.zip") is None
    assert {"q.zip"} == house.lies_in(Stage.REJECTED)
    assert Event.REFUSED is house.last().event
    assert [Stage.CLAIMED] == house.stages(about)


def test_one_that_was_never_sent_is_refused(house: House, admission: Admission) -> None:
    """Nothing left the house: there is nothing to ask about."""
    about = lay(house, zip_bytes())
    assert admit(house, admission, TIGHT) is None
    assert [Event.REFUSED] == house.events(about)
    assert [] == house.index.parked()
