"""Work that comes out when its time has come: once each, in order, to whoever waits."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from itertools import count, repeat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.house import Clock
from tfwatch.delivery.due import DueQueue

SOON = 10.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def queue(clock: Clock) -> DueQueue[str]:
    return DueQueue(clock=clock)


class Takers:
    """Threads that take until each is told to end."""

    def __init__(self, queue: DueQueue[str], count: int) -> None:
        self.taken: list[str] = []
        self._queue = queue
        self._threads = [threading.Thread(target=self._take) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def _take(self) -> None:
        while (item := self._queue.take()) is not None:
            self.taken.append(item)

    def wait_for(self, count: int) -> None:
        deadline = time.monotonic() + SOON
        while len(self.taken) < count:
            assert time.monotonic() < deadline, f"only {self.taken}"
            time.sleep(0.001)

    def close(self) -> None:
        for _ in self._threads:
            self._queue.end_one()
        for thread in self._threads:
            thread.join(SOON)
            assert not thread.is_alive()


@pytest.fixture
def takers() -> Iterator[list[Takers]]:
    made: list[Takers] = []
    yield made
    for each in made:
        each.close()


def test_what_is_due_comes_out_once(queue: DueQueue[str]) -> None:
    """Taken is out."""
    queue.put("a", 0)
    assert "a" == queue.take()
    assert 0 == len(queue)


def test_an_item_is_in_once_at_its_earliest(queue: DueQueue[str], clock: Clock) -> None:
    """Put twice, it comes at the earlier moment, and only then."""
    queue.put("a", 10)
    queue.put("a", 20)
    queue.put("a", 5)
    queue.put("b", 7)
    assert 2 == len(queue)
    clock.go(60)

    assert ["a", "b"] == [queue.take(), queue.take()]
    assert 0 == len(queue)


def test_an_item_may_come_again(queue: DueQueue[str]) -> None:
    """Polled once, it is put in for the next time."""
    for _ in range(3):
        queue.put("a", 0)
        assert "a" == queue.take()


@given(puts=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 100)), max_size=40))
def test_all_come_out_in_the_order_of_their_moments(puts: list[tuple[int, int]]) -> None:
    """Whatever is put in whatever order: each item comes out once, the earliest first, of equals the first put."""
    clock = Clock()
    queue: DueQueue[int] = DueQueue(clock=clock)
    due: dict[int, tuple[int, int]] = {}
    for n, (item, seconds) in enumerate(puts):
        queue.put(item, seconds)
        if item not in due or seconds < due[item][0]:
            due[item] = seconds, n
    clock.go(1000)

    assert sorted(due, key=lambda item: due[item]) == [queue.take() for _ in due]
    assert 0 == len(queue)


def test_nothing_comes_early(takers: list[Takers]) -> None:
    """On the real clock: an item comes out at its moment, not before."""
    queue: DueQueue[str] = DueQueue()
    takers.append(Takers(queue, 2))
    began = time.monotonic()
    queue.put("a", 0.05)
    takers[0].wait_for(1)

    assert time.monotonic() - began >= 0.05


def test_an_earlier_item_wakes_who_waits_for_a_later(takers: list[Takers]) -> None:
    """A lane that waits for an hour hears of work that is due now."""
    queue: DueQueue[str] = DueQueue()
    takers.append(Takers(queue, 1))
    queue.put("later", 3600)
    queue.put("now", 0)
    takers[0].wait_for(1)

    assert ["now"] == takers[0].taken
    assert 1 == len(queue)


def test_hurry_makes_everything_due(queue: DueQueue[str], takers: list[Takers]) -> None:
    """What was waited for has come back: all come out, in the order they were put."""
    for name in ("a", "b", "c"):
        queue.put(name, 3600)
    queue.hurry(repeat(0.0))
    assert "a" == queue.take()
    takers.append(Takers(queue, 2))
    takers[0].wait_for(2)

    assert {"b", "c"} == set(takers[0].taken)


def test_hurry_wakes_those_who_wait(takers: list[Takers]) -> None:
    """Lanes that wait for an hour take up the work at once."""
    queue: DueQueue[str] = DueQueue()
    queue.put("a", 3600)
    queue.put("b", 3600)
    takers.append(Takers(queue, 4))
    queue.hurry(repeat(0.0))
    takers[0].wait_for(2)

    assert {"a", "b"} == set(takers[0].taken)


def test_hurry_brings_forward_and_never_puts_off(queue: DueQueue[str], clock: Clock) -> None:
    """The first is due first; what was due sooner than its new moment stays where it was."""
    for name, seconds in (("later", 3600), ("soon", 1), ("late", 60)):
        queue.put(name, seconds)
    queue.hurry(count(0, 5))
    seen = []
    for _ in range(11):
        while queue.next_due() == 0.0:
            seen.append((clock.now - 1000, queue.take()))
        clock.go(1)
    assert [(0, "soon"), (5, "late"), (10, "later")] == seen


def test_spread_lays_out_what_is_overdue(queue: DueQueue[str], clock: Clock) -> None:
    """What was held up comes little by little, the longest overdue first; what is not due yet is left alone."""
    for name, seconds in (("b", 2), ("a", 1), ("c", 3), ("later", 9)):
        queue.put(name, seconds)
    clock.go(5)
    queue.spread(count(0, 10))
    seen = []
    for _ in range(22):
        while queue.next_due() == 0.0:
            seen.append((clock.now - 1005, queue.take()))
        clock.go(1)
    assert [(0, "a"), (4, "later"), (10, "b"), (20, "c")] == seen
    assert queue.next_due() is None


def test_one_busy_taker_leaves_nothing_lying(takers: list[Takers]) -> None:
    """A thousand items put by four threads reach eight takers, each item once."""
    queue: DueQueue[str] = DueQueue()
    takers.append(Takers(queue, 8))

    def put(n: int) -> None:
        for m in range(250):
            queue.put(f"{n}-{m}", (m % 5) / 1000)

    threads = [threading.Thread(target=put, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    takers[0].wait_for(1000)

    assert 1000 == len(set(takers[0].taken)) == len(takers[0].taken)


def test_each_ending_lets_one_go(queue: DueQueue[str]) -> None:
    """One taker gets None for each ending, before anything that is due; what is due stays in for the others."""
    queue.put("later", 3600)
    takers = Takers(queue, 3)
    takers.close()
    queue.put("a", 0)
    queue.end_one()

    assert [] == takers.taken
    assert queue.take() is None
    assert "a" == queue.take()
