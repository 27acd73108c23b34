"""What retention removes, what it leaves, and what it says of both: a ZIP that matters is never the one that goes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from loguru import logger

from tests.contract.fake_storage import FakeStorage
from tests.unit.house import NOON, House, fact, house, package, waiting
from tfwatch.delivery.moves import Moves
from tfwatch.delivery.progress import Board
from tfwatch.delivery.removing import finish_removals
from tfwatch.delivery.retention import Retention
from tfwatch.errors import Stopping, TransientError
from tfwatch.ledger.log import LogUnwritable
from tfwatch.model import Event, Package, Stage, read_detail, write_detail

D, R = Stage.DELIVERED, Stage.REJECTED
NOW = NOON + timedelta(days=40)


class Given:
    """A house forty days after its packages were settled, with a storage of backups and a retention."""

    def __init__(self, home: House, monkeypatch: pytest.MonkeyPatch) -> None:
        self.home = home
        self.storage: Any = FakeStorage()
        self.now = NOW
        self.due_again: list[str] = []
        self.warnings: list[str] = []
        monkeypatch.setattr(home.desk, "now", lambda: self.now)
        self.retention = Retention(
            home.desk, Board(), stopping=lambda: home.stopping, wait=lambda seconds: None,
            back_up=lambda about: self.due_again.append(about.name),
        )  # fmt: skip

    def delivered(self, name: str = "call_v1.zip", *, backed_up: bool = True) -> Package:
        about = self.home.lay(package(name), Stage.OUTBOX)
        where = self.home.complete(about, order_id=about.sha256)
        if backed_up:
            self.storage.objects[f"key-{name}"] = os.fsencode(name)
            detail = write_detail(bucket="b", key=f"key-{name}")
            self.home.desk.settle(about, Event.BACKED_UP, where, order_id=about.sha256, detail=detail)
        return about

    def rejected(self, name: str = "bad.zip") -> Package:
        about = self.home.lay(package(name), Stage.OUTBOX)
        self.home.desk.settle(about, Event.REFUSED, waiting(about), reason=f"{name} is bad.")
        return about

    def run(self, *, delivered: int | None = 30, rejected: int | None = 30, with_s3: bool = True) -> int:
        wiring: Any = SimpleNamespace(policy=SimpleNamespace(delivered_days=delivered, rejected_days=rejected))
        return self.retention.run(wiring, self.storage if with_s3 else None)

    def path(self, about: Package, stage: Stage = D) -> Path:
        return Path(self.home.folders.path(stage, about.name))

    def stays(self, about: Package, stage: Stage = D) -> bool:
        """Its file is there, the log has it there, and nothing is on its way out."""
        state = self.home.index.package(about.sha256, about.name)
        assert state is not None
        return self.path(about, stage).exists() and state.stage is stage and not list(self.home.folders.taken_out())

    def sweep(self) -> None:
        moves = Moves(
            self.home.desk, Board(), stopping=lambda: False, submitted=lambda about: None, delivered=lambda about: None
        )  # fmt: skip
        assert moves.sweep()


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Given]:
    with house(tmp_path / "spool") as home:
        made = Given(home, monkeypatch)
        sink = logger.add(made.warnings.append, level="WARNING", format="{message}")  # type: ignore[arg-type]
        yield made
        logger.remove(sink)


# --- what goes --------------------------------------------------------------------------------------------------------


def test_a_delivered_one_goes_once_its_backup_is_found(given: Given) -> None:
    """Its file is gone; the row tells name, SHA-256 and S3 key, leads nowhere, and keeps its status."""
    about = given.delivered()

    assert 1 == given.run()

    assert [] == given.home.stages(about)
    row = given.home.last()
    assert (Event.PRUNED, about.name, about.sha256, D, None) == (
        row.event, row.package, row.sha256, row.from_stage, row.to_stage,
    )  # fmt: skip
    assert ("delivered", "tfwatch", about.bytes) == (row.status, row.actor, row.bytes)
    assert f"key-{about.name}" == read_detail(row.detail)[0]["key"]
    assert 0 == given.run()
    assert () == given.retention.problems


def test_an_old_reject_goes_with_its_reason(given: Given) -> None:
    """Asked for by rejected_days, with or without S3."""
    about = given.rejected()

    assert 1 == given.run(with_s3=False)

    assert [] == os.listdir(given.home.folders.folder(R))
    assert (Event.PRUNED, R, None) == (
        given.home.last().event,
        given.home.last().from_stage,
        given.home.last().to_stage,
    )
    assert about.sha256 == given.home.last().sha256


def test_all_that_is_due_goes_in_one_run(given: Given) -> None:
    """However many portions that takes, and past those that must stay."""
    names = [f"n{number:03}.zip" for number in range(120)]
    for name in names:
        given.delivered(name)
    for name in names[::10]:
        given.path(package(name)).write_bytes(b"another")

    assert 108 == given.run()

    assert set(names[::10]) == given.home.lies_in(D)


def test_the_days_are_counted_from_when_it_came_there(given: Given) -> None:
    """Not from a later row: a backup made anew doesn't keep it, and a day less than asked for does."""
    about = given.delivered()
    state = given.home.index.package(about.sha256, about.name)
    assert state is not None
    given.now = state.stage_since + timedelta(days=30) - timedelta(seconds=1)
    assert 0 == given.run()
    assert given.stays(about)

    given.now += timedelta(seconds=2)

    assert state.changed_at > state.stage_since
    assert 1 == given.run()


