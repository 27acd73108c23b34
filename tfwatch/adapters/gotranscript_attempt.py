"""One delivery attempt: its HTTP tries, the seconds between them, and what may be believed after a doubt.

The one owner of retries within an attempt. Between attempts `tfwatch.retry` decides.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final, Literal

import backoff

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
from tfwatch.model import Receipt, Submission

OnUnknown = Literal["retry", "lookup", "ask"]
"""After an unknown outcome: send again under the same key, look the order up first, or leave it to a person."""

_STEP: Final = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Pacing:
    """How many tries an attempt has, and the seconds between them: full jitter up to a doubling ceiling.

    A pause the service asks for is made besides; one longer than `max_seconds` ends the attempt: it concerns everybody.
    """

    attempts: int
    initial_seconds: float
    max_seconds: float
    sleep: Callable[[float], None] = time.sleep
    jitter: Callable[[float], float] = backoff.full_jitter

    def waits(self) -> Iterator[float]:
        """The pauses after the first, second, … try, without end."""
        ceilings = backoff.expo(factor=self.initial_seconds, max_value=self.max_seconds)
        next(ceilings)  # backoff's generators give nothing before their first step
        return map(self.jitter, ceilings)


class Attempt:
    """One delivery attempt of one package; `run` may be called once.

    `post` sends the package and returns its receipt. `look_up` returns the order the service holds for this package,
    or None when it holds none; it raises `ServiceError` where lookups are not to be had. A doubt, once there, stays:
    only a receipt or a lookup ends it.
    """

    def __init__(
        self,
        submission: Submission,
        *,
        post: Callable[[], Receipt],
        look_up: Callable[[], Receipt | None],
        on_unknown: OnUnknown,
        pacing: Pacing,
    ) -> None:
        self._submission = submission
        self._post = post
        self._look_up = look_up
        self._on_unknown = on_unknown
        self._pacing = pacing
        self._tries = 0
        self._sent_into_silence = False

    def run(self) -> Receipt:
        """Try until there is a receipt or an end. Raises what `TranscriptionPort.submit_package` may raise."""
        try:
            return replace(self._until_settled(), tries=self._tries)
        except Stopping as stop:
            if not self._sent_into_silence:
                raise
            raise StoppedInDoubt(str(stop)) from stop
        except ContentChanged as change:
            if not self._doubt:
                raise
            raise self._still_unknown(change) from change
        except ServiceFailure as failure:
            failure.tries = self._tries
            raise

    @property
    def _doubt(self) -> bool:
        return self._submission.maybe_sent or self._sent_into_silence

    def _until_settled(self) -> Receipt:
        if self._on_unknown == "ask" and self._submission.maybe_sent and not self._submission.decided:
            raise OutcomeUnknown(
                tr("an earlier try may have been accepted"), hint=tr("ask the service whether it has this package")
            )
        waits = self._pacing.waits()
        left = self._pacing.attempts
        while True:
            outcome = self._round()
            if isinstance(outcome, Receipt):
                return outcome
            # The stop itself may have cut it short: no failure of the service's, however many lanes come back with one.
            self._unless_stopping()
            if isinstance(outcome, OutcomeUnknown) and self._on_unknown == "ask":
                raise outcome
            left -= 1
            asked = (isinstance(outcome, TransientError) and outcome.retry_after) or 0.0
            if left <= 0 or asked > self._pacing.max_seconds:
                raise self._last_word(outcome)
            self._rest(asked + next(waits))

    def _round(self) -> Receipt | TransientError | OutcomeUnknown:
        """One try. A failure that is returned may be tried again; one that is raised is the end."""
        self._unless_stopping()
        if self._doubt and self._on_unknown == "lookup":
            try:
                found = self._find()
            except TransientError as failure:
                return failure
            except (PermanentError, ServiceError) as failure:
                raise self._still_unknown(failure) from failure
            if found is not None:
                return found
        return self._send()

    def _send(self) -> Receipt | TransientError | OutcomeUnknown:
        self._begin_try()
        try:
            return self._post()
        except TransientError as failure:
            return failure
        except OutcomeUnknown as failure:
            self._sent_into_silence = True
            return failure
        except (PermanentError, ServiceError) as refusal:
            if not self._doubt:
                raise
            return self._believe(refusal)

    def _find(self) -> Receipt | None:
        self._begin_try()
        return self._look_up()

    def _begin_try(self) -> None:
        self._tries += 1
        self._submission.progress(0)

    def _believe(self, refusal: PermanentError | ServiceError) -> Receipt:
        """A 4xx after a doubt may be the service's answer to a package it already has: only a lookup tells."""
        try:
            found = self._find()
        except ServiceFailure:
            self._unless_stopping()
            if isinstance(refusal, ServiceError) and not self._sent_into_silence:
                # It says that nobody is served now, and nothing about this package: the caller knows of the doubt.
                raise refusal from None
            raise self._still_unknown(refusal) from refusal
        if found is None:
            raise refusal
        return found

    def _last_word(self, failure: TransientError | OutcomeUnknown) -> TransientError | OutcomeUnknown:
        if self._doubt and isinstance(failure, TransientError):
            return self._still_unknown(failure)
        return failure

    def _still_unknown(self, cause: ServiceFailure | ContentChanged) -> OutcomeUnknown:
        failure = cause if isinstance(cause, ServiceFailure) else ServiceFailure("")
        return OutcomeUnknown(
            tr("an earlier try may have been accepted; since then: {cause}", cause=cause),
            code=failure.code,
            tries=self._tries,
            hint=failure.hint or tr("ask the service whether it has this package"),
            retry_after=failure.retry_after,
        )

    def _rest(self, seconds: float) -> None:
        """Pause, in steps short enough that a stop is not kept waiting."""
        while seconds > 0:
            self._unless_stopping()
            step = min(_STEP, seconds)
            self._pacing.sleep(step)
            self._submission.progress(0)  # a pause is no standstill
            seconds -= step

    def _unless_stopping(self) -> None:
        if self._submission.stopping():
            raise Stopping("the daemon is stopping")
