"""Fact first, then file: every way a move can go wrong leaves both, and the log right."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.support.host import mounted
from tests.unit.house import House, house, package, waiting
from tfwatch.delivery.desk import Desk
from tfwatch.delivery.in_work import InWork
from tfwatch.delivery.whereabouts import Whereabouts, package_of
from tfwatch.errors import Stopping
from tfwatch.ledger.log import LogUnwritable
from tfwatch.lifecycle import IllegalTransition
from tfwatch.model import Actor, DeliveryRecord, Event, Fact, Package, Stage, Status, read_detail
from tfwatch.spool.names import reason_name

O, C, S, D, R = Stage.OUTBOX, Stage.CLAIMED, Stage.SUBMITTED, Stage.DELIVERED, Stage.REJECTED  # noqa: E741


@pytest.fixture
def home(tmp_path: Path) -> Iterator[House]:
    with house(tmp_path / "spool") as made:
        yield made


def reasons(home: House) -> set[str]:
    return {name for name in os.listdir(home.folders.folder(R)) if name.endswith(".reason.txt")}


# --- who works on what ------------------------------------------------------------------------------------------------


def test_a_key_is_held_by_one() -> None:
    """Whoever comes second is told so; letting go of what isn't held harms nothing."""
    work = InWork()
    work.release("a")
    assert work.take("a")
    assert not work.take("a")
    assert "a" in work
    with work.holding("a") as mine:
        assert not mine
    assert "a" in work
    work.release("a")
    with work.holding("a") as mine:
        assert mine
        assert "a" in work
    assert "a" not in work


def test_a_further_name_goes_with_the_first() -> None:
    """Held for as long as the one it was taken for, over any number of steps; without that one nobody holds it."""
    work = InWork()
    assert work.take("a")
    assert work.take_with("b", "a")
    assert work.take_with("c", "b")
    assert not work.take_with("c", "a")
    assert not work.take("b")
    work.release("a")
    assert ["a", "b", "c"] == [key for key in ("a", "b", "c") if work.take(key)]
    assert work.take_with("e", "d")
    assert "e" not in work