# --- what stays -------------------------------------------------------------------------------------------------------


def test_null_keeps_for_ever(given: Given) -> None:
    """Nothing is removed that nobody asked to have removed."""
    kept, bad = given.delivered(), given.rejected()

    assert 0 == given.run(delivered=None, rejected=None)

    assert given.stays(kept)
    assert given.stays(bad, R)


def test_without_s3_nothing_delivered_goes(given: Given) -> None:
    """No backup can be looked at, so none is believed."""
    about = given.delivered()

    assert 0 == given.run(with_s3=False)

    assert given.stays(about)


def test_one_without_a_backup_stays(given: Given) -> None:
    """It is not even looked at."""
    about = given.delivered(backed_up=False)

    assert 0 == given.run()

    assert given.stays(about)


@pytest.mark.parametrize(("there", "said"), [(None, "is missing"), (b"another ZIP", "is another object")])
def test_one_whose_backup_is_not_right_stays_and_is_stored_again(given: Given, there: bytes | None, said: str) -> None:
    """That is found out right then, told, logged as BACKUP_FAILED, and a new copy is due."""
    about = given.delivered()
    key = f"key-{about.name}"
    del given.storage.objects[key]
    if there is not None:
        given.storage.objects[key] = there

    assert 0 == given.run()

    assert given.stays(about)
    assert Event.BACKUP_FAILED == given.home.last().event
    assert [about.name] == given.due_again == [state.name for state in given.home.index.unbacked()]
    (warning,) = given.warnings
    assert f"{about.name}: its backup {key} {said}" in warning
    assert 0 == given.run()
    assert 1 == len(given.warnings)


def test_s3_that_can_not_be_asked_is_told_and_holds_up_no_reject(given: Given) -> None:
    """Nothing delivered goes on a guess; the problem is gone with the next run that gets through."""
    about, bad = given.delivered(), given.rejected()
    given.storage.failures.append(TransientError("S3: 503"))

    assert 1 == given.run()

    assert given.stays(about)
    assert [] == given.home.stages(bad)
    (problem,) = given.retention.problems
    assert "S3: 503" in problem
    assert 1 == given.run()
    assert () == given.retention.problems


