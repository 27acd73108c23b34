"""What systemd hears, message for message, by a clock that goes when it is told to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from loguru import logger

from tests.unit.house import Clock
from tfwatch import __version__, local_time
from tfwatch.delivery.progress import DISK_SECONDS, SLOW_CALL_SECONDS, Board, call_timeout
from tfwatch.delivery.trouble import Trouble
from tfwatch.errors import ServiceError, SheetDrift, TransientError
from tfwatch.observe import status_line
from tfwatch.observe.health import Health
from tfwatch.observe.notice import notifier, status, watchdog_seconds
from tfwatch.observe.standstill import standing_still
from tfwatch.spool.folders import Folders

STILL = "not a byte has moved"


@pytest.fixture
def clock() -> Clock:
    return Clock(0.0)


@pytest.fixture
def board(clock: Clock) -> Board:
    return Board(clock=clock)


@pytest.fixture
def told() -> Iterator[list[str]]:
    """What the journal is told."""
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(message.record["message"]), format="{message}")
    yield lines
    logger.remove(sink)


@pytest.fixture
def sao_paulo() -> Iterator[None]:
    local_time.use("America/Sao_Paulo")
    yield
    local_time.use("local")


# --- standing still ---------------------------------------------------------------------------------------------------


def test_work_stands_still_after_twice_its_timeout(board: Board, clock: Clock) -> None:
    """Not at once, not while a byte moves now and then, not when it is merely old."""
    with board.working("a.zip", "sending", 10**9, timeout=30) as progress:
        for done in range(20):
            clock.go(60)
            assert [] == board.standing_still()
            progress(done)
        clock.go(60)
        assert [] == board.standing_still()
        clock.go(1)
        ((work, seconds),) = board.standing_still()
        assert ("a.zip", "sending", 61) == (work.name, work.doing, seconds)
        progress(20)
        assert [] == board.standing_still()
    clock.go(3600)
    assert [] == board.standing_still(), "whoever has no work can't stand still"


def test_a_reading_within_a_task_counts_as_its_movement(board: Board, clock: Clock) -> None:
    """The outer task did not move meanwhile, and goes on from the reading's end."""
    with board.working("a.zip", "sending", 1, timeout=30):
        with board.working("a.zip", "reading", 1, timeout=30) as progress:
            clock.go(59)
            progress(1)
            clock.go(59)
        assert [] == board.standing_still()


def test_each_kind_of_call_has_its_patience() -> None:
    """As long as its own settings allow, and never less than a slow name server takes."""
    assert [65, 35, 35] == [call_timeout(seconds) for seconds in (60, 30, 0.5)]
    assert call_timeout(30) < DISK_SECONDS < SLOW_CALL_SECONDS


def test_a_standstill_lasts_until_a_byte_moves(board: Board, clock: Clock) -> None:
    """What is told of it names the package, the work and what happens next; with the next byte there is none."""
    with board.working("a.zip", "sending", 1, timeout=1) as progress:
        for _ in range(2):
            clock.go(3)
            ((work, words),) = standing_still(board, is_watched=True)
            assert "a.zip" == work.name
            assert words.startswith("a.zip: not a byte has moved for 3 s (sending)")
            assert "systemd starts tfwatch anew" in words
            progress(1)
            assert [] == standing_still(board, is_watched=True)


def test_without_systemd_a_person_is_asked(board: Board, clock: Clock) -> None:
    """Nobody restarts the daemon then, so nobody is said to."""
    with board.working("a.zip", "sending", 1, timeout=1):
        clock.go(3)
        ((_, words),) = standing_still(board, is_watched=False)
    assert "systemd" not in words
    assert "start tfwatch anew" in words


# --- a long start -----------------------------------------------------------------------------------------------------


