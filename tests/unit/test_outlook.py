"""When it is said that the disk fills before retention can help, and when nothing is said."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from tests.unit.house import NOON, House, fact, house, package, waiting
from tfwatch.ledger.room import came_to_stay, will_be_removed
from tfwatch.model import Event, Stage, write_detail
from tfwatch.outlook import GROWTH_DAYS, HORIZON_DAYS, disk_fills, size_of

GIB = 1 << 30


def outlook(free: int, a_day: float, frees: tuple[int, ...] = (), *, keeps: bool = False) -> str | None:
    """In GiB; one GiB must stay free. After the days given, nothing is removed."""
    days = [count * GIB for count in frees] + [0] * (HORIZON_DAYS - len(frees))
    return disk_fills(
        free_bytes=free * GIB, least_bytes=GIB, bytes_a_day=a_day * GIB, frees=days, keeps=keeps
    )  # fmt: skip


def test_nothing_is_said_while_there_is_room_for_two_weeks() -> None:
    """A disk that would fill in a year needs nobody today."""
    assert outlook(100, 1) is None
    assert outlook(2, 0) is None


def test_it_is_said_on_which_day_the_disk_is_full() -> None:
    """With 10 GiB free, 2 a day come in and one must stay free: on the fifth day."""
    said = outlook(10, 2)
    assert said is not None
    assert said.startswith("the disk is full in about 5 days: 10 GiB are free and about 2.0 GiB a day stay; retention ")


def test_what_is_removed_in_time_is_counted() -> None:
    """As much goes as comes: nothing is said. The same too late: it is."""
    assert outlook(10, 2, (2,) * HORIZON_DAYS) is None
    late = outlook(10, 2, (0, 0, 0, 0, 0, 50))
    assert late is not None
    assert "retention frees only 0 B until then: free some space, or lower retention.delivered_days" in late
    assert outlook(10, 2, (0, 0, 0, 50)) is None


def test_a_disk_that_fills_today_is_said_so() -> None:
    """One day is no plural."""
    said = outlook(3, 5)
    assert said is not None
    assert said.startswith("the disk is full within 1 day: ")


def test_without_any_retention_that_is_the_advice() -> None:
    """Nothing is set to be removed, so nothing will be."""
    said = outlook(10, 2, keeps=True)
    assert said is not None
    assert said.endswith("nothing is set to be removed: free some space, or set retention.delivered_days")


def test_less_than_the_least_has_its_own_words() -> None:
    """Status has that sentence already."""
    assert disk_fills(free_bytes=GIB - 1, least_bytes=GIB, bytes_a_day=GIB, frees=[0]) is None


@pytest.mark.parametrize(
    ("count", "said"),
    [(0, "0 B"), (1000, "1,000 B"), (300 << 20, "300 MiB"), (3 * GIB // 2, "1.5 GiB"), (5000 * GIB, "4.9 TiB")],
)
def test_sizes_are_for_people(count: int, said: str) -> None:
    """Two digits are enough."""
    assert said == size_of(count)


# --- from the log -----------------------------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path) -> Iterator[House]:
    with house(tmp_path / "spool") as made:
        yield made


def deliver(home: House, name: str, *, backed_up: bool = True) -> int:
    about = home.lay(package(name), Stage.OUTBOX)
    where = home.complete(about, order_id=about.sha256)
    if backed_up:
        detail = write_detail(key=name)
        home.desk.settle(about, Event.BACKED_UP, where, order_id=about.sha256, detail=detail)
    return about.bytes


def test_growth_is_what_came_to_stay(home: House) -> None:
    """Delivered, pruned since, and rejected count; what people took away, and what came earlier, doesn't."""
    deliver(home, "early.zip")
    home._at = NOON + timedelta(days=20)
    stay = deliver(home, "stays.zip") + deliver(home, "pruned.zip")
    pruned, taken = package("pruned.zip"), package("taken.zip")
    deliver(home, "taken.zip")
    home.record(fact(pruned, Event.PRUNED, Stage.DELIVERED, None), fact(taken, Event.MOVED, Stage.DELIVERED, None))
    bad = home.lay(package("bad.zip"), Stage.OUTBOX)
    home.desk.settle(bad, Event.REFUSED, waiting(bad))

    assert (stay + bad.bytes) / GROWTH_DAYS == came_to_stay(home.index, NOON + timedelta(days=21))


def test_what_goes_is_counted_on_its_day(home: House) -> None:
    """Overdue on the first day; each other one on the day it is due; never what has no backup yet."""
    first = deliver(home, "first.zip")
    deliver(home, "unbacked.zip", backed_up=False)
    home._at = NOON + timedelta(days=4)
    second = deliver(home, "second.zip")
    home._at = NOON + timedelta(days=5)
    bad = home.lay(package("bad.zip"), Stage.OUTBOX)
    home.desk.settle(bad, Event.REFUSED, waiting(bad))
    now = NOON + timedelta(days=6)

    removed = will_be_removed(home.index, now, {Stage.DELIVERED: 5, Stage.REJECTED: None})

    assert [first, 0, 0, second] == removed[:4]
    assert first + second == sum(removed)
    assert bad.bytes == sum(will_be_removed(home.index, now, {Stage.DELIVERED: None, Stage.REJECTED: 2}))
