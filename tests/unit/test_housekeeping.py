"""Retention's thread: when it looks, what it says, and that it ends when it is told to."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.daemon import PATIENCE, wait_until
from tests.unit.house import NOON, House, house, package
from tfwatch.housekeeping import Housekeeping
from tfwatch.model import Stage

GIB = 1 << 30


class Given:
    """A house, and what beside it decides: settings, S3's stand, the room on the disk."""

    def __init__(self, home: House, monkeypatch: pytest.MonkeyPatch) -> None:
        self.home = home
        self.looks = 0
        self.failures: list[BaseException] = []
        self.stop = threading.Event()
        self.s3: Any = SimpleNamespace(stand=SimpleNamespace(open=True, word="enabled"))
        self.storage: Any = object()
        self.policy: Any = SimpleNamespace(delivered_days=30, rejected_days=None, min_free_bytes=GIB)
        monkeypatch.setattr(home.desk, "now", lambda: NOON + timedelta(days=1))
        retention: Any = SimpleNamespace(run=self.run, problems=("from retention",))
        self.keeping = Housekeeping(
            home.desk, retention, wiring=lambda: self.wiring, s3=self.s3, stop=self.stop, failed=self.failures.append
        )  # fmt: skip

    @property
    def wiring(self) -> Any:
        return SimpleNamespace(policy=self.policy, storage=self.storage)

    def run(self, wiring: Any, storage: Any) -> int:
        self.looks += 1
        self.given = storage
        return 0


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Given]:
    with house(tmp_path / "spool") as home:
        made = Given(home, monkeypatch)
        yield made
        made.keeping.stop(time.monotonic() + PATIENCE)


def test_it_looks_at_its_start_and_after_each_change(given: Given) -> None:
    """Then it sleeps; a stop wakes and ends it."""
    given.keeping.start()
    wait_until(lambda: given.looks == 1, "it looks")
    given.keeping.configure()
    wait_until(lambda: given.looks == 2, "it looks again")
    thread = given.keeping._thread

    given.keeping.stop(time.monotonic() + PATIENCE)

    assert not thread.is_alive()
    assert [] == given.failures


def test_a_bug_in_it_ends_the_process(given: Given, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is handed on with its traceback, like any lane's."""
    monkeypatch.setattr(given.home.folders, "free_bytes", lambda: 1 // 0)
    given.keeping.start()
    wait_until(lambda: given.failures, "it is handed on")
    assert isinstance(given.failures[0], ZeroDivisionError)


@pytest.mark.parametrize("off", ["not set up", "disabled"])
def test_while_s3_is_off_nothing_delivered_goes_and_it_is_said(given: Given, off: str) -> None:
    """Whether it is not configured or a person switched it off: retention is given no storage."""
    if off == "not set up":
        given.storage = None
    given.s3.stand = SimpleNamespace(open=False, word="off" if given.storage is None else "disabled")
    given.keeping._look()

    assert given.given is None
    held, last = given.keeping.problems
    assert held.startswith("retention.delivered_days: nothing is removed from delivered/ while s3 is ")
    assert f" {given.s3.stand.word}, " in held
    assert "from retention" == last


def test_without_delivered_days_s3_is_nobodys_matter(given: Given) -> None:
    """Who removes rejects only needs no S3."""
    given.policy.delivered_days, given.storage = None, None
    assert ("from retention",) == given.keeping.problems


def test_it_says_when_the_disk_fills_first(given: Given, monkeypatch: pytest.MonkeyPatch) -> None:
    """10 GiB came within the week and must stay for a month; 8 are free, of which one must be."""
    about = package("big.zip")
    large = replace(about, bytes=10 * GIB)
    given.home.lay(about, Stage.OUTBOX)
    given.home.complete(large)
    monkeypatch.setattr(given.home.folders, "free_bytes", lambda: 8 * GIB)

    given.keeping._look()

    first, *_ = given.keeping.problems
    assert first.startswith(
        "the disk is full in about 5 days: 8.0 GiB are free and about 1.4 GiB a day stay; retention"
    )
