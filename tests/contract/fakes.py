"""Services in memory, as small as their port allows."""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from datetime import UTC, datetime
from enum import StrEnum

from tfwatch.errors import (
    ContentChanged,
    OutcomeUnknown,
    PermanentError,
    ServiceError,
    ServiceFailure,
    Stopping,
    TransientError,
)
from tfwatch.model import Destination, OrderId, Profile, Receipt, StatusReport, Submission, Verdict
from tfwatch.ports import Reach

_VERDICTS = {"completed": Verdict.COMPLETED, "rejected": Verdict.REFUSED}


class Trouble(StrEnum):
    """What a service can be made to do to the next submission."""

    DOWN = "down"
    LOCKED_OUT = "locked out"
    REFUSES = "refuses"
    LOSES_RECEIPT = "loses receipt"


class InMemoryTranscription:
    """A `TranscriptionPort` that keeps its orders in a dict. Each attempt is one try."""

    needs_source_url = False

    def __init__(self) -> None:
        self.destination = Destination(profile=Profile.DELIVERIES, base_url="memory:")
        self.words: dict[OrderId, str] = {}
        self._by_key: dict[str, OrderId] = {}
        self._by_content: dict[str, list[OrderId]] = {}
        self._troubles: deque[Trouble] = deque()
        self._lock = threading.Lock()

    def trouble(self, *troubles: Trouble) -> None:
        """Meet the next submissions with these."""
        self._troubles.extend(troubles)

    def orders(self, sha256: str) -> list[OrderId]:
        """The orders opened for this content."""
        return self._by_content.get(sha256, [])

    def submit_package(self, submission: Submission) -> Receipt:
        if submission.stopping():
            raise Stopping("told to stop")
        with submission.open_zip() as reader:
            if hashlib.sha256(reader.read()).hexdigest() != submission.package.sha256:
                raise ContentChanged("not the bytes that were inspected")
        with self._lock:
            trouble = self._troubles.popleft() if self._troubles else None
            if trouble in (Trouble.DOWN, Trouble.LOCKED_OUT, Trouble.REFUSES):
                return self._fail(trouble, submission)
            order_id = self._open(submission)
        if trouble is Trouble.LOSES_RECEIPT:
            raise OutcomeUnknown("no answer came back")
        submission.progress(submission.package.bytes)
        return self._receipt(order_id)

    def fetch_status(self, order_id: OrderId, destination: Destination) -> StatusReport:
        word = self.words.get(order_id)
        if word is None or destination != self.destination:
            raise TransientError("no such order", code=404)
        return StatusReport(verdict=_VERDICTS.get(word, Verdict.PENDING), word=word, code=200)

    def probe(self) -> Reach:
        now = datetime.now(UTC)
        trouble = self._troubles.popleft() if self._troubles else None
        failure: ServiceFailure | None = None
        if trouble is Trouble.LOCKED_OUT:
            failure = ServiceError("unknown key", code=401, hint="check the key")
        elif trouble is not None:
            failure = TransientError("down", code=503)
        return Reach(proven="" if failure else "it is here", failure=failure, date=now, asked_at=now, answered_at=now)

    def close(self) -> None:
        pass

    def _fail(self, trouble: Trouble, submission: Submission) -> Receipt:
        if trouble is Trouble.DOWN:
            if submission.maybe_sent:
                raise OutcomeUnknown("down, and an earlier try may have been accepted", code=503)
            raise TransientError("down", code=503)
        if submission.maybe_sent:
            for order_id in self.orders(submission.package.sha256):
                if not submission.known_order(order_id):
                    return self._receipt(order_id)
        if trouble is Trouble.LOCKED_OUT:
            raise ServiceError("unknown key", code=401, hint="check the key")
        raise PermanentError("this package can't pass", code=422)

    def _open(self, submission: Submission) -> OrderId:
        order_id = self._by_key.get(submission.idempotency_key)
        if order_id is None:
            order_id = OrderId(f"order-{len(self.words) + 1}")
            self._by_key[submission.idempotency_key] = order_id
            self._by_content.setdefault(submission.package.sha256, []).append(order_id)
            self.words[order_id] = "received"
        return order_id

    def _receipt(self, order_id: OrderId) -> Receipt:
        word = self.words[order_id]
        return Receipt(order_id=order_id, verdict=_VERDICTS.get(word, Verdict.PENDING), word=word, code=201)
