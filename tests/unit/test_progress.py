"""What is under way: shown while it lasts, gone when it ends, however it ends."""

from __future__ import annotations

import threading

import pytest

from tests.unit.house import Clock
from tfwatch.delivery.progress import Board, Work


@pytest.fixture
def clock() -> Clock:
    return Clock(0.0)


@pytest.fixture
def board(clock: Clock) -> Board:
    return Board(clock=clock)


def test_work_is_shown_with_its_progress(board: Board, clock: Clock) -> None:
    """Bytes done and the moment of the last step: a watchdog sees that it moves."""
    with board.working("a.zip", "sending", 100) as progress:
        assert [Work(name="a.zip", doing="sending", done=0, total=100, began=0, moved=0)] == board.snapshot()
        clock.go(5)
        progress(40)
        assert [Work(name="a.zip", doing="sending", done=40, total=100, began=0, moved=5)] == board.snapshot()

    assert [] == board.snapshot()


def test_work_that_fails_is_gone_too(board: Board) -> None:
    """An exception leaves nothing on the board."""
    with pytest.raises(ValueError, match="no"), board.working("a.zip", "sending", 1):
        raise ValueError("no")
    assert [] == board.snapshot()


def test_work_within_work_takes_its_place(board: Board) -> None:
    """While a lane reads within a larger task, the reading is shown, and then the task again as it was."""
    with board.working("a.zip", "sending", 100) as progress:
        progress(40)
        with board.working("a.zip", "looking up", 0):
            assert ["looking up"] == [work.doing for work in board.snapshot()]
        assert [("sending", 40)] == [(work.doing, work.done) for work in board.snapshot()]


def test_each_lane_has_its_own(board: Board, clock: Clock) -> None:
    """Several at once, the longest first."""
    began, end = threading.Event(), threading.Event()

    def lane() -> None:
        with board.working("b.zip", "inspecting", 1):
            began.set()
            end.wait(10)

    with board.working("a.zip", "sending", 1):
        clock.go(1)
        thread = threading.Thread(target=lane)
        thread.start()
        assert began.wait(10)
        assert ["a.zip", "b.zip"] == [work.name for work in board.snapshot()]
    assert ["b.zip"] == [work.name for work in board.snapshot()]
    end.set()
    thread.join()
    assert [] == board.snapshot()
