"""What people moved and can't be read at this moment: it is waited for, and nothing untrue is said of it meanwhile."""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.host import mounted
from tests.unit.house import House, fact, house, package, waiting
from tfwatch.delivery.moves import Moves
from tfwatch.delivery.progress import Board
from tfwatch.model import Event, Package, Stage

O, C, S, D, R = Stage.OUTBOX, Stage.CLAIMED, Stage.SUBMITTED, Stage.DELIVERED, Stage.REJECTED  # noqa: E741


@pytest.fixture
def home(tmp_path: Path) -> Iterator[House]:
    with house(tmp_path / "spool") as made:
        yield made


@pytest.fixture
def followed() -> list[str]:
    """The names of what was taken up as delivered."""
    return []


@pytest.fixture
def moves(home: House, followed: list[str]) -> Moves:
    return Moves(
        home.desk, Board(), stopping=lambda: False, submitted=lambda about: None,
        delivered=lambda about: followed.append(about.name),
    )  # fmt: skip


@contextmanager
def leased(path: str) -> Iterator[None]:
    """Somebody holds a write lease on a file, as Samba's oplocks do: nobody else can open it meanwhile."""
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)
    fd = os.open(path, os.O_RDWR)
    try:
        try:
            fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        except OSError as error:
            pytest.skip(f"no leases here: {error}")
        yield
    finally:
        os.close(fd)
        signal.signal(signal.SIGIO, before)


def refused(home: House, name: str = "call_v1.zip") -> Package:
    """One that lies in rejected/."""
    about = home.lay(package(name), O)
    home.desk.settle(about, Event.REFUSED, waiting(about), reason="why")
    return about


def stage_of(home: House, about: Package, name: str = "") -> Stage | None:
    state = home.index.package(about.sha256, name or about.name)
    assert state is not None
    return state.stage


def seen_before(home: House) -> None:
    """The folders' time stamps are of long ago, so that a sweep may take them for unchanged from now on."""
    for stage in Stage:
        os.utime(home.folders.folder(stage), ns=(10**18, 10**18))


@pytest.mark.parametrize("name", ["call_v1.zip", "done.zip"])
def test_a_move_is_settled_once_its_lease_is_gone(home: House, moves: Moves, followed: list[str], name: str) -> None:
    """While another program holds the file, nobody is said to have taken it away; then the move is seen after all."""
    about = refused(home)
    there = home.folders.path(D, name)
    os.rename(home.folders.path(R, about.name), there)
    seen_before(home)
    with leased(there):
        for _ in range(2):
            assert not moves.sweep(), "it is looked at again soon"
        assert ["REFUSED"] == home.events(about)
    assert moves.sweep()
    assert D is stage_of(home, about, name)
    assert ["REFUSED", "MOVED"] == home.events(about)
    assert [name] == followed


def test_a_move_that_a_crash_cut_short_is_finished_after_a_lease(home: House, moves: Moves) -> None:
    """It could not be read at the start: later, too, it is a move of the daemon's own, and nobody is said to have made
    one."""
    about = home.lay(package(), O)
    home.accept(about)
    home.record(fact(about, Event.COMPLETED, S, D, order_id="4711"))
    with leased(home.folders.path(S, about.name)):
        assert not moves.sweep(recovering=True)
        assert not moves.sweep()
    assert moves.sweep()
    assert [D] == home.stages(about)
    assert ["ATTEMPTED", "ACCEPTED", "COMPLETED", "RECOVERED"] == home.events(about)


def test_one_in_the_outbox_that_is_leased_is_not_taken_away(home: House, moves: Moves) -> None:
    """Rejected → outbox under a lease, and another name: it is REQUEUED once it can be read, and never gone before."""
    about = refused(home)
    there = home.folders.path(O, "again.zip")
    os.rename(home.folders.path(R, about.name), there)
    with leased(there):
        assert not moves.sweep()
        assert ["REFUSED"] == home.events(about)
    assert moves.sweep()
    assert ["REFUSED", "REQUEUED"] == home.events(about)
    assert O is stage_of(home, about, "again.zip")


def test_what_is_gone_is_said_to_be_gone_beside_a_leased_file(home: House, moves: Moves) -> None:
    """A file that can't be read now, and is of another size, is not the one that went."""
    gone, other = refused(home, "gone.zip"), refused(home, "the-other.zip")
    os.unlink(home.folders.path(R, gone.name))
    os.rename(home.folders.path(R, other.name), home.folders.path(D, other.name))
    with leased(home.folders.path(D, other.name)):
        assert not moves.sweep()
    assert ["REFUSED", "MOVED"] == home.events(gone)
    assert ["REFUSED"] == home.events(other)
    assert stage_of(home, gone) is None


@pytest.mark.root
@pytest.mark.parametrize("where", [".tfwatch/claimed", ".tfwatch", "delivered"])
def test_nothing_is_gone_that_may_lie_under_a_mount(home: House, moves: Moves, where: str) -> None:
    """Neither what was sent with an unknown outcome, nor what waits for its next round, nor what is settled."""
    unknown, deferred, done = (package(f"{name}.zip") for name in ("unknown", "deferred", "done"))
    for about in (unknown, deferred, done):
        home.lay(about, O)
    home.desk.settle(unknown, Event.UNKNOWN, home.attempt(unknown), to=C)
    home.desk.settle(deferred, Event.DEFERRED, home.attempt(deferred))
    home.folders.move(O, deferred.name, C)
    home.complete(done)
    before = home.events()
    with mounted(Path(home.folders.root) / where, "tmpfs"):
        assert not moves.sweep()
        assert before == home.events()
    assert moves.sweep()
    assert before == home.events()


def test_what_lay_under_a_mount_that_goes_is_not_gone(
    home: House, moves: Moves, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mount that hid it is taken off between two looks: it is looked for once more before it is said to be gone."""
    about = refused(home)
    path = home.folders.path(R, about.name)
    os.rename(path, f"{path}.hidden")
    look, looks = home.desk.look_at_mounts, []

    def taken_off() -> Mapping[Stage, str]:
        looks.append(1)
        if len(looks) == 2:
            os.rename(f"{path}.hidden", path)
        return look()

    monkeypatch.setattr(home.desk, "look_at_mounts", taken_off)
    moves.sweep()
    assert ["REFUSED"] == home.events(about)
