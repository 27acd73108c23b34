"""Deliver one claimed file: admit it, log the attempt, send it, settle what came of it."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from loguru import logger

from tfwatch.delivery.admit import Admission, Admitted, Claim
from tfwatch.delivery.desk import Desk, Whereabouts
from tfwatch.delivery.progress import Board
from tfwatch.delivery.rollback import Rollback
from tfwatch.delivery.store import Store
from tfwatch.delivery.switch import Switch
from tfwatch.delivery.verdict import settle_verdict
from tfwatch.delivery.waiting import WaitingRoom
from tfwatch.delivery.wiring import Wiring
from tfwatch.errors import (
    ContentChanged,
    OutcomeUnknown,
    PermanentError,
    ServiceError,
    ServiceFailure,
    Stopping,
    TransientError,
)
from tfwatch.model import Actor, Event, Package, Receipt, Stage, Submission, Verdict, rfc3339, write_detail
from tfwatch.ports import TranscriptionPort
from tfwatch.retry import Backoff
from tfwatch.spool.listing import NotAPackage
from tfwatch.spool.names import printable

BETWEEN_ROUNDS: Final = Backoff(initial=15.0, maximum=60.0)
"""Between delivery attempts of one package, seconds. Short: the breaker ends an outage, not patience."""

_LONGEST_HOLD: Final = 3600.0
_SOURCE_URL_SECONDS: Final = 7 * 24 * 3600
"""How long a presigned URL lives: the most that signature version 4 allows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Attempt:
    """One delivery attempt under way."""

    claim: Claim
    package: Package
    where: Whereabouts
    maybe_sent: bool
    ask: bool
    failures: int
    began: float


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
        self._store = store
        self._stopping = stopping
        self._accepted = accepted
        self._delivered = delivered
        self._in_limbo = in_limbo
        self._clock = clock
        self._rng = rng or random.Random()  # noqa: S311  spreads retries, protects nothing

    def deliver(self, claim: Claim, wiring: Wiring) -> None:
        """Take one claim as far as it goes now. Raises OSError and bugs only: these end the process."""
        try:
            fd = self._desk.folders.open(Stage.CLAIMED, claim.name)
        except (FileNotFoundError, NotAPackage):
            logger.warning("{}: vanished from claimed/ before it was read", printable(claim.name))
            return
        try:
            admitted = self._admission.admit(claim, fd, wiring.policy)
            if admitted is not None:
                try:
                    self._route(claim, admitted, wiring)
                finally:
                    self._admission.release(admitted.package.sha256)
        except Stopping:
            self._give_back_at_stop(claim)
        finally:
            os.close(fd)

    def _give_back_at_stop(self, claim: Claim) -> None:
        """A claim lasts while work is under way. One that may have been sent stays: its outcome is unknown."""
        if not claim.recovered and self._desk.folders.look(Stage.CLAIMED, claim.name) is not None:
            states = self._desk.index.named(claim.name)
            if not any(state.stage is Stage.CLAIMED for state in states):
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
        if claim.purpose == "back up":
            self._store.back_up_waiting(claim, admitted, wiring)
            return
        port = wiring.transcription
        if port is None or not (self._switch.stand.open or claim.probe):
            self._keep_for_later(claim, where)
            return
        if content.unknown and not self._may_ask_again(claim, admitted, port, wiring):
            return
        self._attempt(claim, admitted, wiring, port)

    def _refuse_duplicate(self, claim: Claim, admitted: Admitted) -> None:
        content = admitted.content
        when = f"{content.accepted_at:%Y-%m-%d %H:%M} UTC" if content.accepted_at else "earlier"
        order = f" as order {content.order_id}" if content.order_id else ""
        message = (
            f"The same content was already accepted on {when} under the name "
            f"{printable(content.accepted_as or '')}{order}; sending it again would be a second order "
            f"(tfwatch requeue --force {printable(claim.name)} asks for one)."
        )
        self._admission.refuse(claim, admitted.package, admitted.where, flaw="duplicate", message=message)

    def _requeued_by(self, admitted: Admitted) -> Actor | None:
        return admitted.state.requeued_by if admitted.state is not None else None

    def _decided(self, admitted: Admitted) -> bool:
        """Whether a person put this package back, knowing that its outcome is unknown."""
        return self._requeued_by(admitted) is Actor.OPERATOR

    def _refuse_unknown_twin(self, claim: Claim, admitted: Admitted) -> None:
        others = [s.name for s in self._desk.index.packages_of(admitted.package.sha256) if s.name != claim.name]
        message = (
            f"The same content was sent under the name {printable(others[0] if others else claim.name)}, "
            "and whether it was accepted is not known yet; sending it again could make a second order."
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
            there = content.destination.base_url if content.destination else "an unknown service"
            why = f"it may have been accepted by {there}, which is not the service configured now"
        elif wiring.policy.on_unknown == "ask":
            why = "it may have been accepted, and on_unknown_outcome: ask leaves it to you"
        else:
            return True
        self._park(claim, admitted.package, where, why, attempt=None, code=None)
        return False

    def _park(
        self, claim: Claim, package: Package, where: Whereabouts, why: str, *, attempt: int | None, code: int | None
    ) -> Whereabouts:
        reason = (
            f"Nobody knows whether {printable(package.name)} was delivered.\n\n"
            f"Why: {why}.\n"
            "What to do: ask the service whether it has this package (client reference "
            f"{package.sha256}).\n"
            "If it has: move the ZIP to delivered/. If it has not: move it back to outbox/; it is sent again under the "
            "same idempotency key.\n"
        )
        failed = "yes" if attempt is not None else None
        logger.bind(EVENT="ALERT", PACKAGE=printable(package.name), SHA256=package.sha256).warning(
            "{}: nobody knows whether it was delivered: {}; it waits in rejected/ for you to decide",
            printable(package.name), why,
        )  # fmt: skip
        return self._desk.settle(
            package, Event.UNKNOWN, where, to=Stage.REJECTED, attempt=attempt, code=code,
            detail=write_detail(why, failed=failed, dropped=claim.dropped_as), reason=reason,
        )  # fmt: skip

    # --- send ------------------------------------------------------------------------------------------------------

    def _attempt(self, claim: Claim, admitted: Admitted, wiring: Wiring, port: TranscriptionPort) -> None:
        package, content = admitted.package, admitted.content
        source_url = None
        if port.needs_source_url:
            source_url = self._store.source_url(claim, admitted, wiring, expires_seconds=_SOURCE_URL_SECONDS)
            if source_url is None:
                self._admission.give_back(claim, seconds=BETWEEN_ROUNDS.initial)
                return
        generation = content.generation + 1 if content.ended else content.generation
        key = package.sha256 if generation == 1 else f"{package.sha256}-{generation}"
        state = admitted.state
        # People drop files without syncing them: after a power cut a sent package must not have 0 bytes.
        os.fdatasync(admitted.fd)
        self._desk.folders.sync(Stage.OUTBOX, Stage.CLAIMED)
        where = self._desk.settle(
            package, Event.ATTEMPTED, admitted.where, attempt=(state.rounds if state else 0) + 1,
            detail=write_detail(
                profile=port.destination.profile.value, base_url=port.destination.base_url, key=key,
                generation=generation, dropped=claim.dropped_as,
            ),
        )  # fmt: skip
        attempt = _Attempt(
            claim=claim, package=package, where=where, maybe_sent=content.unknown,
            ask=wiring.policy.on_unknown == "ask", failures=state.failures if state else 0, began=self._clock(),
        )  # fmt: skip
        with self._board.working(package.name, "sending", package.bytes) as progress:
            submission = Submission(
                package=package, open_zip=lambda: self._desk.folders.reader(Stage.CLAIMED, claim.name),
                idempotency_key=key, maybe_sent=content.unknown, known_order=self._desk.index.knows_order,
                stopping=self._stopping, progress=progress, source_url=source_url, decided=self._decided(admitted),
            )  # fmt: skip
            try:
                receipt = port.submit_package(submission)
            except (ServiceFailure, Stopping, ContentChanged) as failure:
                self._settle_failure(attempt, failure)
                return
        self._settle_accepted(attempt, receipt, port)

    def _settle_accepted(self, attempt: _Attempt, receipt: Receipt, port: TranscriptionPort) -> None:
        package = attempt.package
        detail = write_detail(
            receipt.message, profile=port.destination.profile.value, base_url=port.destination.base_url,
            word=receipt.word or None,
        )  # fmt: skip
        where = self._desk.settle(
            package, Event.ACCEPTED, attempt.where, attempt=receipt.tries, order_id=receipt.order_id,
            code=receipt.code, duration_ms=self._elapsed_ms(attempt), detail=detail,
        )  # fmt: skip
        self._rollback.succeeded(probe=attempt.claim.probe)
        if receipt.verdict is Verdict.PENDING:
            self._accepted(package)
            return
        settle_verdict(
            self._desk, package, where, receipt.verdict, order_id=receipt.order_id, code=receipt.code,
            word=receipt.word, message=receipt.message, duration_ms=0,
        )  # fmt: skip
        if receipt.verdict is Verdict.COMPLETED:
            self._delivered(package)

    # --- or not ----------------------------------------------------------------------------------------------------

    def _settle_failure(self, attempt: _Attempt, failure: ServiceFailure | Stopping | ContentChanged) -> None:
        match failure:
            case PermanentError():
                self._settle_refused(attempt, failure)
            case OutcomeUnknown():
                self._settle_unknown(attempt, failure)
            case ServiceError() if not attempt.maybe_sent:
                self._defer(attempt, failure, 0.0, failed=False)
                self._after_service_error(attempt, failure)
            case TransientError() if not attempt.maybe_sent:
                self._settle_transient(attempt, failure)
            case ServiceError():
                self._settle_unknown(attempt, failure)
                self._after_service_error(attempt, failure)
            case ServiceFailure():
                self._settle_unknown(attempt, failure)
            case Stopping() if attempt.maybe_sent:
                return
            case Stopping():
                self._defer(attempt, None, 0.0, failed=False, message="cut short: the daemon is stopping")
            case ContentChanged() if attempt.maybe_sent:
                self._settle_unknown(attempt, TransientError(f"{failure}; an earlier try may have arrived"))
            case ContentChanged():
                message = f"{failure}; nothing was delivered"
                self._defer(attempt, None, BETWEEN_ROUNDS.initial, failed=False, message=message)

    def _settle_refused(self, attempt: _Attempt, failure: PermanentError) -> None:
        package = attempt.package
        reason = (
            f"{printable(package.name)} was refused by the transcription service.\n\n"
            f"Its own words: {failure.message}\n"
            f"HTTP status: {failure.code or 'none'}\n"
            "What to do: mend the package and drop it again, or move this one back to outbox/ to try it once more.\n"
        )
        self._desk.settle(
            package, Event.REFUSED, attempt.where, attempt=failure.tries, code=failure.code,
            duration_ms=self._elapsed_ms(attempt), detail=write_detail(failure.message, by="service"), reason=reason,
        )  # fmt: skip
        self._rollback.succeeded(probe=attempt.claim.probe)

    def _settle_transient(self, attempt: _Attempt, failure: TransientError) -> None:
        if failure.retry_after is not None:
            self._switch.hold(min(failure.retry_after, _LONGEST_HOLD))
        if self._trips(attempt):
            self._rollback.trip(attempt.package, attempt.where, failure, sent=False, attempt=failure.tries)
            return
        self._defer(attempt, failure, self._pause(attempt, failure.retry_after), failed=True)

    def _settle_unknown(self, attempt: _Attempt, failure: ServiceFailure) -> None:
        """It may have been accepted: it waits in claimed/, and only the same key may be used for it."""
        trips = self._trips(attempt)
        if attempt.ask:
            where = self._park(
                attempt.claim, attempt.package, attempt.where, failure.message, attempt=failure.tries,
                code=failure.code,
            )  # fmt: skip
        else:
            delay = self._pause(attempt, None)
            retry_at = rfc3339(self._desk.now() + timedelta(seconds=delay))
            where = self._desk.settle(
                attempt.package, Event.UNKNOWN, attempt.where, to=Stage.CLAIMED, attempt=failure.tries,
                code=failure.code, duration_ms=self._elapsed_ms(attempt),
                detail=write_detail(failure.message, failed="yes", retry_at=retry_at),
            )  # fmt: skip
            if not trips:
                self._in_limbo(attempt.package.name, delay)
        if trips:
            self._rollback.trip(attempt.package, where, failure, sent=True, attempt=failure.tries)

    def _defer(
        self,
        attempt: _Attempt,
        failure: ServiceFailure | None,
        delay: float,
        *,
        failed: bool,
        message: str = "",
    ) -> None:
        retry_at = self._desk.now() + timedelta(seconds=delay)
        self._desk.settle(
            attempt.package, Event.DEFERRED, attempt.where,
            attempt=failure.tries if failure else None, code=failure.code if failure else None,
            duration_ms=self._elapsed_ms(attempt),
            detail=write_detail(
                failure.message if failure else message, sent="no", failed="yes" if failed else None,
                retry_at=rfc3339(retry_at),
            ),
        )  # fmt: skip
        name = attempt.package.name
        self._waiting.put(name, self._desk.folders.look(Stage.OUTBOX, name), delay)

    def _after_service_error(self, attempt: _Attempt, failure: ServiceError) -> None:
        if attempt.claim.probe:
            self._switch.probe_failed()
        self._rollback.pause(attempt.package, failure)

    def _trips(self, attempt: _Attempt) -> bool:
        if attempt.claim.probe:
            self._switch.probe_failed()
            return False
        return self._rollback.failed(began=attempt.began)

    def _pause(self, attempt: _Attempt, retry_after: float | None) -> float:
        if retry_after is not None:
            return min(retry_after, _LONGEST_HOLD)
        return self._rollback.shorten(BETWEEN_ROUNDS.delay(attempt.failures + 1, self._rng))

    def _elapsed_ms(self, attempt: _Attempt) -> int:
        return round((self._clock() - attempt.began) * 1000)
