"""Fact first, then file: the one way a package changes its stage.

Every move of the daemon's own goes through `Desk.settle`: the lifecycle says where to, the log has it on disk, then
the file is renamed and both folders are synced. A crash in between leaves a file one move behind its last fact.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from enum import Enum, auto
from typing import Protocol, TypeVar

from loguru import logger

from tfwatch import disk
from tfwatch.delivery import reasons
from tfwatch.delivery.cancelled import Cancellations
from tfwatch.delivery.in_work import InWork
from tfwatch.delivery.journal import fields, fields_of, sentence
from tfwatch.delivery.whereabouts import Whereabouts, package_of
from tfwatch.errors import StoppedBehind, Stopping
from tfwatch.language import tr
from tfwatch.ledger.index import Index, PackageState
from tfwatch.ledger.log import LogUnwritable
from tfwatch.lifecycle import advance, advance_to, status_after
from tfwatch.model import (
    Actor,
    DeliveryRecord,
    Event,
    Fact,
    Package,
    Stage,
    write_detail,
)
from tfwatch.spool.folders import Folders
from tfwatch.spool.names import printable

_ROOM_CHECK_SECONDS = 1.0
_AFTER_AN_ORDER = frozenset((Event.MOVED, Event.REQUEUED, Event.RECOVERED, Event.ROLLBACK))
"""Their rows name no order, though there may be one."""

_Done = TypeVar("_Done")


class Usual(Enum):
    """The place an event leads to by itself."""

    USUAL = auto()


USUAL = Usual.USUAL


class LogWriter(Protocol):
    """Where facts are put on disk."""

    def append(self, facts: Sequence[Fact]) -> tuple[DeliveryRecord, ...]:
        """Block until these facts are on disk, together and in order."""
        ...


class Desk:
    """Records facts and moves files. Safe to use from several threads for different packages."""

    def __init__(self, folders: Folders, log: LogWriter, index: Index, *, stopping: Callable[[], bool]) -> None:
        self.folders = folders
        self.index = index
        self.in_work = InWork()
        self.cancelled = Cancellations()
        self.disk_full_since: str | None = None
        self.while_waiting: Callable[[], None] = lambda: None
        self._log = log
        self._stopping = stopping
        self._pause = threading.Event()
        self._moved: set[tuple[str, str]] = set()
        self._mounts_lock = threading.Lock()
        self.apart: Mapping[Stage, str] = {}
        self.left_aside: dict[str, str] = {}

    def record(self, *facts: Fact) -> tuple[DeliveryRecord, ...]:
        """Put facts on disk. While the disk is full this waits for room; raises `Stopping` when told to stop."""
        try:
            return self._when_there_is_room(lambda: self._log.append(facts))
        except LogUnwritable as error:
            raise Stopping("the log has no room") from error

    def _when_there_is_room(self, act: Callable[[], _Done]) -> _Done:
        """While the disk is full, wait and try again; raises that OSError when told to stop, any other at once."""
        while True:
            try:
                done = act()
            except OSError as error:
                if error.errno not in disk.NO_ROOM or isinstance(error, disk.NotSynced):
                    raise
                self.disk_full_since = str(error)
                if self._stopping():
                    raise
                self.while_waiting()
                self._pause.wait(_ROOM_CHECK_SECONDS)
            else:
                self.disk_full_since = None
                return done

    def settle(
        self,
        package: Package,
        event: Event,
        where: Whereabouts,
        *,
        to: Stage | Usual | None = USUAL,
        attempt: int | None = None,
        order_id: str = "",
        code: int | None = None,
        duration_ms: int | None = None,
        actor: Actor = Actor.TFWATCH,
        detail: str = "",
        reason: str | None = None,
    ) -> Whereabouts:
        """Record one fact about a package, then bring its file where the fact says. Returns where it is then.

        Somebody's file in the way gives it another name. What comes next is about that one: a further call takes it
        from `where`, and everyone else asks `Whereabouts.named`.
        `to` asks for one of the further places the lifecycle allows (None: no folder). `reason` is written
        beside a package that goes to rejected/. Raises OSError when a folder can't be synced: that ends the process;
        `Stopping` before the fact, `StoppedBehind` after it.
        """
        package = where.named(package)
        target = advance(where.log, event) if isinstance(to, Usual) else advance_to(where.log, event, to)
        status = status_after(event, target, where.status, stays=target is where.log)
        self.record(
            Fact(
                event=event,
                package=package.name,
                sha256=package.sha256,
                trace_id=package.trace_id,
                bytes=package.bytes,
                from_stage=where.log,
                to_stage=target,
                attempt=attempt,
                order_id=order_id,
                status=status,
                code=code,
                duration_ms=duration_ms,
                actor=actor,
                detail=detail,
            )
        )
        known_order = order_id or (self._order_of(package) if event in _AFTER_AN_ORDER else "")
        logger.bind(EVENT=event.value, **fields(package, package.name, order_id=known_order)).info(
            "{}: {}", printable(package.name), sentence(event, order_id, code, detail)
        )
        settled = replace(where, log=target, status=status)
        if target is None:
            return settled
        try:
            return self.bring(package, settled, reason=reason)
        except Stopping as stop:
            raise StoppedBehind(str(stop)) from stop

    def bring(self, package: Package, where: Whereabouts, *, reason: str | None = None) -> Whereabouts:
        """Bring a package's file to the stage its last fact names."""
        package, target = where.named(package), where.log
        if target is None:
            return where
        note = reason if target is Stage.REJECTED else None
        if target is where.file or not self.folders.is_taken(target, package.name):
            # Before the move: whoever sees the package in rejected/ finds the reason beside it.
            self.write_reason(package.name, note)
        try:
            if target is not where.file:
                self.move(where.file, package.name, target)
        except FileExistsError:
            return self._make_way(package, where, target, note)
        except FileNotFoundError:
            found = self._obey(package, where)
            if note is not None and found.log is not Stage.REJECTED:
                self.folders.remove_reason(package.name)
            return found
        return replace(where, file=target)

    def move(self, source: Stage, name: str, target: Stage, new_name: str | None = None) -> None:
        """Rename, and put both folders on disk. The watcher is told that this arrival is ours.

        While another mount lies on one of the folders, or a folder has no room for one more name, this waits; raises
        `Stopping` when told to stop.
        """
        arrival = (target.value, new_name or name)
        self._moved.add(arrival)
        try:
            while not self._rename(source, name, target, new_name):
                if self._stopping():
                    raise Stopping("a folder of the spool is a mount of its own")
                self.while_waiting()
                self._pause.wait(_ROOM_CHECK_SECONDS)
        except (OSError, Stopping):
            self._moved.discard(arrival)
            raise
        # The arrival first: where renames are not atomic, a power cut in between leaves two names, never none.
        self.folders.sync(target, source)

    def _rename(self, source: Stage, name: str, target: Stage, new_name: str | None) -> bool:
        """False when another mount is in the way, which is said. What isn't found may lie under it."""
        was_apart = self.apart
        try:
            self._when_there_is_room(lambda: self.folders.move(source, name, target, new_name))
        except OSError as error:
            if error.errno in disk.NO_ROOM:
                raise Stopping("a folder of the spool has no room") from error
            if error.errno in (errno.EXDEV, errno.ENOENT) and (self.look_at_mounts() or was_apart):
                return False
            raise
        if self.apart:
            self.look_at_mounts()
        return True

    def look_at_mounts(self) -> Mapping[Stage, str]:
        """The stages over which somebody has put another mount since the start → its folder."""
        with self._mounts_lock:
            self.apart = self.folders.apart()
            return self.apart

    def requeue(self, state: PackageState, *, actor: Actor, forced: bool, why: str) -> bool:
        """Bring a package back into the outbox. Here the file goes first: it may be moved by hand just as well.

        False when a person took it at this very moment: their move is seen and obeyed.
        """
        assert state.stage is not None
        try:
            self.move(state.stage, state.name, Stage.OUTBOX)
        except FileNotFoundError:
            return False
        except FileExistsError:
            return self._requeue_as_next(state, state.stage, actor=actor, forced=forced, why=why)
        self.log_requeue(state, actor=actor, forced=forced, why=why)
        return True

    def _requeue_as_next(self, state: PackageState, stage: Stage, *, actor: Actor, forced: bool, why: str) -> bool:
        """Another package of that name waits in the outbox: this one takes the next free name where it lies first."""
        name = self.next_name(state.name, leaving=stage)
        here = Whereabouts(file=stage, log=stage, status=state.status)
        self._log_new_name(package_of(state), name, here, lies_in=Stage.OUTBOX)
        try:
            self.move(stage, state.name, stage, name)
        except FileNotFoundError:
            return False
        return self.requeue(replace(state, name=name), actor=actor, forced=forced, why=why)

    def log_requeue(self, state: PackageState, *, actor: Actor, forced: bool, why: str) -> None:
        """Say that a package lies in the outbox again."""
        detail = write_detail(why, forced="yes" if forced else None)
        where = Whereabouts(file=Stage.OUTBOX, log=state.stage, status=state.status)
        self.settle(package_of(state), Event.REQUEUED, where, actor=actor, detail=detail)

    def now(self) -> datetime:
        """The moment it is, UTC."""
        return datetime.now(UTC)

    def is_nowhere(self, name: str) -> bool:
        """Whether nothing lies under a name, in any folder, nor is held: its package is gone or called otherwise now.

        One that lies elsewhere than the log has it may only be behind its log, its move cut short by a crash.
        """
        return name not in self.in_work and self.folders.find(name) is None

    def forget_moves(self) -> None:
        """Moves whose arrival was never heard of: where no events come, nobody asks about them."""
        self._moved.clear()

    def is_ours(self, place: str, name: str) -> bool:
        """Whether an arrival was a move of ours; asked once for each."""
        try:
            self._moved.remove((place, name))
        except KeyError:
            return False
        return True

    def _make_way(self, package: Package, where: Whereabouts, target: Stage, reason: str | None) -> Whereabouts:
        """Somebody put another file in the way: log the next free name first, then move under it."""
        name = self.next_name(package.name, leaving=where.file)
        there = Whereabouts(file=target, log=target, status=where.status)
        self._log_new_name(package, name, there, lies_in=target)
        self.write_reason(name, reasons.renamed(reason, was=package.name, name=name) if reason else None)
        self.move(where.file, package.name, target, name)
        return replace(there, name=name)

    def next_name(self, name: str, *, leaving: Stage) -> str:
        """The next free name, held for as long as the one it is to replace: by whoever works on the package."""
        while True:
            free = self.folders.free_name(name, leaving=leaving, taken=self.in_work.__contains__)
            if self.in_work.take_with(free, name):
                return free

    def _log_new_name(self, package: Package, name: str, where: Whereabouts, *, lies_in: Stage) -> None:
        detail = write_detail(tr("another file of that name lies in {stage}/", stage=lies_in), was=package.name)
        self.settle(replace(package, name=name), Event.MOVED, where, to=where.log, detail=detail)

    def _obey(self, package: Package, where: Whereabouts) -> Whereabouts:
        """The file is not where it was: a person took it. Say where to, and leave it there."""
        found = self.folders.find(package.name)
        event = Event.REQUEUED if found is Stage.OUTBOX and where.log is not Stage.CLAIMED else Event.MOVED
        there = Whereabouts(file=found or where.file, log=where.log, status=where.status)
        note = tr("found in {stage}/", stage=found) if found else tr("no longer in any folder")
        return self.settle(package, event, there, to=found, actor=Actor.OPERATOR, detail=note)

    def _order_of(self, package: Package) -> str:
        state = self.index.package(package.sha256, package.name)
        return state.order_id if state is not None else ""

    def write_reason(self, name: str, text: str | None) -> None:
        """Say beside a package in rejected/ why it lies there; one that can't be written holds nothing up."""
        if text is None:
            return
        try:
            self.folders.write_reason(name, text)
        except disk.NotSynced:
            raise
        except OSError as error:
            # The package and its fact are safe; only the note beside it is missing, and `why` has the same words.
            logger.bind(**fields_of(self.index, name)).warning(
                "rejected/{}: its reason file can't be written: {}", printable(name), error
            )


def why_apart(folder: str) -> str:
    """What is wrong with a folder that is a mount of its own, and what to do."""
    return tr(
        "{folder}: is a mount of its own, so no file can be renamed into or out of it; packages wait: umount {folder}",
        folder=folder,
    )
