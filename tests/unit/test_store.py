"""Copies that can't be made: whose fault it is, who is told, and when it is tried again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.contract.fake_storage import FakeStorage
from tests.unit.house import House, house, package
from tfwatch.delivery.progress import Board
from tfwatch.delivery.store import BETWEEN_BACKUPS, Store
from tfwatch.delivery.waiting import WaitingRoom
from tfwatch.errors import ServiceError
from tfwatch.model import Package, Stage

FORBIDDEN = ServiceError("S3: forbidden", code=403, hint="check the keys")


class Given:
    """A house with a store."""

    def __init__(self, home: House) -> None:
        self.home = home
        self.storage = FakeStorage()
        self.store = Store(home.desk, WaitingRoom(), Board(), None, stopping=lambda: False)  # type: ignore[arg-type]

    def delivered(self, name: str) -> Package:
        about = self.home.lay(package(name), Stage.OUTBOX)
        self.home.complete(about, order_id=about.sha256)
        return about

    def back_up(self, about: Package) -> float | None:
        wiring: Any = SimpleNamespace(storage=self.storage, policy=SimpleNamespace(s3_prefix=""))
        return self.store.back_up(about.sha256, about.name, wiring)

    def path(self, about: Package) -> Path:
        return Path(self.home.folders.path(Stage.DELIVERED, about.name))


@pytest.fixture
def given(tmp_path: Path) -> Iterator[Given]:
    with house(tmp_path / "spool") as home:
        yield Given(home)


def test_a_file_that_can_not_be_had_is_no_trouble_of_the_storage(given: Given) -> None:
    """Told of by its path, however often others get through in between; its pauses grow."""
    bad = given.delivered("bad.zip")
    given.path(bad).write_bytes(b"another")
    for n in range(3):
        least = BETWEEN_BACKUPS.initial * 2**n / 2
        assert least <= (given.back_up(bad) or 0) <= 2 * least
        assert "" == given.store.trouble
        assert given.back_up(given.delivered(f"good{n}.zip")) is None

    (told,) = given.store.problems()
    assert told.startswith(f"{given.path(bad)}: can't be backed up: ")
    assert 3 == given.home.events(bad).count("BACKUP_FAILED")


def test_it_is_forgotten_once_it_is_stored_or_gone(given: Given) -> None:
    """Status shows what is still so."""
    bad, gone = given.delivered("bad.zip"), given.delivered("gone.zip")
    for about in (bad, gone):
        given.path(about).write_bytes(b"another")
        given.back_up(about)
    assert 2 == len(given.store.problems())
    given.path(bad).write_bytes(os.fsencode(bad.name))
    given.path(gone).unlink()

    assert given.back_up(bad) is None
    assert [] == given.store.problems()


def test_a_storage_that_refuses_is_in_trouble_until_one_gets_through(given: Given) -> None:
    """Its words and what to do; the first success ends it."""
    first, second = given.delivered("a.zip"), given.delivered("b.zip")
    given.storage.failures = [FORBIDDEN, FORBIDDEN]
    for about in (first, second):
        assert given.back_up(about) is not None
    assert "S3: forbidden; check the keys" == given.store.trouble

    assert given.back_up(first) is None
    assert "" == given.store.trouble
    assert [] == given.store.problems()
