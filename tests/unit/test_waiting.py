"""Who waits in the outbox, and for what."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from tests.unit.house import Clock
from tfwatch.delivery.waiting import WaitingRoom
from tfwatch.spool.listing import Entry


def entry(name: str = "a.zip", **changes: int) -> Entry:
    return replace(Entry(name, 1, 2, 3, 4, 5), **changes)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def room(clock: Clock) -> WaitingRoom:
    return WaitingRoom(clock=clock)


def test_who_never_came_may_go(room: WaitingRoom) -> None:
    """Nobody waits without a reason."""
    assert room.lets_go(entry())
    assert room.next_due() is None


def test_a_wait_ends_at_its_moment(room: WaitingRoom, clock: Clock) -> None:
    """Not before, and then for good."""
    room.put("a.zip", entry(), 10)
    clock.go(9.9)
    assert not room.lets_go(entry())
    assert 0.1 == pytest.approx(room.next_due())
    clock.go(0.1)

    assert room.lets_go(entry())
    assert 0 == len(room)


def test_the_next_due_is_the_first(room: WaitingRoom, clock: Clock) -> None:
    """The loop sleeps no longer than that, and never a negative time."""
    room.put("a.zip", entry(), 10)
    room.put("b.zip", entry("b.zip"), 5)
    room.put_behind("c.zip", entry("c.zip"), "sha")
    assert 5 == room.next_due()
    clock.go(60)
    assert 0 == room.next_due()


@pytest.mark.parametrize("change", ["device", "inode", "size", "mtime_ns"])
def test_a_wait_belongs_to_one_file(room: WaitingRoom, change: str) -> None:
    """Another file dropped under that name is a new package, even when it got the old one's inode."""
    room.put("a.zip", entry(), 10)

    assert room.lets_go(entry(**{change: 99}))
    assert room.lets_go(entry())


def test_a_renamed_file_is_the_same(room: WaitingRoom) -> None:
    """Being put back changes only its ctime."""
    room.put("a.zip", entry(), 10)

    assert not room.lets_go(entry(ctime_ns=99))


def test_a_name_alone_waits_for_whatever_comes(room: WaitingRoom) -> None:
    """When the file could not be seen, its name waits."""
    room.put("a.zip", None, 10)

    assert not room.lets_go(entry())


def test_a_twin_waits_for_the_outcome(room: WaitingRoom, clock: Clock) -> None:
    """As long as it takes; only that content's outcome frees it."""
    room.put_behind("a.zip", entry(), "sha")
    clock.go(1e9)
    assert not room.lets_go(entry())
    assert room.next_due() is None
    assert not room.free_behind("other")
    assert not room.lets_go(entry())

    assert room.free_behind("sha")
    assert room.lets_go(entry())
    assert not room.free_behind("sha")


def test_a_backed_up_package_waits_until_deliveries_are_on(room: WaitingRoom, clock: Clock) -> None:
    """While they are off there is nothing to do for it."""
    room.put_while_off("a.zip", entry(), None)
    clock.go(1e9)
    assert not room.lets_go(entry())
    assert not room.free_behind("sha")
    room.free_all()

    assert room.lets_go(entry())


def test_one_that_waits_for_deliveries_may_try(room: WaitingRoom, clock: Clock) -> None:
    """As many as asked for, the first that came first; nobody who waits for something else."""
    room.put("round.zip", entry("round.zip"), 60)
    room.put_behind("twin.zip", entry("twin.zip"), "sha")
    room.put_while_off("a.zip", entry("a.zip"), None)
    room.put_while_off("b.zip", entry("b.zip"), 60)
    names = ("round.zip", "twin.zip", "a.zip", "b.zip")

    assert room.free_while_off(1)
    assert ["a.zip"] == [name for name in names if room.lets_go(entry(name))]
    assert room.free_while_off()
    assert ["a.zip", "b.zip"] == [name for name in names if room.lets_go(entry(name))]
    assert not room.free_while_off()


def test_the_last_wait_counts(room: WaitingRoom, clock: Clock) -> None:
    """A package waits for one thing at a time."""
    room.put_behind("a.zip", entry(), "sha")
    room.put("a.zip", entry(), 1)
    assert not room.free_behind("sha")
    clock.go(1)

    assert room.lets_go(entry())


def test_those_whose_file_is_gone_are_forgotten(room: WaitingRoom) -> None:
    """Memory follows the folder."""
    for name in ("a.zip", "b.zip"):
        room.put(name, entry(name), 10)
    room.keep_only(["b.zip", "c.zip"])

    assert 1 == len(room)
    assert room.lets_go(entry("a.zip"))
    assert not room.lets_go(entry("b.zip"))


def test_lanes_and_loop_may_use_it_at_once(room: WaitingRoom) -> None:
    """Eight threads put and free while others look: nothing breaks, nobody is left waiting."""

    def work(n: int) -> None:
        for m in range(300):
            name = f"{n}-{m}.zip"
            room.put_behind(name, entry(name), name)
            room.next_due()
            assert not room.lets_go(entry(name))
            assert room.free_behind(name)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 0 == len(room)
