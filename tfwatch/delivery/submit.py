"""Deliver one claimed file: admit it, log the attempt, send it, settle what came of it."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from typing import Final

from loguru import logger

from tfwatch.delivery.admit import Admission, Admitted
from tfwatch.delivery.desk import Desk
from tfwatch.delivery.failure import BETWEEN_ROUNDS, Attempt, SettleFailure
from tfwatch.delivery.journal import fields, fields_of, tell_claimed
from tfwatch.delivery.park import park
from tfwatch.delivery.progress import Board, call_timeout
from tfwatch.delivery.recognise import Claim
from tfwatch.delivery.rollback import Rollback
from tfwatch.delivery.store import Store
from tfwatch.delivery.switch import Switch
from tfwatch.delivery.told import ApplyTold
from tfwatch.delivery.verdict import settle_verdict
from tfwatch.delivery.waiting import WaitingRoom
from tfwatch.delivery.whereabouts import Whereabouts
from tfwatch.delivery.wiring import Wiring
from tfwatch.errors import ContentChanged, ServiceFailure, StoppedBehind, Stopping, Unreadable
from tfwatch.language import tr
from tfwatch.local_time import date_and_time
from tfwatch.model import Actor, Event, Package, Receipt, Stage, Submission, Verdict, write_detail
from tfwatch.ports import TranscriptionPort
from tfwatch.spool.listing import NotAPackage
from tfwatch.spool.names import printable
from tfwatch.spool.reader import concerns_it_alone, reader_of

_SOURCE_URL_SECONDS: Final = 7 * 24 * 3600
"""How long a presigned URL lives: the most that signature version 4 allows."""


class SubmitDelivery:
    """The use case of the submission lanes; one call delivers one claim, or says why not. Thread-safe."""

    def __init__(
        self,
        desk: Desk,
        *,
        admission: Admission,
        waiting: WaitingRoom,
        board: Board,
        switch: Switch,
        rollback: Rollback,
        store: Store,
        told: ApplyTold,
        stopping: Callable[[], bool],
        accepted: Callable[[Package], None],
        delivered: Callable[[Package], None],
        in_limbo: Callable[[str, float], None],
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self._desk = desk
        self._admission = admission
        self._waiting = waiting
        self._board = board
        self._switch = switch
        self._rollback = rollback
        self._failure = SettleFailure(
            desk, waiting=waiting, switch=switch, rollback=rollback, in_limbo=in_limbo, clock=clock, rng=rng
        )
        self._store = store
        self._told = told
        self._stopping = stopping
        self._accepted = accepted
        self._delivered = delivered
        self._in_limbo = in_limbo
        self._clock = clock

    def deliver(self, claim: Claim, wiring: Wiring) -> None:
        """Take one claim as far as it goes now. Raises OSError and bugs only: these end the process."""
        with logger.contextualize(**fields_of(self._desk.index, claim.name)):
            self._deliver(claim, wiring)

    def _deliver(self, claim: Claim, wiring: Wiring) -> None:
        try:
            fd = self._desk.folders.open(Stage.CLAIMED, claim.name)
        except (FileNotFoundError, NotAPackage):
            if self._desk.look_at_mounts():
                self._in_limbo(claim.name, BETWEEN_ROUNDS.initial)  # it may lie under the mount
                return
            logger.warning("{}: vanished from claimed/ before it was read", printable(claim.name))
            return
        except (PermissionError, BlockingIOError) as error:
            self._put_back_unread(claim, error)
            return
        except OSError as error:
            if not concerns_it_alone(error):
                raise
            self._put_aside(claim, Unreadable(error.strerror or str(error)))
            return
        try:
            admitted = self._admission.admit(claim, fd, wiring.policy)
            if admitted is not None:
                try:
                    with logger.contextualize(**_fields(admitted)):
                        self._route(claim, admitted, wiring)
                finally:
                    self._admission.release(admitted.package.sha256)
        except StoppedBehind:
            return
        except Stopping:
            self._give_back_at_stop(claim)
        except Unreadable as error:
            self._put_aside(claim, error)
        finally:
            os.close(fd)

    def _put_aside(self, claim: Claim, error: Unreadable) -> None:
        """One file that the disk doesn't give holds up no other. One that may have been sent stays in claimed/."""
        self._admission.cannot_read(claim, error)
        if claim.recovered:
            self._in_limbo(claim.name, BETWEEN_ROUNDS.maximum)
        else:
            self._admission.give_back(claim, seconds=BETWEEN_ROUNDS.maximum)

    def _give_back_at_stop(self, claim: Claim) -> None:
        """A claim lasts while work is under way. One that may have been sent stays: its outcome is unknown."""
        if not claim.recovered and self._desk.folders.look(Stage.CLAIMED, claim.name) is not None:
            self._admission.give_back(claim)

    def _put_back_unread(self, claim: Claim, error: OSError) -> None:
        """Its owner may take our right to read away at any moment. What may have been sent waits for its return."""
        if claim.recovered:
            self._admission.tell_unreadable(claim, error)
            self._in_limbo(claim.name, BETWEEN_ROUNDS.initial)
        else:
            self._admission.give_back(claim)

    # --- may it go? ------------------------------------------------------------------------------------------------

    def _route(self, claim: Claim, admitted: Admitted, wiring: Wiring) -> None:
        where, content = admitted.where, admitted.content
        forced = admitted.state is not None and admitted.state.forced
        was_accepted = content.accepted_as is not None and not content.unknown
        if was_accepted and not forced and wiring.policy.duplicates == "reject":
            self._refuse_duplicate(claim, admitted)
            return
        if where.log is not Stage.CLAIMED and content.unknown and not self._requeued_by(admitted):
            self._refuse_unknown_twin(claim, admitted)
            return
        if content.unknown and (told := self._told.of_unknown(admitted.package.sha256)) is not None:
            self._told.accept(admitted.package, where, told)
            return
        if claim.purpose == "back up":
            tell_claimed(admitted.package, claim.dropped_as)
            self._store.back_up_waiting(claim, admitted, wiring)
            return
        port = wiring.transcription
        if port is None or not (self._switch.stand.open or claim.probe):
            self._keep_for_later(claim, where)
            return
        if content.unknown and not self._may_ask_again(claim, admitted, port, wiring):
            return
        with logger.contextualize(INTEGRATION=self._switch.integration.value):
            self._attempt(claim, admitted, wiring, port)

    def _refuse_duplicate(self, claim: Claim, admitted: Admitted) -> None:
        content = admitted.content
        known = {
            "when": date_and_time(content.accepted_at) if content.accepted_at else "?",
            "earlier": printable(content.accepted_as or ""),
            "order": content.order_id,
            "name": printable(claim.name),
        }
        message = (
            tr(
                "The same content was already accepted on {when} under the name {earlier} as order {order}; sending it "
                "again would be a second order (tfwatch requeue --force {name} asks for one).",
                **known,
            )
            if content.order_id
            else tr(
                "The same content was already accepted on {when} under the name {earlier}; sending it again would be "
                "a second order (tfwatch requeue --force {name} asks for one).",
                **known,
            )
        )
        self._admission.refuse(claim, admitted.package, admitted.where, flaw="duplicate", message=message)

    def _requeued_by(self, admitted: Admitted) -> Actor | None:
        return admitted.state.requeued_by if admitted.state is not None else None

    def _decided(self, admitted: Admitted) -> bool:
        """Whether a person put this package back, knowing that its outcome is unknown."""
        return self._requeued_by(admitted) is Actor.OPERATOR

    def _refuse_unknown_twin(self, claim: Claim, admitted: Admitted) -> None:
        others = [s.name for s in self._desk.index.packages_of(admitted.package.sha256) if s.name != claim.name]
        message = tr(
            "The same content was sent under the name {earlier}, and whether it was accepted is not known yet; "
            "sending it again could make a second order.",
            earlier=printable(others[0] if others else claim.name),
        )
        self._admission.refuse(claim, admitted.package, admitted.where, flaw="unknown twin", message=message)

    def _keep_for_later(self, claim: Claim, where: Whereabouts) -> None:
        """The integration went off in between. What may have been sent waits in claimed/, all else in the outbox."""
        if where.log is Stage.CLAIMED:
            self._in_limbo(claim.name, BETWEEN_ROUNDS.initial)
        else:
            self._admission.give_back(claim, seconds=0.0)

    def _may_ask_again(self, claim: Claim, admitted: Admitted, port: TranscriptionPort, wiring: Wiring) -> bool:
        """An unknown outcome is retried or looked up only where it arose; else a person decides, or has decided."""
        content, where = admitted.content, admitted.where
        if self._decided(admitted):
            return True
        if content.destination != port.destination:
            there = content.destination.base_url if content.destination else tr("an unknown service")
            why = tr("it may have been accepted by {url}, which is not the service configured now", url=there)
        elif wiring.policy.on_unknown == "ask":
            why = tr("it may have been accepted, and on_unknown_outcome: ask leaves it to you")
        else:
            return True
        park(self._desk, admitted.package, where, why, dropped_as=claim.dropped_as)
        return False

    # --- send ------------------------------------------------------------------------------------------------------

    def _attempt(self, claim: Claim, admitted: Admitted, wiring: Wiring, port: TranscriptionPort) -> None:
        package, content = admitted.package, admitted.content
        if not claim.recovered:
            tell_claimed(package, claim.dropped_as)
        source_url = None
        if port.needs_source_url:
            source_url = self._store.source_url(claim, admitted, wiring, expires_seconds=_SOURCE_URL_SECONDS)
            if source_url is None:
                self._admission.give_back(claim, seconds=BETWEEN_ROUNDS.initial)
                return
        generation = content.generation + 1 if content.ended else content.generation
        key = package.sha256 if generation == 1 else f"{package.sha256}-{generation}"
        state = admitted.state
        where = self._desk.settle(
            package, Event.ATTEMPTED, admitted.where, attempt=(state.rounds if state else 0) + 1,
            detail=write_detail(
                profile=port.destination.profile.value, base_url=port.destination.base_url, key=key,
                generation=generation, dropped=claim.dropped_as,
            ),
        )  # fmt: skip
        attempt = Attempt(
            claim=claim, package=package, where=where, maybe_sent=content.unknown,
            ask=wiring.policy.on_unknown == "ask", failures=state.failures if state else 0, began=self._clock(),
        )  # fmt: skip
        timeout = call_timeout(wiring.policy.timeout_seconds)
        with self._board.working(package.name, "sending", package.bytes, timeout=timeout) as progress:
            submission = Submission(
                package=package, open_zip=lambda: reader_of(admitted.fd),
                idempotency_key=key, maybe_sent=content.unknown, known_order=self._desk.index.knows_order,
                stopping=self._stopping, progress=progress, source_url=source_url, decided=self._decided(admitted),
            )  # fmt: skip
            try:
                outcome: Receipt | ServiceFailure | Stopping | ContentChanged = port.submit_package(submission)
            except (ServiceFailure, Stopping, ContentChanged) as failure:
                outcome = failure
        # Off the board by now: to wait for room on a full disk is no standstill of the call.
        if isinstance(outcome, Receipt):
            self._settle_accepted(attempt, outcome, port)
        else:
            self._failure.settle(attempt, outcome)

    def _settle_accepted(self, attempt: Attempt, receipt: Receipt, port: TranscriptionPort) -> None:
        package, now = attempt.package, self._clock()
        detail = write_detail(
            receipt.message, profile=port.destination.profile.value, base_url=port.destination.base_url,
            word=receipt.word or None, since_claim_ms=attempt.since_claim_ms(now),
        )  # fmt: skip
        where = self._desk.settle(
            package, Event.ACCEPTED, attempt.where, attempt=receipt.tries, order_id=receipt.order_id,
            code=receipt.code, duration_ms=attempt.elapsed_ms(now), detail=detail,
        )  # fmt: skip
        self._rollback.succeeded(probe=attempt.claim.probe)
        if where.log is Stage.SUBMITTED and receipt.verdict is not Verdict.PENDING:
            where = settle_verdict(
                self._desk, package, where, receipt.verdict, order_id=receipt.order_id, code=receipt.code,
                word=receipt.word, message=receipt.message, duration_ms=0,
            )  # fmt: skip
        # Where it is now decides what comes next: a person may have taken it somewhere else meanwhile.
        if where.log is Stage.SUBMITTED:
            self._accepted(where.named(package))
        elif where.log is Stage.DELIVERED:
            self._delivered(where.named(package))


def _fields(admitted: Admitted) -> dict[str, str]:
    order_id = admitted.state.order_id if admitted.state is not None else ""
    return fields(admitted.package, admitted.package.name, order_id=order_id)
