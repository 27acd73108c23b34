"""A requeue that comes while something happens to the package: it is done as things are then, or it is said why not."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from loguru import logger

from tests.unit.house import Clock, House, house, package
from tfwatch import requests
from tfwatch.delivery.in_work import InWork
from tfwatch.delivery.operate import Operate
from tfwatch.delivery.rollback import Rollback
from tfwatch.delivery.switch import Switch
from tfwatch.model import Event, Integration, Package, Stage
from tfwatch.requests import Request

O, C, S, D, R = Stage.OUTBOX, Stage.CLAIMED, Stage.SUBMITTED, Stage.DELIVERED, Stage.REJECTED  # noqa: E741


class LastMoment(InWork):
    """Something happens right before the first name is taken, as when a lane has just let go of it."""

    def __init__(self, happens: Callable[[], object]) -> None:
        super().__init__()
        self._happens = [happens]

    def take(self, key: str) -> bool:
        while self._happens:
            self._happens.pop()()
        return super().take(key)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[House]:
    with house(tmp_path / "spool") as opened:
        yield opened


@pytest.fixture
def told() -> Iterator[list[str]]:
    """The warnings."""
    messages: list[str] = []
    sink = logger.add(lambda message: messages.append(message.record["message"]), level="WARNING")
    yield messages
    logger.remove(sink)


def requeue(home: House, about: Package, *, forced: bool = False) -> None:
    """As the command does; the request is taken, whatever becomes of it."""
    switch = Switch(Integration.GOTRANSCRIPT, home.index, clock=Clock())
    rollback = Rollback(home.desk, switch, threshold=3, clock=Clock())
    operate = Operate(home.desk, {Integration.GOTRANSCRIPT: switch}, rollback)
    names, digests = (about.name,), (str(about.sha256),)
    requests.leave(home.folders, Request(command="requeue", user="ana", names=names, sha256s=digests, forced=forced))
    assert operate.take_all()
    assert not operate.is_waiting
    assert [] == list(home.folders.waiting_requests())


def test_a_verdict_at_the_last_moment_is_seen(home: House) -> None:
    """A lane brings it from submitted/ to delivered/ right before its turn: it is requeued from there."""
    about = home.lay(package(), O)
    where = home.accept(about)
    home.desk.in_work = LastMoment(lambda: home.desk.settle(about, Event.COMPLETED, where, order_id="4711"))
    requeue(home, about, forced=True)

    assert [O] == home.stages(about)
    assert ["COMPLETED", "REQUEUED"] == home.events()[-2:]


@pytest.mark.parametrize("stage", [S, D, R])
def test_one_whose_file_is_gone_is_told(home: House, told: list[str], stage: Stage) -> None:
    """A person took it: nothing is logged here, and whoever asked for it reads why nothing came of it."""
    about = home.lay(package(), O)
    where = home.attempt(about) if stage is R else home.complete(about) if stage is D else home.accept(about)
    if stage is R:
        home.desk.settle(about, Event.UNKNOWN, where, to=R, reason="Nobody knows.\n")
    before = home.events()
    os.unlink(home.folders.path(stage, about.name))
    requeue(home, about, forced=True)

    assert before == home.events()
    (warning,) = told
    assert "requeue call_v1.zip: its file is not in the folder where the log has it" in warning


def test_one_that_waits_in_claimed_is_told(home: House, told: list[str]) -> None:
    """Its outcome is unknown: it is not pulled from there, and whoever asked for it reads that."""
    about = home.lay(package(), O)
    home.attempt(about)
    requeue(home, about)

    assert [C] == home.stages(about)
    (warning,) = told
    assert "requeue call_v1.zip: it is being worked on" in warning


def test_one_that_was_requeued_already_is_no_news(home: House, told: list[str]) -> None:
    """The daemon died before it removed the request: doing it twice is doing it once."""
    about = home.lay(package(), O)
    home.complete(about)
    requeue(home, about, forced=True)
    requeue(home, about, forced=True)

    assert 1 == home.events().count(Event.REQUEUED)
    assert [] == told
