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
from tfwatch.delivery.desk import Desk
from tfwatch.delivery.progress import Board
from tfwatch.delivery.whereabouts import Whereabouts, package_of
from tfwatch.ledger.index import PackageState
from tfwatch.model import Actor, Event, Package, Sha256, Stage, Status, TraceId, write_detail
from tfwatch.spool.intake import Unfinished, hash_file
from tfwatch.spool.listing import NotAPackage
from tfwatch.spool.names import printable

_SETTLED: Final = (Stage.SUBMITTED, Stage.REJECTED, Stage.DELIVERED)
_CLOCK_GRAIN_NS: Final = 50_000_000
"""A folder changed this recently may change again without its time stamp showing it."""


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
        self._told: set[tuple[Stage, str]] = set()

    def sweep(self, *, recovering: bool = False) -> bool:
        """Look once; False when something was being worked on and must be looked at again.

        `recovering`: the daemon has just started, so a settled package still in submitted/ is a move of its own that
        a crash cut short, not a person's.
        """
        try:
            return self._sweep(recovering=recovering)
        except (FileNotFoundError, NotADirectoryError) as error:
            # A whole folder is gone: its packages are not each taken away; it is made or mounted again soon.
            logger.warning("{} is gone; it is looked at again when it is back", error.filename)
            return False

    def _sweep(self, *, recovering: bool) -> bool:
        apart = self._desk.look_at_mounts()
        complete = not apart
        stages = [stage for stage in _SETTLED if stage not in apart and not self._is_unchanged(stage)]
        for stage in stages:
            listed_at = time.time_ns()
            changed = self._desk.folders.changed_ns(stage)
            seen = self._appeared_at(stage, recovering=recovering)
            complete &= seen
            if seen and changed < listed_at - _CLOCK_GRAIN_NS:
                self._unchanged_since[stage] = changed
        for stage in (*stages, Stage.OUTBOX, Stage.CLAIMED):
            vanished_all = self._vanished_from(stage)
            if not vanished_all:
                self._unchanged_since.pop(stage, None)
            complete &= vanished_all
        return complete

    def _is_unchanged(self, stage: Stage) -> bool:
        return self._unchanged_since.get(stage) == self._desk.folders.changed_ns(stage)

    # --- something came --------------------------------------------------------------------------------------------

    def _appeared_at(self, stage: Stage, *, recovering: bool) -> bool:
        known = self._desk.index.names_at(stage)
        complete = True
        for name in sorted(self._desk.folders.names(stage) - known.keys()):
            with self._desk.in_work.holding(name) as mine:
                complete &= mine and self._appeared(stage, name, recovering=recovering)
        return complete

    def _appeared(self, stage: Stage, name: str, *, recovering: bool) -> bool:
        """True when there is nothing left to see; the name is held."""
        if any(state.stage is stage for state in self._desk.index.named(name)):
            return True
        try:
            read = self._read(stage, name)
        except BlockingIOError:
            return False  # somebody holds a lease on it, for 45 s at most
        if read is None:
            return True
        sha256, size = read
        state = self._displaced(sha256, name)
        if state is None:
            self._put_there(stage, name, sha256, size)
        elif recovering and stage is Stage.SUBMITTED and state.event in (Event.COMPLETED, Event.REFUSED):
            self._finish(state, name)
        else:
            self._moved(stage, name, state)
        return True

    def _displaced(self, sha256: str, name: str) -> PackageState | None:
        """The package of that content which is not where the log has it; the one of that name first."""
        states = sorted(self._desk.index.packages_of(sha256), key=lambda state: state.name != name)
        for state in states:
            if state.name != name and state.name in self._desk.in_work:
                continue
            if state.stage is None or self._desk.folders.look(state.stage, state.name) is None:
                return state
        return None

    def _put_there(self, stage: Stage, name: str, sha256: Sha256, size: int) -> None:
        """A ZIP the log has never seen: a person took it out of the outbox before the daemon did."""
        package = Package(name=name, sha256=sha256, bytes=size, trace_id=TraceId(secrets.token_hex(16)))
        where = Whereabouts(file=stage, log=Stage.OUTBOX, status=Status.WAITING)
        self._log_move(package, where, stage, write_detail(_words(Stage.OUTBOX, stage), dropped=name))
        self._follow(package, stage, order_id="")

    def _moved(self, stage: Stage, name: str, state: PackageState) -> None:
        package = package_of(state)
        was = state.name if state.name != name else None
        if was:
            package = Package(name=name, sha256=package.sha256, bytes=package.bytes, trace_id=package.trace_id)
        where = Whereabouts(file=stage, log=state.stage, status=state.status)
        self._log_move(package, where, stage, write_detail(_words(state.stage, stage), was=was))
        if state.stage is Stage.REJECTED:
            self._desk.folders.remove_reason(state.name)
        self._follow(package, stage, order_id=state.order_id)

    def _finish(self, state: PackageState, name: str) -> None:
        """A crash came between the fact and the rename."""
        assert state.stage is not None
        where = Whereabouts(file=Stage.SUBMITTED, log=state.stage, status=state.status)
        if name != state.name:
            self._desk.move(Stage.SUBMITTED, name, Stage.SUBMITTED, state.name)
        reason = None
        if state.stage is Stage.REJECTED:
            reason = reasons.after_a_crash(state, self._desk.index.content(state.sha256))
        detail = f"finished an interrupted move into {state.stage}/"
        self._desk.settle(package_of(state), Event.RECOVERED, where, detail=detail, reason=reason)

    def _log_move(self, package: Package, where: Whereabouts, stage: Stage, detail: str) -> None:
        reason = None
        if stage is Stage.REJECTED:
            content = self._desk.index.content(package.sha256)
            again = "move it back to outbox/ to have it sent."
            if content.accepted_as is not None and not content.unknown:
                again = (
                    "nothing here; it was accepted before, and its order stays at the service. For a second order: "
                    f"tfwatch requeue --force {printable(package.name)}"
                )
            reason = (
                f"{printable(package.name)} was put here by an operator, so it is not sent or followed any more.\n\n"
                f"What to do: {again}\n"
            )
        self._desk.settle(package, Event.MOVED, where, to=stage, actor=Actor.OPERATOR, detail=detail, reason=reason)

    def _follow(self, package: Package, stage: Stage, *, order_id: str) -> None:
        if stage is Stage.DELIVERED:
            self._delivered(package)
        elif stage is Stage.SUBMITTED and order_id:
            self._submitted(package)
        elif stage is Stage.SUBMITTED:
            logger.warning(
                "submitted/{}: it has no order to ask about; move it to outbox/ to have it sent, or to delivered/",
                printable(package.name),
            )

    # --- something went --------------------------------------------------------------------------------------------

    def _vanished_from(self, stage: Stage) -> bool:
        known = self._desk.index.names_at(stage)
        complete = True
        for name in sorted(known.keys() - self._desk.folders.names(stage)):
            with self._desk.in_work.holding(name) as mine:
                if mine:
                    self._vanished(stage, name, known[name])
                complete &= mine
        return complete

    def _vanished(self, stage: Stage, name: str, sha256: str) -> None:
        state = self._desk.index.package(sha256, name)
        if state is None or state.stage is not stage or self._desk.folders.look(stage, name) is not None:
            return
        if stage in (Stage.OUTBOX, Stage.CLAIMED) and self._desk.folders.look(Stage.CLAIMED, name) is not None:
            return
        if stage in self._desk.look_at_mounts():
            return  # it lies there still, under the mount
        back = self._in_outbox(state)
        if back is not None and stage in (Stage.OUTBOX, Stage.CLAIMED):
            return  # it is claimed from there, and goes on from where the log has it
        if back is not None:
            self._requeued(state, back)
        else:
            package = package_of(state)
            where = Whereabouts(file=stage, log=stage, status=state.status)
            event_detail = f"no longer in {stage}/ nor in any other folder"
            self._desk.settle(package, Event.MOVED, where, to=None, actor=Actor.OPERATOR, detail=event_detail)
            if stage is Stage.REJECTED:
                self._desk.folders.remove_reason(name)

    def _in_outbox(self, state: PackageState) -> str | None:
        """The name under which a vanished package lies in the outbox, if it does: told by size, proven by content."""
        entries = [entry for entry in self._desk.folders.list(Stage.OUTBOX).entries if entry.size == state.bytes]
        for entry in sorted(entries, key=lambda entry: entry.name != state.name):
            if entry.name != state.name and entry.name in self._desk.in_work:
                continue
            try:
                read = self._read(Stage.OUTBOX, entry.name)
            except BlockingIOError:
                continue  # when it is claimed it is known by its content
            if read is not None and read[0] == state.sha256:
                return entry.name
        return None

    def _requeued(self, state: PackageState, name: str) -> None:
        package = package_of(state)
        was = state.name if state.name != name else None
        if was:
            package = Package(name=name, sha256=package.sha256, bytes=package.bytes, trace_id=package.trace_id)
        where = Whereabouts(file=Stage.OUTBOX, log=state.stage, status=state.status)
        detail = write_detail(_words(state.stage, Stage.OUTBOX), was=was)
        self._desk.settle(package, Event.REQUEUED, where, actor=Actor.OPERATOR, detail=detail)
        if state.stage is Stage.REJECTED:
            self._desk.folders.remove_reason(state.name)

    # --- reading ---------------------------------------------------------------------------------------------------

    def _read(self, stage: Stage, name: str) -> tuple[Sha256, int] | None:
        """SHA-256 and size of a file that somebody moved; None when it can't be read now."""
        try:
            fd = self._desk.folders.open(stage, name)
        except (FileNotFoundError, NotAPackage):
            return None
        except PermissionError:
            self._tell_unreadable(stage, name)
            return None
        except OSError as error:
            self._cannot_read(stage, name, error)
            return None
        try:
            size = os.fstat(fd).st_size
            with self._board.working(name, "reading", size) as progress:
                return hash_file(fd, stopping=self._stopping, progress=progress), size
        except Unfinished:
            return None
        except OSError as error:
            self._cannot_read(stage, name, error)
            return None
        finally:
            os.close(fd)

    def _cannot_read(self, stage: Stage, name: str, error: OSError) -> None:
        """One file that the disk doesn't give is told, and holds up nothing else."""
        path = self._desk.folders.path(stage, name)
        if not disk.is_of_one_file(error):
            error.filename = error.filename or path
            raise error
        if (stage, name) not in self._told:
            self._told.add((stage, name))
            logger.bind(EVENT="ALERT", PACKAGE=printable(name)).warning(
                "{}: can't be read: {}; it is not known what it is: see dmesg for what the disk says",
                printable(path), error.strerror,
            )  # fmt: skip

    def _tell_unreadable(self, stage: Stage, name: str) -> None:
        if (stage, name) not in self._told:
            self._told.add((stage, name))
            path = self._desk.folders.path(stage, name)
            logger.warning(
                "{}/{}: can't be read ({}): chmod g+r {}", stage, printable(name),
                self._desk.folders.describe(stage, name), printable(path),
            )  # fmt: skip


def _words(source: Stage | None, target: Stage) -> str:
    return f"moved from {source or 'elsewhere'} to {target}"