def test_changed_bytes_stay_and_are_told(given: Given) -> None:
    """Of the same size and age, under the same name: the SHA-256 tells."""
    about = given.delivered()
    given.path(about).write_bytes(b"X" + os.fsencode(about.name)[1:])

    for _ in range(2):
        assert 0 == given.run()

    assert given.stays(about)
    (problem,) = given.retention.problems
    assert problem.startswith(f"{given.path(about)}: retention leaves it: it is not the file that was logged")


def test_a_link_is_never_followed(given: Given, tmp_path: Path) -> None:
    """Somebody put a link in its place: neither it nor what it leads to is touched."""
    about = given.delivered()
    outside = given.path(about).rename(tmp_path / "outside.zip")
    given.path(about).symlink_to(outside)

    assert 0 == given.run()

    assert outside.exists()
    assert given.path(about).is_symlink()


def put_another(path: Path) -> None:
    path.unlink()
    path.write_bytes(b"somebody's")


def write_into(path: Path) -> None:
    before = path.stat()
    with path.open("r+b") as file:
        file.write(b"X")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("change", [put_another, write_into])
def test_one_that_changes_at_the_last_moment_stays(given: Given, change: Callable[[Path], None]) -> None:
    """Between the proof and the removal a person puts another file there, or writes into it: that one is left."""
    about = given.delivered()
    verify = given.storage.verify

    class Meddling(FakeStorage):
        def verify(self, *words: Any) -> Any:
            change(given.path(about))
            return verify(*words)

    given.storage = Meddling()

    assert 0 == given.run()

    assert given.stays(about)
    assert Event.PRUNED not in given.home.events(about)


def test_one_that_is_open_for_writing_stays(given: Given) -> None:
    """Somebody may be about to change it."""
    about = given.delivered()
    with given.path(about).open("r+b"):
        assert 0 == given.run()
        assert given.stays(about)

    assert 1 == given.run()


@pytest.mark.parametrize("held", ["name", "content"])
def test_one_that_is_at_work_stays(given: Given, held: str) -> None:
    """Whoever holds its name or its content has it in hand."""
    about = given.delivered()
    with given.home.desk.in_work.holding(about.name if held == "name" else about.sha256):
        assert 0 == given.run()
    assert given.stays(about)


def test_what_is_not_settled_stays(given: Given) -> None:
    """Parked as unknown, rejected by a rollback, a twin of an unknown content, submitted: none ever goes."""
    home = given.home
    parked, rolled, submitted = (home.lay(package(name), Stage.OUTBOX) for name in ("a.zip", "b.zip", "c.zip"))
    home.desk.settle(parked, Event.UNKNOWN, home.attempt(parked), to=R, reason="nobody knows")
    home.desk.settle(rolled, Event.ROLLBACK, home.attempt(rolled), reason="rolled back")
    home.accept(submitted)
    twin = home.lay(package("twin.zip", data=b"a.zip"), Stage.OUTBOX)
    home.desk.settle(twin, Event.REFUSED, waiting(twin), reason="unknown twin")

    assert 0 == given.run()

    assert all(given.stays(about, R) for about in (parked, rolled, twin))
    assert given.stays(submitted, Stage.SUBMITTED)


def test_a_stop_ends_it_between_two(given: Given) -> None:
    """It is told to stop: what is due waits for the next run."""
    about = given.delivered()
    given.home.stopping = True

    with pytest.raises(Stopping):
        given.run()

    assert given.stays(about)


