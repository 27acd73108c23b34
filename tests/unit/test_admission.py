"""A claimed file that may have been sent stays in claimed/, whatever keeps it from going on now."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.daemon import zip_bytes
from tests.unit.house import House
from tests.unit.house import house as open_house
from tests.unit.house import package as make_package
from tfwatch.delivery.admit import Admission, Claim
from tfwatch.delivery.progress import Board
from tfwatch.delivery.waiting import WaitingRoom
from tfwatch.delivery.wiring import Policy
from tfwatch.model import Package, Stage
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


def admit(house: House, admission: Admission, **words: Any) -> object:
    with house.folders.reader(Stage.CLAIMED, "p.zip") as file:
        return admission.admit(Claim(name="p.zip", dropped_as="p.zip", **words), file.fileno(), POLICY)


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
