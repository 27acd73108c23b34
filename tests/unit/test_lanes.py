"""Fixed pools of threads: as many as asked for, and a failure is never swallowed."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tfwatch.lanes import Lanes

SOON = 10.0


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < deadline, "the condition never came true"
        time.sleep(0.001)


class Work:
    """Items that take until they are let go; knows how many are under way, and on which threads they ran."""

    def __init__(self) -> None:
        self.items: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self.go = threading.Event()
        self.done: list[str] = []
        self.failures: list[BaseException] = []
        self._lock = threading.Lock()
        self.under_way: set[str] = set()
        self.lanes = Lanes("work", take=self.items.get, do=self._do, end_one=self._end_one, failed=self.failures.append)

    def _end_one(self) -> None:
        self.items.put(None)

    def _do(self, item: str) -> None:
        if item.startswith("bad"):
            raise ZeroDivisionError(item)
        with self._lock:
            self.under_way.add(item)
        self.go.wait(SOON)
        with self._lock:
            self.under_way.discard(item)
            self.done.append(item)

    def put(self, *items: str | None) -> None:
        for item in items:
            self.items.put(item)

    def threads(self) -> list[str]:
        return sorted(thread.name for thread in threading.enumerate() if thread.name.startswith("work-"))


@pytest.fixture
def work() -> Iterator[Work]:
    made = Work()
    yield made
    made.go.set()
    made.put(*[None] * 20)
    assert made.lanes.join(time.monotonic() + SOON)


def test_so_many_work_at_once(work: Work) -> None:
    """Three lanes have three items under way, the fourth waits its turn."""
    work.lanes.resize(3)
    work.put("a", "b", "c", "d")
    until(lambda: len(work.under_way) == 3)
    assert {"a", "b", "c"} == work.under_way
    work.go.set()
    until(lambda: len(work.done) == 4)


def test_more_lanes_start_at_once(work: Work) -> None:
    """Growing takes up what waits."""
    work.lanes.resize(1)
    work.put("a", "b", "c")
    until(lambda: work.under_way == {"a"})
    work.lanes.resize(3)

    until(lambda: len(work.under_way) == 3)


def test_idle_surplus_lanes_end_at_once(work: Work) -> None:
    """Shrinking needs no further item: a lane with nothing to do is gone."""
    work.lanes.resize(4)
    work.lanes.resize(1)
    until(lambda: len(work.threads()) == 1)


def test_busy_surplus_lanes_end_after_their_item(work: Work) -> None:
    """Shrinking drops no work: each surplus lane finishes what it has, then ends."""
    work.lanes.resize(4)
    work.put("a", "b", "c", "d")
    until(lambda: len(work.under_way) == 4)
    work.lanes.resize(1)
    work.go.set()
    until(lambda: len(work.threads()) == 1)
    until(lambda: {"a", "b", "c", "d"} == set(work.done))

    work.put("e")
    until(lambda: "e" in work.done)


def test_none_can_be_asked_for(work: Work) -> None:
    """Zero lanes take nothing; later ones take it."""
    work.lanes.resize(2)
    work.lanes.resize(0)
    until(lambda: work.threads() == [])
    work.go.set()
    work.put("c")
    assert [] == work.done
    work.lanes.resize(1)
    until(lambda: "c" in work.done)


def test_asking_for_the_same_again_changes_nothing(work: Work) -> None:
    """Every reload asks: no lane is added."""
    for _ in range(5):
        work.lanes.resize(2)

    assert 2 == len(work.threads())


@pytest.mark.parametrize("count", [1, 5])
def test_growing_and_shrinking_ends_with_the_last_word(work: Work, count: int) -> None:
    """Whatever was asked for in between, so many lanes are left."""
    work.go.set()
    for size in (3, 1, 4, 2, count):
        work.lanes.resize(size)
        work.put(*"abcdefgh")

    until(lambda: len(work.threads()) == count)
    until(lambda: len(work.done) == 40)


def test_a_failure_is_handed_on_and_ends_its_lane(work: Work) -> None:
    """What `do` doesn't catch reaches whoever ends the process; the other lanes go on."""
    work.lanes.resize(2)
    work.put("bad")
    until(lambda: bool(work.failures))
    assert ["bad"] == [str(error) for error in work.failures]
    until(lambda: len(work.threads()) == 1)

    work.go.set()
    work.put("a")
    until(lambda: work.done == ["a"])


def test_a_failing_take_is_handed_on_too() -> None:
    """Not only the work may be broken."""
    failures: list[BaseException] = []

    def take() -> str:
        raise OSError("dead")

    lanes = Lanes("dead", take=take, do=print, end_one=lambda: None, failed=failures.append)
    lanes.resize(1)
    assert lanes.join(time.monotonic() + SOON)
    assert ["dead"] == [str(error) for error in failures]


def test_joining_waits_no_longer_than_told(work: Work) -> None:
    """A lane that is stuck is not waited for for ever: the stop goes on, and is told."""
    work.lanes.resize(1)
    work.put("a")
    until(lambda: bool(work.under_way))
    began = time.monotonic()

    assert not work.lanes.join(time.monotonic() + 0.05)
    assert time.monotonic() - began < SOON / 2


def test_none_ends_a_lane(work: Work) -> None:
    """One None for each lane, and all are gone."""
    work.lanes.resize(3)
    work.put(None, None, None)

    assert work.lanes.join(time.monotonic() + SOON)
    assert [] == work.threads()
