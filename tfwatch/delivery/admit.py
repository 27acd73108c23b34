"""From a claimed file to a package that may be sent: who is it, is it sound, was it here before?"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from loguru import logger

from tfwatch import disk
from tfwatch.delivery import reasons
from tfwatch.delivery.desk import Desk
from tfwatch.delivery.journal import fields_of, tell_claimed
from tfwatch.delivery.noted import Noted
from tfwatch.delivery.park import park
from tfwatch.delivery.progress import Board
from tfwatch.delivery.recognise import Claim, Recognition
from tfwatch.delivery.traces import AwaitedTraces
from tfwatch.delivery.waiting import WaitingRoom
from tfwatch.delivery.whereabouts import Whereabouts
from tfwatch.delivery.wiring import Policy
from tfwatch.errors import Stopping, Unreadable
from tfwatch.language import tr
from tfwatch.ledger.index import ContentState, PackageState
from tfwatch.model import Event, Package, Sha256, Stage, TraceId, write_detail
from tfwatch.spool.intake import Inspection, Unfinished, Unsound, hash_file, inspect, is_hollow
from tfwatch.spool.listing import NotAPackage
from tfwatch.spool.names import printable
from tfwatch.spool.reader import reading

_AGAIN_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """A sound package whose turn it is. Its SHA-256 is held until the caller releases it."""

    package: Package
    where: Whereabouts
    state: PackageState | None
    content: ContentState
    fd: int


class Admission:
    """Reads a claimed file to its end and decides whether it goes on. Runs in a lane."""

    def __init__(
        self,
        desk: Desk,
        waiting: WaitingRoom,
        board: Board,
        *,
        stopping: Callable[[], bool],
        freed: Callable[[], None],
        in_limbo: Callable[[str, float], None],
    ) -> None:
        """`in_limbo`: let a claimed file wait where it lies, by name, for so many seconds."""
        self._desk = desk
        self._in_limbo = in_limbo
        self._freed = freed
        self._waiting = waiting
        self._board = board
        self._stopping = stopping
        self._recognition = Recognition(desk, self._put_back)
        self._awaited = AwaitedTraces(desk.index)
        self._unreadable = Noted(desk.folders, Stage.OUTBOX, Stage.CLAIMED)

    def admit(self, claim: Claim, fd: int, policy: Policy) -> Admitted | None:
        """None: it was refused, given back, or moved to where an earlier crash had left it short of.

        Raises `Unreadable` when the disk doesn't give its bytes.
        """
        try:
            inspection = self._inspect(claim, fd, policy)
        except Unfinished as unfinished:
            if claim.expired:
                why = tr("It stayed unfinished for too long: it {why}.", why=unfinished.why)
                self._refuse_unsound(claim, fd, "truncated", why)
                return None
            logger.info("{}: back to outbox/: it {}", printable(claim.name), unfinished.why)
            self.give_back(claim)
            return None
        except Unsound as unsound:
            if is_hollow(fd, policy.limits.max_bytes):
                self.give_back(claim)  # it has grown since it was claimed; there it is reported
                return None
            self._refuse_unsound(claim, fd, unsound.code, unsound.message)
            return None
        return self._recognise(claim, fd, inspection)

    def recover(self, claim: Claim) -> bool:
        """At start: what lies in claimed/ is told by its content, never by its name.

        One that was never attempted goes back to the outbox; an interrupted move is finished. True: it may have been
        sent, and waits here until its outcome is known.
        """
        try:
            sha256 = self._hash_claimed(claim)
        except (PermissionError, BlockingIOError) as error:
            self.tell_unreadable(claim, error)
            return True
        except Unreadable as error:
            self.cannot_read(claim, error)
            return True
        except (NotAPackage, Unfinished, FileNotFoundError) as error:
            logger.bind(**fields_of(self._desk.index, claim.name)).warning(
                "claimed/{}: can't be read ({}), so it is not known what it is; it is left there: look at "
                "{} and start tfwatch again", printable(claim.name), error,
                printable(self._desk.folders.path(Stage.CLAIMED, claim.name)),
            )  # fmt: skip
            return False
        state = self._recognition.known(claim, sha256)
        if state is None:
            self._put_back(claim)
            return False
        where = Whereabouts(file=Stage.CLAIMED, log=state.stage, status=state.status)
        return self._recognition.recover(claim, state, where) is not None

    def tell_unreadable(self, claim: Claim, error: OSError) -> None:
        """Say that what waits in claimed/ can't be read now, and what mends that."""
        logger.bind(**fields_of(self._desk.index, claim.name)).warning(
            "claimed/{}: can't be read ({}), and it may have been sent; it waits there: {}",
            printable(claim.name), error.strerror, self._desk.folders.how_to_let_read(Stage.CLAIMED, claim.name),
        )  # fmt: skip

    def _hash_claimed(self, claim: Claim) -> Sha256:
        with self._reading(claim):
            fd = self._desk.folders.open(Stage.CLAIMED, claim.name)
            try:
                return self._hash(claim, fd)
            finally:
                os.close(fd)

    def _hash(self, claim: Claim, fd: int) -> Sha256:
        with self._board.working(claim.name, "reading", os.fstat(fd).st_size) as progress:
            return hash_file(fd, stopping=self._stopping, progress=progress)

    @contextmanager
    def _reading(self, claim: Claim) -> Iterator[None]:
        """Raises `Unreadable` for what the disk does to this one file."""
        with disk.about(self._desk.folders.path(Stage.CLAIMED, claim.name)), reading():
            yield

    def cannot_read(self, claim: Claim, error: Unreadable) -> None:
        """Show in status and alert, while it lasts, that a claimed file can't be read."""
        path = self._desk.folders.path(Stage.CLAIMED, claim.name)
        text = tr(
            "{path}: {error}; it is tried again: see dmesg for what the disk says, or copy it again under another name",
            path=printable(path),
            error=error,
        )
        self._unreadable.put(claim.name, text)

    def problems(self) -> list[str]:
        """Packages that could not be read and are still there."""
        return self._unreadable.texts()

    def give_back(self, claim: Claim, *, seconds: float = _AGAIN_SECONDS) -> None:
        """Let a claim go for so long. One that may have been sent waits in claimed/, any other in the outbox."""
        if any(state.stage is Stage.CLAIMED for state in self._desk.index.named(claim.name)):
            self._in_limbo(claim.name, seconds)
        else:
            self._put_back(claim, seconds)

    def _put_back(self, claim: Claim, seconds: float = 0.0) -> None:
        """Put an unattempted file into the outbox: nothing happened to it, so nothing is logged."""
        name = claim.name
        try:
            self._desk.move(Stage.CLAIMED, name, Stage.OUTBOX)
        except FileExistsError:
            name = self._desk.folders.free_name(name, leaving=Stage.CLAIMED, taken=self._desk.in_work.__contains__)
            self._desk.move(Stage.CLAIMED, claim.name, Stage.OUTBOX, name)
        except Stopping:
            return  # it lies in claimed/, as after a crash: the next start puts it back
        self._waiting.put(name, self._desk.folders.look(Stage.OUTBOX, name), seconds)

    # --- sound? ----------------------------------------------------------------------------------------------------

    def _inspect(self, claim: Claim, fd: int, policy: Policy) -> Inspection:
        size = os.fstat(fd).st_size
        with self._board.working(claim.name, "inspecting", size) as progress, self._reading(claim):
            found = inspect(
                fd, policy.limits, verify=policy.verify, stopping=self._stopping, progress=progress
            )  # fmt: skip
        self._unreadable.drop(claim.name)
        return found

    def _refuse_unsound(self, claim: Claim, fd: int, flaw: str, message: str) -> None:
        try:
            with self._reading(claim):
                sha256 = self._hash(claim, fd)
        except Unfinished:
            self.give_back(claim)
            return
        if not self._desk.in_work.take(sha256):
            self._wait_behind(claim, sha256)
            return
        try:
            self._put_on_disk(fd, claim.name)
            state = self._recognition.known(claim, sha256)
            package = self._package(claim, sha256, os.fstat(fd).st_size, None, state)
            where = self._recognition.where(claim, package, state)
            if where is not None and self._may_have_been_sent(package, where):
                # It was sound when it was sent: since then a limit was lowered, or this version looks closer.
                why = tr(
                    "it may have been accepted, and now it would be refused here: {why}; as long as that is so, "
                    "it comes back from outbox/ unsent",
                    why=message.rstrip("."),
                )
                park(self._desk, package, where, why, dropped_as=claim.dropped_as)
            elif where is not None:
                self.refuse(claim, package, where, flaw=flaw, message=message)
        finally:
            self.release(sha256)

    def _may_have_been_sent(self, package: Package, where: Whereabouts) -> bool:
        """Whether this package, not only a twin of it, was sent and nobody knows what became of that."""
        if where.log is Stage.CLAIMED:
            return True
        state = self._desk.index.package(package.sha256, package.name)
        return state is not None and state.requeued_by is not None and self._desk.index.content(package.sha256).unknown

    def refuse(self, claim: Claim, package: Package, where: Whereabouts, *, flaw: str, message: str) -> None:
        """Into rejected/, for a reason found here: nothing was sent."""
        if not claim.recovered:
            tell_claimed(package, claim.dropped_as)
        reason = reasons.refused_here(package.name, message=message, flaw=flaw)
        detail = write_detail(message, by="intake", flaw=flaw, dropped=claim.dropped_as)
        self._desk.settle(package, Event.REFUSED, where, detail=detail, reason=reason)

    # --- known? ----------------------------------------------------------------------------------------------------

    def _recognise(self, claim: Claim, fd: int, inspection: Inspection) -> Admitted | None:
        sha256 = inspection.sha256
        if not self._desk.in_work.take(sha256):
            self._wait_behind(claim, sha256)
            return None
        keep = False
        try:
            self._put_on_disk(fd, claim.name)
            state = self._recognition.known(claim, sha256)
            package = self._package(claim, sha256, inspection.bytes, inspection.trace_id, state)
            where = self._recognition.where(claim, package, state)
            if where is None:
                return None
            keep = True
            if state is not None:  # a person's hand may have been logged meanwhile
                state = self._desk.index.package(sha256, claim.name)
            return Admitted(package=package, where=where, state=state, content=self._desk.index.content(sha256), fd=fd)
        finally:
            if not keep:
                self.release(sha256)

    def _put_on_disk(self, fd: int, name: str) -> None:
        """Before the first fact about it. People drop files without syncing them: after a power cut the log would
        know a content that is gone, and the ZIP under its name would have 0 bytes or be back in the outbox.
        """
        disk.sync(fd, self._desk.folders.path(Stage.CLAIMED, name), os.fdatasync)
        self._desk.folders.sync(Stage.CLAIMED, Stage.OUTBOX)  # the arrival first, as with every move

    def release(self, sha256: str) -> None:
        """Let go of a content; its twins may be looked at now."""
        self._desk.in_work.release(sha256)
        if self._waiting.free_behind(sha256):
            self._freed()

    def _wait_behind(self, claim: Claim, sha256: str) -> None:
        logger.bind(**fields_of(self._desk.index, claim.name) | {"SHA256": sha256}).info(
            "{}: waits: the same content is being worked on under another name", printable(claim.name)
        )
        if claim.recovered:
            self._in_limbo(claim.name, _AGAIN_SECONDS)
            return
        self.give_back(claim)
        self._waiting.put_behind(claim.name, self._desk.folders.look(Stage.OUTBOX, claim.name), sha256)
        if sha256 not in self._desk.in_work and self._waiting.free_behind(sha256):
            self._freed()

    def _package(
        self, claim: Claim, sha256: Sha256, size: int, trace_id: TraceId | None, state: PackageState | None = None
    ) -> Package:
        known = TraceId(state.trace_id) if state and state.trace_id else None
        if not (trace_id or known):
            known = self._awaited.trace(claim.name, sha256)
        return Package(
            name=claim.name, sha256=sha256, bytes=size, trace_id=trace_id or known or TraceId(secrets.token_hex(16))
        )