def test_signs_of_life_are_seconds_apart_and_end_with_the_start(tmp_path: Path, clock: Clock) -> None:
    """Whatever the progress, systemd is not flooded; each sign asks for longer than until the next one."""
    said: list[str] = []
    health = Health(
        Folders(str(tmp_path)), exec_id="X", version=__version__, notify=said.append, watchdog_seconds=None, clock=clock
    )
    for _ in range(100):
        clock.go(0.5)
        health.starting("log.csv is verified")
    assert 10 == len(said)
    (words,) = set(said)
    assert "EXTEND_TIMEOUT_USEC=120000000\nSTATUS=starting: log.csv is verified" == words


# --- the line ---------------------------------------------------------------------------------------------------------


def test_a_line_stays_one_line() -> None:
    """No control character, no line end of any alphabet, no half character; cut where systemd would drop it all."""
    assert "STATUS=a STOPPING=1 b c d" == status("a\nSTOPPING=1\r\n\x00b\u2028c\x85\x1b\ud800d")
    long = status("é" * 5000)
    assert 1900 < len(long.encode()) < 4096
    assert long.endswith("é…")


def _stand(state: str = "enabled", trouble: Trouble | None = None, reason: str = "") -> dict[str, Any]:
    shown = {"state": state, "reason": reason, "trouble": "", "trouble_since": "", "needs_person": False}
    if trouble is None:
        return shown
    since = trouble.since.isoformat()
    return shown | {"trouble": trouble.words, "trouble_since": since, "needs_person": trouble.needs_person}


def _line(**stands: dict[str, Any]) -> str:
    now = datetime(2025, 11, 13, 13, 50, tzinfo=UTC)
    integrations = {name: stands.get(name, _stand("off")) for name in status_line.NAMES}
    return status_line.line(
        "/var/lib/tfwatch/outbox", {"outbox": 0, "submitted": 14}, sending=2, delivered_today=312,
        integrations=integrations, problems=("first", "second"), now=now,
    )  # fmt: skip


def test_the_line_in_full(sao_paulo: None) -> None:
    """As systemctl shows it: counts, then services and since when they are in trouble, then what is most urgent."""
    since = datetime(2025, 11, 13, 13, 42, tzinfo=UTC)
    assert (
        "watching /var/lib/tfwatch/outbox · 2 sending · 14 submitted · 312 delivered today · S3 retrying since 10:42 · "
        "first"
    ) == _line(s3=_stand(trouble=Trouble(words="no route", since=since)))


def test_what_began_on_another_day_has_its_date(sao_paulo: None) -> None:
    """02:10 UTC is the day before, there."""
    since = datetime(2025, 11, 13, 2, 10, tzinfo=UTC)
    trouble = Trouble(words="share it", since=since, needs_person=True)
    assert "Sheets in trouble since 2025-11-12 23:10: share it" in _line(sheets=_stand(trouble=trouble))


def test_an_integration_that_may_not_be_used_says_why() -> None:
    """The state and its reason; one that is off because it shall be, nothing."""
    line = _line(gotranscript=_stand("paused", reason="no funds"))
    assert "GoTranscript paused: no funds" in line
    assert "S3" not in line


def test_an_episode_of_trouble_keeps_its_beginning() -> None:
    """However its words change; whether a person must act is the last failure's to say."""
    first = Trouble.of("down", before=None, failure=TransientError("down"))
    refused = Trouble.of("no", before=first, failure=ServiceError("no"))
    drifted = Trouble.of("sorted", before=refused, failure=SheetDrift("sorted", rows=(1,)))
    assert [first.since] * 2 == [refused.since, drifted.since]
    assert [False, True, True] == [each.needs_person for each in (first, refused, drifted)]


# --- what systemd gives a service -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "60000000"}, 60.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": str(os.getpid())}, 60.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_how_often_systemd_waits_for_us(environ: dict[str, str], expected: float | None) -> None:
    """A watchdog that is meant for another process, or makes no sense, is none."""
    assert expected == watchdog_seconds(environ)


def test_without_systemd_nobody_is_told() -> None:
    """No socket, no message, no complaint."""
    notifier({})("READY=1")
