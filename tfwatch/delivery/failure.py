"""Settle a delivery attempt that gave no receipt: refused, deferred, unknown, or the end of the service's use."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from tfwatch.delivery import reasons
from tfwatch.delivery.desk import Desk
from tfwatch.delivery.park import park
from tfwatch.delivery.recognise import Claim
from tfwatch.delivery.rollback import Rollback
from tfwatch.delivery.switch import Switch
from tfwatch.delivery.waiting import WaitingRoom
from tfwatch.delivery.whereabouts import Whereabouts
from tfwatch.errors import (
    ContentChanged,
    OutcomeUnknown,
    PermanentError,
    ServiceError,
    ServiceFailure,
    StoppedInDoubt,
    Stopping,
    TransientError,
)
from tfwatch.language import tr
from tfwatch.model import Event, Package, Stage, rfc3339, write_detail
from tfwatch.retry import Backoff

BETWEEN_ROUNDS: Final = Backoff(initial=15.0, maximum=60.0)
"""Between delivery attempts of one package, seconds. Short: the breaker ends an outage, not patience."""

LONGEST_HOLD: Final = 3600.0
"""The longest pause that a service gets for asking, seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One delivery attempt under way."""

    claim: Claim
    package: Package
    where: Whereabouts
    maybe_sent: bool
    ask: bool
    failures: int
    began: float

    def elapsed_ms(self, now: float) -> int:
        """How long it has taken until `now`."""
        return round((now - self.began) * 1000)

    def since_claim_ms(self, now: float) -> int | None:
        """How long ago its package was claimed: inspecting it and waiting for a lane are in it."""
        return None if self.claim.taken_at is None else round((now - self.claim.taken_at) * 1000)


class SettleFailure:
    """What becomes of a package whose attempt failed, and of the service. Thread-safe."""

    def __init__(
        self,
        desk: Desk,
        *,
        waiting: WaitingRoom,
        switch: Switch,
        rollback: Rollback,
        in_limbo: Callable[[str, float], None],
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self._desk = desk
        self._waiting = waiting
        self._switch = switch
        self._rollback = rollback
        self._in_limbo = in_limbo
        self._clock = clock
        self._rng = rng or random.Random()  # noqa: S311  spreads retries, protects nothing

    def settle(self, attempt: Attempt, failure: ServiceFailure | Stopping | ContentChanged) -> None:
        """Log what came of it and bring the file where that says."""
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
            case StoppedInDoubt():
                return  # as after a crash: ATTEMPTED is its last row
            case Stopping() if attempt.maybe_sent:
                return
            case Stopping():
                self._defer(attempt, None, 0.0, failed=False, message=tr("cut short: the daemon is stopping"))
            case ContentChanged() if attempt.maybe_sent:
                self._settle_unknown(
                    attempt, TransientError(tr("{failure}; an earlier try may have arrived", failure=failure))
                )
            case ContentChanged():
                message = tr("{failure}; nothing was delivered", failure=failure)
                self._defer(attempt, None, BETWEEN_ROUNDS.initial, failed=False, message=message)

    def _settle_refused(self, attempt: Attempt, failure: PermanentError) -> None:
        package = attempt.package
        reason = reasons.refused(package.name, message=failure.message, code=failure.code)
        self._desk.settle(
            package, Event.REFUSED, attempt.where, attempt=failure.tries, code=failure.code,
            duration_ms=attempt.elapsed_ms(self._clock()), detail=write_detail(failure.message, by="service"),
            reason=reason,
        )  # fmt: skip
        self._rollback.succeeded(probe=attempt.claim.probe)

    def _settle_transient(self, attempt: Attempt, failure: TransientError) -> None:
        if self._trips(attempt, failure):
            self._rollback.trip(attempt.package, attempt.where, failure, sent=False, attempt=failure.tries)
            return
        self._defer(attempt, failure, self._pause(attempt, failure.retry_after), failed=True)

    def _settle_unknown(self, attempt: Attempt, failure: ServiceFailure) -> None:
        """It may have been accepted: it waits in claimed/, and only the same key may be used for it."""
        trips = self._trips(attempt, failure)
        if attempt.ask:
            where = park(
                self._desk, attempt.package, attempt.where, failure.message,
                dropped_as=attempt.claim.dropped_as, attempt=failure.tries, code=failure.code,
            )  # fmt: skip
        else:
            delay = self._pause(attempt, failure.retry_after)
            retry_at = rfc3339(self._desk.now() + timedelta(seconds=delay))
            where = self._desk.settle(
                attempt.package, Event.UNKNOWN, attempt.where, to=Stage.CLAIMED, attempt=failure.tries,
                code=failure.code, duration_ms=attempt.elapsed_ms(self._clock()),
                detail=write_detail(failure.message, failed="yes", retry_at=retry_at),
            )  # fmt: skip
            if not trips:
                self._in_limbo(attempt.package.name, delay)
        if trips:
            self._rollback.trip(attempt.package, where, failure, sent=True, attempt=failure.tries)

    def _defer(
        self,
        attempt: Attempt,
        failure: ServiceFailure | None,
        delay: float,
        *,
        failed: bool,
        message: str = "",
    ) -> None:
        retry_at = self._desk.now() + timedelta(seconds=delay)
        where = self._desk.settle(
            attempt.package, Event.DEFERRED, attempt.where,
            attempt=failure.tries if failure else None, code=failure.code if failure else None,
            duration_ms=attempt.elapsed_ms(self._clock()),
            detail=write_detail(
                failure.message if failure else message, sent="no", failed="yes" if failed else None,
                retry_at=rfc3339(retry_at),
            ),
        )  # fmt: skip
        name = where.named(attempt.package).name
        self._waiting.put(name, self._desk.folders.look(Stage.OUTBOX, name), delay)

    def _after_service_error(self, attempt: Attempt, failure: ServiceError) -> None:
        if attempt.claim.probe:
            self._switch.probe_failed()
        self._rollback.pause(attempt.package, failure, began=attempt.began)

    def _trips(self, attempt: Attempt, failure: ServiceFailure) -> bool:
        """Hold everybody if the service asks for it; says whether this failure is one too many.

        A pause asked for is one failure, however many lanes are told of it at the time.
        """
        is_news = failure.retry_after is None or self._switch.hold(min(failure.retry_after, LONGEST_HOLD))
        if attempt.claim.probe:
            self._switch.probe_failed()
            return False
        return is_news and self._rollback.failed(began=attempt.began, why=failure.message, package=attempt.package.name)

    def _pause(self, attempt: Attempt, retry_after: float | None) -> float:
        if retry_after is not None:
            return min(retry_after, LONGEST_HOLD)
        return self._rollback.shorten(BETWEEN_ROUNDS.delay(attempt.failures + 1, self._rng))
