"""What people did with `mv`: the folders are the control panel, so each move is seen, logged and obeyed."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable
from typing import Final

from loguru import logger

from tfwatch import disk
from tfwatch.delivery import reasons
from tfwatch.delivery.cancelled import cancelled_in_words
from tfwatch.delivery.desk import Desk
from tfwatch.delivery.journal import fields, fields_of
from tfwatch.delivery.progress import Board
from tfwatch.delivery.recognise import moved_in_words
from tfwatch.delivery.told import was_cut_short
from tfwatch.delivery.whereabouts import Whereabouts, package_of
from tfwatch.language import tr
from tfwatch.ledger.index import PackageState
from tfwatch.model import Actor, Event, Package, Sha256, Stage, Status, TraceId, write_detail
from tfwatch.spool.intake import Unfinished, hash_file
from tfwatch.spool.listing import Entry, NotAPackage
from tfwatch.spool.names import printable

_SETTLED: Final = (Stage.SUBMITTED, Stage.REJECTED, Stage.DELIVERED)
_CLOCK_GRAIN_NS: Final = 50_000_000
"""A folder changed this recently may change again without its time stamp showing it."""


class _NotNow(Exception):
    """What a file is can't be told now: somebody holds it, lets us not read it, or the disk doesn't give it."""


class Moves:
    """Compares the folders with the log, and lets the log follow. Used by one thread."""

    def __init__(
        self,
        desk: Desk,
        board: Board,
        *,
        stopping: Callable[[], bool],
        submitted: Callable[[Package], None],
        delivered: Callable[[Package], None],
    ) -> None:
        self._desk = desk
        self._board = board
        self._stopping = stopping
        self._submitted = submitted
        self._delivered = delivered
        self._unchanged_since: dict[Stage, int] = {}
        self._soon = False
        self._since_start: set[tuple[Stage, str]] = set()
        self._unread_sizes: set[int] = set()
        self._told: dict[tuple[Stage, str], str] = {}
        self._copies: dict[tuple[Stage, str], tuple[Stage, tuple[Entry | None, ...]]] = {}

    def sweep(self, *, recovering: bool = False) -> bool:
        """Look once; False when something is being worked on, or held by another program, and must be looked at soon.

        What may not be read, or the disk doesn't give, is told and looked at again by the next sweep, whenever that is.
        `recovering`: the daemon has just started, so a settled package still in submitted/ is a move of its own that
        a crash cut short (`was_cut_short`), not a person's; also when it can't be read until later.
        """
        try:
            return self._sweep(recovering=recovering)
        except (FileNotFoundError, NotADirectoryError) as error:
            # A whole folder is gone: its packages are not each taken away; it is made or mounted again soon.
            logger.warning("{} is gone; it is looked at again when it is back", error.filename)
            return False

    def _sweep(self, *, recovering: bool) -> bool:
        apart = self._desk.look_at_mounts()
        self._soon = bool(apart)
        self._unread_sizes.clear()
        self._told = {where: text for where, text in self._told.items() if self._lies(*where)}
        self._copies = {where: seen for where, seen in self._copies.items() if self._lies(*where)}
        stages = [stage for stage in _SETTLED if stage not in apart and not self._is_unchanged(stage)]
        for stage in stages:
            listed_at = time.time_ns()
            changed = self._desk.folders.changed_ns(stage)
            if self._appeared_at(stage, recovering=recovering) and changed < listed_at - _CLOCK_GRAIN_NS:
                self._unchanged_since[stage] = changed
        for stage in (*stages, Stage.OUTBOX, Stage.CLAIMED):
            if not self._vanished_from(stage):
                self._unchanged_since.pop(stage, None)
        return not self._soon

    def _lies(self, stage: Stage, name: str) -> bool:
        return self._desk.folders.look(stage, name) is not None

    def _is_unchanged(self, stage: Stage) -> bool:
        return self._unchanged_since.get(stage) == self._desk.folders.changed_ns(stage)

    # --- something came --------------------------------------------------------------------------------------------

    def _appeared_at(self, stage: Stage, *, recovering: bool) -> bool:
        known = self._desk.index.names_at(stage)
        complete = True
        for name in sorted(self._desk.folders.names(stage) - known.keys()):
            with self._desk.in_work.holding(name) as mine:
                self._soon |= not mine
                complete &= mine and self._appeared(stage, name, recovering=recovering)
        return complete

    def _appeared(self, stage: Stage, name: str, *, recovering: bool) -> bool:
        """True when there is nothing left to see; the name is held."""
        if any(state.stage is stage for state in self._desk.index.named(name)):
            return True
        if self._is_still_a_copy(stage, name):
            return False
        try:
            read = self._read(stage, name)
        except _NotNow:
            if recovering:
                self._since_start.add((stage, name))
            return False
        recovering |= (stage, name) in self._since_start
        self._since_start.discard((stage, name))
        if read is None:
            return True
        sha256, size = read
        try:
            original = self._original(sha256, name)
        except _NotNow:
            return False
        if original is not None:
            self._tell_copy(stage, name, original)
            return False  # once its original is gone it is no copy any more
        state = self._displaced(sha256, name)
        if state is None:
            self._put_there(stage, name, sha256, size)
        elif recovering and was_cut_short(self._desk.index, stage, state):
            self._finish(stage, state, name)
        else:
            self._moved(stage, name, state)
        return True

    def _original(self, sha256: str, name: str) -> Stage | None:
        """Where the log has that very package, if it lies there, so that the one looked at is a copy of it."""
        state = self._desk.index.package(sha256, name)
        if state is None or state.stage is None or not self._lies(state.stage, name):
            return None
        there = self._read(state.stage, name)
        return state.stage if there is not None and there[0] == sha256 else None

    def _tell_copy(self, stage: Stage, name: str, original: Stage) -> None:
        """Nothing was moved. Told once; not read again while both stay as they are."""
        self._copies[stage, name] = original, self._look_at_both(stage, original, name)
        logger.bind(**fields_of(self._desk.index, name)).warning(
            "{}/{}: is a copy of {}/{}, which is where the log has that package; it is left alone: remove it",
            stage, printable(name), original, printable(name),
        )  # fmt: skip

    def _is_still_a_copy(self, stage: Stage, name: str) -> bool:
        known = self._copies.get((stage, name))
        return known is not None and known[1] == self._look_at_both(stage, known[0], name)

    def _look_at_both(self, stage: Stage, original: Stage, name: str) -> tuple[Entry | None, ...]:
        return self._desk.folders.look(stage, name), self._desk.folders.look(original, name)

    def _displaced(self, sha256: str, name: str) -> PackageState | None:
        """The package of that content which is not where the log has it; the one of that name first.

        One with another name must be nowhere: else this is a twin of it.
        """
        states = sorted(self._desk.index.packages_of(sha256), key=lambda state: state.name != name)
        for state in states:
            if state.name == name and (state.stage is None or not self._lies(state.stage, name)):
                return state
            if state.name != name and self._desk.is_nowhere(state.name):
                return state
        return None

    def _put_there(self, stage: Stage, name: str, sha256: Sha256, size: int) -> None:
        """A ZIP the log has never seen: a person took it out of the outbox before the daemon did."""
        trace_id = self._desk.index.calls.awaited_trace(name) or TraceId(secrets.token_hex(16))
        package = Package(name=name, sha256=sha256, bytes=size, trace_id=trace_id)
        where = Whereabouts(file=stage, log=Stage.OUTBOX, status=Status.WAITING)
        dropped, words = self._in_words(stage, name, Stage.OUTBOX)
        self._log_move(package, where, stage, write_detail(words, dropped=dropped))
        self._follow(package, stage, order_id="")

    def _moved(self, stage: Stage, name: str, state: PackageState) -> None:
        package = package_of(state)
        was = state.name if state.name != name else None
        if was:
            package = Package(name=name, sha256=package.sha256, bytes=package.bytes, trace_id=package.trace_id)
        where = Whereabouts(file=stage, log=state.stage, status=state.status)
        self._log_move(package, where, stage, write_detail(self._in_words(stage, name, state.stage)[1], was=was))
        if state.stage is Stage.REJECTED:
            self._desk.folders.remove_reason(state.name)
        self._follow(package, stage, order_id=state.order_id)

    def _in_words(self, stage: Stage, name: str, source: Stage | None) -> tuple[str, str]:
        """The name a file had before it appeared there, and what was done, by whom."""
        if (cancelled := self._desk.cancelled.of(stage, name)) is not None:
            return cancelled.was, cancelled_in_words(cancelled, source)
        return name, moved_in_words(source, stage)

    def _finish(self, stage: Stage, state: PackageState, name: str) -> None:
        """A crash came between the fact and the rename."""
        assert state.stage is not None
        where = Whereabouts(file=stage, log=state.stage, status=state.status)
        if name != state.name:
            self._desk.move(stage, name, stage, state.name)
        reason = reasons.after_a_crash(state) if state.stage is Stage.REJECTED else None
        detail = tr("finished an interrupted move into {stage}/", stage=state.stage)
        self._desk.settle(package_of(state), Event.RECOVERED, where, detail=detail, reason=reason)
        if stage is Stage.REJECTED:
            self._desk.folders.remove_reason(state.name)

    def _log_move(self, package: Package, where: Whereabouts, stage: Stage, detail: str) -> None:
        if stage is Stage.REJECTED:
            content = self._desk.index.content(package.sha256)
            reason = reasons.put_here(package.name, accepted=content.accepted_as is not None and not content.unknown)
            # It lies there already: once the row is on disk too, no start has anything left to repair.
            self._desk.write_reason(package.name, reason)
        self._desk.settle(package, Event.MOVED, where, to=stage, actor=Actor.OPERATOR, detail=detail)
        self._desk.cancelled.forget(package.name)

    def _follow(self, package: Package, stage: Stage, *, order_id: str) -> None:
        if stage is Stage.DELIVERED:
            self._delivered(package)
        elif stage is Stage.SUBMITTED and order_id:
            self._submitted(package)
        elif stage is Stage.SUBMITTED:
            logger.bind(**fields(package, package.name)).warning(
                "submitted/{}: it has no order to ask about; move it to outbox/ to have it sent, or to delivered/",
                printable(package.name),
            )

    # --- something went --------------------------------------------------------------------------------------------

    def _vanished_from(self, stage: Stage) -> bool:
        known = self._desk.index.names_at(stage)
        complete = True
        for name in sorted(known.keys() - self._desk.folders.names(stage)):
            with self._desk.in_work.holding(name) as mine:
                self._soon |= not mine
                complete &= mine and self._vanished(stage, name, known[name])
        return complete

    def _vanished(self, stage: Stage, name: str, sha256: str) -> bool:
        """True when there is nothing left to see; the name is held."""
        state = self._desk.index.package(sha256, name)
        if state is None or state.stage is not stage or self._is_in_place(stage, name):
            return True
        if self._desk.look_at_mounts():
            self._soon = True
            return False  # it may lie under the mount
        if self._is_in_place(stage, name):
            return True  # it lay under one that was just taken off
        if any(self._lies(Stage.REJECTED, came) for came in self._desk.cancelled.came_of(name)):
            self._soon = True
            return False  # it came into rejected/ after this sweep had looked there
        back = self._in_outbox(state)
        if back is not None and stage in (Stage.OUTBOX, Stage.CLAIMED):
            return True  # it is claimed from there, and goes on from where the log has it
        if back is not None:
            self._requeued(state, back)
        elif state.bytes in self._unread_sizes:
            return False  # a file that can't be read now may be this one
        else:
            package = package_of(state)
            where = Whereabouts(file=stage, log=stage, status=state.status)
            event_detail = tr("no longer in {stage}/ nor in any other folder", stage=stage)
            self._desk.settle(package, Event.MOVED, where, to=None, actor=Actor.OPERATOR, detail=event_detail)
            if stage is Stage.REJECTED:
                self._desk.folders.remove_reason(name)
        return True

    def _is_in_place(self, stage: Stage, name: str) -> bool:
        """A claim is no fact: what the log has in outbox/ may lie in claimed/."""
        return self._lies(stage, name) or (stage is Stage.OUTBOX and self._lies(Stage.CLAIMED, name))

    def _in_outbox(self, state: PackageState) -> str | None:
        """The name under which a vanished package lies in the outbox, if it does: told by size, proven by content."""
        entries = [entry for entry in self._desk.folders.list(Stage.OUTBOX).entries if entry.size == state.bytes]
        for entry in sorted(entries, key=lambda entry: entry.name != state.name):
            if entry.name != state.name and entry.name in self._desk.in_work:
                continue
            try:
                read = self._read(Stage.OUTBOX, entry.name)
            except _NotNow:
                continue
            if read is not None and read[0] == state.sha256:
                return entry.name
        return None

    def _requeued(self, state: PackageState, name: str) -> None:
        package = package_of(state)
        was = state.name if state.name != name else None
        if was:
            package = Package(name=name, sha256=package.sha256, bytes=package.bytes, trace_id=package.trace_id)
        where = Whereabouts(file=Stage.OUTBOX, log=state.stage, status=state.status)
        detail = write_detail(moved_in_words(state.stage, Stage.OUTBOX), was=was)
        self._desk.settle(package, Event.REQUEUED, where, actor=Actor.OPERATOR, detail=detail)
        if state.stage is Stage.REJECTED:
            self._desk.folders.remove_reason(state.name)

    # --- reading ---------------------------------------------------------------------------------------------------

    def _read(self, stage: Stage, name: str) -> tuple[Sha256, int] | None:
        """SHA-256 and size of a file that somebody moved; None when it is gone or no regular file. Raises `_NotNow`."""
        try:
            fd = self._desk.folders.open(stage, name)
        except (FileNotFoundError, NotAPackage):
            return None
        except OSError as error:
            raise self._not_now(stage, name, error) from error
        try:
            size = os.fstat(fd).st_size
            with self._board.working(name, "reading", size) as progress:
                sha256 = hash_file(fd, stopping=self._stopping, progress=progress)
            self._told.pop((stage, name), None)
            return sha256, size
        except (OSError, Unfinished) as error:
            raise self._not_now(stage, name, error) from error
        finally:
            os.close(fd)

    def _not_now(self, stage: Stage, name: str, error: OSError | Unfinished) -> _NotNow:
        """One file that can't be read holds up nothing else. Whose it is stays open, so its size is kept in mind."""
        path = self._desk.folders.path(stage, name)
        if isinstance(error, OSError) and not disk.is_of_one_file(error):
            error.filename = error.filename or path
            raise error
        entry = self._desk.folders.look(stage, name)
        if entry is not None:
            self._unread_sizes.add(entry.size)
        if isinstance(error, Unfinished | BlockingIOError):
            self._soon = True  # somebody writes into it, or holds a lease on it, which the kernel ends within 45 s
        elif entry is not None and stage is not Stage.OUTBOX:  # the scan tells of these
            self._tell(stage, name, error)
        return _NotNow(name)

    def _tell(self, stage: Stage, name: str, error: OSError) -> None:
        path = printable(self._desk.folders.path(stage, name))
        if isinstance(error, PermissionError):
            text = tr(
                "{stage}/{name}: can't be read ({who}); it is not known what was moved there, and looked at again at "
                "each rescan: let the daemon read it: {mend}",
                stage=stage, name=printable(name), who=self._desk.folders.describe(stage, name),
                mend=self._desk.folders.how_to_let_read(stage, name),
            )  # fmt: skip
        else:
            text = tr(
                "{path}: can't be read: {error}; it is not known what was moved there, and looked at again at each "
                "rescan: see dmesg for what the disk says",
                path=path, error=error.strerror,
            )  # fmt: skip
        self._told[stage, name] = text

    def problems(self) -> list[str]:
        """What was moved by people, can't be read, and is still there. Any thread may ask."""
        return list(self._told.values())