def test_one_whose_row_finds_no_room_goes_back(given: Given, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told to stop while the fact waits for room: nothing was said, so nothing is removed."""
    about = given.delivered()

    def full(facts: Any) -> Any:
        raise LogUnwritable("no room")

    monkeypatch.setattr(given.home.log, "append", full)

    with pytest.raises(Stopping):
        given.run()

    assert given.stays(about)


# --- afterwards -------------------------------------------------------------------------------------------------------


def test_it_is_no_move_of_a_persons(given: Given) -> None:
    """The sweep says nothing of a file that retention removed."""
    about = given.delivered()
    given.run()
    events = given.home.events(about)

    given.sweep()

    assert events == given.home.events(about)


def test_one_that_comes_back_is_seen_and_stays_for_its_days(given: Given) -> None:
    """MOVED from nowhere to delivered/, by an operator; its days are counted anew, its delivery is as old as ever."""
    about = given.delivered()
    settled = given.home.index.package(about.sha256, about.name)
    given.run()
    given.home._at = NOW
    given.home.lay(about, D)

    given.sweep()

    row = given.home.last()
    assert (Event.MOVED, None, D, "operator") == (row.event, row.from_stage, row.to_stage, row.actor)
    state = given.home.index.package(about.sha256, about.name)
    assert state is not None
    assert settled is not None
    assert (settled.settled_at, False, True) == (state.settled_at, state.by_hand, state.backed_up)
    assert 0 == given.run()
    given.now += timedelta(days=31)
    assert 1 == given.run()


def test_its_content_is_known_for_ever(given: Given) -> None:
    """The log keeps it: what was accepted once is a duplicate still."""
    about = given.delivered()
    given.run()

    content = given.home.index.content(about.sha256)

    assert (about.name, False) == (content.accepted_as, content.unknown)


# --- crashes ----------------------------------------------------------------------------------------------------------


def finish(given: Given) -> None:
    finish_removals(given.home.desk, stopping=lambda: False)


def test_taken_out_but_not_logged(given: Given) -> None:
    """It goes back where it was, and nothing is said: nothing happened."""
    about = given.delivered()
    given.home.folders.take_out(D, about.name)
    rows = len(given.home.records())

    finish(given)

    assert given.stays(about)
    assert rows == len(given.home.records())


@pytest.mark.parametrize("stage", [D, R])
def test_logged_but_not_removed(given: Given, stage: Stage) -> None:
    """Its removal is finished, its reason file goes too, and nothing is said twice."""
    about = given.delivered() if stage is D else given.rejected()
    given.home.folders.take_out(stage, about.name)
    given.home.record(fact(about, Event.PRUNED, stage, None))
    rows = len(given.home.records())

    finish(given)

    assert [] == list(given.home.folders.taken_out())
    assert [] == os.listdir(given.home.folders.folder(stage))
    given.sweep()
    assert rows == len(given.home.records())


def test_one_on_its_way_out_is_told_by_its_content(given: Given) -> None:
    """A file of the name of a pruned package that is another one goes back, and the sweep says that it is there."""
    about = given.delivered()
    given.run()
    given.path(about).write_bytes(b"somebody's")
    given.home.folders.take_out(D, about.name)

    finish(given)

    assert b"somebody's" == given.path(about).read_bytes()
    given.sweep()
    assert (Event.MOVED, D) == (given.home.last().event, given.home.last().to_stage)


def test_nobodys_file_is_overwritten_by_one_that_goes_back(given: Given) -> None:
    """Somebody's file came there meanwhile: both stay, and it is told."""
    about = given.delivered()
    given.home.folders.take_out(D, about.name)
    given.path(about).write_bytes(b"somebody's")

    finish(given)

    assert b"somebody's" == given.path(about).read_bytes()
    assert [(D, about.name)] == list(given.home.folders.taken_out())
    (told,) = given.home.desk.left_aside.values()
    assert "can't be put back" in told


# --- figures ----------------------------------------------------------------------------------------------------------


def test_the_index_finds_what_is_due_without_reading_all(given: Given) -> None:
    """A hundred thousand delivered packages cost nothing while none is due."""
    seen: list[str] = []
    given.home.index._reader.set_trace_callback(seen.append)
    given.home.index.settled.before(D, datetime.now(UTC), limit=10)
    given.home.index.settled.removable_bytes(R, None, datetime.now(UTC))
    given.home.index._reader.set_trace_callback(None)

    plans = [given.home.index._reader.execute(f"EXPLAIN QUERY PLAN {sql}").fetchall() for sql in seen]

    assert 2 == len(plans)
    assert all("USING INDEX package_since" in str(plan) for plan in plans)