def test_of_many_threads_one_holds() -> None:
    """A hundred threads ask at once: one gets it."""
    work, barrier, got = InWork(), threading.Barrier(100), []

    def ask() -> None:
        barrier.wait()
        got.append(work.take("a"))

    threads = [threading.Thread(target=ask) for _ in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 1 == sum(got)


# --- fact first -------------------------------------------------------------------------------------------------------


def test_the_fact_is_on_disk_before_the_file_moves(home: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash right before the rename finds the fact in the log and the file where it was."""
    about = home.lay(package(), O)
    where = home.attempt(about)

    def crash(*words: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(home.folders, "move", crash)
    with pytest.raises(KeyboardInterrupt):
        home.desk.settle(about, Event.ACCEPTED, where, order_id="1")
    assert ["ATTEMPTED", "ACCEPTED"] == home.events()
    assert [C] == home.stages(about)


def test_both_folders_are_synced_after_the_rename(home: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power cut can't take a move back. The folder reached comes first: where renames are not atomic, a cut between
    the two leaves two names, never none."""
    about = home.lay(package(), O)
    where = home.attempt(about)
    really, synced = os.fsync, []

    def fsync(fd: int) -> None:
        synced.append((os.path.basename(os.readlink(f"/proc/self/fd/{fd}")), home.stages(about)))
        really(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    home.desk.settle(about, Event.ACCEPTED, where, order_id="1")
    assert [("submitted", [S]), ("claimed", [S])] == synced


@pytest.mark.root
@pytest.mark.parametrize("where", [".tfwatch/claimed", ".tfwatch", "submitted"])
def test_a_move_waits_until_a_mount_is_gone(home: House, where: str) -> None:
    """Under it a file can't be renamed or isn't even seen: nobody is said to have taken it, and then it moves."""
    about = home.lay(package(), O)
    at = home.attempt(about)
    waits = threading.Event()
    home.desk.while_waiting = waits.set

    def settle() -> None:
        home.desk.settle(about, Event.ACCEPTED, at, order_id="1")

    lane = threading.Thread(target=settle)
    with mounted(Path(home.folders.root) / where, "tmpfs"):
        lane.start()
        assert waits.wait(20), "it waits"
    lane.join(20)
    assert not lane.is_alive()
    assert ["ATTEMPTED", "ACCEPTED"] == home.events(about)
    assert [S] == home.stages(about)
    assert {} == home.desk.apart


def test_a_folder_that_can_not_be_synced_ends_it(home: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody goes on as if a move were on disk."""
    about = home.lay(package(), O)

    def fail(*stages: Stage) -> None:
        raise OSError(errno.EIO, "Input/output error")

    where = home.attempt(about)
    monkeypatch.setattr(home.folders, "sync", fail)
    with pytest.raises(OSError, match="Input/output"):
        home.desk.settle(about, Event.ACCEPTED, where, order_id="1")


def test_a_row_tells_the_whole_fact(home: House) -> None:
    """Who, what, from where, to where, under which tag, by whom."""
    about = home.lay(package(), O)
    settled = home.desk.settle(
        about,
        Event.REFUSED,
        waiting(about),
        attempt=2,
        code=422,
        duration_ms=7,
        detail="by=service; no",
        reason="Why.\n",
    )

    row = home.last()
    assert (about.name, about.sha256, about.bytes, about.trace_id) == (row.package, row.sha256, row.bytes, row.trace_id)
    assert (O, R, Status.REJECTED, Actor.TFWATCH) == (row.from_stage, row.to_stage, row.status, row.actor)
    assert (2, 422, 7, "by=service; no") == (row.attempt, row.code, row.duration_ms, row.detail)
    assert Whereabouts(file=R, log=R, status=Status.REJECTED) == settled
    assert "Why.\n" == Path(home.folders.path(R, reason_name(about.name))).read_text()


def test_an_impossible_event_changes_nothing(home: House) -> None:
    """A bug of ours is found before it is written down."""
    about = home.lay(package(), O)

    with pytest.raises(IllegalTransition):
        home.desk.settle(about, Event.COMPLETED, waiting(about))
    with pytest.raises(IllegalTransition):
        home.desk.settle(about, Event.ATTEMPTED, waiting(about), to=D)
    assert [] == home.events()
    assert [O] == home.stages(about)


def test_a_package_that_leaves_all_folders_is_not_looked_for(home: House) -> None:
    """Taken away: the fact has no place, and no file is touched."""
    about = package()
    settled = home.desk.settle(about, Event.MOVED, waiting(about), to=None, actor=Actor.OPERATOR)

    assert settled.log is None
    assert (O, None) == (home.last().from_stage, home.last().to_stage)


def test_a_parked_package_keeps_its_tag(home: House) -> None:
    """A rollback tripped by a package that waits for a decision leaves it tagged `unknown`, where it lies."""
    about = home.lay(package(), R)
    where = Whereabouts(file=R, log=R, status=Status.UNKNOWN)
    settled = home.desk.settle(about, Event.ROLLBACK, where, to=R)

    assert Status.UNKNOWN is settled.status is home.last().status
    assert [R] == home.stages(about)


def test_whereabouts_of_a_stranger() -> None:
    """A package the log doesn't know has been in the outbox all along."""
    assert Whereabouts(file=C, log=O, status=Status.WAITING) == Whereabouts.of(None, file=C)


def test_whereabouts_of_a_known_package(home: House) -> None:
    """Where the log has it and under which tag, wherever its file lies."""
    about = home.lay(package(), O)
    home.accept(about)
    state = home.index.package(about.sha256, about.name)

    assert Whereabouts(file=C, log=S, status=Status.SUBMITTED) == Whereabouts.of(state, file=C)


# --- somebody put a file in the way -----------------------------------------------------------------------------------


def test_another_file_in_the_way_is_left_alone(home: House) -> None:
    """The package takes the next free name: MOVED says so before the file moves; the stranger's file stays."""
    about = home.lay(package(), O)
    where = home.attempt(about)
    stranger = Path(home.folders.path(S, about.name))
    stranger.write_text("stranger")
    Path(home.folders.path(D, "call_v1~2.zip")).touch()
    home.desk.settle(about, Event.ACCEPTED, where, order_id="1")

    assert ["ATTEMPTED", "ACCEPTED", "MOVED"] == home.events()
    row = home.last()
    assert ("call_v1~3.zip", S, S, Status.SUBMITTED) == (row.package, row.from_stage, row.to_stage, row.status)
    assert {"was": "call_v1.zip"} == read_detail(row.detail)[0]
    assert {"call_v1.zip", "call_v1~3.zip"} == home.lies_in(S)
    assert "stranger" == stranger.read_text()
    assert set() == home.lies_in(C)
    state = home.index.package(about.sha256, "call_v1~3.zip")
    assert state is not None
    assert ("1", S) == (state.order_id, state.stage)
    assert home.index.package(about.sha256, about.name) is None


def test_what_comes_next_is_about_the_new_name(home: House) -> None:
    """A further fact, and the move it leads to, are the package's own, though the caller has its first name in hand."""
    about = home.lay(package(), O)
    where = home.attempt(about)
    Path(home.folders.path(S, about.name)).write_text("stranger")
    where = home.desk.settle(about, Event.ACCEPTED, where, order_id="1")
    assert "call_v1~2.zip" == where.named(about).name
    where = home.desk.settle(about, Event.COMPLETED, where, order_id="1")

    assert "call_v1~2.zip" == where.named(about).name
    assert ({"call_v1~2.zip"}, {about.name}) == (home.lies_in(D), home.lies_in(S))
    assert ["call_v1~2.zip"] == [state.name for state in home.index.packages_of(about.sha256)]


def test_its_reason_follows_the_new_name(home: House) -> None:
    """The note lies beside the package it is about, not beside the stranger's file."""
    about = home.lay(package(), O)
    home.lay(about, R)
    home.desk.settle(about, Event.REFUSED, waiting(about), reason="Why.\n")

    assert {"call_v1.zip", "call_v1~2.zip"} == home.lies_in(R)
    assert {"call_v1~2.zip.reason.txt"} == reasons(home)


def test_what_a_rollback_rejected_under_another_name_is_still_its_own(home: House) -> None:
    """Lifting the rollback finds it."""
    about = home.lay(package(), O)
    where = home.attempt(about)
    home.lay(about, R)
    home.desk.settle(about, Event.ROLLBACK, where, detail="integration=gotranscript sent=no")

    assert ["call_v1~2.zip"] == [state.name for state in home.index.rolled_back()]


# --- somebody took the file -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "stage", "expected"),
    [
        (Event.ACCEPTED, O, Event.REQUEUED),
        (Event.ACCEPTED, D, Event.MOVED),
        (Event.ACCEPTED, R, Event.MOVED),
        (Event.ACCEPTED, S, Event.MOVED),
        (Event.ACCEPTED, None, Event.MOVED),
        (Event.REFUSED, O, Event.REQUEUED),
        (Event.DEFERRED, O, Event.REQUEUED),
        (Event.DEFERRED, None, Event.MOVED),
        (Event.ROLLBACK, D, Event.MOVED),
    ],
)
def test_a_person_who_took_the_file_is_obeyed(home: House, event: Event, stage: Stage | None, expected: Event) -> None:
    """Our rename finds nothing: the log says where the package is now, by an operator, and it stays there."""
    about = home.lay(package(), O)
    where = home.attempt(about)
    if stage is None:
        os.unlink(home.folders.path(C, about.name))
    else:
        os.rename(home.folders.path(C, about.name), home.folders.path(stage, about.name))
    settled = home.desk.settle(about, event, where, order_id="1", reason="Why.\n")

    row = home.last()
    assert (event, expected, stage, Actor.OPERATOR) == (home.records()[-2].event, row.event, row.to_stage, row.actor)
    assert ([stage] if stage else []) == home.stages(about)
    assert stage is settled.log
    assert not reasons(home)


# --- back into the outbox ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("forced", [False, True])
def test_a_requeue_moves_first_and_says_so_then(home: House, forced: bool) -> None:
    """From any stage into the outbox, with who asked and why; the reason file goes."""
    about = home.lay(package(), O)
    home.desk.settle(about, Event.REFUSED, waiting(about), reason="Why.\n")
    (state,) = home.index.named(about.name)
    assert home.desk.requeue(state, actor=Actor.OPERATOR, forced=forced, why="again")

    row = home.last()
    assert (Event.REQUEUED, R, O, Actor.OPERATOR) == (row.event, row.from_stage, row.to_stage, row.actor)
    assert ({"forced": "yes"} if forced else {}, "again") == read_detail(row.detail)
    assert [O] == home.stages(about)
    assert set() == reasons(home)


def test_a_requeue_steps_aside_for_a_new_drop(home: House) -> None:
    """Another package of that name waits in the outbox: MOVED gives the old one the next name, then it is requeued."""
    about = home.lay(package(), O)
    home.desk.settle(about, Event.REFUSED, waiting(about), reason="Why.\n")
    Path(home.folders.path(O, about.name)).write_text("new")
    (state,) = home.index.named(about.name)
    assert home.desk.requeue(state, actor=Actor.OPERATOR, forced=True, why="again")

    assert ["REFUSED", "MOVED", "REQUEUED"] == home.events()
    assert {about.name, "call_v1~2.zip"} == home.lies_in(O)
    assert "new" == Path(home.folders.path(O, about.name)).read_text()
    renamed = home.index.package(about.sha256, "call_v1~2.zip")
    assert renamed is not None
    assert (O, True) == (renamed.stage, renamed.forced)
    assert set() == reasons(home)
    assert "call_v1~2.zip" not in home.desk.in_work


def test_a_requeue_of_what_is_gone_is_no_error(home: House) -> None:
    """A person was faster: nothing is logged, their move is seen by the sweep."""
    about = home.lay(package(), O)
    home.desk.settle(about, Event.REFUSED, waiting(about))
    (state,) = home.index.named(about.name)
    os.unlink(home.folders.path(R, about.name))

    assert not home.desk.requeue(state, actor=Actor.OPERATOR, forced=False, why="again")
    assert ["REFUSED"] == home.events()


def test_a_requeue_that_steps_aside_may_find_nothing_either(home: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Taken between the new name's fact and its rename: no error; the sweep sees where it went."""
    about = home.lay(package(), O)
    home.desk.settle(about, Event.REFUSED, waiting(about))
    home.lay(about, O)
    (state,) = home.index.named(about.name)
    move = home.folders.move

    def taken(source: Stage, name: str, target: Stage, new_name: str | None = None) -> None:
        if target is R:
            os.unlink(home.folders.path(R, name))
        move(source, name, target, new_name)

    monkeypatch.setattr(home.folders, "move", taken)
    assert not home.desk.requeue(state, actor=Actor.OPERATOR, forced=False, why="again")
    assert ["REFUSED", "MOVED"] == home.events()


# --- our own arrivals -------------------------------------------------------------------------------------------------


def test_our_moves_are_ours_once(home: House) -> None:
    """Each is asked about once; a later arrival of that name is somebody else's."""
    about = home.lay(package(), O)
    home.accept(about)

    assert not home.desk.is_ours("submitted", "other.zip")
    assert home.desk.is_ours("submitted", about.name)
    assert not home.desk.is_ours("submitted", about.name)


def test_a_move_that_failed_is_nobodys(home: House) -> None:
    """What never arrived must not hide an operator's move of that name."""
    with pytest.raises(FileNotFoundError):
        home.desk.move(O, "a.zip", R)
    assert not home.desk.is_ours("rejected", "a.zip")


def test_forgotten_moves_take_no_room(home: House) -> None:
    """Where no events come nobody asks: then they are forgotten."""
    home.accept(home.lay(package(), O))
    home.desk.forget_moves()

    assert not home.desk.is_ours("submitted", package().name)


# --- a full disk ------------------------------------------------------------------------------------------------------


class FullLog:
    """A log without room for so many tries."""

    def __init__(self, home: House, tries: int) -> None:
        self._home = home
        self._tries = tries
        self.asked = threading.Event()

    def append(self, facts: Sequence[Fact]) -> tuple[DeliveryRecord, ...]:
        self.asked.set()
        if self._tries > 0:
            self._tries -= 1
            raise LogUnwritable(errno.ENOSPC, "No space left on device", self._home.folders.log)
        return self._home.log.append(facts)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look for room often."""
    monkeypatch.setattr("tfwatch.delivery.desk._ROOM_CHECK_SECONDS", 0.01)


def desk_with(home: House, log: FullLog) -> Desk:
    return Desk(home.folders, log, home.index, stopping=lambda: home.stopping)


@pytest.mark.usefixtures("short")
def test_a_full_disk_is_waited_for(home: House) -> None:
    """The fact is written once there is room, exactly once, and the file moves after it."""
    about = home.lay(package(), O)
    desk = desk_with(home, FullLog(home, 3))
    desk.settle(about, Event.REFUSED, waiting(about))

    assert ["REFUSED"] == home.events()
    assert [R] == home.stages(about)
    assert desk.disk_full_since is None


@pytest.mark.usefixtures("short")
def test_while_the_disk_is_full_it_is_said_and_nothing_moves(home: House) -> None:
    """Status can tell what is wrong; the file waits with its fact."""
    about = home.lay(package(), O)
    log = FullLog(home, 10**9)
    desk = desk_with(home, log)
    ended: list[BaseException] = []

    def settle() -> None:
        try:
            desk.settle(about, Event.REFUSED, waiting(about))
        except Stopping as stopping:
            ended.append(stopping)

    thread = threading.Thread(target=settle)
    thread.start()
    until(lambda: desk.disk_full_since is not None)
    assert "No space left" in str(desk.disk_full_since)
    assert [O] == home.stages(about)
    home.stopping = True
    thread.join(10)

    assert 1 == len(ended)
    assert [O] == home.stages(about)
    assert [] == home.events()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "the condition never came true"
        time.sleep(0.001)


# --- words ------------------------------------------------------------------------------------------------------------


def test_a_reason_that_can_not_be_written_stops_nothing(home: House) -> None:
    """The package and its fact count; the note is worth a warning."""
    about = home.lay(package(), O)
    os.mkdir(home.folders.path(R, reason_name(about.name)))
    home.desk.settle(about, Event.REFUSED, waiting(about), reason="Why.\n")

    assert [R] == home.stages(about)


def test_names_of_any_bytes_go_all_the_way(home: House) -> None:
    """Undecodable bytes, line ends and leading signs of formulas: settled, logged and found again."""
    for raw in (b"\xff\xfe\n.zip", b"=1+1.zip", b"-rf.zip", b"a" * 251 + b".zip", "\u00e7".encode() * 125 + b".ZIP"):
        about = home.lay(package(os.fsdecode(raw)), O)
        home.complete(about, order_id=about.sha256)
        assert [D] == home.stages(about)
        state = home.index.package(about.sha256, about.name)
        assert state is not None
        assert about == package_of(state)


def test_a_package_of_a_state_is_the_package(home: House) -> None:
    """Nothing is lost between the log and the package it is about."""
    about = Package(name="a.zip", sha256=package().sha256, bytes=5, trace_id=package().trace_id)
    home.desk.settle(about, Event.MOVED, waiting(about), to=None)
    (state,) = home.index.named("a.zip")

    assert about == package_of(state)
